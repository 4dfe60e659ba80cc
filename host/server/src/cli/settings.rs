//! `wharf config`: prints the effective settings with their sources, and the hard limits that no setting changes; or, with
//! `--host`, the settings that a running host has.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::client::Client;
use crate::cli_error::ExitStatus;
use crate::config::{RawSettings, ShownSetting, hard_bounds, shown};
use crate::http::api::Config;
use crate::output::{Table, escape_text, print_json, print_line};

/// Prints the effective settings and the hard limits.
pub(crate) fn show(raw: &RawSettings, json: bool) -> anyhow::Result<ExitStatus> {
    if json {
        print_json(&document(raw))?;
        return Ok(ExitStatus::Done);
    }
    print_settings(shown(raw).into_iter().map(|ShownSetting { key, value, from, .. }| [key, value, from]))?;
    print_line("")?;
    let mut table = Table::new(&["HARD LIMIT", "VALUE"]);
    hard_bounds().into_iter().for_each(|(name, value)| table.row([name.to_owned(), value]));
    table.print()?;
    Ok(ExitStatus::Done)
}

/// Prints the settings of the host that `client` talks to, and what of its settings file does not hold there.
pub(crate) fn show_running(client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
    let path = "/v1/config".to_owned();
    if json {
        print_json(&client.get::<Box<RawValue>>(path)?)?;
        return Ok(ExitStatus::Done);
    }
    let config: Config = client.get(path)?;
    print_settings(config.settings.into_iter().map(|setting| [setting.key, setting.value, setting.from]))?;
    print_line("")?;
    print_line(&format!("read      {:.0}", config.read_at.date()))?;
    print_line(&format!("digest    {}", escape_text(&config.digest)))?;
    if !config.restart.is_empty() {
        let keys = config.restart.join(", ");
        print_line(&format!(
            "restart   these changes take effect when the host is started again: {}",
            escape_text(&keys)
        ))?;
    }
    if let Some(refused) = config.refused {
        let why = escape_text(&refused.why).replace('\n', "\n          ");
        print_line(&format!("refused   {:.0}, so that the settings above stay: {why}", refused.since.date()))?;
    }
    Ok(ExitStatus::Done)
}

fn print_settings(settings: impl Iterator<Item = [String; 3]>) -> anyhow::Result<()> {
    let mut table = Table::new(&["SETTING", "VALUE", "SOURCE"]);
    for [key, value, from] in settings {
        table.row([key, if value.is_empty() { "-".to_owned() } else { value }, from]);
    }
    Ok(table.print()?)
}

fn document(raw: &RawSettings) -> Value {
    let settings: Vec<Value> = shown(raw)
        .into_iter()
        .map(|ShownSetting { key, value, from, about }| {
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
