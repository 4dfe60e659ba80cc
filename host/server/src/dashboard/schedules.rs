//! Schedules: when each comes next, what became of its last ticks, running one at once, pausing and resuming it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::Uri;
use maud::{Markup, html};
use wharf_core::bounds;
use wharf_core::find::JobOrder;
use wharf_core::hold::HoldReason;
use wharf_runner::Host;

use crate::config::HumanDuration;
use crate::http::api::{CLOCK_LAW, ClockChange, Job, Schedule, ScheduleSource, ScheduleState, TickOutcome};
use crate::http::problem::Problem;
use crate::http::{encode, filter, length, schedules};
use crate::output::spread;

use super::answer::{Answer, lead_to};
use super::content::json;
use super::form::Form;
use super::job_row::look;
use super::layout::{Frame, Section, act, marks, page, state};
use super::listing::{bare_listing, listing, pager};
use super::page_path::PagePath;
use super::suggestions;
use super::text::{ago, brief, count, full, line};
use super::visitor::Visitor;

/// Lists schedules.
pub(super) async fn list(State(host): State<Host>, visitor: Visitor, uri: Uri) -> Answer {
    let (found, suggested) = tokio::try_join!(schedules::page(&host, &uri), suggestions::of_all(&host, &visitor))?;
    let columns = [
        ("", "State"),
        ("grow", "Schedule"),
        ("c-ran", "When"),
        ("num", "Next"),
        ("num c-waited", "Last"),
        ("num c-tries", "Fired"),
        ("num c-key", "Missed"),
    ];
    let rows = html! { @for schedule in &found.schedules { (row(&visitor, schedule)) } };
    let main = html! {
        div class="head" { h1 { "Schedules" } span class="dim" { "jobs that a clock enqueues" } }
        @if found.schedules.is_empty() {
            p class="empty" {
                "None. "
                code { "wharf schedule set" }
                " defines one, and so does "
                code { "[schedules.ID]" }
                " in wharf.toml."
            }
        } @else { (listing("Schedules", &columns, &rows)) }
        (pager(uri.query().map(|_| "?"), found.next.as_deref(), "Next"))
        (suggested)
    };
    let frame = Frame { title: "Schedules", section: Section::Schedules, live: Some("live/health".into()) };
    Ok(page(&visitor, &frame, &main))
}

fn row(visitor: &Visitor, schedule: &Schedule) -> Markup {
    let last = schedule.recent.first();
    html! {
        tr {
            td class="c-state" { (badge(schedule)) }
            td class="grow" {
                a class="job" href=(visitor.link(&format!("schedules/{}", encode(&schedule.id)))) { (line(&schedule.id)) }
                span class="why" { (line(&schedule.task)) }
                span class="under" { (line(&when(schedule))) }
            }
            td class="c-ran mono" { (line(&when(schedule))) }
            td class="num" {
                @match schedule.next.first() {
                    Some(next) => span title=(line(&next.local)) { (ago(next.at, visitor.now)) },
                    None => "–",
                }
            }
            td class="num c-waited" {
                @match last {
                    Some(tick) if tick.outcome == TickOutcome::Fired => (ago(tick.tick, visitor.now)),
                    Some(tick) => { (state("retrying", &tick.outcome.to_string())) " " (ago(tick.tick, visitor.now)) }
                    None => "–",
                }
            }
            td class="num c-tries" { (count(schedule.ticks.fired)) }
            td class="num c-key" { (count(schedule.ticks.missed)) }
        }
    }
}

fn badge(schedule: &Schedule) -> Markup {
    match schedule.state {
        ScheduleState::Active => state("succeeded", "active"),
        ScheduleState::Paused => state("held", "paused"),
        ScheduleState::Retired => state("cancelled", "retired"),
    }
}

/// Returns the times of a schedule as its author wrote them.
fn when(schedule: &Schedule) -> String {
    match (&schedule.cron, &schedule.zone, schedule.every_ms) {
        (Some(cron), Some(zone), _) => format!("{cron} {zone}"),
        (_, _, Some(ms)) => format!("every {}", HumanDuration(Duration::from_millis(ms as u64))),
        _ => "–".to_owned(),
    }
}

/// Number of searches for the jobs of a schedule's last ticks. One search ends before all are found where many jobs are looked at.
const SEARCHES_MAX: usize = 4;

/// A schedule as its page shows it, with the jobs of its last ticks that are not deleted.
pub(super) struct SeenSchedule {
    schedule: Schedule,
    jobs: Vec<Job>,
    /// True if the search for the jobs came to its end, so that a job that was not found is deleted.
    is_searched: bool,
}

