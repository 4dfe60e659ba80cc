//! `wharf broadcast`: one call to every subscriber of a topic, and what each of them answered.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::cli_error::{Ending, Exit};
use super::client::{Ask, Client, query, when_loaded};
use super::input;
use super::output::{Columns, harmless, millis, print_json, print_line};
use super::progress::Progress;
use crate::http::api::{
    Batch, BatchJob, BatchJobState, BroadcastEnded, BroadcastEventName, BroadcastStarted, LiveBroadcast, Reply,
    ReplyOutcome, from_name,
};
use crate::http::encode;
use crate::stderr::note;

/// Of one reply in the table.
const SHOWN_BYTES_MAX: usize = 200;
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// What it is about: tokens divided by dots, as in document.saved
    topic: String,
    /// The payload: JSON, @FILE for a file's bytes, or - for the standard input; null by default
    #[arg(long, short, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    input: Option<String>,
    /// Stop whoever has not replied by then [default: 5s]
    #[arg(long, value_name = "LENGTH", conflicts_with = "durable")]
    timeout: Option<String>,
    /// When it is over: all, first=N replies, or quorum (more than half) [default: all]
    #[arg(long, value_name = "MODE", conflicts_with = "durable")]
    mode: Option<String>,
    /// Make a job for each subscriber instead, with its retries and limits; prints the id
    #[arg(long)]
    durable: bool,
    /// Wait until all jobs of a durable broadcast are over, and show what came of each
    #[arg(long, requires = "durable")]
    wait: bool,
}

impl Send {
    pub(crate) fn run(self, client: &Client, json: bool) -> anyhow::Result<Exit> {
        let payload = input::payload(self.input.as_deref())?;
        let options = query([
            ("timeout", self.timeout.clone()),
            ("mode", self.mode.clone()),
            ("durable", self.durable.then(|| "true".to_owned())),
        ]);
        let path = format!("/v1/broadcasts/{}{options}", encode(&self.topic));
        let body = Some(("application/octet-stream", payload.as_slice()));
        let ask = Ask { method: "POST", path, body, ..Ask::default() };
        if self.durable {
            return self.durably(client, ask, json);
        }
        if json {
            let (broadcast, whole): (LiveBroadcast, _) = when_loaded(|| client.ask_whole(ask.clone()))?;
            say_loading(&broadcast.loading);
            print_json(&whole)?;
            return Ok(exit_of(&broadcast.ended));
        }
        live(client, ask)
    }

    fn durably(&self, client: &Client, ask: Ask<'_>, json: bool) -> anyhow::Result<Exit> {
        let (mut batch, mut whole): (Batch, _) = when_loaded(|| client.ask_whole(ask.clone()))?;
        if !self.wait {
            if json {
                print_json(&whole)?;
            } else {
                print_line(&batch.id)?;
                note(format_args!(
                    "{}; see them with `wharf job list --batch {}`",
                    counted(batch.jobs.len(), "job"),
                    batch.id
                ));
            }
            return Ok(Exit::Done);
        }
        let progress = Progress::new(&format!("broadcast {}", batch.id));
        let began = Instant::now();
        while !batch.finished {
            progress.say(&format!("broadcast {}: {}", batch.id, words(&batch.states)));
            // Short ones are over soon; whoever waits long is not asked for more than a few times a second.
            std::thread::sleep(LOOK_EVERY.min(began.elapsed() / 4 + Duration::from_millis(5)));
            let look = Ask { method: "GET", path: format!("/v1/broadcasts/{}", encode(&batch.id)), ..Ask::default() };
            (batch, whole) = client.ask_whole(look)?;
        }
        progress.done();
        let succeeded = batch.jobs.iter().all(|job| job.state == BatchJobState::Succeeded);
        if json {
            print_json(&whole)?;
        } else {
            durable_table(&batch)?;
        }
        Ok(if succeeded { Exit::Done } else { Exit::NotDone })
    }
}

/// Shows the replies as they come.
fn live(client: &Client, ask: Ask<'_>) -> anyhow::Result<Exit> {
    let ask = Ask { accept: Some("text/event-stream"), ..ask };
    let events = when_loaded(|| client.events(ask.clone()))?;
    let mut columns = None;
    let progress = Progress::new("broadcast");
    let mut missing = 0;
    for event in events.into_iter().flatten() {
        let event =
            event.map_err(|error| Ending::new(Exit::Unreachable, format!("the connection was lost: {error}")))?;
        match from_name(&event.name) {
            Some(BroadcastEventName::Subscribers) => {
                let begun: BroadcastStarted = read(&event.data)?;
                missing = begun.subscribers.len();
                progress.aside(|| say_loading(&begun.loading));
                if begun.subscribers.is_empty() {
                    progress.done();
                    note(format_args!("nobody subscribes to {}", harmless(&begun.topic)));
                    continue;
                }
                let widest = begun.subscribers.iter().map(String::len).max().unwrap_or(0);
                let table = Columns::new([widest.max("PLUGIN".len()), "timed-out".len(), "123.45 ms".len()]);
                progress.aside(|| table.print(["PLUGIN", "OUTCOME", "AFTER", "REPLY"]))?;
                columns = Some(table);
            }
            Some(BroadcastEventName::Reply) => {
                let reply: Reply = read(&event.data)?;
                missing = missing.saturating_sub(1);
                let Some(table) = &columns else { continue };
                let (after, said) = (millis(reply.elapsed_ms), said(&reply));
                progress.aside(|| table.print([&reply.plugin, &reply.outcome.to_string(), &after, &said]))?;
                progress.say(&format!("broadcast: {missing} to come"));
            }
            Some(BroadcastEventName::End) => {
                progress.done();
                let ended: BroadcastEnded = read(&event.data)?;
                if columns.is_some() && std::io::stderr().is_terminal() {
                    note(format_args!("{} in {}", words(&ended.outcomes), millis(ended.elapsed_ms)));
                }
                return Ok(exit_of(&ended));
            }
            // Words of a newer host are no error.
            None => {}
        }
    }
    Err(Ending::new(Exit::Unreachable, "the host ended the broadcast before its end: it was stopped").into())
}

