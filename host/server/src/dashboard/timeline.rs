//! The attempts of a job on one scale of time: when each waited and ran.

use maud::{Markup, html};
use wharf_core::time::Timestamp;

use crate::http::api::{AttemptList, Job, JobState};

use super::text::{brief, clock, first_line, line};

/// The width of the scale.
const WIDTH: f64 = 1000.0;
/// The least width of what ran: shorter times would not be seen.
const RAN_MIN: f64 = 6.0;

/// One attempt.
struct Span {
    number: u32,
    class: &'static str,
    waited_from: Timestamp,
    began: Option<Timestamp>,
    ended: Timestamp,
    outcome: String,
    summary: String,
    origin: String,
}

/// Returns the table of attempts; `None` if there was none.
pub(super) fn timeline(job: &Job, attempts: &AttemptList, now: Timestamp) -> Option<Markup> {
    let spans = spans(job, attempts, now);
    let first = spans.first()?.waited_from;
    let last = spans.iter().map(|span| span.ended).max().unwrap_or(first);
    let total = last.since(first).as_secs_f64().max(0.000_001);
    let place = |at: Timestamp| at.since(first).as_secs_f64() / total * WIDTH;
    let length = |from: Timestamp, to: Timestamp| brief(to.since(from).as_secs_f64() * 1000.0);
    Some(html! {
        section {
            header { h2 { "Timeline" } span class="dim" { (length(first, last)) " in all" } }
            @if attempts.left_out > 0 { p class="note" { (attempts.left_out) " attempts between these are not kept." } }
            div class="scroll" tabindex="0" role="region" aria-label="Attempts" {
                table class="way-table" {
                    caption class="vh" { "Attempts" }
                    thead { tr {
                        th scope="col" class="num" { "No" }
                        th scope="col" { span class="vh" { "When" } }
                        th scope="col" class="num" { "Waited" }
                        th scope="col" class="num c-ran" { "Ran" }
                        th scope="col" { "Outcome" }
                    } }
                    tbody {
                        @for span in &spans {
                            @let began = span.began.unwrap_or(span.ended);
                            @let width = (place(span.ended) - place(began)).max(RAN_MIN);
                            @let x = place(began).min(WIDTH - width);
                            tr class=(span.class) title={ (clock(crate::http::api::Moment(began))) " UTC" @if !span.origin.is_empty() { ", " (span.origin) } } {
                                td class="num" { (span.number) }
                                td class="bar" {
                                    svg class="way" viewBox="0 0 1000 14" preserveAspectRatio="none" aria-hidden="true" {
                                        rect class="wait" x=(tenths(place(span.waited_from))) y="5" width=(tenths((x - place(span.waited_from)).max(0.0))) height="4" {}
                                        rect class="ran" x=(tenths(x)) y="1" width=(tenths(width)) height="12" {}
                                    }
                                }
                                td class="num" { (length(span.waited_from, began)) }
                                td class="num c-ran" {
                                    @if span.began.is_some() { (length(began, span.ended)) } @else { "–" }
                                }
                                td class="outcome" { (span.outcome) span class="why" { (span.summary) } }
                            }
                        }
                    }
                }
            }
        }
    })
}

fn tenths(number: f64) -> String {
    format!("{number:.1}")
}

fn spans(job: &Job, attempts: &AttemptList, now: Timestamp) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut free = job.enqueued_at.0;
    for attempt in &attempts.attempts {
        let outcome = attempt.outcome.to_string();
        let (version, host) = (attempt.plugin_version.as_deref(), attempt.node_name.as_deref());
        let origin = [
            version.map(|version| format!("version {}", line(version))),
            host.map(|host| format!("on {}", line(host))),
        ];
        spans.push(Span {
            number: attempt.number,
            class: if outcome == "cancelled" || outcome == "interrupted" { "cancelled" } else { "failed" },
            waited_from: free,
            began: attempt.started_at.map(|started| started.0),
            ended: attempt.ended_at.0,
            outcome,
            summary: first_line(&attempt.summary, 100),
            origin: origin.into_iter().flatten().collect::<Vec<_>>().join(" "),
        });
        free = attempt.ended_at.0;
    }
    let last = attempts.attempts.last().map_or(0, |attempt| attempt.number);
    // The attempt that runs, or that returned, is in no list of those that ended without a result.
    let current = match job.state {
        JobState::Running => Some(("running", now, "running")),
        JobState::Succeeded => Some(("succeeded", job.finished_at.map_or(now, |at| at.0), "returned")),
        _ => None,
    };
    if let (Some((class, ended, outcome)), Some(started)) = (current, job.started_at)
        && job.attempt > last
    {
        let (summary, origin) = (String::new(), String::new());
        let (number, began) = (job.attempt, Some(started.0));
        spans.push(Span { number, class, waited_from: free, began, ended, outcome: outcome.into(), summary, origin });
    } else if job.state == JobState::Waiting {
        let outcome = if spans.is_empty() { "waits" } else { "waits for its next attempt" }.to_owned();
        let (number, summary, origin) = (job.attempt + 1, String::new(), String::new());
        spans.push(Span {
            number,
            class: "waiting",
            waited_from: free,
            began: None,
            ended: now,
            outcome,
            summary,
            origin,
        });
    }
    spans
}