/// Reads a schedule, and the jobs of its last ticks.
///
/// # Errors
/// If there is no such schedule, or the store failed.
pub(super) async fn read(host: &Host, id: &str) -> Result<SeenSchedule, Problem> {
    let schedule = schedules::read(host, id).await?;
    let ids: Vec<&str> = schedule.recent.iter().filter_map(|tick| tick.job.as_deref()).collect();
    if ids.is_empty() {
        return Ok(SeenSchedule { schedule, jobs: Vec::new(), is_searched: true });
    }
    let query = Arc::new(filter::parse("ids", &format!("id:{}", ids.join(",")), host.now())?);
    let (mut jobs, mut after, mut is_searched): (Vec<Job>, _, _) = (Vec::new(), None, false);
    for _ in 0..SEARCHES_MAX {
        let max = bounds::SCHEDULE_TICKS_KEPT as u32;
        let found = host.find(Arc::clone(&query), JobOrder::Newest, after, max).await?;
        jobs.extend(found.jobs.iter().map(Job::in_list));
        after = found.next;
        is_searched = after.is_none();
        if is_searched || jobs.len() >= ids.len() {
            break;
        }
    }
    Ok(SeenSchedule { schedule, jobs, is_searched })
}

/// Shows one schedule.
pub(super) async fn show(State(host): State<Host>, visitor: Visitor, PagePath(id): PagePath<String>) -> Answer {
    let seen = read(&host, &id).await?;
    let schedule = &seen.schedule;
    let main = html! {
        // The form of a pause stands outside of the part that is sent again: what is typed there stays.
        div id="schedule" { (content(&visitor, &seen)) }
        @if visitor.may_operate() && schedule.state == ScheduleState::Active { (pause_form(&visitor, schedule)) }
    };
    let title = format!("Schedule {}", schedule.id);
    let live = Some(format!("live/schedules/{}", encode(&schedule.id)));
    Ok(page(&visitor, &Frame { title: &title, section: Section::Schedules, live }, &main))
}

/// Returns the content of the page of a schedule.
pub(super) fn content(visitor: &Visitor, seen: &SeenSchedule) -> Markup {
    let schedule = &seen.schedule;
    let own = format!("schedules/{}", encode(&schedule.id));
    html! {
        div class="head" {
            (badge(schedule)) h1 { (line(&schedule.id)) } span class="mono dim" { (line(&when(schedule))) }
            @if visitor.may_operate() && schedule.state != ScheduleState::Retired {
                div class="acts" {
                    @if schedule.state == ScheduleState::Paused {
                        (act(visitor, &format!("{own}/resume"), "", html! { "Resume" }, &[]))
                    }
                    (act(visitor, &format!("{own}/run"), "primary", html! { "Run now" }, &[]))
                }
            }
        }
        @if let Some(pause) = &schedule.pause {
            div class="say retrying" {
                p {
                    strong { "Paused " (ago(pause.since, visitor.now)) }
                    @if let Some(by) = &pause.by { " by " (line(by)) }
                    @if let Some(until) = pause.until { " until " (full(until)) " UTC" }
                    @if !pause.reason.is_empty() { ": " (line(&pause.reason)) }
                    @else { "." }
                }
            }
        }
        @if let Some(at) = schedule.retired_at {
            div class="say" { p { "No host's settings file has it any more, as of " (ago(at, visitor.now)) "." } }
        }
        (facts(visitor, schedule))
        div class="cols" {
            section {
                header { h2 { "Next" } @if let Some(zone) = &schedule.zone { span class="dim" { (line(zone)) } } }
                (next(visitor, schedule))
            }
            section { header { h2 { "Last ticks" } } (recent(visitor, seen)) }
        }
        @if let Some(payload) = &schedule.payload {
            section {
                header { h2 { "Payload of its jobs" } }
                pre tabindex="0" role="region" aria-label="Payload of its jobs" { (json(&spread(payload.get()))) }
            }
        }
        @if schedule.payload_base64.is_some() { p class="note" { "The payload of its jobs is bytes that are not JSON." } }
    }
}

fn facts(visitor: &Visitor, schedule: &Schedule) -> Markup {
    let ticks = &schedule.ticks;
    html! {
        dl class="facts" {
            div {
                dt { "Task" }
                dd { a href=(visitor.link(&format!("jobs?where=task:{}", encode(&schedule.task)))) { (line(&schedule.task)) } }
            }
            @if let Some(key) = &schedule.key { div { dt { "Key" } dd { (line(key)) } } }
            @if schedule.priority != 0 { div { dt { "Priority" } dd { (schedule.priority) } } }
            div { dt { "Fired" } dd { (count(ticks.fired)) } }
            div { dt { "Missed" } dd { (count(ticks.missed)) } }
            div { dt { "Skipped" } dd { (count(ticks.skipped)) } }
            div { dt { "Catches up" } dd { (schedule.missed.to_string()) ", within " (brief(schedule.window_ms)) } }
            div { dt { "Overlap" } dd { (schedule.overlap.to_string()) } }
            @if schedule.spread_ms > 0.0 { div { dt { "Spread over" } dd { (brief(schedule.spread_ms)) } } }
            @if let Some(after) = schedule.pause_after {
                div { dt { "Pauses" } dd { "after " (after) " failures in a row; " (schedule.failures) " so far" } }
            }
            div { dt { "Defined" } dd { (ago(schedule.changed_at, visitor.now)) @if let Some(by) = &schedule.author { " by " (line(by)) } } }
            div { dt { "In" } dd { @match schedule.source == ScheduleSource::File { true => "wharf.toml", false => "the store" } } }
        }
    }
}

