//! Limits and holds: what is in force, and changing it.

use axum::extract::State;
use maud::{Markup, html};
use wharf_core::bounds;
use wharf_core::hold::{HoldLength, HoldScope, NewHold};
use wharf_core::ids::Group;
use wharf_core::key::Key;
use wharf_core::limits::{Limits, Override};
use wharf_runner::Host;

use crate::config;
use crate::http::api::{Hold, Limit};
use crate::http::problem::{Kind, Problem};
use crate::http::{encode, holds, limits};

use super::answer::{Answer, lead_to};
use super::form::Form;
use super::layout::{Frame, Section, act, marks, page, state};
use super::text::{ago, count, full, line};
use super::visitor::Visitor;

/// The number of holds that the page shows.
const HOLDS: u32 = 200;
/// The number of limit groups that the page shows.
const GROUPS: usize = 500;
/// The number of keys with limits of their own that the page shows of each group.
const KEYS: usize = 50;

/// Shows limits and holds.
pub(super) async fn show(State(host): State<Host>, visitor: Visitor) -> Answer {
    let (groups, held) = tokio::try_join!(host.limits(), host.holds(None, HOLDS))?;
    let more = groups.len().saturating_sub(GROUPS);
    let groups: Vec<Limit> = groups.iter().take(GROUPS).map(Limit::from).collect();
    let held_scopes: Vec<(String, Hold)> =
        held.holds.iter().map(|hold| (hold.scope.to_string(), Hold::from(hold))).collect();
    let main = html! {
        div class="head" { h1 { "Limits and holds" } }
        (holds_section(&visitor, &held_scopes, held.more))
        (limits_section(&visitor, &groups, more))
    };
    let frame = Frame { title: "Limits and holds", section: Section::Limits, live: Some("live/health".into()) };
    Ok(page(&visitor, &frame, &main))
}

