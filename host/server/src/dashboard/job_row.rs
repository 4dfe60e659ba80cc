//! One job as a row of a table.

use maud::{Markup, html};
use wharf_core::time::Timestamp;

use crate::http::api::{Job, JobState};

use super::layout::state;
use super::text::{ago, brief, first_line, line, relative};
use super::visitor::Visitor;

/// The longest reason in a row, in characters.
const REASON_CHARS_MAX: usize = 160;

/// Returns the class and the word of a job's state: those that wait for another attempt are told apart.
pub(super) fn look(job: &Job) -> (&'static str, &'static str) {
    match job.state {
        JobState::Waiting if job.failures + job.crashes > 0 => ("retrying", "retrying"),
        JobState::Waiting => ("waiting", "waiting"),
        JobState::Running if job.cancel_requested => ("running", "ending"),
        JobState::Running => ("running", "running"),
        JobState::Succeeded => ("succeeded", "succeeded"),
        JobState::Failed => ("failed", "failed"),
        JobState::Cancelled => ("cancelled", "cancelled"),
    }
}

/// Returns the few words behind a job's task: what went wrong, or when it is due.
fn reason(job: &Job, now: Timestamp) -> String {
    let due = job.due_at.filter(|due| due.0 > now).map(|due| format!("due {}", relative(due.0, now)));
    match (&due, job.state, &job.report) {
        (Some(due), JobState::Waiting, Some(report)) => {
            format!("{due}: {}", first_line(&report.text, REASON_CHARS_MAX))
        }
        (Some(due), ..) => due.clone(),
        (None, JobState::Succeeded | JobState::Running, _) | (None, _, None) => String::new(),
        (None, _, Some(report)) => first_line(&report.text, REASON_CHARS_MAX),
    }
}

/// Returns the headings of a table of jobs.
pub(super) fn headings(selects: bool) -> Markup {
    html! {
        thead { tr {
            @if selects { th class="pick" { input type="checkbox" id="all" aria-label="Select all on this page"; } }
            th scope="col" { "State" }
            th scope="col" class="grow" { "Task" }
            th scope="col" class="c-key" { "Key" }
            th scope="col" class="c-id" { "Id" }
            th scope="col" class="num c-tries" { "Attempt" }
            th scope="col" class="num c-waited" { "Waited" }
            th scope="col" class="num c-ran" { "Ran" }
            th scope="col" class="num c-guest" { "CPU" }
            th scope="col" class="num" { "Last" }
        } }
    }
}

/// Returns the row of a job.
pub(super) fn row(visitor: &Visitor, job: &Job, selects: bool) -> Markup {
    let (class, word) = look(job);
    let now = visitor.now;
    let reason = reason(job, now);
    let key = job.key.as_deref().map(line);
    let last = job.finished_at.or(job.started_at).unwrap_or(job.enqueued_at);
    let usage = |of: fn(&crate::http::api::Usage) -> f64| job.usage.as_ref().map(of);
    let waits = job.started_at.is_none() && job.state == JobState::Waiting;
    let waited = if waits { Some(millis(job.enqueued_at.0, now)) } else { usage(|usage| usage.queue_wait_ms) };
    let runs = job.started_at.filter(|_| job.state == JobState::Running);
    let ran = runs.map(|started| millis(started.0, now)).or_else(|| usage(|usage| usage.wall_ms));
    let number = |ms: Option<f64>| html! { @match ms { Some(ms) => (brief(ms)), None => span class="dim" { "–" } } };
    html! {
        tr id={ "j" (job.id) } {
            @if selects {
                td class="pick" { input type="checkbox" name="id" value=(job.id) aria-label={ "Select " (job.id) }; }
            }
            td class="c-state" { (state(class, word)) }
            td class="grow" {
                a class="job" href=(visitor.link(&format!("jobs/{}", job.id))) { (line(&job.task)) }
                span class="why" { (reason) }
                span class="under" {
                    (word)
                    @if let Some(key) = &key { " · " (key) }
                    @if !reason.is_empty() { " · " (reason) }
                }
            }
            td class="c-key" { @if let Some(key) = &key { span class="key" { (key) } } }
            td class="c-id mono dim" { (job.id) }
            td class="num c-tries" { (job.attempt) }
            td class="num c-waited" { (number(waited)) }
            td class="num c-ran" { (number(ran)) }
            td class="num c-guest" { (number(usage(|usage| usage.cpu_ms))) }
            td class="num" { (ago(last, now)) }
        }
    }
}

fn millis(from: Timestamp, to: Timestamp) -> f64 {
    to.since(from).as_secs_f64() * 1000.0
}
