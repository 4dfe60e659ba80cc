//! Operations on many jobs: how far they are, and stopping one.

use axum::extract::State;
use axum::http::Uri;
use maud::{Markup, html};
use wharf_core::bulk::BulkOperation as CoreOperation;
use wharf_runner::Host;

use crate::http::api::{BulkOperation, OperationState};
use crate::http::{encode, operations};

use super::answer::{Answer, lead_to};
use super::layout::{Frame, Section, act, page, state};
use super::listing::{Column, listing, pager};
use super::page_path::PagePath;
use super::text::{ago, brief, count, line};
use super::visitor::Visitor;

/// The columns of the list.
const COLUMNS: [Column; 6] = [
    ("", "State"),
    ("grow", "Operation"),
    ("num", "Changed"),
    ("num c-waited", "Skipped"),
    ("c-key", "By"),
    ("num", "Begun"),
];

/// Lists operations.
pub(super) async fn list(State(host): State<Host>, visitor: Visitor, uri: Uri) -> Answer {
    let found = operations::page(&host, &uri).await?;
    let main = html! {
        div class="head" { h1 { "Operations" } span class="dim" { "one act on many jobs" } }
        (listing("Operations, the newest first", &COLUMNS, &html! { @for operation in &found.operations { (row(&visitor, operation)) } }))
        @if found.operations.is_empty() {
            p class="empty" {
                "None yet. Select rows of the "
                a href=(visitor.link("jobs")) { "jobs" }
                ", or all that match a filter."
            }
        }
        (pager(None, found.next.as_deref(), "Older"))
    };
    let frame = Frame { title: "Operations", section: Section::Operations, live: Some("live/health".into()) };
    Ok(page(&visitor, &frame, &main))
}

fn row(visitor: &Visitor, operation: &BulkOperation) -> Markup {
    html! {
        tr {
            td class="c-state" { (badge(operation)) }
            td class="grow" {
                a class="job" href=(visitor.link(&format!("operations/{}", operation.id))) { (name(operation)) }
                span class="why" { (line(&operation.filter)) }
                span class="under" { (line(&operation.filter)) }
            }
            td class="num" { (count(operation.changed)) }
            td class="num c-waited" { (count(operation.skipped)) }
            td class="c-key" { (operation.author.as_deref().map(line).unwrap_or("–".into())) }
            td class="num" { (ago(operation.created_at, visitor.now)) }
        }
    }
}

fn name(operation: &BulkOperation) -> &'static str {
    match serde_json::to_value(operation.act).ok().as_ref().and_then(|act| act.as_str()) {
        Some("retry") => "Retry",
        Some("cancel") => "Cancel",
        Some("delete") => "Delete",
        Some("set-priority") => "Set priority",
        _ => "Run now",
    }
}

fn badge(operation: &BulkOperation) -> Markup {
    match operation.state {
        OperationState::Trying => state("running", "trying"),
        OperationState::Running => state("running", "running"),
        OperationState::Halted => state("failed", "halted"),
        OperationState::Done => state("succeeded", "done"),
        OperationState::Cancelled => state("cancelled", "cancelled"),
    }
}

/// Shows one operation.
pub(super) async fn show(State(host): State<Host>, visitor: Visitor, PagePath(id): PagePath<String>) -> Answer {
    let operation = operations::read(&host, &id).await?;
    let live = if operation.state.is_final() {
        "live/health?depth=2".to_owned()
    } else {
        format!("live/operations/{}", operation.id)
    };
    let main = html! { div id="operation" { (content(&visitor, &operation)) } };
    Ok(page(&visitor, &Frame { title: "Operation", section: Section::Operations, live: Some(live) }, &main))
}

/// Returns the content of the page of an operation.
pub(super) fn content(visitor: &Visitor, operation: &CoreOperation) -> Markup {
    let is_open = !operation.state.is_final();
    let operation = &BulkOperation::from(operation);
    html! {
        div class="head" {
            (badge(operation)) h1 { (name(operation)) } span class="mono dim" { (operation.id) }
            @if is_open && visitor.may_operate() {
                div class="acts" {
                    (act(visitor, &format!("operations/{}/cancel", operation.id), "danger", html! { "Stop" }, &[]))
                }
            }
        }
        dl class="numbers" {
            div { dt { "Changed" } dd { (count(operation.changed)) } }
            div { dt { "Skipped" } dd { (count(operation.skipped)) } }
        }
        @if let Some(reason) = &operation.reason {
            div class="say failed" { p { strong { "Halted: " } (line(reason)) } }
        }
        dl class="facts" {
            div { dt { "Begun" } dd { (ago(operation.created_at, visitor.now)) } }
            @if let Some(ended) = operation.ended_at { div { dt { "Ended" } dd { (ago(ended, visitor.now)) } } }
            @if let Some(author) = &operation.author { div { dt { "By" } dd { (line(author)) } } }
            @if let Some(jobs) = operation.r#try { div { dt { "Tried first" } dd { (jobs) } } }
            @if let Some(spread) = operation.spread_ms { div { dt { "Spread over" } dd { (brief(spread)) } } }
        }
        section {
            header {
                h2 { "Filter" }
                a class="dim" href=(visitor.link(&format!("jobs?where={}", encode(&operation.filter)))) {
                    "jobs that match now"
                }
            }
            pre tabindex="0" role="region" aria-label="Filter" { (line(&operation.filter)) }
        }
        @if !operation.tried.is_empty() {
            section {
                header { h2 { "Jobs that were tried first" } }
                p class="note chips" {
                    @for job in &operation.tried {
                        a class="chip" href=(visitor.link(&format!("jobs/{job}"))) { (job) }
                        " "
                    }
                }
            }
        }
    }
}

/// Stops an operation before its next step.
pub(super) async fn cancel(State(host): State<Host>, visitor: Visitor, PagePath(id): PagePath<String>) -> Answer {
    operations::stop(&host, &id, visitor.author.clone()).await?;
    Ok(lead_to(&visitor, &format!("operations/{id}")))
}
