//! `wharf config`: the settings that hold, each with where it comes from, and the bounds that no setting moves.

use serde_json::{Map, Value, json};
use wharf_store::without_password;

use super::cli_error::Exit;
use super::output::{Table, print_json, print_line};
use crate::config::{Given, SETTINGS, hard_bounds};

const MASK: &str = "(set, not shown)";

/// Prints what holds.
pub(crate) fn show(given: &Given, json: bool) -> anyhow::Result<Exit> {
    if json {
        print_json(&document(given))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["SETTING", "VALUE", "FROM"]);
    for (key, value, from, _) in lines(given) {
        table.row([key, if value.is_empty() { "-".to_owned() } else { value }, from]);
    }
    table.print()?;
    print_line("")?;
    let mut table = Table::new(&["HARD BOUND", "VALUE"]);
    hard_bounds().into_iter().for_each(|(name, value)| table.row([name.to_owned(), value]));
    table.print()?;
    Ok(Exit::Done)
}

/// Key, value, where it comes from, what it is for.
fn lines(given: &Given) -> Vec<(String, String, String, &'static str)> {
    let settings = SETTINGS.iter().map(|setting| {
        let (value, origin) = given.of(setting.key);
        let shown = match setting.key {
            _ if setting.secret && !value.is_empty() => MASK.to_owned(),
            "store" => without_password(value),
            _ => value.to_owned(),
        };
        (setting.key.to_owned(), shown, origin.to_string(), setting.about)
    });
    let plugins = given.plugins.iter().flat_map(|section| &section.shown);
    settings.chain(plugins.map(|(key, value, origin)| (key.clone(), value.clone(), origin.to_string(), ""))).collect()
}

fn document(given: &Given) -> Value {
    let settings: Vec<Value> = lines(given)
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