/// Who may have had something to say.
fn say_loading(plugins: &[String]) {
    if !plugins.is_empty() {
        note(format_args!(
            "wharf: not asked, since they are still being made ready: {}",
            harmless(&plugins.join(", "))
        ));
    }
}

fn read<T: DeserializeOwned>(data: &str) -> anyhow::Result<T> {
    serde_json::from_str(data).context("the host sent a document that this command does not understand")
}

/// What a subscriber said, in one line.
fn said(reply: &Reply) -> String {
    let text = match (&reply.reply, &reply.reply_base64, &reply.report) {
        (Some(json), _, _) => contents(json),
        (None, Some(base64), _) => format!("{} bytes", base64.trim_end_matches('=').len() * 3 / 4),
        (None, None, Some(report)) => report.lines().next().unwrap_or_default().to_owned(),
        (None, None, None) => String::new(),
    };
    match (&reply.disposition, reply.retry_after_ms) {
        (Some(_), Some(after)) => format!("{text} (retry after {})", millis(after as f64)),
        (Some(disposition), None) => format!("{text} ({disposition})"),
        (None, _) => text,
    }
}

fn contents(json: &RawValue) -> String {
    let text = json.get();
    match text.char_indices().nth(SHOWN_BYTES_MAX) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

fn durable_table(batch: &Batch) -> anyhow::Result<()> {
    let widest = |cell: fn(&BatchJob) -> usize| batch.jobs.iter().map(cell).max().unwrap_or(0);
    let table = Columns::new([
        widest(|job| job.plugin.len()).max("PLUGIN".len()),
        "succeeded".len(),
        widest(|job| job.id.as_ref().map_or(0, String::len)).max("JOB".len()),
    ]);
    table.print(["PLUGIN", "STATE", "JOB", "REPLY"])?;
    for job in &batch.jobs {
        let reply = match (&job.reply, &job.report) {
            (Some(json), _) => contents(json),
            (None, Some(report)) if job.state != BatchJobState::Succeeded => {
                report.text.lines().next().unwrap_or_default().to_owned()
            }
            _ => String::new(),
        };
        table.print([&job.plugin, &job.state.to_string(), job.id.as_deref().unwrap_or("-"), &reply])?;
    }
    Ok(())
}

/// "2 replied, 1 trapped".
fn words(counts: &BTreeMap<impl Display, u64>) -> String {
    let each: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    if each.is_empty() { "nobody was asked".to_owned() } else { each.join(", ") }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Who was not called since enough had replied is no failure.
fn exit_of(ended: &BroadcastEnded) -> Exit {
    let failed = |outcome: ReplyOutcome| ended.outcomes.contains_key(&outcome);
    if [ReplyOutcome::Failed, ReplyOutcome::Trapped, ReplyOutcome::TimedOut].into_iter().any(failed) {
        Exit::NotDone
    } else {
        Exit::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_one_line() {
        let of = |json: &str| said(&serde_json::from_str::<Reply>(json).unwrap());
        let plain = r#""plugin": "a", "elapsed_ms": 1.0"#;
        assert_eq!(of(&format!(r#"{{{plain}, "outcome": "replied", "reply": {{"n": 1}}}}"#)), r#"{"n": 1}"#);
        assert_eq!(of(&format!(r#"{{{plain}, "outcome": "replied", "reply_base64": "/wA="}}"#)), "2 bytes");
        assert_eq!(
            of(&format!(r#"{{{plain}, "outcome": "trapped", "report": "out of memory\nwhere"}}"#)),
            "out of memory"
        );
        let later = r#""outcome": "failed", "disposition": "retry-after", "retry_after_ms": 1500, "report": "busy""#;
        assert_eq!(of(&format!("{{{plain}, {later}}}")), "busy (retry after 1.50 s)");
    }

    #[test]
    fn what_was_not_needed_is_no_failure() {
        let of = |what: &[ReplyOutcome]| {
            let outcomes = what.iter().map(|what| (*what, 1)).collect();
            exit_of(&BroadcastEnded { outcomes, elapsed_ms: 1.0 })
        };
        assert_eq!(
            [
                of(&[ReplyOutcome::Replied, ReplyOutcome::Skipped]),
                of(&[]),
                of(&[ReplyOutcome::Replied, ReplyOutcome::Trapped])
            ],
            [Exit::Done, Exit::Done, Exit::NotDone]
        );
    }
}
