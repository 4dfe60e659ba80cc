//! `wharf limit`: shows and changes concurrency limits while hosts run.

use clap::{Args, Subcommand};
use serde_json::value::RawValue;

use super::client::{ApiRequest, Client, query, retry_while_loading};
use crate::cli_error::{CliError, ExitStatus};
use crate::http::api::{Limit, LimitNumbers};
use crate::output::{Table, print_json};
use crate::stderr::note;

#[derive(Debug, Subcommand)]
pub(crate) enum LimitCommand {
    /// List limit groups: declared limits, limits that were set, running jobs
    List,
    /// Override a limit of manifests and wharf.toml; it is stored and applies at once
    ///
    /// If only one of --per-key and --total is given, the other stays as it was set. To pause jobs without a change of limits,
    /// see `wharf hold`.
    Set(Set),
    /// Remove a limit that was set; the declared limit applies again
    Clear {
        /// Task, as PLUGIN/TASK, or the name of a limit group
        group: String,
        /// Key, for a limit of this key only
        key: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Task, as PLUGIN/TASK, or the name of a limit group
    group: String,
    /// Key, for a limit of this key only
    key: Option<String>,
    /// Jobs of one key that may run at once; 0 pauses
    #[arg(long, value_name = "N")]
    per_key: Option<u32>,
    /// Jobs of the group that may run at once; 0 pauses
    #[arg(long, value_name = "N", conflicts_with = "key")]
    total: Option<u32>,
}

impl LimitCommand {
    pub(crate) fn run(self, client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
        match self {
            LimitCommand::List if json => print_json(&client.get::<Box<RawValue>>("/v1/limits".to_owned())?)?,
            LimitCommand::List => list(&client.get::<Vec<Limit>>("/v1/limits".to_owned())?)?,
            LimitCommand::Set(set) => set.run(client, json)?,
            LimitCommand::Clear { group, key } => {
                let path = path(&group, key.as_deref());
                client.bytes(ApiRequest { method: "DELETE", path, ..ApiRequest::default() })?;
            }
        }
        Ok(ExitStatus::Done)
    }
}

impl Set {
    fn run(self, client: &Client, json: bool) -> anyhow::Result<()> {
        if self.per_key.is_none() && self.total.is_none() {
            return Err(CliError::usage(
                "the limit is missing; add --per-key N or --total N (0 pauses), or use `wharf limit clear`",
            )
            .into());
        }
        let before = if self.key.is_none() { self.set_before(client)? } else { LimitNumbers::default() };
        let numbers = LimitNumbers { per_key: self.per_key.or(before.per_key), total: self.total.or(before.total) };
        let body = serde_json::to_vec(&numbers)?;
        let body = Some(("application/json", body.as_slice()));
        let request =
            ApiRequest { method: "PUT", path: path(&self.group, self.key.as_deref()), body, ..ApiRequest::default() };
        let (limit, raw): (Limit, _) = retry_while_loading(|| client.request_with_raw(request.clone()))?;
        if json {
            print_json(&raw)?;
        } else {
            list(&[limit])?;
        }
        if [self.per_key, self.total].contains(&Some(0)) {
            note(
                "a limit of 0 pauses; `wharf hold` does so with a reason, until a moment, and keeps the limit as it is",
            );
        }
        Ok(())
    }
}

impl Set {
    /// Returns the limits that are set for the group. A request replaces both numbers, so a number that is not given must be
    /// sent as it was.
    fn set_before(&self, client: &Client) -> anyhow::Result<LimitNumbers> {
        let all: Vec<Limit> = client.get("/v1/limits".to_owned())?;
        let own = all.into_iter().find(|limit| limit.group == self.group);
        Ok(own.and_then(|limit| limit.set).unwrap_or_default())
    }
}

fn path(group: &str, key: Option<&str>) -> String {
    format!("/v1/limits{}", query([("group", Some(group.to_owned())), ("key", key.map(str::to_owned))]))
}

fn number(limit: Option<u32>) -> String {
    limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string())
}

fn list(limits: &[Limit]) -> anyhow::Result<()> {
    let mut table = Table::new(&["GROUP", "KEY", "PER KEY", "TOTAL", "RUNNING", "WAITING", "FROM"]);
    for limit in limits {
        let two = |numbers: LimitNumbers| {
            let each =
                [numbers.per_key.map(|n| format!("{n} per key")), numbers.total.map(|n| format!("{n} in total"))];
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
            format!("{}{}", limit.waiting.due, if limit.waiting.more { "+" } else { "" }),
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
                String::new(),
                "set for this key".to_owned(),
            ]);
        }
    }
    if table.is_empty() {
        note("no limits, because no plugin is loaded");
        return Ok(());
    }
    Ok(table.print()?)
}
