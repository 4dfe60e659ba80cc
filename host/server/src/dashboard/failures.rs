//! Failure groups: what fails, since when, how often, for whom, and with which versions.

use axum::extract::State;
use axum::http::Uri;
use maud::{Markup, html};
use wharf_core::failure::FailureState as GroupState;
use wharf_runner::Host;

use crate::http::api::{Failure, FailureState, FailuresQuery};
use crate::http::problem::Problem;
use crate::http::query::query;
use crate::http::{encode, failures};

use super::answer::{Answer, lead_to};
use super::layout::{Frame, Section, act, page, state};
use super::listing::{Column, bare_listing, listing, pager};
use super::page_path::PagePath;
use super::text::{ago, count, counted, first_line, line, lines};
use super::visitor::Visitor;

/// The columns of the list.
const COLUMNS: [Column; 7] = [
    ("", "State"),
    ("grow", "Failure"),
    ("c-ran", "Outcome"),
    ("num", "Failures"),
    ("num c-key", "Keys"),
    ("num c-waited", "First"),
    ("num", "Last"),
];
/// The columns of the versions of one group.
const VERSION_COLUMNS: [Column; 4] =
    [("grow", "Version"), ("num", "Failures"), ("num c-waited", "First"), ("num", "Last")];

/// Lists failure groups.
pub(super) async fn list(State(host): State<Host>, visitor: Visitor, uri: Uri) -> Answer {
    let wanted: FailuresQuery = query(&uri)?;
    let found = failures::page(&host, &uri).await?;
    let task = wanted.task.as_deref();
    let tab = |name: &str, of: Option<FailureState>| {
        let state = of.map(|of| format!("state={of}"));
        let task = task.map(|task| format!("task={}", encode(task)));
        let pairs: Vec<String> = state.into_iter().chain(task).collect();
        let current = (wanted.state == of).then_some("page");
        html! { a href=(visitor.link(&format!("failures?{}", pairs.join("&")))) aria-current=[current] { (name) } }
    };
    let main = html! {
        div class="head" {
            h1 { "Failures" }
            @if let Some(task) = task {
                span class="dim" { "of " (line(task)) }
                a href=(visitor.link("failures")) { "all tasks" }
            }
        }
        nav class="tabs" aria-label="Failures by state" {
            (tab("Open", Some(FailureState::Open)))
            (tab("Resolved", Some(FailureState::Resolved)))
            (tab("Ignored", Some(FailureState::Ignored)))
            (tab("All", None))
        }
        (listing("Failures, the last one first", &COLUMNS, &html! { @for failure in &found.failures { (row(&visitor, failure)) } }))
        @if found.failures.is_empty() {
            p class="empty" {
                @match wanted.state { Some(FailureState::Open) => "Nothing fails that is not resolved or ignored.", _ => "None." }
            }
        }
        (pager(wanted.after.as_ref().map(|_| visitor.link("failures")).as_deref(), found.next.as_deref(), "Older"))
    };
    Ok(page(
        &visitor,
        &Frame { title: "Failures", section: Section::Failures, live: Some("live/health".into()) },
        &main,
    ))
}

/// Returns the shape and the word of a group's state.
fn badge(failure: &Failure) -> Markup {
    match failure.state {
        FailureState::Open if failure.regressed_at.is_some() => state("failed", "back again"),
        FailureState::Open => state("failed", "open"),
        FailureState::Resolved => state("succeeded", "resolved"),
        FailureState::Ignored => state("cancelled", "ignored"),
    }
}

fn row(visitor: &Visitor, failure: &Failure) -> Markup {
    let message = first_line(&failure.message, 200);
    html! {
        tr {
            td class="c-state" { (badge(failure)) }
            td class="grow" {
                a class="job" href=(visitor.link(&format!("failures/{}", encode(&failure.fingerprint)))) {
                    (line(&failure.task))
                }
                span class="why" { (message) }
                span class="under" { (message) }
            }
            td class="c-ran" { (failure.outcome.to_string()) }
            td class="num" { (count(failure.count)) }
            td class="num c-key" { (failure.keys) @if failure.more_keys { "+" } }
            td class="num c-waited" { (ago(failure.first_seen_at, visitor.now)) }
            td class="num" { (ago(failure.last_seen_at, visitor.now)) }
        }
    }
}

/// Shows one failure group.
pub(super) async fn show(
    State(host): State<Host>,
    visitor: Visitor,
    PagePath(fingerprint): PagePath<String>,
) -> Answer {
    let failure = failures::read(&host, &fingerprint).await?;
    let title = format!("Failure of {}", failure.task);
    let frame = Frame { title: &title, section: Section::Failures, live: Some("live/health?depth=2".into()) };
    Ok(page(&visitor, &frame, &content(&visitor, &failure)))
}

