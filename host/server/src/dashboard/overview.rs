//! The overview: how it goes, what needs attention, what each task does.

use std::sync::Arc;

use axum::extract::State;
use maud::{Markup, html};
use wharf_runner::Host;

use crate::http::api::{Failure, Hold, Quantiles, Summary, TaskSummary, WaitCounts};
use crate::http::encode;

use super::answer::{Answer, lead_to};
use super::chart::{Line, chart};
use super::entry::Dashboard;
use super::layout::{Frame, Section, page, shape, state};
use super::pulse::{Known, Pulse};
use super::text::{ago, brief, count, counted, first_line, line, size};
use super::verdict::last;
use super::visitor::Visitor;

/// The number of rows that the list of what needs attention shows of one kind.
const ATTENTION: usize = 5;
/// The number of tasks that are shown.
const TASKS: usize = 50;

/// Shows the overview. Who may not see all jobs is led to their own.
pub(super) async fn show(State(dashboard): State<Dashboard>, visitor: Visitor) -> Answer {
    if !visitor.sees_all() {
        return Ok(lead_to(&visitor, "jobs"));
    }
    let main = html! { div id="overview" { (content(&visitor, &dashboard.app.host, &dashboard.pulse)) } };
    Ok(page(
        &visitor,
        &Frame { title: "Overview", section: Section::Overview, live: Some("live/overview".into()) },
        &main,
    ))
}

/// Returns the content of the overview.
pub(super) fn content(visitor: &Visitor, host: &Host, pulse: &Arc<Pulse>) -> Markup {
    let known = visitor.reading.as_ref().and_then(|reading| reading.known.as_ref());
    let Some(known) = known else {
        return html! { div class="head" { h1 { "Overview" } } p class="empty" { "The numbers are not known at the moment." } };
    };
    let samples = pulse.samples();
    html! {
        div class="head" { h1 { "Overview" } span class="dim" { "all hosts" } }
        (numbers(&known.summary))
        div class="charts" {
            (chart("ended", "Attempts a minute", &samples, &[
                Line { class: "running", name: "started", of: |sample| sample.started },
                Line { class: "succeeded", name: "returned", of: |sample| Some(sample.ended?.saturating_sub(sample.failed?)) },
                Line { class: "failed", name: "failed", of: |sample| sample.failed },
            ]))
            (chart("jobs", "Jobs", &samples, &[
                Line { class: "running", name: "running", of: |sample| Some(sample.running) },
                Line { class: "waiting", name: "waiting", of: |sample| Some(sample.waiting) },
            ]))
        }
        (attention(visitor, host, known))
        (tasks(visitor, &known.summary))
        (keys(visitor, &known.summary))
    }
}

fn numbers(summary: &Summary) -> Markup {
    let sum = |of: fn(&crate::http::api::TaskSummary) -> u64| summary.tasks.iter().map(of).sum::<u64>();
    let ended = summary.tasks.iter().filter_map(|task| task.minute.as_ref()).map(|minute| minute.ended).sum::<u64>();
    let started = summary.tasks.iter().filter_map(|task| task.started).sum::<u64>();
    let hour = || summary.tasks.iter().filter_map(|task| task.hour.as_ref());
    let is_known = summary.covers_s.is_some_and(|covers| covers >= 60);
    let (failed, cpu) = (hour().map(|hour| hour.failed).sum::<u64>(), hour().map(|hour| hour.cpu_ms).sum::<f64>());
    let span = summary.covers_s.filter(|covers| (60..3600).contains(covers)).map_or("1 h".to_owned(), last);
    let oldest_ready = summary.tasks.iter().filter_map(|task| task.oldest_ready_ms).max_by(f64::total_cmp);
    let unless_unknown = |text: String| if is_known { text } else { "–".to_owned() };
    let numbers = [
        ("Running".to_owned(), count(sum(|task| task.running))),
        ("Waiting".to_owned(), count(sum(|task| task.waiting))),
        ("Longest ready".to_owned(), oldest_ready.map_or_else(|| "–".to_owned(), brief)),
        (
            "Started, ended /s".to_owned(),
            unless_unknown(format!("{:.1}, {:.1}", started as f64 / 60.0, ended as f64 / 60.0)),
        ),
        (format!("Failed, {span}"), unless_unknown(count(failed))),
        (format!("CPU, {span}"), unless_unknown(brief(cpu))),
    ];
    html! { dl class="numbers six" { @for (name, value) in numbers { div { dt { (name) } dd { (value) } } } } }
}

