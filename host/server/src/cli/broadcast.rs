//! `wharf broadcast`: calls every subscriber of a topic and shows the replies.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use serde::de::DeserializeOwned;

use super::client::{ApiRequest, Client, query, retry_while_away, retry_while_loading};
use crate::cli_error::{CliError, ExitStatus};
use crate::http::api::{
    Batch, BatchJob, BatchJobState, BroadcastEnded, BroadcastEventName, BroadcastStarted, LiveBroadcast, Reply,
    ReplyOutcome, from_name,
};
use crate::http::encode;
use crate::output::{StreamTable, escape_line, millis, print_json, print_line};
use crate::payload_input;
use crate::progress::Progress;
use crate::stderr::note;

/// The number of characters of a reply that the table shows.
const SHOWN_CHARS_MAX: usize = 200;
/// The longest interval at which a durable broadcast is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// Topic: tokens separated by dots, as in document.saved
    topic: String,
    /// Payload: JSON, @FILE for the bytes of a file, or - for the standard input [default: null]
    #[arg(long, short, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    input: Option<String>,
    /// Stop subscribers that have not replied after this time [default: 5s]
    #[arg(long, value_name = "DURATION", conflicts_with = "durable")]
    timeout: Option<String>,
    /// Replies to wait for: all, first=N or quorum (more than half) [default: all]
    #[arg(long, value_name = "MODE", conflicts_with = "durable")]
    mode: Option<String>,
    /// Create a job for each subscriber instead, with its retries and limits, and print the ID of the broadcast
    #[arg(long)]
    durable: bool,
    /// Wait until all jobs of the durable broadcast have ended and show their replies
    #[arg(long, requires = "durable")]
    wait: bool,
}

impl Send {
    pub(crate) fn run(self, client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
        let payload = payload_input::read(self.input.as_deref())?;
        let options = query([
            ("timeout", self.timeout.clone()),
            ("mode", self.mode.clone()),
            ("durable", self.durable.then(|| "true".to_owned())),
        ]);
        let path = format!("/v1/broadcasts/{}{options}", encode(&self.topic));
        let body = Some(("application/octet-stream", payload.as_slice()));
        let request = ApiRequest { method: "POST", path, body, ..ApiRequest::default() };
        if self.durable {
            return self.run_durable(client, request, json);
        }
        if json {
            let (broadcast, raw): (LiveBroadcast, _) =
                retry_while_loading(|| client.request_with_raw(request.clone()))?;
            note_loading(&broadcast.loading);
            print_json(&raw)?;
            return Ok(exit_of(&broadcast.ended));
        }
        live(client, request)
    }

    fn run_durable(&self, client: &Client, request: ApiRequest<'_>, json: bool) -> anyhow::Result<ExitStatus> {
        let (mut batch, mut raw): (Batch, _) = retry_while_loading(|| client.request_with_raw(request.clone()))?;
        if !self.wait {
            if json {
                print_json(&raw)?;
            } else {
                print_line(&batch.id)?;
                note(format_args!(
                    "{}; list them with `wharf job list --batch {}`",
                    counted(batch.jobs.len(), "job"),
                    batch.id
                ));
            }
            return Ok(ExitStatus::Done);
        }
        let progress = Progress::new(&format!("broadcast {}", batch.id));
        let started = Instant::now();
        while !batch.finished {
            progress.set_message(&format!("broadcast {}: {}", batch.id, counts_text(&batch.states)));
            // Short broadcasts end soon; long ones are polled no more than a few times a second.
            std::thread::sleep(POLL_INTERVAL.min(started.elapsed() / 4 + Duration::from_millis(5)));
            let poll = ApiRequest {
                method: "GET",
                path: format!("/v1/broadcasts/{}", encode(&batch.id)),
                ..ApiRequest::default()
            };
            (batch, raw) = retry_while_away(|| client.request_with_raw(poll.clone()))?;
        }
        progress.finish();
        let succeeded = batch.jobs.iter().all(|job| job.state == BatchJobState::Succeeded);
        if json {
            print_json(&raw)?;
        } else {
            durable_table(&batch)?;
        }
        if batch.deleted > 0 {
            note(format_args!("{} of its jobs were deleted meanwhile", batch.deleted));
        }
        Ok(if succeeded { ExitStatus::Done } else { ExitStatus::NotDone })
    }
}

/// Prints the replies as they arrive.
fn live(client: &Client, request: ApiRequest<'_>) -> anyhow::Result<ExitStatus> {
    let request = ApiRequest { accept: Some("text/event-stream"), ..request };
    let events = retry_while_loading(|| client.events(request.clone()))?;
    let mut columns = None;
    let progress = Progress::new("broadcast");
    let mut missing = 0;
    for event in events.into_iter().flatten() {
        let event = event.map_err(|error| {
            CliError::new(ExitStatus::Unreachable, format!("lost the connection to the host: {error}"))
        })?;
        match from_name(&event.name) {
            Some(BroadcastEventName::Subscribers) => {
                let started: BroadcastStarted = read(&event.data)?;
                missing = started.subscribers.len();
                progress.suspend(|| note_loading(&started.loading));
                if started.subscribers.is_empty() {
                    progress.finish();
                    note(format_args!("no plugin subscribes to {}", started.topic));
                    continue;
                }
                let widest = started.subscribers.iter().map(String::len).max().unwrap_or(0);
                let table = StreamTable::new([widest.max("PLUGIN".len()), "timed-out".len(), "123.45 ms".len()]);
                progress.suspend(|| table.print(["PLUGIN", "OUTCOME", "AFTER", "REPLY"]))?;
                columns = Some(table);
            }
            Some(BroadcastEventName::Reply) => {
                let reply: Reply = read(&event.data)?;
                missing = missing.saturating_sub(1);
                let Some(table) = &columns else { continue };
                let (after, summary) = (millis(reply.elapsed_ms), reply_summary(&reply));
                progress.suspend(|| table.print([&reply.plugin, &reply.outcome.to_string(), &after, &summary]))?;
                progress.set_message(&format!("broadcast: {missing} replies missing"));
            }
            Some(BroadcastEventName::End) => {
                progress.finish();
                let ended: BroadcastEnded = read(&event.data)?;
                if columns.is_some() && std::io::stderr().is_terminal() {
                    note(format_args!("{} in {}", counts_text(&ended.outcomes), millis(ended.elapsed_ms)));
                }
                return Ok(exit_of(&ended));
            }
            // A newer host may send other events; they are ignored.
            None => {}
        }
    }
    Err(CliError::new(ExitStatus::Unreachable, "the host stopped before the broadcast ended").into())
}

