//! Streams of changes for pages that are open: fragments of the page, made by what made the page itself, at most four a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::Uri;
use futures_util::{Stream, StreamExt as _, stream};
use maud::Markup;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use wharf_core::bounds;
use wharf_core::find::{JobOrder, JobQuery};
use wharf_core::ids::JobId;
use wharf_core::job::Job as CoreJob;
use wharf_core::time::Timestamp;

use crate::http::api::{Job, Moment};
use crate::http::event_stream::{event, event_stream};
use crate::http::problem::Problem;
use crate::http::{
    broadcasts as broadcasts_api, filter, memory, operations as operations_api, schedules as schedules_api,
};

use super::answer::Answer;
use super::entry::Dashboard;
use super::form::Form;
use super::layout::{health_text, states, tone};
use super::page_path::PagePath;
use super::visitor::Visitor;
use super::{broadcasts, job_row, nodes, operations, overview, plugins, schedules};

/// The time between two looks at what may have changed.
const LOOK: Duration = Duration::from_secs(1);
/// The number of newer jobs that are counted.
const FRESH_MAX: u32 = 50;

/// A part of a page, by its ID.
#[derive(Serialize)]
pub(super) struct Part<'p> {
    pub(super) id: &'p str,
    pub(super) html: String,
}

/// The first event of every stream.
#[derive(Serialize)]
struct Hello<'h> {
    mark: &'h str,
}

/// A number of newer jobs.
#[derive(Serialize)]
struct Fresh {
    count: usize,
    more: bool,
}

/// The beginning of the event that is the last one of its stream.
const END: &[u8] = b"event: end\n";

/// Returns the event after which nothing changes any more on the page but what every page has.
pub(super) fn end_event() -> Bytes {
    event("end", None, &())
}

/// Returns a stream that ends with the event that says so.
fn until_end(events: impl Stream<Item = Bytes> + Send + 'static) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::unfold(Some(Box::pin(events)), |events| async move {
        let mut events = events?;
        let event = events.next().await?;
        let goes_on = !event.starts_with(END);
        Some((event, goes_on.then_some(events)))
    })
}

pub(super) fn part(id: &str, html: &Markup) -> Bytes {
    event("part", None, &Part { id, html: html.0.clone() })
}

