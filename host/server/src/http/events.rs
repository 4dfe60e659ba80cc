//! `GET /v1/jobs/{id}/events`: what a job's attempts write, and where the job stands, as it comes.
//!
//! The `id:` of an event is the number of its entry in the job's log, so that `Last-Event-ID` resumes anywhere:
//! after a broken connection, after a restart. The final state has an id of its own, `17.end` after entry 17:
//! only a client that comes back with it has seen the end, and is told with 204 that nothing follows.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use wharf_core::ids::JobId;
use wharf_runner::{JobUpdate, JobView};
use wharf_store::{JobSnapshot, StoreError};

use super::app_state::Face;
use super::documents::{entry_document, job_standing};
use super::path::Path;
use super::problem::{Kind, Problem};
use super::wire::Job;

/// A proxy may end a connection that is silent for half a minute.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub(crate) async fn events(
    State(face): State<Arc<Face>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = Face::job_id(&id)?;
    let after = last_event(&headers)?;
    let view = face.job(id).await?;
    if view.seen.job.standing.state.name().is_final() && after == Some(Last { entry: view.seen.entries, end: true }) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    let stream = Sse::new(follow(face, id, after.map_or(0, |last| last.entry))).keep_alive(keep_alive);
    Ok(([(header::CACHE_CONTROL, "no-store")], stream).into_response())
}

fn follow(face: Arc<Face>, id: JobId, after: u64) -> impl Stream<Item = Result<Event, Infallible>> {
    let stopping = face.stopping.clone().cancelled_owned();
    let followed = face.host.follow(id, after);
    followed.then(move |followed| told(Arc::clone(&face), followed)).take_until(stopping).map(Ok)
}

async fn told(face: Arc<Face>, followed: Result<JobUpdate, StoreError>) -> Event {
    let (name, event_id, data) = match followed {
        Ok(JobUpdate::Entry(numbered)) => {
            let (name, data) = entry_document(&numbered);
            (name, Some(numbered.number.to_string()), serde_json::to_string(&data))
        }
        Ok(JobUpdate::State(seen)) => {
            let end = seen.job.standing.state.name().is_final().then(|| format!("{}.end", seen.entries));
            ("state", end, serde_json::to_string(&standing(&face, *seen).await))
        }
        Err(error) => ("trouble", None, serde_json::to_string(&error.to_string())),
    };
    // These documents have no part that JSON could not carry.
    let event = Event::default().event(name).data(data.unwrap_or_default());
    match event_id {
        Some(id) => event.id(id),
        None => event,
    }
}

/// Where the job stands. Why one waits may lie outside of the queue, which the host knows.
async fn standing(face: &Face, seen: JobSnapshot) -> Job {
    if seen.why.is_some()
        && let Ok(Some(view)) = face.host.job(seen.job.id).await
        && view.seen.job.standing == seen.job.standing
    {
        return job_standing(&view);
    }
    job_standing(&JobView { seen, waiting: None })
}

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    entry: u64,
    /// It has seen the final state that came after this entry.
    end: bool,
}

fn last_event(headers: &HeaderMap) -> Result<Option<Last>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let last = value.to_str().ok().and_then(|text| {
        let (number, rest) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
        Some(Last { entry: number.parse().ok()?, end: rest == "end" })
    });
    last.map(Some).ok_or_else(|| {
        Problem::new(Kind::BAD_REQUEST, "`Last-Event-ID` does not begin with a number; send the `id` of the last event that was seen, or leave it out")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_is_an_entry_or_the_end_or_absent() {
        let with = |value: &str| last_event(&HeaderMap::from_iter([(LAST_EVENT_ID, value.parse().unwrap())]));
        assert_eq!(last_event(&HeaderMap::new()).unwrap(), None);
        assert_eq!(with("17").unwrap(), Some(Last { entry: 17, end: false }));
        assert_eq!(with("17.end").unwrap(), Some(Last { entry: 17, end: true }));
        assert!(with("seventeen").is_err() && with(".end").is_err());
    }
}