fn next(visitor: &Visitor, schedule: &Schedule) -> Markup {
    let rows = html! {
        @for next in &schedule.next {
            tr {
                td class="grow mono" {
                    (line(&next.local.replacen('T', " ", 1)))
                    @match next.change {
                        Some(ClockChange::Skipped) => span class="why" { "the clock skips its time" },
                        Some(ClockChange::Repeated) => span class="why" { "the clock shows its time twice" },
                        None => {}
                    }
                }
                td class="num" { (ago(next.at, visitor.now)) }
            }
        }
    };
    html! {
        @if schedule.next.is_empty() {
            p class="note" {
                @match schedule.state {
                    ScheduleState::Paused => "None until it is resumed.",
                    ScheduleState::Active | ScheduleState::Retired => "It does not come again as things stand.",
                }
            }
        }
        @else { (bare_listing("Next moments", &[("grow", "At"), ("num", "Comes")], &rows)) }
        @if let Some(version) = &schedule.zones_version {
            p class="note" { "Where the clock changes: " (CLOCK_LAW.replace('`', "")) ". Zones of IANA " (line(version)) "." }
        }
    }
}

fn recent(visitor: &Visitor, seen: &SeenSchedule) -> Markup {
    let schedule = &seen.schedule;
    let job_of = |id: &str| seen.jobs.iter().find(|job| job.id == id);
    let rows = html! {
        @for tick in &schedule.recent {
            tr {
                td class="c-state" {
                    (state(if tick.outcome == TickOutcome::Fired { "succeeded" } else { "retrying" }, &tick.outcome.to_string()))
                }
                td class="grow" {
                    @match tick.job.as_deref().map(|id| (id, job_of(id))) {
                        Some((id, Some(job))) => {
                            @let (class, word) = look(job);
                            a class="mono" href=(visitor.link(&format!("jobs/{id}"))) { (id) }
                            " "
                            (state(class, word))
                        }
                        Some((id, None)) if seen.is_searched => {
                            span class="mono" { (id) }
                            " "
                            span class="dim" { "deleted" }
                        }
                        Some((id, None)) => a class="mono" href=(visitor.link(&format!("jobs/{id}"))) { (id) },
                        None => {}
                    }
                    @if tick.count > 1 { span class="why" { (count(tick.count)) " ticks" } }
                    @if !tick.reason.is_empty() { span class="why" title=(line(&tick.reason)) { (line(&tick.reason)) } }
                    @if tick.outcome != TickOutcome::Fired {
                        span class="under" {
                            (tick.outcome.to_string())
                            @if tick.count > 1 { " · " (count(tick.count)) " ticks" }
                            @if !tick.reason.is_empty() { " · " (line(&tick.reason)) }
                        }
                    }
                }
                td class="num" { (ago(tick.tick, visitor.now)) }
            }
        }
    };
    html! {
        @if schedule.recent.is_empty() { p class="note" { "None yet." } }
        @else { (bare_listing("Last ticks", &[("", "Outcome"), ("grow", "Job"), ("num", "Tick")], &rows)) }
    }
}

fn pause_form(visitor: &Visitor, schedule: &Schedule) -> Markup {
    html! {
        section id="pause" {
            header { h2 { "Pause" } span class="dim" { "its ticks are skipped; jobs that it has enqueued go on" } }
            form class="fields" method="post" action=(visitor.link(&format!("schedules/{}/pause", encode(&schedule.id)))) {
                (marks(visitor))
                div class="row" {
                    label class="field" {
                        span { "For" }
                        input type="text" name="for" placeholder="until resumed, or 2h" autocomplete="off";
                    }
                    label class="field grow" {
                        span { "Why" }
                        input type="text" name="reason" maxlength=(bounds::HOLD_REASON_BYTES_MAX) autocomplete="off";
                    }
                    button { "Pause" }
                }
            }
        }
    }
}

/// Enqueues a job of a schedule at once, and leads to it.
pub(super) async fn run(State(host): State<Host>, visitor: Visitor, PagePath(id): PagePath<String>) -> Answer {
    let job = schedules::run_now(&host, &visitor.access()?, &id, visitor.author.clone()).await?;
    Ok(lead_to(&visitor, &format!("jobs/{job}")))
}

/// Pauses a schedule.
pub(super) async fn pause(
    State(host): State<Host>,
    visitor: Visitor,
    PagePath(id): PagePath<String>,
    form: Form,
) -> Answer {
    let length = length::end(None, form.get("for"))?;
    let reason: HoldReason = form.parsed("reason")?;
    schedules::pause_for(&host, &id, (length, reason), visitor.author.clone()).await?;
    Ok(lead_to(&visitor, &address(&id)))
}

/// Ends the pause of a schedule.
pub(super) async fn resume(State(host): State<Host>, visitor: Visitor, PagePath(id): PagePath<String>) -> Answer {
    schedules::resume_now(&host, &id, visitor.author.clone()).await?;
    Ok(lead_to(&visitor, &address(&id)))
}

fn address(id: &str) -> String {
    format!("schedules/{}", encode(id))
}
