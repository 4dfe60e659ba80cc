//! Limits and holds: what is in force, and changing it.

use axum::extract::State;
use axum::http::Uri;
use maud::html;
use wharf_core::find::JobOrder;
use wharf_core::hold::{HoldScope, NewHold};
use wharf_core::ids::Group;
use wharf_core::key::Key;
use wharf_core::limits::{Limits, Override};
use wharf_runner::Host;

use crate::http::api::{Hold, Limit};
use crate::http::problem::{Kind, Problem};
use crate::http::{encode, filter, holds, length, limits};

use super::answer::{Answer, lead_to};
use super::form::Form;
use super::hold_list::holds_section;
use super::layout::{Frame, Section, page};
use super::limit_list::{HOLDERS, group_content, limits_section, running_of};
use super::visitor::Visitor;

/// The number of holds that the page shows.
const HOLDS: u32 = 200;
/// The number of limit groups that the page shows.
const GROUPS: usize = 500;

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

/// Shows one limit group: who holds its slots, and whose jobs wait.
pub(super) async fn group(State(host): State<Host>, visitor: Visitor, uri: Uri) -> Answer {
    let wanted: Group = Form::of_query(&uri)?.parsed("group")?;
    let groups = host.limits().await?;
    let unknown =
        || Problem::new(Kind::GROUP_UNKNOWN, format!("unknown limit group `{wanted}`, or no job of it runs or waits"));
    let found = Limit::from(groups.iter().find(|limit| limit.group == wanted).ok_or_else(unknown)?);
    let holders = match found.tasks.is_empty() {
        // Only an override is left of it.
        true => Vec::new(),
        false => {
            let query = filter::parse("where", &running_of(&found), host.now())?;
            host.find(query.into(), JobOrder::Newest, None, HOLDERS).await?.jobs
        }
    };
    let main = group_content(&visitor, &found, &holders);
    let title = format!("Limits of {wanted}");
    let frame = Frame { title: &title, section: Section::Limits, live: Some("live/health".into()) };
    Ok(page(&visitor, &frame, &main))
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
    Ok(lead_to(
        &visitor,
        &match form.get("on") {
            Some(_) => format!("limits/group?group={}", encode(group.as_str())),
            None => "limits".to_owned(),
        },
    ))
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
    let length = length::end(None, form.get("for"))?;
    let reason = form.parsed("reason")?;
    let new = NewHold { scope, length, reason, by: visitor.author.clone() };
    host.hold(new).await.map_err(holds::refused)?;
    Ok(lead_to(&visitor, "limits#holds"))
}

/// Releases a hold.
pub(super) async fn release(State(host): State<Host>, visitor: Visitor, form: Form) -> Answer {
    let scope: HoldScope = form.parsed("scope")?;
    holds::release_scope(&host, scope, visitor.author.clone()).await?;
    Ok(lead_to(&visitor, "limits#holds"))
}
