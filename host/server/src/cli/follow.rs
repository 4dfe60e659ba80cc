//! Follows one job to its end, over broken connections and restarts of the host.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::cli_error::{Ending, Exit};
use super::client::{Ask, Client};
use super::output::{harmless, print_bytes};
use super::progress::Progress;
use super::sse::Event;
use crate::http::api::{AttemptReport, Job, JobEventName, JobState, LogEntry, from_name};
use crate::stderr::note;

/// A host that restarts is back within this.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// What is shown of a job while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// Only where it stands.
    Progress,
    /// Chunks and log lines as well, each with its origin, on the standard error.
    Aside,
    /// Chunks on the standard output, each on a line of its own; log lines on the standard error.
    Lines,
    /// Chunks on the standard output, byte for byte.
    Raw,
    /// Every event on the standard output, one JSON document a line.
    Json,
}

/// A job that is over: what this command reads of it, and all that the host says.
pub(crate) struct Followed {
    pub(crate) job: Job,
    pub(crate) whole: Box<RawValue>,
}

/// Follows the job until it is over, and answers with its document.
pub(crate) fn follow(client: &Client, id: &str, show: Show) -> anyhow::Result<Followed> {
    let progress = Progress::new(&format!("job {id}"));
    let (mut last, mut lost_at) = (None, None::<Instant>);
    loop {
        match once(client, id, show, &progress, &mut last) {
            Ok(Some(followed)) => return Ok(followed),
            // The stream ended before the job: the host stops, or a proxy has had enough.
            Ok(None) => lost_at = None,
            Err(error) => {
                let ending = error.downcast_ref::<Ending>();
                let passing = ending.is_some_and(|ending| ending.passing);
                let unreachable = ending.is_some_and(|ending| ending.exit == Exit::Unreachable);
                // A host that was never there is not waited for.
                let began = last.is_some() || lost_at.is_some();
                if !(passing || unreachable && began) || lost_at.is_some_and(|at| at.elapsed() > PATIENCE) {
                    return Err(error);
                }
                let why = if passing { "the host's store is busy" } else { "the connection is lost" };
                progress.say(&format!("job {id}: {why}; trying again"));
            }
        }
        lost_at.get_or_insert_with(Instant::now);
        std::thread::sleep(PAUSE);
    }
}

/// One connection: the job, if it came to its end.
fn once(
    client: &Client,
    id: &str,
    show: Show,
    progress: &Progress,
    last: &mut Option<String>,
) -> anyhow::Result<Option<Followed>> {
    let path = format!("/v1/jobs/{id}/events");
    let ask = Ask { method: "GET", path, last_event: last.clone(), ..Ask::default() };
    let Some(events) = client.events(ask)? else {
        let ask = Ask { method: "GET", path: format!("/v1/jobs/{id}"), ..Ask::default() };
        return client.ask_whole(ask).map(|(job, whole)| Some(Followed { job, whole }));
    };
    // From here on the host was there; what is lost is looked for again.
    last.get_or_insert_with(|| "0".to_owned());
    for event in events {
        let Ok(event) = event else { return Ok(None) };
        if let Some(followed) = shown(&event, show, progress)? {
            return Ok(Some(followed));
        }
        if event.id.is_some() {
            last.clone_from(&event.id);
        }
    }
    Ok(None)
}

/// Shows an event; answers with the job if it is over.
fn shown(event: &Event, show: Show, progress: &Progress) -> anyhow::Result<Option<Followed>> {
    if show == Show::Json {
        let id = event.id.as_deref().filter(|_| event.name != "state").and_then(entry_number);
        let id = id.map_or_else(|| "null".to_owned(), |number| number.to_string());
        progress.aside(|| {
            print_bytes(format!("{{\"event\":\"{}\",\"id\":{id},\"data\":{}}}\n", event.name, event.data).as_bytes())
        })?;
    }
    match from_name(&event.name) {
        Some(JobEventName::State) => {
            let unread = "the host sent a job that this command does not understand";
            let job: Job = serde_json::from_str(&event.data).context(unread)?;
            let whole = serde_json::from_str(&event.data).context(unread)?;
            progress.say(&standing(&job));
            Ok(job.finished_at.is_some().then_some(Followed { job, whole }))
        }
        Some(name) if name != JobEventName::Trouble && show != Show::Json => {
            let entry: LogEntry = serde_json::from_str(&event.data)
                .context("the host sent an entry that this command does not understand")?;
            entry_shown(name, &entry, show, progress)?;
            Ok(None)
        }
        // Words of a newer host are no error.
        _ => Ok(None),
    }
}

