//! Follows one job until it has ended, across lost connections and restarts of the host.

use std::time::Instant;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::client::{ApiRequest, Client, RECONNECT_PAUSE, RECONNECT_TIMEOUT};
use super::sse::SseEvent;
use crate::cli_error::{CliError, ExitStatus};
use crate::http::api::{AttemptReport, Job, JobEventName, JobState, LogEntry, from_name};
use crate::output::{print_bytes, print_json_line};
use crate::progress::Progress;
use crate::stderr::note;

/// The output of a command while its job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FollowOutput {
    /// Only its status.
    Progress,
    /// Its status, and chunks and log lines on the standard error, each with its origin.
    Stderr,
    /// Chunks on the standard output, each on a line of its own; log lines on the standard error.
    Lines,
    /// Chunks on the standard output, byte for byte.
    Raw,
    /// Every event on the standard output, one JSON document a line.
    Json,
}

/// A job that has ended: the fields that commands read, and the whole document.
pub(crate) struct FinishedJob {
    pub(crate) job: Job,
    pub(crate) raw: Box<RawValue>,
}

/// ID of the last event for a client that has received none.
const NO_EVENT: &str = "0";

/// Follows a job until it has ended, and returns its document. A host that was never reached is not waited for.
pub(crate) fn follow(client: &Client, id: &str, output: FollowOutput) -> anyhow::Result<FinishedJob> {
    follow_after(client, id, output, None)
}

/// Follows a job that the host has just enqueued.
pub(crate) fn follow_enqueued(client: &Client, id: &str, output: FollowOutput) -> anyhow::Result<FinishedJob> {
    follow_after(client, id, output, Some(NO_EVENT.to_owned()))
}

/// Follows a job after the last event that was received; it is absent if the host was never reached.
fn follow_after(
    client: &Client,
    id: &str,
    output: FollowOutput,
    mut last: Option<String>,
) -> anyhow::Result<FinishedJob> {
    let progress = Progress::new(&format!("job {id}"));
    let (mut lost_at, mut attempt) = (None::<Instant>, 0);
    loop {
        match follow_connection(client, id, (output, &progress), (&mut last, &mut attempt)) {
            Ok(Some(finished)) => return Ok(finished),
            // The stream ended before the job: the host is stopping, or a proxy closed the connection.
            Ok(None) => lost_at = None,
            Err(error) => {
                let cli_error = error.downcast_ref::<CliError>();
                let retryable = cli_error.is_some_and(|error| error.retryable);
                let was_reached = last.is_some() || lost_at.is_some();
                if !(retryable || CliError::is_away(&error) && was_reached)
                    || lost_at.is_some_and(|at| at.elapsed() > RECONNECT_TIMEOUT)
                {
                    return Err(error);
                }
                let why = if retryable { "the host's store is busy" } else { "the connection is lost" };
                progress.set_message(&format!("job {id}: {why}; trying again"));
            }
        }
        lost_at.get_or_insert_with(Instant::now);
        std::thread::sleep(RECONNECT_PAUSE);
    }
}

/// Follows the job over one connection, after the last event and the last attempt that were seen. Returns its document if it has ended.
fn follow_connection(
    client: &Client,
    id: &str,
    (output, progress): (FollowOutput, &Progress),
    (last, attempt): (&mut Option<String>, &mut u32),
) -> anyhow::Result<Option<FinishedJob>> {
    let path = format!("/v1/jobs/{id}/events");
    let request = ApiRequest { method: "GET", path, last_event: last.clone(), ..ApiRequest::default() };
    let Some(events) = client.events(request)? else {
        let request = ApiRequest { method: "GET", path: format!("/v1/jobs/{id}"), ..ApiRequest::default() };
        return client.request_with_raw(request).map(|(job, raw)| Some(FinishedJob { job, raw }));
    };
    // From here on the host was reached, so a lost connection is opened again.
    last.get_or_insert_with(|| NO_EVENT.to_owned());
    for event in events {
        let Ok(event) = event else { return Ok(None) };
        if let Some(finished) = print_event(&event, output, progress, attempt)? {
            return Ok(Some(finished));
        }
        if event.id.is_some() {
            last.clone_from(&event.id);
        }
    }
    Ok(None)
}