/// Notes the plugins that were not called because they are still loading.
fn note_loading(plugins: &[String]) {
    if !plugins.is_empty() {
        note(format_args!("wharf: not called, because they are still loading: {}", plugins.join(", ")));
    }
}

fn read<T: DeserializeOwned>(data: &str) -> anyhow::Result<T> {
    serde_json::from_str(data).context("could not understand the document that the host sent")
}

/// Describes a reply in one line.
fn reply_summary(reply: &Reply) -> String {
    let text = match (&reply.reply, &reply.reply_base64, &reply.report) {
        (Some(json), _, _) => shortened(json.get()),
        (None, Some(base64), _) => match BASE64_STANDARD.decode(base64).map(String::from_utf8) {
            Ok(Ok(text)) => shortened(&escape_line(&text)),
            _ => format!("{} bytes", base64.trim_end_matches('=').len() * 3 / 4),
        },
        (None, None, Some(report)) => report.lines().next().unwrap_or_default().to_owned(),
        (None, None, None) => String::new(),
    };
    match (&reply.disposition, reply.retry_after_ms) {
        (Some(_), Some(after)) => format!("{text} (retry after {})", millis(after as f64)),
        (Some(disposition), None) => format!("{text} ({disposition})"),
        (None, _) => text,
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

fn durable_table(batch: &Batch) -> anyhow::Result<()> {
    let widest = |cell: fn(&BatchJob) -> usize| batch.jobs.iter().map(cell).max().unwrap_or(0);
    let table = StreamTable::new([
        widest(|job| job.plugin.len()).max("PLUGIN".len()),
        "succeeded".len(),
        widest(|job| job.id.as_ref().map_or(0, String::len)).max("JOB".len()),
    ]);
    table.print(["PLUGIN", "STATE", "JOB", "REPLY"])?;
    for job in &batch.jobs {
        let reply = match (&job.reply, &job.report) {
            (Some(json), _) => shortened(json.get()),
            (None, Some(report)) if job.state != BatchJobState::Succeeded => {
                report.text.lines().next().unwrap_or_default().to_owned()
            }
            _ => String::new(),
        };
        table.print([&job.plugin, &job.state.to_string(), job.id.as_deref().unwrap_or("-"), &reply])?;
    }
    Ok(())
}

/// Lists counts, as in "2 replied, 1 trapped".
fn counts_text(counts: &BTreeMap<impl Display, u64>) -> String {
    let each: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    if each.is_empty() { "no subscribers".to_owned() } else { each.join(", ") }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Returns the exit status of a live broadcast. Subscribers that were skipped because enough had replied do not count as
/// failures.
fn exit_of(ended: &BroadcastEnded) -> ExitStatus {
    let failed = |outcome: ReplyOutcome| ended.outcomes.contains_key(&outcome);
    if [ReplyOutcome::Failed, ReplyOutcome::Trapped, ReplyOutcome::TimedOut].into_iter().any(failed) {
        ExitStatus::NotDone
    } else {
        ExitStatus::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_one_line() {
        let of = |json: &str| reply_summary(&serde_json::from_str::<Reply>(json).unwrap());
        let plain = r#""plugin": "a", "elapsed_ms": 1.0"#;
        assert_eq!(of(&format!(r#"{{{plain}, "outcome": "replied", "reply": {{"n": 1}}}}"#)), r#"{"n": 1}"#);
        assert_eq!(of(&format!(r#"{{{plain}, "outcome": "replied", "reply_base64": "/wA="}}"#)), "2 bytes");
        let text = BASE64_STANDARD.encode("got 4\u{1b}[2J bytes");
        let shown = of(&format!(r#"{{{plain}, "outcome": "replied", "reply_base64": "{text}"}}"#));
        assert!(shown.starts_with("got 4") && shown.ends_with(" bytes") && !shown.contains('\u{1b}'), "{shown}");
        assert_eq!(
            of(&format!(r#"{{{plain}, "outcome": "trapped", "report": "out of memory\nwhere"}}"#)),
            "out of memory"
        );
        let later = r#""outcome": "failed", "disposition": "retry-after", "retry_after_ms": 1500, "report": "busy""#;
        assert_eq!(of(&format!("{{{plain}, {later}}}")), "busy (retry after 1.50 s)");
    }

    #[test]
    fn a_skipped_subscriber_is_not_a_failure() {
        let of = |outcomes: &[ReplyOutcome]| {
            let outcomes = outcomes.iter().map(|outcome| (*outcome, 1)).collect();
            exit_of(&BroadcastEnded { outcomes, elapsed_ms: 1.0 })
        };
        assert_eq!(
            [
                of(&[ReplyOutcome::Replied, ReplyOutcome::Skipped]),
                of(&[]),
                of(&[ReplyOutcome::Replied, ReplyOutcome::Trapped])
            ],
            [ExitStatus::Done, ExitStatus::Done, ExitStatus::NotDone]
        );
    }
}
