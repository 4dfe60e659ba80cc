//! `wharf config`: prints the effective settings with their sources, and the hard limits that no setting changes.

use serde_json::{Map, Value, json};
use wharf_store::without_password;

use crate::cli_error::ExitStatus;
use crate::config::{RawSettings, SETTINGS, hard_bounds};
use crate::output::{Table, print_json, print_line};

const MASK: &str = "(set, not shown)";

/// Prints the effective settings and the hard limits.
pub(crate) fn show(raw: &RawSettings, json: bool) -> anyhow::Result<ExitStatus> {
    if json {
        print_json(&document(raw))?;
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new(&["SETTING", "VALUE", "SOURCE"]);
    for (key, value, from, _) in lines(raw) {
        table.row([key, if value.is_empty() { "-".to_owned() } else { value }, from]);
    }
    table.print()?;
    print_line("")?;
    let mut table = Table::new(&["HARD LIMIT", "VALUE"]);
    hard_bounds().into_iter().for_each(|(name, value)| table.row([name.to_owned(), value]));
    table.print()?;
    Ok(ExitStatus::Done)
}

/// Returns the key, value, source and description of each setting.
fn lines(raw: &RawSettings) -> Vec<(String, String, String, &'static str)> {
    let settings = SETTINGS.iter().map(|setting| {
        let (value, origin) = raw.of(setting.key);
        let shown = match setting.key {
            _ if setting.secret && !value.is_empty() => MASK.to_owned(),
            "store" | "host" => without_password(value),
            _ => value.to_owned(),
        };
        (setting.key.to_owned(), shown, origin.to_string(), setting.about)
    });
    let plugins = raw.plugins.iter().flat_map(|section| &section.shown);
    let tokens = raw.tokens.iter().flat_map(|section| &section.shown);
    let sections = plugins.chain(tokens);
    settings.chain(sections.map(|(key, value, origin)| (key.clone(), value.clone(), origin.to_string(), ""))).collect()
}

fn document(raw: &RawSettings) -> Value {
    let settings: Vec<Value> = lines(raw)
        .into_iter()
        .map(|(key, value, from, about)| {
            let mut line = json!({"key": key, "value": value, "from": from});
            if !about.is_empty() {
                line["about"] = about.into();
            }
            line
        })
        .collect();
    let bounds: Map<String, Value> =
        hard_bounds().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    json!({"settings": settings, "hard-bounds": bounds})
}
