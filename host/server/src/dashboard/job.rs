//! One job: what it is, why it waits, its attempts, what went in and came out, its log.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, Uri, header};
use axum::response::IntoResponse;
use maud::{Markup, html};
use wharf_core::find::JobOrder;
use wharf_core::ids::JobId;
use wharf_core::job::Job as CoreJob;
use wharf_runner::Host;

use crate::http::api::{AttemptList, Job, JobState, JobTick, Moment, Wait};
use crate::http::bytes::harmless_headers;
use crate::http::jobs::{BytesOf, read_bytes};
use crate::http::problem::Problem;
use crate::http::shared_bytes::SharedName;
use crate::http::{attempts, encode, filter, job_lookup, jobs, memory};

use super::answer::{Answer, lead_to};
use super::content::{self, Beginning, Shown};
use super::entry::Dashboard;
use super::form::Form;
use super::job_log::{self, LogTail};
use super::job_row::{headings, look, row};
use super::layout::{Frame, Section, act, page, state};
use super::page_path::PagePath;
use super::text::{ago, brief, count, first_line, full, line, lines, size};
use super::timeline::timeline;
use super::visitor::Visitor;

/// The number of children that a page shows.
const CHILDREN: u32 = 20;

/// A job as its page shows it: of its payload and its result, only how they begin.
pub(super) struct Seen {
    id: JobId,
    document: Job,
    /// The number of entries of its log.
    entries: u64,
    payload: Beginning,
    result: Option<Beginning>,
    attempts: AttemptList,
}

/// The time by which the store's clock may have been set back while a job ran.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// Reads a job that the visitor sees, with its attempts.
pub(super) async fn read(host: &Host, visitor: &Visitor, id: JobId) -> Result<Seen, Problem> {
    let access = visitor.access()?;
    let (document, entries, payload, result) = {
        let _reading = memory::to_read_a_job(host.budget()).await;
        let view = job_lookup::whole_job(host, &access, id).await?;
        let job = &view.seen.job;
        let result = job.result.as_ref().map(|result| Beginning::of(result));
        (Job::in_event(&view), view.seen.entries, Beginning::of(&job.payload), result)
    };
    let attempts = attempts::of_seen_job(host, &access, id).await?;
    Ok(Seen { id, document, entries, payload, result, attempts })
}

/// Shows a job.
pub(super) async fn show(State(host): State<Host>, visitor: Visitor, PagePath(id): PagePath<String>) -> Answer {
    let id = job_lookup::job_id(&id)?;
    let seen = read(&host, &visitor, id).await?;
    let (children, log) = tokio::join!(children(&host, &visitor, &seen), job_log::read(&host, id, seen.entries));
    let children = children?;
    let after = log.last();
    let is_open = matches!(seen.document.state, JobState::Waiting | JobState::Running);
    let live = if is_open { format!("live/jobs/{id}?after={after}") } else { "live/health?depth=2".to_owned() };
    let title = format!("{} {id}", seen.document.task);
    let main = content(&visitor, &seen, &children, &log);
    Ok(page(&visitor, &Frame { title: &title, section: Section::Jobs, live: Some(live) }, &main))
}

/// Finds the jobs that this one enqueued: they came after it.
async fn children(host: &Host, visitor: &Visitor, seen: &Seen) -> Result<Vec<CoreJob>, Problem> {
    if seen.document.attempt == 0 {
        return Ok(Vec::new());
    }
    let since = Moment(seen.document.enqueued_at.0 - CLOCK_SLACK);
    // Which job of another key enqueued one is not told to who is bound to a key.
    let text = format!("parent:{} since:{:.6}", seen.id, since.date());
    match filter::seen_by(&visitor.access()?, filter::parse("parent", &text, host.now())?) {
        Some(query) => Ok(host.find(query.into(), JobOrder::Newest, None, CHILDREN).await?.jobs),
        None => Ok(Vec::new()),
    }
}