/// Prints an event, after a line where another attempt than `attempt` begins. Returns the job if the event reports its end.
fn print_event(
    event: &SseEvent,
    output: FollowOutput,
    progress: &Progress,
    attempt: &mut u32,
) -> anyhow::Result<Option<FinishedJob>> {
    if output == FollowOutput::Json {
        let id = event.id.as_deref().filter(|_| event.name != "state").and_then(entry_number);
        let id = id.map_or_else(|| "null".to_owned(), |number| number.to_string());
        let name = serde_json::to_string(&event.name)?;
        progress.suspend(|| print_json_line(&format!("{{\"event\":{name},\"id\":{id},\"data\":{}}}", event.data)))?;
    }
    match from_name(&event.name) {
        Some(JobEventName::State) => {
            let unknown = "could not understand the job that the host sent";
            let job: Job = serde_json::from_str(&event.data).context(unknown)?;
            let raw = serde_json::from_str(&event.data).context(unknown)?;
            progress.set_message(&status_line(&job));
            Ok(job.finished_at.is_some().then_some(FinishedJob { job, raw }))
        }
        Some(name) if name != JobEventName::StoreError && output != FollowOutput::Json => {
            let entry: LogEntry =
                serde_json::from_str(&event.data).context("could not understand the entry that the host sent")?;
            if entry.attempt > *attempt && *attempt > 0 && output != FollowOutput::Progress {
                progress.line(&format!("attempt {} begins", entry.attempt));
            }
            *attempt = entry.attempt;
            print_entry(name, &entry, output, progress)?;
            Ok(None)
        }
        // A newer host may send other events; they are ignored.
        _ => Ok(None),
    }
}

/// Returns the number of the entry in an event's ID. A part after a dot has a meaning to the host only.
fn entry_number(id: &str) -> Option<u64> {
    id.split('.').next()?.parse().ok()
}

fn print_entry(name: JobEventName, entry: &LogEntry, output: FollowOutput, progress: &Progress) -> anyhow::Result<()> {
    let (note, line) = (entry.note.as_deref().unwrap_or_default(), entry.line.as_deref().unwrap_or_default());
    match (name, output) {
        (JobEventName::Progress, _) => {
            progress.set_message(&format!("{:.0} % {note}", entry.fraction.unwrap_or_default() * 100.0));
            Ok(())
        }
        (_, FollowOutput::Progress) => Ok(()),
        (JobEventName::Log, _) => {
            let stream = entry.stream.map_or_else(|| "log".to_owned(), |stream| stream.to_string());
            progress.line(&format!("{stream} | {line}"));
            Ok(())
        }
        (JobEventName::LogDropped, _) => {
            progress.line(&format!(
                "log | {} lines were dropped: they came faster than they can be stored",
                entry.lines.unwrap_or_default()
            ));
            Ok(())
        }
        (_, FollowOutput::Stderr) => {
            match &entry.text {
                Some(text) => text.lines().for_each(|line| progress.line(&format!("chunk | {line}"))),
                None => progress.line(&format!("chunk | {} bytes", chunk_bytes(entry)?.len())),
            }
            Ok(())
        }
        (_, output) => {
            let mut bytes = chunk_bytes(entry)?;
            if output == FollowOutput::Lines && bytes.last() != Some(&b'\n') {
                bytes.push(b'\n');
            }
            Ok(progress.suspend(|| print_bytes(&bytes))?)
        }
    }
}

fn chunk_bytes(entry: &LogEntry) -> anyhow::Result<Vec<u8>> {
    match (&entry.text, &entry.base64) {
        (Some(text), _) => Ok(text.as_bytes().to_vec()),
        (None, Some(text)) => {
            STANDARD.decode(text).context("could not decode the base64 of a chunk that the host sent")
        }
        (None, None) => Ok(Vec::new()),
    }
}

/// Describes the status of a job in one line.
fn status_line(job: &Job) -> String {
    let attempt = if job.attempt > 1 { format!(", attempt {}", job.attempt) } else { String::new() };
    let wait = job.wait.as_ref().map(|wait| format!(": {}", wait.message)).unwrap_or_default();
    format!("job {} {}{attempt}{wait}", job.id, job.state)
}

/// Describes how an attempt ended. The outcome is put before the report, unless the report starts with it already.
pub(crate) fn report_text(report: &AttemptReport) -> String {
    let outcome = report.outcome.to_string().replace('-', " ");
    if report.text.starts_with(&outcome) || outcome == "failed" {
        report.text.clone()
    } else {
        format!("{outcome}: {}", report.text)
    }
}

/// Returns the exit status for a job that has ended; if it did not succeed, prints why.
pub(crate) fn exit_of(job: &Job) -> ExitStatus {
    if job.state == JobState::Succeeded {
        return ExitStatus::Done;
    }
    let attempts = if job.attempt > 1 { format!(" after {} attempts", job.attempt) } else { String::new() };
    match &job.report {
        Some(report) => note(format_args!("wharf: job {} {}{attempts}: {}", job.id, job.state, report_text(report))),
        None => note(format_args!("wharf: job {} {}{attempts}", job.id, job.state)),
    }
    ExitStatus::NotDone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_contains_an_entry_number() {
        assert_eq!((entry_number("17"), entry_number("17.end"), entry_number("x")), (Some(17), Some(17), None));
    }
}
