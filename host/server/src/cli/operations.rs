//! Bulk operations: `wharf job retry --where …` and its kin start them, `wharf operation` shows and cancels them.

use clap::{Args, Subcommand};
use serde_json::value::RawValue;

use super::client::{ApiRequest, Client};
use crate::cli_error::{CliError, ExitStatus};
use crate::http::api::{
    BulkOperation, OperationAct, OperationPage, OperationPreview, OperationRequest, OperationState,
};
use crate::http::encode;
use crate::output::{Table, print_json, print_line};
use crate::stderr::note;

/// The jobs of an act: a filter in place of IDs.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    /// Filter, such as 'task:image/make key:acme': the jobs that meet it now, each once; see `wharf job list`
    #[arg(long = "where", value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Print how many jobs meet the filter, and the first of them, and change nothing
    #[arg(long, requires = "filter")]
    preview: bool,
    /// Idempotency token: sent again with the same token, the command shows the operation that it started first
    #[arg(long, requires = "filter")]
    token: Option<String>,
}

/// The numbers of a bulk operation.
#[derive(Debug, Default)]
pub(crate) struct ActNumbers {
    /// Number of attempts that each retried job gets.
    pub(crate) attempts: Option<u32>,
    /// The priority that jobs get.
    pub(crate) priority: Option<i32>,
}