fn content(visitor: &Visitor, seen: &Seen, children: &[CoreJob], log: &LogTail) -> Markup {
    let id = seen.id;
    html! {
        div id="top" { (top(visitor, seen)) }
        div class="cols" {
            div {
                div id="middle" { (middle(visitor, seen)) }
                (job_log::section(log, seen.entries))
            }
            div {
                (content::section("Payload", &seen.payload, &format!("{id}/payload")))
                div id="end" { (end(seen)) }
                @if !children.is_empty() {
                    section {
                        header {
                            h2 { "Enqueued by it" }
                            a class="dim" href=(visitor.link(&format!("jobs?where=parent:{id}"))) { "all" }
                        }
                        table class="rows small" {
                            caption class="vh" { "Jobs that this one enqueued" }
                            (headings(false))
                            tbody { @for child in children { (row(visitor, &Job::in_list(child), false)) } }
                        }
                    }
                }
            }
        }
    }
}

/// Returns the head of a job: its state, its acts, and the sentence on it.
pub(super) fn top(visitor: &Visitor, seen: &Seen) -> Markup {
    let job = &seen.document;
    let (class, word) = look(job);
    let is_final = !matches!(job.state, JobState::Waiting | JobState::Running);
    let may_retry = matches!(job.state, JobState::Failed | JobState::Cancelled);
    let now = visitor.now;
    let failed_page = job.fingerprint.as_ref().filter(|_| visitor.sees_all());
    html! {
        div class="head" {
            (state(class, word)) h1 { (line(&job.task)) } span class="mono dim" { (job.id) }
            @if visitor.may_change_jobs() || visitor.may_enqueue() {
                div class="acts" {
                    @if may_retry && visitor.may_change_jobs() {
                        (act(visitor, &format!("jobs/{}/retry", job.id), "primary", html! { "Retry " kbd { "r" } }, &[]))
                    }
                    @if !is_final && visitor.may_change_jobs() {
                        (act(visitor, &format!("jobs/{}/cancel", job.id), "danger", html! { "Cancel" }, &[]))
                    }
                    @if visitor.may_enqueue() {
                        a class="btn" href=(visitor.link(&format!("run?like={}", job.id))) { "Run again…" }
                    }
                }
            }
        }
        dl class="facts" {
            @if let Some(key) = &job.key {
                div { dt { "Key" } dd { a href=(visitor.link(&format!("jobs?key={}", encode(key)))) { (line(key)) } } }
            }
            div { dt { "Enqueued" } dd { (ago(job.enqueued_at, now)) } }
            @if let Some(started) = job.started_at.filter(|_| !is_final) {
                div { dt { "Began" } dd { (ago(started, now)) } }
            }
            @if let Some(finished) = job.finished_at { div { dt { "Ended" } dd { (ago(finished, now)) } } }
            @if let Some(retried) = job.retried_at { div { dt { "Retried" } dd { (ago(retried, now)) } } }
            div {
                dt { "Attempt" }
                dd {
                    (job.attempt)
                    @if job.failures > 0 { ", " (job.failures) " failed" @if job.retried_at.is_some() { " since" } }
                }
            }
            @if job.crashes > 0 { div { dt { "Lost with a host" } dd { (job.crashes) } } }
            @if job.priority != 0 { div { dt { "Priority" } dd { (job.priority) } } }
            @if job.group != job.task { div { dt { "Limit group" } dd { (line(&job.group)) } } }
            @if let Some(token) = &job.token { div { dt { "Token" } dd class="mono" { (first_line(token, 60)) } } }
            @if let Some(parent) = &job.parent {
                div {
                    dt { "Enqueued by" }
                    dd { a class="mono" href=(visitor.link(&format!("jobs/{parent}"))) { (parent) } }
                }
            }
            @if let Some(tick) = &job.tick { (tick_facts(visitor, tick)) }
            @if let Some(batch) = job.batch.as_ref().filter(|_| visitor.sees_all()) {
                div {
                    dt { "Broadcast" }
                    dd { a class="mono" href=(visitor.link(&format!("broadcasts/{batch}"))) { (batch) } }
                }
            }
            @if let Some(lease) = &job.lease {
                @if visitor.sees_all() { div { dt { "Host" } dd class="mono" { (lease.node) } } }
            }
        }
        @if let Some(wait) = &job.wait { (waits(visitor, job, wait)) }
        @if let (JobState::Failed, Some(report)) = (job.state, &job.report) {
            div class="say failed" {
                p {
                    strong { @if job.attempt == 1 { "Failed: " } @else { "Failed after " (job.attempt) " attempts: " } }
                    (first_line(&report.text, 400))
                }
                @if let Some(fingerprint) = failed_page {
                    p {
                        a href=(visitor.link(&format!("failures/{}", encode(fingerprint)))) {
                            "All that failed this way"
                        }
                    }
                }
            }
        }
        @if job.cancel_requested && job.state == JobState::Running {
            div class="say cancelled" {
                p { strong { "Asked to end." } " After the grace period its sandbox is stopped." }
            }
        }
    }
}

