//! `wharf limit`: how many jobs run at once, seen and changed while hosts run.

use clap::{Args, Subcommand};
use serde_json::value::RawValue;

use super::cli_error::{Ending, Exit};
use super::client::{Ask, Client, when_loaded};
use super::output::{Table, print_json};
use crate::http::api::{Limit, LimitNumbers};
use crate::http::encode;
use crate::stderr::note;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List limit groups: what is declared, what is set, what runs
    List,
    /// Set a limit over what manifests and wharf.toml say; it is kept, and holds at once
    ///
    /// Of the two numbers of a group, one that is not given here stays as it was set.
    Set(Set),
    /// End a limit that was set; what is declared holds again
    Clear {
        /// A task, as PLUGIN/TASK, or the name of a group
        group: String,
        /// Only for this key
        key: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// A task, as PLUGIN/TASK, or the name of a group
    group: String,
    /// Only for this key
    key: Option<String>,
    /// Jobs of one key at once; 0 pauses
    #[arg(long, value_name = "N")]
    per_key: Option<u32>,
    /// Jobs of the group at once; 0 pauses
    #[arg(long, value_name = "N", conflicts_with = "key")]
    total: Option<u32>,
}

impl Command {
    pub(crate) fn run(self, client: &Client, json: bool) -> anyhow::Result<Exit> {
        match self {
            Command::List if json => print_json(&client.get::<Box<RawValue>>("/v1/limits".to_owned())?)?,
            Command::List => list(&client.get::<Vec<Limit>>("/v1/limits".to_owned())?)?,
            Command::Set(set) => set.run(client, json)?,
            Command::Clear { group, key } => {
                let path = path(&group, key.as_deref());
                client.bytes(Ask { method: "DELETE", path, ..Ask::default() })?;
            }
        }
        Ok(Exit::Done)
    }
}

impl Set {
    fn run(self, client: &Client, json: bool) -> anyhow::Result<()> {
        if self.per_key.is_none() && self.total.is_none() {
            return Err(Ending::usage(
                "nothing is set; say --per-key N or --total N (0 pauses), or use `wharf limit clear`",
            )
            .into());
        }
        let before = if self.key.is_none() { self.set_before(client)? } else { LimitNumbers::default() };
        let numbers = LimitNumbers { per_key: self.per_key.or(before.per_key), total: self.total.or(before.total) };
        let body = serde_json::to_vec(&numbers)?;
        let body = Some(("application/json", body.as_slice()));
        let ask = Ask { method: "PUT", path: path(&self.group, self.key.as_deref()), body, ..Ask::default() };
        let (limit, whole): (Limit, _) = when_loaded(|| client.ask_whole(ask.clone()))?;
        if json {
            print_json(&whole)?;
        } else {
            list(&[limit])?;
        }
        Ok(())
    }
}

impl Set {
    /// What is set for the group. The API puts both numbers in place of both; who says one here means that one.
    fn set_before(&self, client: &Client) -> anyhow::Result<LimitNumbers> {
        let all: Vec<Limit> = client.get("/v1/limits".to_owned())?;
        let own = all.into_iter().find(|limit| limit.group == self.group);
        Ok(own.and_then(|limit| limit.set).unwrap_or_default())
    }
}

fn path(group: &str, key: Option<&str>) -> String {
    let key = key.map(|key| format!("/{}", encode(key))).unwrap_or_default();
    format!("/v1/limits/{}{key}", encode(group))
}

fn number(limit: Option<u32>) -> String {
    limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string())
}

fn list(limits: &[Limit]) -> anyhow::Result<()> {
    let mut table = Table::new(&["GROUP", "KEY", "PER KEY", "TOTAL", "RUNNING", "FROM"]);
    for limit in limits {
        let two = |numbers: LimitNumbers| {
            let each = [numbers.per_key.map(|n| format!("{n} per key")), numbers.total.map(|n| format!("{n} in all"))];
            each.into_iter().flatten().collect::<Vec<_>>().join(", ")
        };
        let declared = Some(limit.declared).filter(|numbers| *numbers != LimitNumbers::default());
        let from: Vec<String> = [
            limit.set.map(|set| format!("set: {}", two(set))),
            declared.map(|declared| format!("declared: {}", two(declared))),
        ]
        .into_iter()
        .flatten()
        .collect();
        table.row([
            limit.group.clone(),
            "*".to_owned(),
            number(limit.per_key),
            number(limit.total),
            limit.running.to_string(),
            from.join("; "),
        ]);
        for of_key in &limit.keys {
            let [group, key] = [limit.group.clone(), of_key.key.clone()];
            table.row([
                group,
                key,
                number(of_key.per_key),
                String::new(),
                String::new(),
                "set for this key".to_owned(),
            ]);
        }
    }
    if table.is_empty() {
        note("no limits; no plugin is loaded");
        return Ok(());
    }
    Ok(table.print()?)
}