fn holds_section(visitor: &Visitor, held: &[(String, Hold)], more: bool) -> Markup {
    html! {
        section id="holds" {
            header { h2 { "Holds" } span class="dim" { "held jobs wait; what runs goes on" } }
            @if held.is_empty() { p class="note" { "Nothing is held." } }
            @else {
                div class="scroll" tabindex="0" role="region" aria-label="Holds" {
                    table class="rows" {
                        caption class="vh" { "Holds in force" }
                        thead {
                            tr {
                                th scope="col" { "Held" }
                                th scope="col" class="grow" { "Why" }
                                th scope="col" class="c-waited" { "By" }
                                th scope="col" class="num c-key" { "Since" }
                                th scope="col" class="num" { "Until" }
                                th { span class="vh" { "Release" } }
                            }
                        }
                        tbody {
                            @for (scope, hold) in held {
                                tr {
                                    td {
                                        (state("held", ""))
                                        a href=(jobs_of(visitor, hold)) { (line(&hold.what().replace('`', ""))) }
                                    }
                                    td class="grow" { (line(&hold.reason)) }
                                    td class="c-waited" { (hold.by.as_deref().map(line).unwrap_or("–".into())) }
                                    td class="num c-key" { (ago(hold.since, visitor.now)) }
                                    td class="num" {
                                        @match hold.until { Some(until) => span title={ (full(until)) " UTC" } { (ago(until, visitor.now)) }, None => "released" }
                                    }
                                    td class="num" {
                                        @if visitor.may_operate() {
                                            (act(visitor, "holds/release", "small", html! { "Release" }, &[("scope", scope)]))
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
                @if more { p class="note" { "More are in force; " code { "wharf holds" } " lists all." } }
            }
            @if visitor.may_operate() {
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
                        label class="field" {
                            span { "For" }
                            input type="text" name="for" placeholder="until released";
                        }
                        label class="field grow" {
                            span { "Why" }
                            input type="text" name="reason" maxlength=(bounds::HOLD_REASON_BYTES_MAX) autocomplete="off";
                        }
                        button class="primary" { "Hold" }
                    }
                }
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

fn limits_section(visitor: &Visitor, groups: &[Limit], more: usize) -> Markup {
    let number = |limit: Option<u32>| limit.map_or_else(|| "–".to_owned(), |limit| count(limit.into()));
    html! {
        section {
            header { h2 { "Limits" } span class="dim" { "how many attempts run at once" } }
            div class="scroll" tabindex="0" role="region" aria-label="Limits" {
                table class="rows" {
                    caption class="vh" { "Limit groups" }
                    thead {
                        tr {
                            th scope="col" class="grow" { "Group" }
                            th scope="col" class="num" { "Running" }
                            th scope="col" class="num" { "In all" }
                            th scope="col" class="num" { "Per key" }
                            th scope="col" class="c-waited" { "From" }
                            @if visitor.may_operate() { th scope="col" { "Set in all, per key" } }
                        }
                    }
                    tbody {
                        @for group in groups {
                            tr id=(group.group) {
                                td class="grow" {
                                    a class="job" href=(visitor.link(&format!("jobs?where=state:running,waiting%20task:{}", encode(&group.tasks.join(","))))) {
                                        (line(&group.group))
                                    }
                                    @if group.tasks.len() > 1 { span class="why" { (group.tasks.len()) " tasks" } }
                                }
                                td class="num" {
                                    (count(group.running))
                                    @if let Some(total) = group.total.filter(|total| *total > 0) {
                                        " "
                                        meter min="0" max=(total) value=(group.running.min(total.into())) {
                                            (group.running)
                                            " of "
                                            (total)
                                        }
                                    }
                                }
                                td class="num" { (number(group.total)) }
                                td class="num" { (number(group.per_key)) }
                                td class="c-waited" {
                                    @if group.set.is_some() { strong { "set" } } @else { "declared" }
                                }
                                @if visitor.may_operate() {
                                    td { form class="inline" method="post" action=(visitor.link("limits")) {
                                        (marks(visitor))
                                        input type="hidden" name="group" value=(group.group);
                                        input type="number" name="total" min="0" max="1000000" value=[group.set.as_ref().and_then(|set| set.total)] placeholder="as declared" aria-label={ "In all, of " (group.group) };
                                        input type="number" name="per_key" min="0" max="1000000" value=[group.set.as_ref().and_then(|set| set.per_key)] placeholder="as declared" aria-label={ "Per key, of " (group.group) };
                                        button class="small" { "Set" }
                                        @if group.set.is_some() {
                                            button class="small" name="clear" value="yes" { "Clear" }
                                        }
                                    } }
                                }
                            }
                            @for key in group.keys.iter().take(KEYS) {
                                tr {
                                    td class="grow" { span class="why" { "key " (line(&key.key)) } }
                                    td {} td {}
                                    td class="num" { (number(key.per_key)) }
                                    td class="c-waited" { strong { "set" } }
                                    @if visitor.may_operate() {
                                        td {
                                            (act(visitor, "limits", "small", html! { "Clear" }, &[("group", &group.group), ("key", &key.key), ("clear", "yes")]))
                                        }
                                    }
                                }
                            }
                            @if group.keys.len() > KEYS {
                                tr {
                                    td class="grow" {
                                        span class="why" { (group.keys.len() - KEYS) " more keys; " code { "wharf limits" } " lists all" }
                                    }
                                }
                            }
                        }
                    }
                }
            }
            @if more > 0 { p class="note" { (more) " more groups; " code { "wharf limits" } " lists all." } }
            @if visitor.may_operate() && !groups.is_empty() {
                p class="note" {
                    "What is set replaces both numbers of its group; an empty field means the number that is declared. 0 pauses."
                }
            }
            @if groups.is_empty() { p class="empty" { "No plugin declares a limit, and none is set." } }
            @if visitor.may_operate() && !groups.is_empty() {
                form class="fields" method="post" action=(visitor.link("limits")) {
                    (marks(visitor))
                    div class="row" {
                        label class="field" {
                            span { "Limit of one key in" }
                            select name="group" {
                                @for group in groups { option value=(group.group) { (line(&group.group)) } }
                            }
                        }
                        label class="field grow" {
                            span { "Key" }
                            input type="text" name="key" required autocomplete="off" spellcheck="false";
                        }
                        label class="field" {
                            span { "At once" }
                            input type="number" name="per_key" min="0" max="1000000" required;
                        }
                        button { "Set" }
                    }
                }
            }
        }
    }
}

/// Sets or clears a limit.
pub(super) async fn set(State(host): State<Host>, visitor: Visitor, form: Form) -> Answer {
    // A key may have spaces only: what is there is never taken for no key.
    let key = match form.as_sent("key") {
        "" => None,
        _ => Some(form.parsed::<Key>("key")?),
    };
    let group: Group = form.parsed("group")?;
    let by = visitor.author.clone();
    if form.get("clear").is_some() {
        let was_set = host.clear_limit(group.clone(), key, by).await;
        if !was_set.map_err(|error| limits::refused(error, &group))? {
            let detail = "the limit is not set any more; the declared one applies";
            return Err(Problem::new(Kind::LIMIT_NOT_SET, detail).into());
        }
    } else {
        let change = Override {
            group: group.clone(),
            key,
            limits: Limits { total: form.number("total")?, per_key: form.number("per_key")? },
        };
        host.set_limit(change, by).await.map_err(|error| limits::refused(error, &group))?;
    }
    Ok(lead_to(&visitor, "limits"))
}

/// Sets a hold.
pub(super) async fn hold(State(host): State<Host>, visitor: Visitor, form: Form) -> Answer {
    let scope = match form.get("kind").unwrap_or_default() {
        "all" => HoldScope::All,
        "key" => HoldScope::Key { group: None, key: form.parsed("name")? },
        "task" => HoldScope::Task(form.parsed("name")?),
        "plugin" => HoldScope::Plugin(form.parsed("name")?),
        "group" => HoldScope::Group(form.parsed("name")?),
        _ => return Err(Problem::bad_request("`kind`: expected key, task, plugin, group or all").into()),
    };
    let length = form.get("for").map(config::duration).transpose();
    let length = length.map_err(|error| Problem::bad_request(format!("`for`: {error}")))?.map(HoldLength::For);
    let reason = form.as_sent("reason").parse();
    let reason =
        reason.map_err(|error: wharf_core::ids::ParseIdError| Problem::bad_request(format!("`reason`: {error}")))?;
    let new = NewHold { scope, length, reason, by: visitor.author.clone() };
    host.hold(new).await.map_err(holds::refused)?;
    Ok(lead_to(&visitor, "limits#holds"))
}

/// Releases a hold.
pub(super) async fn release(State(host): State<Host>, visitor: Visitor, form: Form) -> Answer {
    let scope: HoldScope = form.parsed("scope")?;
    if host.release(scope.clone(), visitor.author.clone()).await?.is_none() {
        let detail = format!("unknown hold `{scope}`: it was released before, or its time is over");
        return Err(Problem::new(Kind::HOLD_UNKNOWN, detail).into());
    }
    Ok(lead_to(&visitor, "limits#holds"))
}