fn attention(visitor: &Visitor, host: &Host, known: &Known) -> Markup {
    let catalog = host.catalog();
    let refused: Vec<_> = catalog.refused().values().collect();
    let is_calm = known.failures.is_empty() && known.holds.is_empty() && refused.is_empty();
    html! {
        section {
            header { h2 { "Needs attention" } }
            @if is_calm { p class="note" { "Nothing: no open failures, no holds, no refused plugins." } }
            @else {
                ul class="attention" {
                    @for failure in known.failures.iter().take(ATTENTION) { (failure_item(visitor, failure)) }
                    @for hold in known.holds.iter().take(ATTENTION) { (hold_item(visitor, hold)) }
                    @for refused in refused.iter().take(ATTENTION) {
                        li {
                            (state("failed", "refused"))
                            @match &refused.plugin {
                                Some(id) => a href=(visitor.link(&format!("plugins/{id}"))) { (line(&id.to_string())) },
                                None => a href=(visitor.link("plugins")) { (line(&refused.file.display().to_string())) },
                            }
                            span class="why" { (first_line(&refused.why.first_line(), 160)) }
                        }
                    }
                }
                @if known.failures.len() > ATTENTION {
                    p class="note" { a href=(visitor.link("failures?state=open")) { "All open failures" } }
                }
            }
        }
    }
}

fn failure_item(visitor: &Visitor, failure: &Failure) -> Markup {
    html! {
        li {
            (state("failed", "fails"))
            a href=(visitor.link(&format!("failures/{}", encode(&failure.fingerprint)))) { (line(&failure.task)) }
            span class="why" { (first_line(&failure.message, 160)) }
            span class="n" {
                (counted(failure.count, "failure", "failures"))
                ", last "
                (ago(failure.last_seen_at, visitor.now))
            }
        }
    }
}

fn hold_item(visitor: &Visitor, hold: &Hold) -> Markup {
    html! {
        li {
            (state("held", "held"))
            a href=(visitor.link("limits#holds")) { (line(&hold.what().replace('`', ""))) }
            span class="why" { (line(&hold.reason)) }
            span class="n" { "since " (ago(hold.since, visitor.now)) }
        }
    }
}

/// Returns why the jobs of a task wait, as in "3 ready, the oldest for 2 m, 10+ held".
fn waits(task: &TaskSummary) -> String {
    let WaitCounts { ready, blocked, held, delayed, retrying, more } = task.waits;
    let more = if more { "+" } else { "" };
    let oldest = task.oldest_ready_ms.map_or(String::new(), |ms| format!(", the oldest for {}", brief(ms)));
    let each = [
        (ready, "ready", oldest),
        (blocked, "blocked", String::new()),
        (held, "held", String::new()),
        (delayed, "delayed", String::new()),
        (retrying, "retrying", String::new()),
    ];
    let each = each.into_iter().filter(|(number, ..)| *number > 0);
    each.map(|(number, kind, rest)| format!("{}{more} {kind}{rest}", count(number))).collect::<Vec<_>>().join(", ")
}

