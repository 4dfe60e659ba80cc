//! The list of jobs: a filter in the address, a page at a time, and acts on those that are selected or on all that match.

use axum::extract::State;
use axum::http::Uri;
use maud::{Markup, html};
use wharf_runner::Host;

use crate::http::api::{JobPage, ListOrder, ListQuery};
use crate::http::query::query;
use crate::http::{encode, filter, jobs};

use super::answer::Answer;
use super::job_row::{headings, row};
use super::layout::{Frame, Section, page};
use super::text::{ago, counted, line};
use super::visitor::Visitor;

/// Number of jobs on a page, if the address does not set it.
const PAGE: u32 = 50;

/// Shows the list.
pub(super) async fn list(State(host): State<Host>, visitor: Visitor, uri: Uri) -> Answer {
    let parameters: ListQuery = query(&uri)?;
    // The text of the filter holds all conditions, wherever the address has them: one field to change them in.
    let wanted = filter::of_parameters(&parameters, host.now())?;
    let text = match parameters.r#where.as_deref() {
        Some(text) if filter::pairs(&parameters).iter().filter(|(_, value)| value.is_some()).count() == 1 => {
            text.to_owned()
        }
        _ => wanted.to_string(),
    };
    let limited: Uri = with_limit(&uri, &parameters).parse().unwrap_or(uri);
    let found = jobs::page(&host, &visitor.access()?, &limited).await?;
    let live = Some(live_address(&visitor, &parameters, &wanted.to_string(), &found));
    let main = content(&visitor, &parameters, &Filter { text, exact: wanted.to_string() }, &found);
    Ok(page(&visitor, &Frame { title: "Jobs", section: Section::Jobs, live }, &main))
}

/// The filter of a list.
struct Filter {
    /// The text as the visitor wrote it.
    text: String,
    /// The text with every moment as a date.
    exact: String,
}

fn with_limit(uri: &Uri, parameters: &ListQuery) -> String {
    let text = uri.to_string();
    match (parameters.limit, uri.query()) {
        (Some(_), _) => text,
        (None, Some(query)) if !query.is_empty() => format!("{text}&limit={PAGE}"),
        (None, _) => format!("{}?limit={PAGE}", uri.path()),
    }
}

/// Returns the address of the stream of changes of the jobs that are shown, and of those that are newer.
fn live_address(visitor: &Visitor, parameters: &ListQuery, exact: &str, found: &JobPage) -> String {
    let ids: Vec<&str> = found.jobs.iter().map(|job| job.id.as_str()).collect();
    let is_first = parameters.before.is_none() && parameters.order.unwrap_or_default() == ListOrder::Newest;
    let from = found.jobs.first().map_or(visitor.now, |job| job.enqueued_at.0).as_micros();
    let newer = if is_first { format!("&from={from}&newer={}", encode(exact)) } else { String::new() };
    format!("live/jobs?ids={}{newer}", ids.join(","))
}

fn content(visitor: &Visitor, parameters: &ListQuery, filter: &Filter, found: &JobPage) -> Markup {
    let may_act = visitor.may_operate();
    let looked = found.looked_at.map(|looked_at| counted(looked_at, "job", "jobs"));
    html! {
        div class="head" {
            h1 { "Jobs" }
            a class="new" id="fresh" href="" hidden { "new" }
            div class="acts" {
                @if visitor.may_enqueue() { a class="btn" href=(visitor.link("run")) { "Run a job" } }
            }
        }
        form class="filter" role="search" action=(visitor.link("jobs")) {
            label {
                span class="vh" { "Filter" }
                input type="search" name="where" id="search" value=(filter.text) spellcheck="false" autocomplete="off"
                    placeholder="task:words/count state:failed key:acme since:2h text:\"reset\" payload./tenant=42";
            }
            @if parameters.order.is_some() { input type="hidden" name="order" value="finished"; }
            button { "Filter " kbd { "/" } }
        }
        form class="list" action=(visitor.link("bulk")) id="list" {
            @if may_act {
                div class="bulk" {
                    span class="dim" id="selected" aria-live="polite" { "With the selected:" }
                    button name="act" value="retry" data-key="r" { "Retry " kbd { "r" } }
                    button name="act" value="cancel" { "Cancel" }
                    button name="act" value="run-now" { "Run now" }
                    button name="act" value="delete" { "Delete" }
                    input type="hidden" name="match" value=(filter.exact);
                    span class="gap" {}
                    button name="all" value="retry" disabled[filter.exact.is_empty()] { "All that match…" }
                }
            }
            div class="scroll" tabindex="0" role="region" aria-label="Jobs" {
                table class="rows" {
                    caption class="vh" { "Jobs, newest first" }
                    (headings(may_act))
                    tbody { @for job in &found.jobs { (row(visitor, job, may_act)) } }
                }
            }
        }
        @if found.jobs.is_empty() {
            p class="empty" {
                @if found.next.is_some() {
                    @match &looked {
                        Some(looked) => { "No job matches among the " (looked) " that were looked at; older ones may." }
                        None => { "No job matches so far; older ones may." }
                    }
                }
                @else if filter.exact.is_empty() { "No jobs yet." }
                @else { "No job matches " code { (line(&filter.text)) } "." }
            }
        }
        nav class="pager" aria-label="Pages of the list" {
            @if parameters.before.is_some() { a class="btn" href=(first_page(visitor, parameters)) { "Newest" } }
            @if let Some(next) = &found.next { a class="btn" href=(next) rel="next" { "Older" } }
            @if let Some(looked) = &looked {
                span { (looked) " looked at" @if let Some(until) = found.until { ", back to " (ago(until, visitor.now)) } }
            }
            span class="gap" {}
            @if parameters.order.is_some() {
                a href=(visitor.link(&format!("jobs?where={}", encode(&filter.text)))) { "by enqueue" }
            }
            @else { a href=(visitor.link(&format!("jobs?order=finished&where={}", encode(&filter.text)))) { "by end" } }
        }
    }
}

/// Returns the reference to the first page of a list.
fn first_page(visitor: &Visitor, parameters: &ListQuery) -> String {
    let pairs = filter::pairs(parameters).into_iter();
    let order = parameters.order.map(|_| "order=finished".to_owned());
    let pairs = pairs.filter_map(|(name, value)| Some(format!("{name}={}", encode(value?)))).chain(order);
    visitor.link(&format!("jobs?{}", pairs.collect::<Vec<_>>().join("&")))
}