fn content(visitor: &Visitor, failure: &Failure) -> Markup {
    let own = format!("failures/{}", encode(&failure.fingerprint));
    let jobs = format!("fingerprint:{}", failure.fingerprint);
    let to = |act: &str| format!("{own}/{act}");
    let is_open = failure.state == FailureState::Open;
    html! {
        div class="head" {
            (badge(failure)) h1 { (line(&failure.task)) } span class="mono dim" { (line(&failure.fingerprint)) }
            @if visitor.may_operate() {
                div class="acts" {
                    a class="btn primary" href=(visitor.link(&format!("bulk?act=retry&where={}", encode(&jobs)))) {
                        "Retry its jobs…"
                    }
                    @if is_open {
                        (act(visitor, &to("resolve"), "", html! { "Resolve" }, &[]))
                        (act(visitor, &to("ignore"), "", html! { "Ignore" }, &[]))
                    } @else { (act(visitor, &to("reopen"), "", html! { "Reopen" }, &[])) }
                }
            }
        }
        div class="say failed" { p { (lines(&failure.message)) } }
        dl class="facts" {
            div {
                dt { "Failures" }
                dd { a href=(visitor.link(&format!("jobs?where={}", encode(&jobs)))) { (count(failure.count)) } }
            }
            div { dt { "Keys" } dd { (failure.keys) @if failure.more_keys { " or more" } } }
            div { dt { "Outcome" } dd { (failure.outcome.to_string()) } }
            div { dt { "First" } dd { (ago(failure.first_seen_at, visitor.now)) } }
            div { dt { "Last" } dd { (ago(failure.last_seen_at, visitor.now)) } }
            @if let Some(at) = failure.changed_at {
                div {
                    dt { (failure.state.to_string()) }
                    dd { (ago(at, visitor.now)) @if let Some(by) = &failure.changed_by { " by " (line(by)) } }
                }
            }
            @if let Some(at) = failure.regressed_at { div { dt { "Back again" } dd { (ago(at, visitor.now)) } } }
        }
        div class="cols" {
            section {
                header {
                    h2 { "Last jobs" }
                    a class="dim" href=(visitor.link(&format!("jobs?where={}", encode(&jobs)))) { "all" }
                }
                (bare_listing("The last jobs of the group", &[("", "Job"), ("grow", "Message"), ("num", "Failed")], &samples(visitor, failure)))
            }
            section {
                header { h2 { "Versions" } }
                (bare_listing("The versions that failed", &VERSION_COLUMNS, &versions(visitor, failure)))
            }
        }
    }
}

fn samples(visitor: &Visitor, failure: &Failure) -> Markup {
    html! {
        @for sample in failure.samples.iter().flatten() {
            tr {
                td { a class="mono" href=(visitor.link(&format!("jobs/{}", sample.job))) { (sample.job) } }
                td class="grow" title=(first_line(&sample.message, 400)) { (first_line(&sample.message, 200)) }
                td class="num" { (ago(sample.failed_at, visitor.now)) }
            }
        }
    }
}

fn versions(visitor: &Visitor, failure: &Failure) -> Markup {
    html! {
        @for version in failure.versions.iter().flatten() {
            tr {
                td class="grow" {
                    (first_line(&version.version, 40))
                    " "
                    span class="mono dim" { (version.digest.chars().take(12).collect::<String>()) }
                }
                td class="num" { (counted(version.count, "failure", "failures")) }
                td class="num c-waited" { (ago(version.first_seen_at, visitor.now)) }
                td class="num" { (ago(version.last_seen_at, visitor.now)) }
            }
        }
    }
}

/// Says that the cause of a group is removed.
pub(super) async fn resolve(host: State<Host>, visitor: Visitor, path: PagePath<String>) -> Answer {
    set_state(host, visitor, path, GroupState::Resolved).await
}

/// Says that a group needs nobody's attention.
pub(super) async fn ignore(host: State<Host>, visitor: Visitor, path: PagePath<String>) -> Answer {
    set_state(host, visitor, path, GroupState::Ignored).await
}

/// Takes back that a group is resolved or ignored.
pub(super) async fn reopen(host: State<Host>, visitor: Visitor, path: PagePath<String>) -> Answer {
    set_state(host, visitor, path, GroupState::Open).await
}

async fn set_state(
    State(host): State<Host>,
    visitor: Visitor,
    PagePath(text): PagePath<String>,
    to: GroupState,
) -> Answer {
    let fingerprint = failures::fingerprint(&text)?;
    let set = host.set_failure_state(fingerprint, to, visitor.author.clone()).await?;
    set.ok_or_else(|| -> Problem { failures::unknown(fingerprint) })?;
    Ok(lead_to(&visitor, &format!("failures/{}", encode(&text))))
}
