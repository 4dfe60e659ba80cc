//! Limit groups: what may run at once, what holds the slots, what waits for them, and changing a limit.

use maud::{Markup, html};
use wharf_core::job::Job as CoreJob;

use crate::http::api::{Job, LaneUse, Limit, LimitNumbers, WaitingJobs};
use crate::http::encode;

use super::layout::{act, marks};
use super::listing::{Column, bare_listing, listing};
use super::text::{ago, brief, count, line};
use super::visitor::Visitor;

/// The number of keys with limits of their own that the page shows of each group.
const KEYS: usize = 50;
/// The columns of the jobs that hold the slots of a group.
const HOLDER_COLUMNS: [Column; 3] = [("", "Job"), ("grow", "Key"), ("num", "Began")];
/// The number of holders that the page of one group shows.
pub(super) const HOLDERS: u32 = 50;

/// Returns the section of the limit groups, of which `more` are not shown.
pub(super) fn limits_section(visitor: &Visitor, groups: &[Limit], more: usize) -> Markup {
    let mut columns = vec![
        ("grow", "Group"),
        ("num", "Running"),
        ("num", "Waiting"),
        ("num c-waited", "Oldest"),
        ("num c-tries", "Total"),
        ("num c-tries", "Per key"),
        ("c-key", "From"),
    ];
    if visitor.may_operate() {
        columns.push(("c-set", "Set in all, per key"));
    }
    let rows = html! {
        @for group in groups {
            (group_row(visitor, group))
            @for key in group.keys.iter().take(KEYS) {
                tr {
                    td class="grow" { span class="why" { "key " (line(&key.key)) } }
                    td {} td {} td class="c-waited" {} td class="c-tries" {}
                    td class="num c-tries" { (number(key.per_key)) }
                    td class="c-key" { strong { "set" } }
                    @if visitor.may_operate() {
                        td class="c-set" {
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
    };
    html! {
        section {
            header { h2 { "Limits" } span class="dim" { "how many attempts run at once" } }
            @if groups.is_empty() { p class="empty" { "No plugin declares a limit, and none is set." } }
            @else { (listing("Limit groups", &columns, &rows)) }
            @if more > 0 { p class="note" { (more) " more groups; " code { "wharf limits" } " lists all." } }
            @if visitor.may_operate() && !groups.is_empty() {
                p class="note" {
                    "What is set replaces both numbers of its group; an empty field means the number that is declared. 0 pauses."
                }
                (key_form(visitor, groups))
            }
        }
    }
}

fn number(limit: Option<u32>) -> String {
    limit.map_or_else(|| "–".to_owned(), |limit| count(limit.into()))
}

/// Returns the number of jobs that wait, with a plus sign if there may be more.
fn waiting(of: WaitingJobs) -> String {
    format!("{}{}", count(of.due), if of.more { "+" } else { "" })
}

fn oldest(of: WaitingJobs) -> String {
    of.oldest_ms.map_or_else(|| "–".to_owned(), brief)
}

/// Returns the numbers that stand for the running jobs of a limit.
fn running(running: u64, limit: Option<u32>) -> Markup {
    html! {
        (count(running))
        @if let Some(limit) = limit.filter(|limit| *limit > 0) {
            " "
            meter min="0" max=(limit) value=(running.min(limit.into())) { (running) " of " (limit) }
        }
    }
}

fn group_row(visitor: &Visitor, group: &Limit) -> Markup {
    let set = |of: fn(&LimitNumbers) -> Option<u32>| group.set.as_ref().and_then(of);
    html! {
        tr id=(group.group) {
            td class="grow" {
                a class="job" href=(visitor.link(&format!("limits/group?group={}", encode(&group.group)))) { (line(&group.group)) }
                @if group.tasks.len() > 1 { span class="why" { (group.tasks.len()) " tasks" } }
                span class="under" { "in all " (number(group.total)) ", per key " (number(group.per_key)) }
            }
            td class="num" { (running(group.running, group.total)) }
            td class="num" { (waiting(group.waiting)) }
            td class="num c-waited" { (oldest(group.waiting)) }
            td class="num c-tries" { (number(group.total)) }
            td class="num c-tries" { (number(group.per_key)) }
            td class="c-key" { @if group.set.is_some() { strong { "set" } } @else { "declared" } }
            @if visitor.may_operate() {
                td class="c-set" { form class="inline" method="post" action=(visitor.link("limits")) {
                    (marks(visitor))
                    input type="hidden" name="group" value=(group.group);
                    input type="number" name="total" min="0" max="1000000" value=[set(|set| set.total)] placeholder=(number(group.declared.total)) aria-label={ "Total, of " (group.group) };
                    input type="number" name="per_key" min="0" max="1000000" value=[set(|set| set.per_key)] placeholder=(number(group.declared.per_key)) aria-label={ "Per key, of " (group.group) };
                    button class="small" { "Set" }
                    @if group.set.is_some() { button class="small" name="clear" value="yes" { "Clear" } }
                } }
            }
        }
    }
}

fn key_form(visitor: &Visitor, groups: &[Limit]) -> Markup {
    html! {
        form class="fields" method="post" action=(visitor.link("limits")) {
            (marks(visitor))
            div class="row" {
                label class="field" {
                    span { "Limit of one key in" }
                    select name="group" { @for group in groups { option value=(group.group) { (line(&group.group)) } } }
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

/// Returns the filter of the jobs that hold the slots of a group.
pub(super) fn running_of(group: &Limit) -> String {
    format!("state:running task:{}", group.tasks.join(","))
}

/// Returns the content of the page of one group; `holders` are its running jobs, as far as they are shown.
pub(super) fn group_content(visitor: &Visitor, group: &Limit, holders: &[CoreJob]) -> Markup {
    let rows = html! { @for lane in &group.lanes { (lane_row(visitor, group, lane)) } };
    let holder_rows = html! { @for job in holders { (holder_row(visitor, &Job::in_list(job))) } };
    let columns =
        [("grow", "Key"), ("num", "Running"), ("num", "May run"), ("num", "Waiting"), ("num c-waited", "Oldest")];
    html! {
        div class="head" { h1 { (line(&group.group)) } span class="dim" { "limit group" } a href=(visitor.link("limits")) { "all limits" } }
        dl class="numbers" {
            div { dt { "Running" } dd { (running(group.running, group.total)) } }
            div { dt { "Total" } dd { (number(group.total)) } }
            div { dt { "Per key" } dd { (number(group.per_key)) } }
            div { dt { "Waiting" } dd { (waiting(group.waiting)) } }
            div { dt { "Oldest" } dd { (oldest(group.waiting)) } }
        }
        @if group.tasks.iter().any(|task| *task != group.group) {
            p class="chips" {
                @for task in &group.tasks {
                    a class="chip" href=(visitor.link(&format!("jobs?where=task:{}", encode(task)))) { (line(task)) } " "
                }
            }
        }
        div class="cols" {
            section {
                header { h2 { "Keys" } span class="dim" { "those with the most waiting jobs" } }
                @if group.lanes.is_empty() { p class="note" { "No job of the group runs or is due." } }
                @else { (bare_listing("Keys", &columns, &rows)) }
            }
            section {
                header {
                    h2 { "Who holds the slots" }
                    @if !group.tasks.is_empty() {
                        a class="dim" href=(visitor.link(&format!("jobs?where={}", encode(&running_of(group))))) { "all" }
                    }
                }
                @if holders.is_empty() { p class="note" { "Nobody: no job of the group runs." } }
                @else {
                    (bare_listing("Running jobs of the group", &HOLDER_COLUMNS, &holder_rows))
                }
            }
        }
        @if visitor.may_operate() { (set_form(visitor, group)) }
    }
}

fn holder_row(visitor: &Visitor, job: &Job) -> Markup {
    html! {
        tr {
            td { a class="mono" href=(visitor.link(&format!("jobs/{}", job.id))) { (job.id) } }
            td class="grow" { (job.key.as_deref().map(line).unwrap_or("–".into())) }
            td class="num" { @match job.started_at { Some(at) => (ago(at, visitor.now)), None => "–" } }
        }
    }
}

fn set_form(visitor: &Visitor, group: &Limit) -> Markup {
    let set = group.set.unwrap_or_default();
    let field = |name: &str, label: &str, set: Option<u32>, declared: Option<u32>| {
        html! {
            label class="field" {
                span { (label) }
                input type="number" name=(name) min="0" max="1000000" value=[set] placeholder=(number(declared));
            }
        }
    };
    html! {
        section id="set" {
            header { h2 { "Set the limit" } span class="dim" { "an empty field means the number that is declared; 0 pauses" } }
            form class="fields" method="post" action=(visitor.link("limits")) {
                (marks(visitor))
                input type="hidden" name="group" value=(group.group);
                input type="hidden" name="on" value="group";
                div class="row" {
                    (field("total", "Total", set.total, group.declared.total))
                    (field("per_key", "Per key", set.per_key, group.declared.per_key))
                    button class="primary" { "Set" }
                    @if group.set.is_some() { button name="clear" value="yes" { "Clear" } }
                }
            }
        }
    }
}

fn lane_row(visitor: &Visitor, group: &Limit, lane: &LaneUse) -> Markup {
    let tasks = match &group.tasks[..] {
        [] => String::new(),
        tasks => format!("&task={}", encode(&tasks.join(","))),
    };
    html! {
        tr {
            td class="grow" {
                @match &lane.key {
                    Some(key) => {
                        a class="job" href=(visitor.link(&format!("jobs?state=running,waiting{tasks}&key={}", encode(key)))) {
                            (line(key))
                        }
                    },
                    None => span class="dim" { "without a key" },
                }
            }
            td class="num" { (running(lane.running, lane.per_key)) }
            td class="num" { (number(lane.per_key)) }
            td class="num" { (waiting(lane.waiting)) }
            td class="num c-waited" { (oldest(lane.waiting)) }
        }
    }
}
