//! The holds in force, and the form that sets one.

use maud::{Markup, html};
use wharf_core::bounds;

use crate::http::api::Hold;
use crate::http::encode;

use super::layout::{act, marks, state};
use super::listing::listing;
use super::text::{ago, full, line};
use super::visitor::Visitor;

/// Returns the section of the holds; each is there with the text of its scope.
pub(super) fn holds_section(visitor: &Visitor, held: &[(String, Hold)], more: bool) -> Markup {
    let columns =
        [("", "Held"), ("grow", "Why"), ("c-waited", "By"), ("num c-key", "Since"), ("num", "Until"), ("num", "")];
    let rows = html! {
        @for (scope, hold) in held {
            tr {
                td { (state("held", "")) a href=(jobs_of(visitor, hold)) { (line(&hold.what().replace('`', ""))) } }
                td class="grow" title=(line(&hold.reason)) { (line(&hold.reason)) }
                td class="c-waited" { (hold.by.as_deref().map(line).unwrap_or("–".into())) }
                td class="num c-key" { (ago(hold.since, visitor.now)) }
                td class="num" {
                    @match hold.until {
                        Some(until) => span title={ (full(until)) " UTC" } { (ago(until, visitor.now)) },
                        None => "no end",
                    }
                }
                td class="num" {
                    @if visitor.may_operate() {
                        (act(visitor, "holds/release", "small", html! { "Release" }, &[("scope", scope)]))
                    }
                }
            }
        }
    };
    html! {
        section id="holds" {
            header { h2 { "Holds" } span class="dim" { "held jobs wait; what runs goes on" } }
            @if held.is_empty() { p class="note" { "Nothing is held." } }
            @else {
                (listing("Holds in force", &columns, &rows))
                @if more { p class="note" { "More are in force; " code { "wharf holds" } " lists all." } }
            }
            @if visitor.may_operate() { (form(visitor)) }
        }
    }
}

fn form(visitor: &Visitor) -> Markup {
    html! {
        form class="fields" method="post" action=(visitor.link("holds")) {
            (marks(visitor))
            div class="row" {
                label class="field" { span { "Hold" }
                    select name="kind" {
                        option value="key" { "a key" }
                        option value="task" { "a task" }
                        option value="plugin" { "a plugin" }
                        option value="group" { "a limit group" }
                        option value="all" { "all jobs" }
                    }
                }
                label class="field grow" {
                    span { "Its name" }
                    input type="text" name="name" maxlength="300" autocomplete="off" spellcheck="false";
                }
                label class="field" { span { "For" } input type="text" name="for" placeholder="until released"; }
                label class="field grow" {
                    span { "Why" }
                    input type="text" name="reason" maxlength=(bounds::HOLD_REASON_BYTES_MAX) autocomplete="off";
                }
                button class="primary" { "Hold" }
            }
        }
    }
}

/// Returns the reference to the jobs that a hold may keep waiting.
fn jobs_of(visitor: &Visitor, hold: &Hold) -> String {
    let pair = |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("{name}={}", encode(value)));
    let pairs = [pair("plugin", &hold.plugin), pair("task", &hold.task), pair("key", &hold.key)];
    let pairs: Vec<String> = pairs.into_iter().flatten().chain(["state=waiting".to_owned()]).collect();
    visitor.link(&format!("jobs?{}", pairs.join("&")))
}
