//! `wharf hold`, `wharf release` and `wharf holds`: pauses of jobs.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::value::RawValue;
use wharf_core::bounds;

use super::client::{ApiRequest, Client, query};
use crate::cli_error::{CliError, ExitStatus};
use crate::http::api::{Hold, HoldPage, HoldRequest, Moment};
use crate::output::{Table, print_json, print_line};
use crate::stderr::note;

#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// Hold every job
    All(Length),
    /// Hold the jobs of a plugin; live broadcasts skip it
    Plugin {
        /// Plugin
        plugin: String,
        #[command(flatten)]
        length: Length,
    },
    /// Hold the jobs of a task
    Task {
        /// Task, as PLUGIN/TASK
        task: String,
        #[command(flatten)]
        length: Length,
    },
    /// Hold the jobs of a limit group
    Group {
        /// Limit group
        group: String,
        #[command(flatten)]
        length: Length,
    },
    /// Hold the jobs of a key, in all limit groups or in one
    Key {
        /// Key
        #[arg(required_unless_present = "keys_from")]
        key: Option<String>,
        /// Hold each key of a file in place of one: one key to a line; - reads the standard input
        #[arg(long, value_name = "FILE", conflicts_with = "key")]
        keys_from: Option<PathBuf>,
        /// Limit group: hold only its jobs of this key
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
        #[command(flatten)]
        length: Length,
    },
}

/// The length of a hold, and the reason for it.
#[derive(Debug, Args)]
pub(crate) struct Length {
    /// Length of time after which the hold ends by itself, such as 30m
    #[arg(long = "for", value_name = "DURATION")]
    length: Option<String>,
    /// Moment at which the hold ends by itself, such as 2030-01-31T12:00:00Z
    #[arg(long, value_name = "MOMENT", conflicts_with = "length")]
    until: Option<Moment>,
    /// Reason, shown with every job that waits for the hold
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReleaseCommand {
    /// Release the hold of every job
    All,
    /// Release the hold of a plugin
    Plugin {
        /// Plugin
        plugin: String,
    },
    /// Release the hold of a task
    Task {
        /// Task, as PLUGIN/TASK
        task: String,
    },
    /// Release the hold of a limit group
    Group {
        /// Limit group
        group: String,
    },
    /// Release the hold of a key
    Key {
        /// Key
        key: String,
        /// Limit group of the hold, if it has one
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
    },
}

impl HoldCommand {
    pub(crate) fn run(self, client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
        let none = HoldRequest::default();
        let (what, length) = match self {
            HoldCommand::All(length) => (HoldRequest { all: Some(true), ..none }, length),
            HoldCommand::Plugin { plugin, length } => (HoldRequest { plugin: Some(plugin), ..none }, length),
            HoldCommand::Task { task, length } => (HoldRequest { task: Some(task), ..none }, length),
            HoldCommand::Group { group, length } => (HoldRequest { group: Some(group), ..none }, length),
            HoldCommand::Key { keys_from: Some(file), group, length, .. } => {
                return many(client, &file, (group, length), json);
            }
            HoldCommand::Key { key, group, length, .. } => (HoldRequest { key, group, ..none }, length),
        };
        let body = serde_json::to_vec(&length.on(what))?;
        let body = Some(("application/json", body.as_slice()));
        let request = ApiRequest { method: "POST", path: "/v1/holds".to_owned(), body, ..ApiRequest::default() };
        let (hold, raw): (Hold, Box<RawValue>) = client.request_with_raw(request)?;
        if json {
            print_json(&raw)?;
        } else {
            table(&[&hold])?;
        }
        if hold.known == Some(false) {
            note(format!("no host has {} yet: check the name, or the hold waits for it", hold.what()));
        }
        Ok(ExitStatus::Done)
    }
}

impl Length {
    /// Returns the request to hold this for the length, with the reason.
    fn on(&self, what: HoldRequest) -> HoldRequest {
        let Length { length, until, reason } = self;
        HoldRequest { length: length.clone(), until: *until, reason: reason.clone(), ..what }
    }
}

/// Holds each key of a file. With `json`, each part of them is a document of its own.
fn many(
    client: &Client,
    file: &Path,
    (group, length): (Option<String>, Length),
    json: bool,
) -> anyhow::Result<ExitStatus> {
    let text =
        if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { fs::read_to_string(file) };
    let text = text.map_err(|error| CliError::usage(format!("could not read {}: {error}", file.display())))?;
    let keys: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let mut held = 0;
    for part in keys.chunks(bounds::HOLD_KEYS_MAX) {
        let keys = part.iter().map(|key| (*key).to_owned()).collect();
        let what = HoldRequest { keys: Some(keys), group: group.clone(), ..HoldRequest::default() };
        let body = serde_json::to_vec(&length.on(what))?;
        let body = Some(("application/json", body.as_slice()));
        let request = ApiRequest { method: "POST", path: "/v1/holds".to_owned(), body, ..ApiRequest::default() };
        let (page, raw): (HoldPage, Box<RawValue>) = client.request_with_raw(request)?;
        held += page.holds.len();
        if json {
            print_json(&raw)?;
        }
    }
    if !json {
        print_line(&format!("{held} keys are held"))?;
    }
    Ok(ExitStatus::Done)
}

impl ReleaseCommand {
    pub(crate) fn run(self, client: &Client) -> anyhow::Result<ExitStatus> {
        let pairs = match self {
            ReleaseCommand::All => [("all", Some("true".to_owned())), ("group", None)],
            ReleaseCommand::Plugin { plugin } => [("plugin", Some(plugin)), ("group", None)],
            ReleaseCommand::Task { task } => [("task", Some(task)), ("group", None)],
            ReleaseCommand::Group { group } => [("group", Some(group)), ("key", None)],
            ReleaseCommand::Key { key, group } => [("key", Some(key)), ("group", group)],
        };
        let path = format!("/v1/holds{}", query(pairs));
        client.bytes(ApiRequest { method: "DELETE", path, ..ApiRequest::default() })?;
        Ok(ExitStatus::Done)
    }
}

/// Lists the holds in force. With `json`, each page is a document of its own.
pub(crate) fn list(client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
    let mut path = "/v1/holds?limit=1000".to_owned();
    let mut holds = Vec::new();
    loop {
        let request = ApiRequest { method: "GET", path: path.clone(), ..ApiRequest::default() };
        let (page, raw): (HoldPage, Box<RawValue>) = client.request_with_raw(request)?;
        if json {
            print_json(&raw)?;
        }
        holds.extend(page.holds);
        match page.next {
            Some(next) => path = format!("/v1/holds{next}"),
            None => break,
        }
    }
    match &holds[..] {
        _ if json => {}
        [] => note("nothing is held"),
        holds => table(&holds.iter().collect::<Vec<_>>())?,
    }
    Ok(ExitStatus::Done)
}

fn table(holds: &[&Hold]) -> anyhow::Result<()> {
    let mut table = Table::new(&["HELD", "UNTIL", "SINCE", "BY", "REASON"]);
    for hold in holds {
        let until = hold.until.map_or_else(|| "no end".to_owned(), |until| format!("{:.0}", until.date()));
        let by = hold.by.clone().unwrap_or_else(|| "-".to_owned());
        table.row([hold.what(), until, format!("{:.0}", hold.since.date()), by, hold.reason.clone()]);
    }
    Ok(table.print()?)
}