/// Returns the tick that a job was enqueued for, and what came before it.
fn tick_facts(visitor: &Visitor, tick: &JobTick) -> Markup {
    let page = format!("schedules/{}", encode(&tick.schedule));
    html! {
        div {
            dt { "Schedule" }
            dd {
                @if visitor.sees_all() { a href=(visitor.link(&page)) { (line(&tick.schedule)) } }
                @else { (line(&tick.schedule)) }
            }
        }
        div { dt { "Tick" } dd { (full(tick.at)) " UTC" } }
        @if let Some(previous) = tick.previous { div { dt { "Tick before" } dd { (full(previous)) " UTC" } } }
        @if tick.missed > 0 { div { dt { "Missed before" } dd { (count(tick.missed)) } } }
    }
}

fn waits(visitor: &Visitor, job: &Job, wait: &Wait) -> Markup {
    let name = wait.reason.to_string();
    let is_held = name == "held";
    // The holders follow as links.
    let said = if wait.holders.is_empty() { Some(wait.message.as_str()) } else { wait.message.split(": ").next() };
    let said = said.unwrap_or_default();
    html! {
        div class={ "say " (if is_held { "held" } else { "waiting" }) } {
            p { strong { "Why it waits: " } (line(said)) "." }
            @if let Some(until) = wait.until.filter(|_| is_held) {
                p title={ (full(until)) " UTC" } { "It ends by itself " (ago(until, visitor.now)) "." }
            }
            @if !wait.holders.is_empty() {
                p { "The slots are held by "
                    @for (at, holder) in wait.holders.iter().enumerate() {
                        @if at > 0 { ", " }
                        a class="mono" href=(visitor.link(&format!("jobs/{}", holder.id))) { (holder.id) } " (since " (ago(holder.since, visitor.now)) ")"
                    }
                "." }
            }
            @if !wait.hosts.is_empty() {
                p {
                    "Hosts: "
                    @for (at, host) in wait.hosts.iter().enumerate() {
                        @if at > 0 { ", " }
                        (line(&host.name))
                        " "
                        (host.readiness.to_string())
                    }
                    "."
                }
            }
            @if visitor.sees_all() {
                p {
                    @if is_held { a href=(visitor.link("limits#holds")) { "The holds" } }
                    @else if wait.limit.is_some() || name == "paused" {
                        a href=(visitor.link(&format!("limits#{}", encode(&job.group)))) { "The limit" }
                    }
                    @else if name.starts_with("plugin") { a href=(visitor.link("plugins")) { "The plugins" } }
                }
            }
        }
    }
}