/// Parts of a page that are sent only when they have changed.
#[derive(Default)]
pub(super) struct Sent(HashMap<&'static str, String>);

impl Sent {
    fn changed(&mut self, id: &'static str, html: &Markup) -> Option<Bytes> {
        let shown = without_times(&html.0);
        if self.0.get(id) == Some(&shown) {
            return None;
        }
        self.0.insert(id, shown);
        Some(part(id, html))
    }
}

/// Returns a fragment without its moments: these grow old on the page itself.
fn without_times(html: &str) -> String {
    let mut parts = html.split("<time ");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    parts.for_each(|part| shown.push_str(part.split_once("</time>").map_or(part, |(_, after)| after)));
    shown
}

/// Returns the parts that every page has: the sentence of health, and the numbers of states.
pub(super) async fn common(dashboard: &Dashboard, visitor: &Visitor, page: &str, sent: &mut Sent) -> Vec<Bytes> {
    if !visitor.sees_all() {
        return Vec::new();
    }
    let reading = dashboard.pulse.latest(&dashboard.app.host).await;
    let visitor = visitor.on(page, dashboard.app.host.now());
    let health = sent.changed("health", &health_text(&visitor, &reading));
    let states = sent.changed("states", &states(&visitor, reading.known.as_ref()));
    let tone = sent.changed("tone", &tone(&reading));
    health.into_iter().chain(tone).chain(states).collect()
}

/// Answers with a stream that begins with the mark of the visitor's forms: after a restart of the host, they have another.
pub(super) fn answer(
    dashboard: &Dashboard,
    visitor: &Visitor,
    events: impl Stream<Item = Bytes> + Send + 'static,
) -> Answer {
    let hello = event("hello", None, &Hello { mark: &visitor.mark });
    let ended = visitor.access()?.end(dashboard.app.stopping.clone());
    let now = dashboard.app.host.now();
    let session = visitor.session.as_ref();
    let session = session.map(|session| (session.until.since(now), dashboard.sessions.end_of(session, now)));
    let signed_out = async move {
        match session {
            // The visitor signs out, or must sign in again.
            Some((left, end)) => drop(tokio::time::timeout(left, end.cancelled()).await),
            None => std::future::pending().await,
        }
    };
    let end = async move {
        tokio::select! {
            () = ended => {}
            () = signed_out => {}
        }
    };
    let host = dashboard.app.host.clone();
    let events = events.then(move |event| {
        let host = host.clone();
        async move { memory::with_room(host.budget(), event).await }
    });
    Ok(event_stream(stream::iter([hello]).chain(until_end(events)), end))
}

/// Calls `look` each second, and streams what it returns.
pub(super) fn every_second<S, F>(
    state: S,
    look: impl Fn(S) -> F + Send + 'static,
) -> impl Stream<Item = Bytes> + Send + 'static
where
    S: Send + 'static,
    F: Future<Output = (S, Vec<Bytes>)> + Send + 'static,
{
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let rounds = stream::unfold((state, ticks, look), |(state, mut ticks, look)| async move {
        ticks.tick().await;
        let (state, events) = look(state).await;
        Some((stream::iter(events), (state, ticks, look)))
    });
    rounds.flatten()
}

/// Streams the sentence of health to a page that has nothing else that changes.
pub(super) async fn health(State(dashboard): State<Dashboard>, visitor: Visitor, uri: Uri) -> Answer {
    let page = page_of(&uri)?;
    let (held, who) = (dashboard.clone(), visitor.clone());
    let events = every_second(Sent::default(), move |mut sent| {
        let (dashboard, visitor, page) = (held.clone(), who.clone(), page.clone());
        async move {
            let events = common(&dashboard, &visitor, &page, &mut sent).await;
            (sent, events)
        }
    });
    answer(&dashboard, &visitor, events)
}

/// Returns the page that a stream is for: only its depth matters.
fn page_of(uri: &Uri) -> Result<String, Problem> {
    Ok(if Form::of_query(uri)?.get("depth") == Some("2") { "x/x" } else { "x" }.to_owned())
}

/// A part of a page as it is now.
struct Look {
    html: Markup,
    /// True if it will not change any more.
    is_last: bool,
}

impl From<Markup> for Look {
    fn from(html: Markup) -> Look {
        Look { html, is_last: false }
    }
}

/// Streams a part of a page besides what every page has; `make` returns `None` while it is not known.
fn watched<F>(
    dashboard: &Dashboard,
    visitor: &Visitor,
    (page, id): (&'static str, &'static str),
    make: impl Fn(Dashboard, Visitor) -> F + Clone + Send + 'static,
) -> Answer
where
    F: Future<Output = Option<Look>> + Send + 'static,
{
    let (held, who) = (dashboard.clone(), visitor.clone());
    let events = every_second(Sent::default(), move |mut sent| {
        let (dashboard, visitor, make) = (held.clone(), who.clone(), make.clone());
        async move {
            let mut events = common(&dashboard, &visitor, page, &mut sent).await;
            let reading = dashboard.pulse.latest(&dashboard.app.host).await;
            let visitor = visitor.on(page, dashboard.app.host.now()).with(reading);
            if let Some(look) = make(dashboard, visitor).await {
                events.extend(sent.changed(id, &look.html));
                events.extend(look.is_last.then(end_event));
            }
            (sent, events)
        }
    });
    answer(dashboard, visitor, events)
}

/// Streams the overview.
pub(super) async fn overview(State(dashboard): State<Dashboard>, visitor: Visitor) -> Answer {
    watched(&dashboard, &visitor, ("", "overview"), |dashboard, visitor| async move {
        Some(overview::content(&visitor, &dashboard.app.host, &dashboard.pulse).into())
    })
}

/// Streams the list of plugins.
pub(super) async fn plugins(State(dashboard): State<Dashboard>, visitor: Visitor) -> Answer {
    watched(&dashboard, &visitor, ("plugins", "plugins"), |dashboard, visitor| async move {
        Some(plugins::content(&visitor, &dashboard.app.host.catalog()).into())
    })
}

/// Streams the list of hosts.
pub(super) async fn nodes(State(dashboard): State<Dashboard>, visitor: Visitor) -> Answer {
    watched(&dashboard, &visitor, ("nodes", "nodes"), |dashboard, visitor| async move {
        Some(nodes::content(&visitor, &nodes::read(&dashboard.app.host).await.ok()?).into())
    })
}

/// Streams one schedule.
pub(super) async fn schedule(
    State(dashboard): State<Dashboard>,
    visitor: Visitor,
    PagePath(id): PagePath<String>,
) -> Answer {
    schedules_api::read(&dashboard.app.host, &id).await?;
    watched(&dashboard, &visitor, ("schedules/x", "schedule"), move |dashboard, visitor| {
        let id = id.clone();
        async move {
            let seen = schedules::read(&dashboard.app.host, &id).await.ok()?;
            Some(schedules::content(&visitor, &seen).into())
        }
    })
}

/// Streams one operation until it has ended.
pub(super) async fn operation(
    State(dashboard): State<Dashboard>,
    visitor: Visitor,
    PagePath(id): PagePath<String>,
) -> Answer {
    operations_api::read(&dashboard.app.host, &id).await?;
    watched(&dashboard, &visitor, ("operations/x", "operation"), move |dashboard, visitor| {
        let id = id.clone();
        async move {
            let operation = operations_api::read(&dashboard.app.host, &id).await.ok()?;
            Some(Look { html: operations::content(&visitor, &operation), is_last: operation.state.is_final() })
        }
    })
}

/// Streams one durable broadcast until its last job has ended. Its results are read only when the state of a job has changed.
pub(super) async fn batch(
    State(dashboard): State<Dashboard>,
    visitor: Visitor,
    PagePath(id): PagePath<String>,
) -> Answer {
    let id: JobId = id.parse().map_err(|_| broadcasts_api::unknown(&id))?;
    let query = filter::parse("where", &format!("batch:{id}"), dashboard.app.host.now())?;
    let (held, who, query) = (dashboard.clone(), visitor.clone(), Arc::new(query));
    let events = every_second((Sent::default(), String::new()), move |(mut sent, mut states)| {
        let (dashboard, visitor, query) = (held.clone(), who.clone(), Arc::clone(&query));
        async move {
            let mut events = common(&dashboard, &visitor, "broadcasts/x", &mut sent).await;
            let host = &dashboard.app.host;
            let Ok(found) = host.find(query, JobOrder::Newest, None, bounds::PAGE_MAX).await else {
                return ((sent, states), events);
            };
            let now: String = found.jobs.iter().map(state_text).collect();
            if now == states {
                return ((sent, states), events);
            }
            let visitor = visitor.on("broadcasts/x", host.now());
            if let Ok((batch, _reading)) = broadcasts::read(host, &id.to_string()).await {
                events.push(part("batch", &broadcasts::batch_content(&visitor, &batch)));
                if batch.jobs.iter().all(|entry| entry.job.status.state.name().is_final()) {
                    events.push(end_event());
                }
                states = now;
            }
            ((sent, states), events)
        }
    });
    answer(&dashboard, &visitor, events)
}

/// The rows of a list as they were sent.
#[derive(Default)]
struct Rows {
    sent: Sent,
    /// The part of each row that changes besides its times.
    shown: HashMap<JobId, String>,
    is_first: bool,
    fresh: usize,
    looks: u64,
}

/// Streams the rows of a list of jobs, and how many newer jobs there are.
pub(super) async fn jobs(State(dashboard): State<Dashboard>, visitor: Visitor, uri: Uri) -> Answer {
    let form = Form::of_query(&uri)?;
    let ids = form.get("ids").unwrap_or_default();
    let ids: Vec<JobId> = ids.split(',').take(bounds::PAGE_MAX as usize).filter_map(|id| id.parse().ok()).collect();
    let list: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let access = visitor.access()?;
    let now = dashboard.app.host.now();
    let shown = match list.is_empty() {
        true => None,
        false => filter::seen_by(&access, filter::parse("ids", &format!("id:{}", list.join(",")), now)?),
    };
    // Without this field, newer jobs are not looked for: the list is not that of the newest.
    let newer = match form.all("newer").next() {
        Some(text) => filter::seen_by(&access, filter::parse("newer", text, now)?),
        None => None,
    };
    let from = form.number("from")?.map_or(now, Timestamp::from_micros);
    let top = ids.iter().max().copied();
    let (shown, newer) = (shown.map(Arc::new), newer.and_then(|query| since(query, from, now)).map(Arc::new));
    let (held, who) = (dashboard.clone(), visitor.clone());
    let events = every_second(Rows { is_first: true, ..Rows::default() }, move |mut rows| {
        let (dashboard, visitor) = (held.clone(), who.clone());
        let (shown, newer) = (shown.clone(), newer.clone());
        async move {
            let mut events = common(&dashboard, &visitor, "jobs", &mut rows.sent).await;
            let host = &dashboard.app.host;
            if let Some(shown) = shown
                && let Ok(page) = host.find(shown, JobOrder::Newest, None, bounds::PAGE_MAX).await
            {
                let visitor = visitor.on("jobs", host.now());
                events.extend(changed_rows(&mut rows, &visitor, &page.jobs));
            }
            rows.looks += 1;
            if let (Some(newer), 1) = (newer, rows.looks % 2)
                && let Ok(page) = host.find(newer, JobOrder::Newest, None, FRESH_MAX).await
            {
                let fresh = page.jobs.iter().filter(|job| top.is_none_or(|top| job.id > top)).count();
                if fresh != rows.fresh {
                    rows.fresh = fresh;
                    let more = fresh == FRESH_MAX as usize;
                    events.push(event("fresh", None, &Fresh { count: fresh, more }));
                }
            }
            (rows, events)
        }
    });
    answer(&dashboard, &visitor, events)
}

/// Limits a query to jobs that are not older than the newest of the page, so that each look at it is short. `None` if it has such a
/// limit of its own: all of its jobs would be looked at again and again.
fn since(mut query: JobQuery, from: Timestamp, now: Timestamp) -> Option<JobQuery> {
    query.add("since", &[format!("{:.6}", Moment(from).date())], now).ok()?;
    Some(query)
}

/// Returns what changes of a job in a list, besides its times.
fn state_text(job: &CoreJob) -> String {
    let status = &job.status;
    let (state, failed) = (status.state.name().as_str(), status.failures.failed());
    format!("{state} {} {failed} {} {};", status.attempt, status.crashes, status.cancel_requested)
}

fn changed_rows(rows: &mut Rows, visitor: &Visitor, jobs: &[CoreJob]) -> Vec<Bytes> {
    let selects = visitor.may_operate();
    let mut events = Vec::new();
    for found in jobs {
        let state = state_text(found);
        if rows.shown.get(&found.id) == Some(&state) {
            continue;
        }
        rows.shown.insert(found.id, state);
        // The page has just been made: its rows are as they are.
        if !rows.is_first {
            let html = job_row::row(visitor, &Job::in_list(found), selects);
            events.push(event("row", None, &Part { id: &format!("j{}", found.id), html: html.0 }));
        }
    }
    rows.is_first = false;
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_ends_with_the_event_that_says_so() {
        let never = stream::pending::<Bytes>();
        let events = stream::iter([part("a", &Markup::default()), end_event()]).chain(never);
        assert_eq!(until_end(events).collect::<Vec<_>>().await.len(), 2);
    }

    #[test]
    fn newer_jobs_are_sought_from_the_newest_on() {
        let (from, now) = (Timestamp::from_millis(1_000_000), Timestamp::from_millis(2_000_000));
        let query = |text: &str| JobQuery::parse(text, now).expect("a query");
        assert!(since(query("state:failed"), from, now).is_some_and(|query| query.to_string().contains("since:1970-")));
        assert_eq!(since(query("since:2h"), from, now), None);
    }
}
