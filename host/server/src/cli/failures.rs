//! `wharf failure`: the jobs that failed, by what they have in common.

use clap::{Args, Subcommand};
use serde_json::value::RawValue;
use wharf_core::fingerprint::Fingerprint;
use wharf_core::ids::ParseIdError;
use wharf_store::{Clock as _, SystemClock};

use super::client::{ApiRequest, Client, query};
use crate::cli_error::{CliError, ExitStatus};
use crate::http::api::{Failure, FailurePage, FailureState};
use crate::http::encode;
use crate::output::{Table, age, escape_line, print_json, print_line};
use crate::stderr::note;

#[derive(Debug, Subcommand)]
pub(crate) enum FailureCommand {
    /// List failure groups, the one that failed last first
    List(ListFailures),
    /// Show one failure group: its versions, and jobs as examples
    Show {
        /// Fingerprint of the group
        fingerprint: String,
    },
    /// Say that the cause is removed: if a newer version fails in the same way, the group is open again, and the log tells it
    Resolve(Groups),
    /// Say that failure groups need no attention
    Ignore(Groups),
    /// Open resolved or ignored failure groups again
    Reopen(Groups),
}

#[derive(Debug, Args)]
pub(crate) struct ListFailures {
    /// Only groups in this state: open, resolved or ignored
    #[arg(long)]
    state: Option<String>,
    /// Only groups of this task
    #[arg(long, value_name = "PLUGIN/TASK")]
    task: Option<String>,
    /// Maximum number of groups
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Groups {
    /// Fingerprints of the groups
    #[arg(required = true)]
    fingerprints: Vec<String>,
}

impl FailureCommand {
    pub(crate) fn run(self, client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
        match self {
            FailureCommand::List(list) => list.run(client, json),
            FailureCommand::Show { fingerprint } => show(client, &fingerprint, json),
            FailureCommand::Resolve(groups) => groups.set(client, "resolve", json),
            FailureCommand::Ignore(groups) => groups.set(client, "ignore", json),
            FailureCommand::Reopen(groups) => groups.set(client, "reopen", json),
        }
    }
}

impl ListFailures {
    fn run(self, client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
        let options = query([("state", self.state), ("task", self.task), ("limit", Some(self.limit.to_string()))]);
        let path = format!("/v1/failures{options}");
        if json {
            print_json(&client.get::<Box<RawValue>>(path)?)?;
            return Ok(ExitStatus::Done);
        }
        let page: FailurePage = client.get(path)?;
        let now = SystemClock.now();
        let mut table =
            Table::new(&["FINGERPRINT", "TASK", "STATE", "COUNT", "KEYS", "FIRST", "LAST", "OUTCOME", "MESSAGE"]);
        for group in &page.failures {
            table.row([
                group.fingerprint.clone(),
                group.task.clone(),
                state(group),
                group.count.to_string(),
                keys(group),
                age(group.first_seen_at.0, now),
                age(group.last_seen_at.0, now),
                group.outcome.to_string(),
                group.message.clone(),
            ]);
        }
        if table.is_empty() {
            note("no failures");
        } else {
            table.print()?;
        }
        if page.next.is_some() {
            note("more groups follow; list them with a higher --limit");
        }
        Ok(ExitStatus::Done)
    }
}

fn keys(group: &Failure) -> String {
    format!("{}{}", group.keys, if group.more_keys { "+" } else { "" })
}

fn state(group: &Failure) -> String {
    match (group.state, group.regressed_at) {
        (FailureState::Open, Some(_)) => "open again".to_owned(),
        (state, _) => state.to_string(),
    }
}

/// Checks a fingerprint before it is sent: an address with anything else may be another one.
fn path(fingerprint: &str) -> anyhow::Result<String> {
    let parsed: Fingerprint = fingerprint.parse().map_err(|error: ParseIdError| CliError::usage(error.to_string()))?;
    Ok(format!("/v1/failures/{}", encode(&parsed.to_string())))
}

fn show(client: &Client, fingerprint: &str, json: bool) -> anyhow::Result<ExitStatus> {
    let path = path(fingerprint)?;
    if json {
        print_json(&client.get::<Box<RawValue>>(path)?)?;
        return Ok(ExitStatus::Done);
    }
    let group: Failure = client.get(path)?;
    for (name, value) in lines_of(&group) {
        print_line(&format!("{name:<11} {}", escape_line(&value)))?;
    }
    Ok(ExitStatus::Done)
}

fn lines_of(group: &Failure) -> Vec<(&'static str, String)> {
    let time = |moment: crate::http::api::Moment| format!("{:.3}", moment.date());
    let mut lines = vec![
        ("failure", group.fingerprint.clone()),
        ("task", group.task.clone()),
        ("outcome", group.outcome.to_string()),
        ("message", group.message.clone()),
    ];
    let by = group.changed_by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    let since = group.changed_at.map(|at| format!(" since {}{by}", time(at))).unwrap_or_default();
    lines.push(("state", format!("{}{since}", state(group))));
    lines.push(("count", group.count.to_string()));
    lines.push(("keys", keys(group)));
    lines.push(("first seen", time(group.first_seen_at)));
    lines.push(("last seen", time(group.last_seen_at)));
    for version in group.versions.iter().flatten() {
        let digest = version.digest.get(..12).unwrap_or(&version.digest);
        let seen = format!("{} to {}", time(version.first_seen_at), time(version.last_seen_at));
        lines.push(("version", format!("{} ({digest}): {}, {seen}", version.version, version.count)));
    }
    for sample in group.samples.iter().flatten() {
        lines.push(("job", format!("{}, {}: {}", sample.job, time(sample.failed_at), sample.message)));
    }
    lines
}

impl Groups {
    /// Sends the same request for each group; a refused one does not prevent the others.
    fn set(self, client: &Client, verb: &str, json: bool) -> anyhow::Result<ExitStatus> {
        let mut exit = ExitStatus::Done;
        for fingerprint in &self.fingerprints {
            let path = format!("{}/{verb}", path(fingerprint)?);
            let request = ApiRequest { method: "POST", path, ..ApiRequest::default() };
            match client.request_with_raw::<Failure>(request) {
                Ok((_, raw)) if json => print_json(&raw)?,
                Ok((group, _)) => print_line(&format!("{fingerprint} {}", group.state))?,
                Err(error) => match error.downcast_ref::<CliError>() {
                    Some(error) if error.exit == ExitStatus::Refused && self.fingerprints.len() > 1 => {
                        note(format_args!("wharf: {fingerprint}: {error}"));
                        exit = ExitStatus::Refused;
                    }
                    _ => return Err(error),
                },
            }
        }
        Ok(exit)
    }
}