/// Returns the attempts of a job, and the report of the last one that failed.
pub(super) fn middle(visitor: &Visitor, seen: &Seen) -> Markup {
    let job = &seen.document;
    html! {
        @if let Some(timeline) = timeline(job, &seen.attempts, visitor.now) { (timeline) }
        @if let (Some(report), true) = (&job.report, job.state != JobState::Succeeded) {
            section {
                header { h2 { "Report of the last attempt" } span class="dim" { (report.outcome.to_string()) } }
                pre tabindex="0" role="region" aria-label="Report" { (lines(&report.text)) }
            }
        }
    }
}

/// Returns the result of a job and what it cost.
pub(super) fn end(seen: &Seen) -> Markup {
    html! {
        @if let Some(result) = &seen.result { (content::section("Result", result, &format!("{}/result", seen.id))) }
        @if let Some(usage) = &seen.document.usage {
            section {
                header { h2 { "Cost" } span class="dim" { "all attempts" } }
                dl class="bill" {
                    dt { "Waited in the queue" } dd { (brief(usage.queue_wait_ms)) }
                    dt { "Ran" } dd { (brief(usage.wall_ms)) }
                    dt { "Guest’s own time" } dd { (brief(usage.cpu_ms)) }
                    dt { "Peak memory" } dd { (size(usage.memory_peak_bytes)) }
                    dt { "In, out" } dd { (size(usage.in_bytes)) ", " (size(usage.out_bytes)) }
                }
            }
        }
    }
}

/// Gives a job another attempt.
pub(super) async fn retry(State(host): State<Host>, visitor: Visitor, PagePath(id): PagePath<String>) -> Answer {
    let id = job_lookup::job_id(&id)?;
    job_lookup::check(&host, &visitor.access()?, id).await?;
    host.retry(id, 1, visitor.author.clone()).await.map_err(|error| jobs::refused(id, error))?;
    Ok(lead_to(&visitor, &format!("jobs/{id}")))
}

/// Asks a job to end.
pub(super) async fn cancel(State(host): State<Host>, visitor: Visitor, PagePath(id): PagePath<String>) -> Answer {
    let id = job_lookup::job_id(&id)?;
    job_lookup::check(&host, &visitor.access()?, id).await?;
    host.cancel(id, visitor.author.clone()).await.map_err(|error| jobs::refused(id, error))?;
    Ok(lead_to(&visitor, &format!("jobs/{id}")))
}

/// Answers with the payload of a job.
pub(super) async fn payload(
    State(dashboard): State<Dashboard>,
    visitor: Visitor,
    PagePath(id): PagePath<String>,
    uri: Uri,
) -> Answer {
    bytes(&dashboard, &visitor, job_lookup::job_id(&id)?, BytesOf::Payload, &uri).await
}

/// Answers with the result of a job.
pub(super) async fn result(
    State(dashboard): State<Dashboard>,
    visitor: Visitor,
    PagePath(id): PagePath<String>,
    uri: Uri,
) -> Answer {
    bytes(&dashboard, &visitor, job_lookup::job_id(&id)?, BytesOf::Result, &uri).await
}

/// Answers with bytes that a guest or a client wrote, under headers that keep whatever they are from running.
async fn bytes(dashboard: &Dashboard, visitor: &Visitor, id: JobId, of: BytesOf, uri: &Uri) -> Answer {
    let (host, access) = (&dashboard.app.host, visitor.access()?);
    // Bytes that are shared are known without their job.
    job_lookup::check(host, &access, id).await?;
    let name = match of {
        BytesOf::Payload => SharedName::Payload(id),
        BytesOf::Result => SharedName::Result(id),
    };
    let bytes = dashboard.app.shared.get_or_load(name, read_bytes(host, &access, id, of)).await?;
    let as_picture = Form::of_query(uri)?.get("as") == Some("picture") && Shown::of(bytes.as_ref()) == Shown::Svg;
    let mut response = (harmless_headers(bytes.media_type().await), bytes.bytes()).into_response();
    if as_picture {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("image/svg+xml"));
        let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox");
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    Ok(response)
}