fn tasks(visitor: &Visitor, summary: &Summary) -> Markup {
    let number =
        |value: Option<u64>| html! { @match value { Some(value) => (count(value)), None => span class="dim" { "–" } } };
    let quantiles = |of: &Option<Quantiles>| {
        html! {
            @match of { Some(of) => { (brief(of.p50_ms)) span class="dim" { " · " (brief(of.p99_ms)) } }, None => span class="dim" { "–" } }
        }
    };
    html! {
        section {
            header { h2 { "Tasks" } span class="dim" { "the last hour; p50 · p99" } }
            div class="scroll" tabindex="0" role="region" aria-label="Tasks" {
                table class="rows" {
                    caption class="vh" { "Tasks" }
                    thead { tr {
                        th scope="col" class="grow" { "Task" }
                        th scope="col" class="num" { "Running" }
                        th scope="col" class="num" { "Waiting" }
                        th scope="col" class="num c-tries" { "Ended" }
                        th scope="col" class="num" { "Failed" }
                        th scope="col" class="num c-waited" { "Waited" }
                        th scope="col" class="num c-ran" { "Ran" }
                        th scope="col" class="num c-guest" { "CPU" }
                        th scope="col" class="num c-id" { "Peak memory" }
                    } }
                    tbody {
                        @for task in summary.tasks.iter().take(TASKS) {
                            @let hour = task.hour.as_ref();
                            @let has_failed = hour.is_some_and(|hour| hour.failed > 0);
                            tr {
                                td class="grow" {
                                    a class="job" href=(visitor.link(&format!("jobs?where=task:{}", encode(&task.task)))) {
                                        (line(&task.task))
                                    }
                                    @if task.held { span class="why" { "held" } }
                                    @if task.waiting > 0 { span class="why" { (waits(task)) } span class="under" { (waits(task)) } }
                                }
                                td class="num" { (count(task.running)) }
                                td class="num" { (count(task.waiting)) }
                                td class="num c-tries" { (number(hour.map(|hour| hour.ended))) }
                                td class="num" {
                                    @if has_failed {
                                        a class="bad" href=(visitor.link(&format!("failures?task={}", encode(&task.task)))) {
                                            (shape("failed"))
                                            " "
                                            (number(hour.map(|hour| hour.failed)))
                                        }
                                    }
                                    @else { (number(hour.map(|hour| hour.failed))) }
                                }
                                td class="num c-waited" { (quantiles(&task.wait)) }
                                td class="num c-ran" { (quantiles(&task.run)) }
                                td class="num c-guest" {
                                    @match hour { Some(hour) => (brief(hour.cpu_ms)), None => span class="dim" { "–" } }
                                }
                                td class="num c-id" {
                                    @match hour { Some(hour) => (size(hour.memory_peak_bytes)), None => span class="dim" { "–" } }
                                }
                            }
                        }
                    }
                }
            }
            @if summary.tasks.is_empty() {
                p class="empty" { "No task has run yet." @if visitor.may_enqueue() { " " a href=(visitor.link("run")) { "Run one by hand" } "." } }
            }
            @if summary.more || summary.tasks.len() > TASKS {
                p class="note" { "More tasks than these exist; those that used the most processor time are first." }
            }
        }
    }
}

fn keys(visitor: &Visitor, summary: &Summary) -> Markup {
    let keys = summary.keys.as_deref().unwrap_or_default();
    html! {
        @if !keys.is_empty() {
            section {
                header { h2 { "Keys that used the most" } span class="dim" { "guest time, last half hour to hour" } }
                dl class="bill narrow" {
                    @for key in keys {
                        dt { a href=(visitor.link(&format!("jobs?key={}", encode(&key.key)))) { (line(&key.key)) } }
                        dd {
                            (brief(key.cpu_ms))
                            @if key.error_ms > 0.0 { span class="dim" { " or " (brief(key.error_ms)) " less" } }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_says_why_its_jobs_wait() {
        let said = |counts, oldest_ready_ms| {
            let task = "a/b".to_owned();
            let (started, minute, hour, wait, run) = (None, None, None, None, None);
            waits(&TaskSummary {
                task,
                waiting: 9,
                waits: counts,
                oldest_ready_ms,
                running: 0,
                held: false,
                started,
                minute,
                hour,
                wait,
                run,
            })
        };
        let counts = WaitCounts { ready: 3, blocked: 0, held: 10, delayed: 0, retrying: 0, more: true };
        assert_eq!(said(counts, Some(120_000.0)), "3+ ready, the oldest for 2 m, 10+ held");
    }
}
