//! `GET /v1/jobs/{id}/events`: what a job's attempts write, and the job's state, as they come.
//!
//! The `id:` of an event is the number of its entry in the job's log, so `Last-Event-ID` resumes anywhere: after a broken
//! connection, and after a restart. The final state has an ID of its own, `17.end` after entry 17: only a client that comes
//! back with it has received the end, and the answer is then 204, as nothing follows.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use wharf_core::ids::JobId;
use wharf_runner::{Host, JobUpdate, JobView};
use wharf_store::{JobSnapshot, StoreError};

use super::api::{Job, JobEventName, LogEntry};
use super::event_stream::{event, event_stream};
use super::job_lookup;
use super::memory::{held_for, room_to_make, with_room};
use super::path::Path;
use super::problem::Problem;
use super::shared_bytes::{SharedBytes, SharedName};
use crate::access::Access;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Follows a job until its final state.
pub(crate) async fn events(
    State(host): State<Host>,
    State(stopping): State<CancellationToken>,
    State(shared): State<Arc<SharedBytes>>,
    access: Access,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = job_lookup::job_id(&id)?;
    let after = last_event(&headers)?;
    let view = job_lookup::job(&host, &access, id).await?;
    let received_all = Some(Position { entry: view.seen.entries, end: true });
    if view.seen.job.status.state.name().is_final() && after == received_all {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let end = access.end(stopping);
    Ok(event_stream(follow(host, shared, access, id, after.map_or(0, |last| last.entry)), end))
}

fn follow(host: Host, shared: Arc<SharedBytes>, access: Access, id: JobId, after: u64) -> impl Stream<Item = Bytes> {
    let updates = host.follow(id, after);
    updates.then(move |update| {
        let (host, shared, access) = (host.clone(), Arc::clone(&shared), access.clone());
        async move { update_event(&host, &shared, &access, id, update).await }
    })
}

async fn update_event(
    host: &Host,
    shared: &Arc<SharedBytes>,
    access: &Access,
    job: JobId,
    update: Result<JobUpdate, StoreError>,
) -> Bytes {
    match update {
        Ok(JobUpdate::Entry(numbered)) => {
            let shared_name = SharedName::Entry(job, numbered.number);
            if let Some(event) = shared.get(shared_name) {
                return event.bytes();
            }
            // Its bytes in base64, and the text that they stand in.
            let room = room_to_make(host.budget(), numbered.entry.bytes() * 3).await;
            if let Some(event) = shared.get(shared_name) {
                return event.bytes();
            }
            let (name, entry) = LogEntry::event(&numbered);
            let event = event(name, Some(&numbered.number.to_string()), &entry);
            shared.share(shared_name, held_for(event, room)).bytes()
        }
        Ok(JobUpdate::State(snapshot)) => {
            let end = snapshot.job.status.state.name().is_final().then(|| format!("{}.end", snapshot.entries));
            let event = event(JobEventName::State, end.as_deref(), &job_document(host, access, *snapshot).await);
            with_room(host.budget(), event).await
        }
        Err(error) => event(JobEventName::StoreError, None, &error.to_string()),
    }
}

/// Returns the job's document. A job may wait for a reason outside of the queue, which only the host knows.
async fn job_document(host: &Host, access: &Access, snapshot: JobSnapshot) -> Job {
    if snapshot.why.is_some()
        && let Ok(Some(view)) = host.job(snapshot.job.id).await
        && view.seen.job.status == snapshot.job.status
    {
        return Job::in_event(&job_lookup::seen_by(view, access));
    }
    Job::in_event(&job_lookup::seen_by(JobView { seen: snapshot, waiting: None, nodes: Vec::new() }, access))
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
    // Some clients send it empty before they have received an event.
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.as_bytes().trim_ascii().is_empty()) else {
        return Ok(None);
    };
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
        assert_eq!((with("").unwrap(), with(" ").unwrap()), (None, None));
        assert_eq!(with("17").unwrap(), Some(Position { entry: 17, end: false }));
        assert_eq!(with("17.end").unwrap(), Some(Position { entry: 17, end: true }));
        assert!(with("seventeen").is_err() && with(".end").is_err());
    }
}