/// The entry that an event's id tells of; what comes after a dot is for the host.
fn entry_number(id: &str) -> Option<u64> {
    id.split('.').next()?.parse().ok()
}

fn entry_shown(name: JobEventName, entry: &LogEntry, show: Show, progress: &Progress) -> anyhow::Result<()> {
    let (note, line) = (entry.note.as_deref().unwrap_or_default(), entry.line.as_deref().unwrap_or_default());
    match (name, show) {
        (JobEventName::Progress, _) => {
            progress.say(&format!("{:.0} % {note}", entry.fraction.unwrap_or_default() * 100.0));
            Ok(())
        }
        (_, Show::Progress) => Ok(()),
        (JobEventName::Log, _) => {
            progress.line(&format!(
                "{} | {line}",
                entry.stream.map_or_else(|| "log".to_owned(), |stream| stream.to_string())
            ));
            Ok(())
        }
        (JobEventName::LogDropped, _) => {
            progress.line(&format!(
                "log | {} lines were dropped: they came faster than they can be kept",
                entry.lines.unwrap_or_default()
            ));
            Ok(())
        }
        (_, Show::Aside) => {
            match &entry.text {
                Some(text) => text.lines().for_each(|line| progress.line(&format!("chunk | {line}"))),
                None => progress.line(&format!("chunk | {} bytes", chunk_bytes(entry)?.len())),
            }
            Ok(())
        }
        (_, show) => {
            let mut bytes = chunk_bytes(entry)?;
            if show == Show::Lines && bytes.last() != Some(&b'\n') {
                bytes.push(b'\n');
            }
            Ok(progress.aside(|| print_bytes(&bytes))?)
        }
    }
}

fn chunk_bytes(entry: &LogEntry) -> anyhow::Result<Vec<u8>> {
    match (&entry.text, &entry.base64) {
        (Some(text), _) => Ok(text.as_bytes().to_vec()),
        (None, Some(text)) => STANDARD.decode(text).context("the host sent a chunk that is no base64"),
        (None, None) => Ok(Vec::new()),
    }
}

/// Where a job stands, in one line.
fn standing(job: &Job) -> String {
    let attempt = if job.attempt > 1 { format!(", attempt {}", job.attempt) } else { String::new() };
    let wait = job.wait.as_ref().map(|wait| format!(": {}", wait.message)).unwrap_or_default();
    format!("job {} {}{attempt}{wait}", job.id, job.state)
}

/// How an attempt ended, for people. Many reports begin with it by themselves.
pub(crate) fn report_text(report: &AttemptReport) -> String {
    let outcome = report.outcome.to_string().replace('-', " ");
    if report.text.starts_with(&outcome) || outcome == "failed" {
        report.text.clone()
    } else {
        format!("{outcome}: {}", report.text)
    }
}

/// How the command ends for a job that is over; of one that did not succeed, people read why.
pub(crate) fn exit_of(job: &Job) -> Exit {
    if job.state == JobState::Succeeded {
        return Exit::Done;
    }
    let attempts = if job.attempt > 1 { format!(" after {} attempts", job.attempt) } else { String::new() };
    match &job.report {
        Some(report) => {
            note(format_args!("wharf: job {} {}{attempts}: {}", job.id, job.state, harmless(&report_text(report))))
        }
        None => note(format_args!("wharf: job {} {}{attempts}", job.id, job.state)),
    }
    Exit::NotDone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_of_an_entry_also_at_the_end() {
        assert_eq!((entry_number("17"), entry_number("17.end"), entry_number("x")), (Some(17), Some(17), None));
    }
}
