//! The stream of changes for the page of one job: its log as it comes, and the rest when its state changes.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Uri};
use futures_util::{StreamExt as _, stream};
use wharf_core::ids::JobId;
use wharf_runner::JobUpdate;

use crate::http::event_stream::event;
use crate::http::job_lookup;

use super::answer::Answer;
use super::entry::Dashboard;
use super::form::Form;
use super::live::{Part, Sent, answer, common, every_second, part};
use super::page_path::PagePath;
use super::visitor::Visitor;
use super::{job, job_log};

/// The least time between two events of a stream.
const PACE: Duration = Duration::from_millis(250);
/// The number of log entries in one event.
const BATCH: usize = 200;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Streams one job.
pub(super) async fn follow(
    State(dashboard): State<Dashboard>,
    visitor: Visitor,
    PagePath(id): PagePath<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let id = job_lookup::job_id(&id)?;
    job_lookup::check(&dashboard.app.host, &visitor.access()?, id).await?;
    let form = Form::of_query(&uri)?;
    let last = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()?.parse().ok());
    let after = last.or(form.number("after")?).unwrap_or_default();
    let (held, who) = (dashboard.clone(), visitor.clone());
    let news = dashboard.app.host.follow(id, after).map(News::of);
    let updates = news.ready_chunks(BATCH).then(move |batch| {
        let (dashboard, visitor) = (held.clone(), who.clone());
        async move {
            let events = job_events(&dashboard, &visitor, id, batch).await;
            tokio::time::sleep(PACE).await;
            stream::iter(events)
        }
    });
    let (held, who) = (dashboard.clone(), visitor.clone());
    let around = every_second(Sent::default(), move |mut sent| {
        let (dashboard, visitor) = (held.clone(), who.clone());
        async move {
            let events = common(&dashboard, &visitor, "jobs/x", &mut sent).await;
            (sent, events)
        }
    });
    // Without an error, the follower ends after the final state, or where the job was deleted.
    let updates = updates.flatten().chain(stream::iter([Some(event("end", None, &())), None]));
    let all = stream::select(updates, around.map(Some));
    answer(
        &dashboard,
        &visitor,
        all.take_while(|event| std::future::ready(event.is_some())).filter_map(std::future::ready),
    )
}

/// News for the page of a job. Each line of its log is cut when the store gives it.
enum News {
    Line(u64, String),
    State,
    /// The store failed, and nothing follows.
    Broken,
}

impl News {
    fn of(update: Result<JobUpdate, wharf_store::StoreError>) -> News {
        match update {
            Ok(JobUpdate::Entry(entry)) => News::Line(entry.number, job_log::line(&entry).0),
            Ok(JobUpdate::State(_)) => News::State,
            Err(_) => News::Broken,
        }
    }
}

/// Returns the events of some news. `None` ends the stream without a word, so that the browser comes back and asks for what it has
/// not got.
async fn job_events(dashboard: &Dashboard, visitor: &Visitor, id: JobId, batch: Vec<News>) -> Vec<Option<Bytes>> {
    let (mut lines, mut last, mut has_changed, mut is_broken) = (String::new(), None, false, false);
    for news in batch {
        match news {
            News::Line(number, line) => {
                lines.push_str(&line);
                last = Some(number.to_string());
            }
            News::State => has_changed = true,
            News::Broken => is_broken = true,
        }
    }
    let mut events = Vec::new();
    if let Some(last) = last {
        events.push(Some(event("append", Some(&last), &Part { id: "log", html: lines })));
    }
    let visitor = visitor.on("jobs/x", dashboard.app.host.now());
    if has_changed {
        match job::read(&dashboard.app.host, &visitor, id).await {
            Ok(seen) => {
                let parts = [
                    ("top", job::top(&visitor, &seen)),
                    ("middle", job::middle(&visitor, &seen)),
                    ("end", job::end(&seen)),
                ];
                events.extend(parts.iter().map(|(id, html)| Some(part(id, html))));
            }
            Err(problem) => is_broken |= problem.kind().status >= 500,
        }
    }
    if is_broken {
        events.push(None);
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_store_is_not_an_end() {
        assert!(matches!(News::of(Err(wharf_store::StoreError::Unknown("away".into()))), News::Broken));
    }
}
