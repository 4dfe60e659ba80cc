//! `GET /v1/jobs/{id}/events`: what a job's attempts write, and the job's state, as they come.
//!
//! The `id:` of an event is the number of its entry in the job's log, so `Last-Event-ID` resumes anywhere: after a broken
//! connection, and after a restart. The final state has an ID of its own, `17.end` after entry 17: only a client that comes
//! back with it has received the end, and the answer is then 204, as nothing follows.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use wharf_core::ids::JobId;
use wharf_runner::{Host, JobUpdate, JobView};
use wharf_store::{JobSnapshot, StoreError};

use super::api::{Job, JobEventName, LogEntry};
use super::job_lookup;
use super::path::Path;
use super::problem::Problem;

/// Pause after which a comment is sent on a silent stream: a proxy may close a connection that is silent for half a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Follows a job until its final state.
pub(crate) async fn events(
    State(host): State<Host>,
    State(stopping): State<CancellationToken>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = job_lookup::job_id(&id)?;
    let after = last_event(&headers)?;
    let view = job_lookup::job(&host, id).await?;
    let received_all = Some(Position { entry: view.seen.entries, end: true });
    if view.seen.job.status.state.name().is_final() && after == received_all {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(event_stream(follow(host, id, after.map_or(0, |last| last.entry)), stopping))
}

/// Returns the response that streams these events until `stopping` is cancelled.
pub(crate) fn event_stream(
    events: impl Stream<Item = Event> + Send + 'static,
    stopping: CancellationToken,
) -> Response {
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    let events = events.take_until(stopping.cancelled_owned()).map(Ok::<_, Infallible>);
    ([(header::CACHE_CONTROL, "no-store")], Sse::new(events).keep_alive(keep_alive)).into_response()
}

/// Returns an event with this name and a document as its data.
pub(crate) fn event(name: impl ToString, document: &impl Serialize) -> Event {
    let data = serde_json::to_string(document).expect("documents have string keys and no value that JSON lacks");
    Event::default().event(name.to_string()).data(data)
}

fn follow(host: Host, id: JobId, after: u64) -> impl Stream<Item = Event> {
    let updates = host.follow(id, after);
    updates.then(move |update| update_event(host.clone(), update))
}

async fn update_event(host: Host, update: Result<JobUpdate, StoreError>) -> Event {
    match update {
        Ok(JobUpdate::Entry(numbered)) => {
            let (name, entry) = LogEntry::event(&numbered);
            event(name, &entry).id(numbered.number.to_string())
        }
        Ok(JobUpdate::State(snapshot)) => {
            let end = snapshot.job.status.state.name().is_final().then(|| format!("{}.end", snapshot.entries));
            let event = event(JobEventName::State, &job_document(&host, *snapshot).await);
            match end {
                Some(id) => event.id(id),
                None => event,
            }
        }
        Err(error) => event(JobEventName::StoreError, &error.to_string()),
    }
}

/// Returns the job's document. A job may wait for a reason outside of the queue, which only the host knows.
async fn job_document(host: &Host, snapshot: JobSnapshot) -> Job {
    if snapshot.why.is_some()
        && let Ok(Some(view)) = host.job(snapshot.job.id).await
        && view.seen.job.status == snapshot.job.status
    {
        return Job::in_event(&view);
    }
    Job::in_event(&JobView { seen: snapshot, waiting: None })
}

/// The last event that a client has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    /// Number of the last entry.
    entry: u64,
    /// True if the client has received the final state, which comes after that entry.
    end: bool,
}

fn last_event(headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let last = value.to_str().ok().and_then(|text| {
        let (number, rest) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
        Some(Position { entry: number.parse().ok()?, end: rest == "end" })
    });
    last.map(Some).ok_or_else(|| {
        Problem::bad_request(
            "invalid `Last-Event-ID`: expected a number at its start; send the `id` of the last event that you received, or leave the header out",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_is_an_entry_or_the_end_or_absent() {
        let with = |value: &str| last_event(&HeaderMap::from_iter([(LAST_EVENT_ID, value.parse().unwrap())]));
        assert_eq!(last_event(&HeaderMap::new()).unwrap(), None);
        assert_eq!(with("17").unwrap(), Some(Position { entry: 17, end: false }));
        assert_eq!(with("17.end").unwrap(), Some(Position { entry: 17, end: true }));
        assert!(with("seventeen").is_err() && with(".end").is_err());
    }
}