/// The pace of a bulk retry.
#[derive(Debug, Default, Args)]
pub(crate) struct PaceArgs {
    /// Retry this many jobs first, and the others only when all of these have succeeded
    #[arg(long = "try", value_name = "N", requires = "filter")]
    trial: Option<u32>,
    /// Time within which these have to succeed [default: 10m]
    #[arg(long, value_name = "DURATION", requires = "trial")]
    within: Option<String>,
    /// Spread the starts of the jobs over this time
    #[arg(long, value_name = "DURATION", requires = "filter")]
    spread: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OperationCommand {
    /// List bulk operations, newest first
    List {
        /// Maximum number of operations
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
        limit: u32,
    },
    /// Show one bulk operation
    Show {
        /// ID of the operation
        id: String,
    },
    /// Cancel a bulk operation: what it has changed stays changed
    Cancel {
        /// ID of the operation
        id: String,
    },
}

impl OperationCommand {
    pub(crate) fn run(self, client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
        match self {
            OperationCommand::List { limit } => list(client, limit, json),
            OperationCommand::Show { id } => one(client, "GET", &id, json),
            OperationCommand::Cancel { id } => one(client, "DELETE", &id, json),
        }
    }
}

/// Starts a bulk operation on the jobs that meet a filter, or shows what it would change.
pub(crate) fn start(
    client: &Client,
    (act, numbers): (OperationAct, ActNumbers),
    filter: FilterArgs,
    pace: PaceArgs,
    json: bool,
) -> anyhow::Result<ExitStatus> {
    let FilterArgs { filter, preview, token } = filter;
    let text = filter.ok_or_else(|| CliError::usage("expected the IDs of jobs, or --where and a filter"))?;
    let PaceArgs { trial, within, spread } = pace;
    let ActNumbers { attempts, priority } = numbers;
    let typed = text.clone();
    let request =
        OperationRequest { act, r#where: text, token, r#try: trial, within, spread, attempts, priority, preview };
    let body = serde_json::to_vec(&request)?;
    let body = Some(("application/json", body.as_slice()));
    let request = ApiRequest { method: "POST", path: "/v1/operations".to_owned(), body, ..ApiRequest::default() };
    if preview {
        let (found, raw): (OperationPreview, Box<RawValue>) = client.request_with_raw(request)?;
        if json {
            print_json(&raw)?;
            return Ok(ExitStatus::Done);
        }
        let more = if found.more { "+" } else { "" };
        let meet = if found.count == 1 && !found.more { "job meets" } else { "jobs meet" };
        print_line(&format!("{}{more} {meet} {}", found.count, found.filter))?;
        if let Some(until) = found.until.filter(|_| found.more) {
            let looked_at = found.looked_at;
            note(format_args!(
                "{looked_at} jobs were looked at, back to {:.0}; the operation looks at all of them",
                until.date()
            ));
        }
        let mut table = Table::new(&["ID", "TASK", "KEY", "STATE"]);
        for job in &found.jobs {
            let key = job.key.clone().unwrap_or_else(|| "-".to_owned());
            table.row([job.id.clone(), job.task.clone(), key, job.state.to_string()]);
        }
        if !table.is_empty() {
            table.print()?;
        }
        if found.filter != typed {
            note(format_args!(
                "times of the filter move on; to act on exactly these jobs later: --where {}",
                shell_quoted(&found.filter)
            ));
        }
        return Ok(ExitStatus::Done);
    }
    let (operation, raw): (BulkOperation, Box<RawValue>) = client.request_with_raw(request)?;
    if json {
        print_json(&raw)?;
    } else {
        print_line(&operation.id)?;
        if operation.duplicate {
            note(format_args!(
                "an operation with this token began at {:.0}: {} where {}",
                operation.created_at.date(),
                act_text(&operation),
                crate::output::escape_line(&operation.filter)
            ));
        }
        note(format_args!("see how far it is with `wharf operation show {}`", operation.id));
    }
    Ok(ExitStatus::Done)
}

fn list(client: &Client, limit: u32, json: bool) -> anyhow::Result<ExitStatus> {
    let path = format!("/v1/operations?limit={limit}");
    let request = ApiRequest { method: "GET", path, ..ApiRequest::default() };
    let (page, raw): (OperationPage, Box<RawValue>) = client.request_with_raw(request)?;
    if json {
        print_json(&raw)?;
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new(&["ID", "ACT", "STATE", "CHANGED", "SKIPPED", "BEGAN", "BY", "FILTER"]);
    for operation in &page.operations {
        table.row([
            operation.id.clone(),
            act_text(operation),
            state(operation.state).to_owned(),
            operation.changed.to_string(),
            operation.skipped.to_string(),
            format!("{:.0}", operation.created_at.date()),
            operation.author.clone().unwrap_or_else(|| "-".to_owned()),
            operation.filter.clone(),
        ]);
    }
    if table.is_empty() {
        note("no bulk operations");
    } else {
        table.print()?;
    }
    Ok(ExitStatus::Done)
}

fn one(client: &Client, method: &'static str, id: &str, json: bool) -> anyhow::Result<ExitStatus> {
    let request = ApiRequest { method, path: format!("/v1/operations/{}", encode(id)), ..ApiRequest::default() };
    let (operation, raw): (BulkOperation, Box<RawValue>) = client.request_with_raw(request)?;
    if json {
        print_json(&raw)?;
        return Ok(ExitStatus::Done);
    }
    let mut lines = vec![
        ("operation", operation.id.clone()),
        ("act", act_text(&operation)),
        ("state", state(operation.state).to_owned()),
        ("filter", operation.filter.clone()),
        ("changed", operation.changed.to_string()),
        ("skipped", operation.skipped.to_string()),
        ("began", format!("{:.3}", operation.created_at.date())),
    ];
    lines.extend(operation.ended_at.map(|at| ("ended", format!("{:.3}", at.date()))));
    lines.extend(operation.author.clone().map(|author| ("by", author)));
    lines.extend(operation.token.clone().map(|token| ("token", token)));
    lines.extend((!operation.tried.is_empty()).then(|| ("tried", operation.tried.join(" "))));
    lines.extend(operation.reason.clone().map(|reason| ("reason", reason)));
    for (name, value) in lines {
        print_line(&format!("{name:<11} {}", crate::output::escape_line(&value)))?;
    }
    Ok(if operation.state == OperationState::Halted { ExitStatus::NotDone } else { ExitStatus::Done })
}

/// Returns a text as one word of a shell's command.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Returns the act with its number.
fn act_text(operation: &BulkOperation) -> String {
    let act = act(operation.act);
    match (operation.priority, operation.attempts) {
        (Some(priority), _) => format!("{act} {priority}"),
        (None, Some(attempts)) if attempts > 1 => format!("{act} with {attempts} attempts"),
        _ => act.to_owned(),
    }
}

const fn act(act: OperationAct) -> &'static str {
    match act {
        OperationAct::Retry => "retry",
        OperationAct::Cancel => "cancel",
        OperationAct::Delete => "delete",
        OperationAct::RunNow => "run-now",
        OperationAct::SetPriority => "set-priority",
    }
}

const fn state(state: OperationState) -> &'static str {
    match state {
        OperationState::Trying => "trying",
        OperationState::Running => "running",
        OperationState::Halted => "halted",
        OperationState::Done => "done",
        OperationState::Cancelled => "cancelled",
    }
}
