//! The audit log: what operators changed.

use axum::extract::State;
use axum::http::Uri;
use maud::{Markup, html};
use wharf_core::audit::ActKind;
use wharf_runner::Host;

use crate::http::api::{Act, AuditQuery};
use crate::http::query::query;
use crate::http::{audit, encode};

use super::answer::Answer;
use super::form::Form;
use super::layout::{Frame, Section, page};
use super::listing::{Column, listing, pager};
use super::text::{count, full, line};
use super::visitor::Visitor;

/// The columns of the list.
const COLUMNS: [Column; 6] =
    [("", "At, UTC"), ("", "Act"), ("grow", "On"), ("num c-waited", "Times"), ("c-key", "By"), ("c-ran", "From")];

fn row(act: &Act) -> Markup {
    let at = full(act.at);
    html! {
        tr {
            td class="mono when" { @for part in at.split(' ') { span { (part) } " " } }
            td { (act.act.to_string()) }
            td class="grow" title=(line(&act.detail)) {
                (line(&act.target))
                span class="why" { (line(&act.detail)) }
                span class="under" { (line(&act.detail)) }
            }
            td class="num c-waited" { (count(act.count)) }
            td class="c-key" { (act.author.as_deref().map(line).unwrap_or("no token".into())) }
            td class="c-ran mono" { (act.address.as_deref().map(line).unwrap_or_default()) }
        }
    }
}

/// Lists acts.
pub(super) async fn list(State(host): State<Host>, visitor: Visitor, uri: Uri) -> Answer {
    // A field that was left empty is no condition.
    let given = Form::of_query(&uri)?;
    let names = ["since", "author", "no_token", "act", "before", "limit"];
    let pairs = names.iter().filter_map(|name| Some(format!("{name}={}", encode(given.get(name)?))));
    let cleaned: Uri = format!("/audit?{}", pairs.collect::<Vec<_>>().join("&")).parse().unwrap_or(uri);
    let wanted: AuditQuery = query(&cleaned)?;
    let found = audit::page(&host, &cleaned).await?;
    let kind = wanted.act.map(|act| act.to_string());
    let main = html! {
        div class="head" { h1 { "Audit" } span class="dim" { "who changed what, when and from where" } }
        form class="filter" action=(visitor.link("audit")) {
            label { span class="vh" { "Act" }
                select name="act" {
                    option value="" { "every act" }
                    @for of in ActKind::ALL {
                        option value=(of.as_str()) selected[kind.as_deref() == Some(of.as_str())] { (of.as_str()) }
                    }
                }
            }
            label {
                span class="vh" { "By" }
                input type="text" name="author" id="search" placeholder="by" value=[wanted.author.as_deref()];
            }
            label {
                span class="vh" { "Since" }
                input type="text" name="since" placeholder="since, such as 2h" value=[wanted.since.as_deref()];
            }
            button { "Filter" }
        }
        (listing("Acts, the newest first", &COLUMNS, &html! { @for act in &found.acts { (row(act)) } }))
        @if found.acts.is_empty() { p class="empty" { "None." } }
        (pager(None, found.next.as_deref(), "Older"))
    };
    Ok(page(&visitor, &Frame { title: "Audit", section: Section::Audit, live: Some("live/health".into()) }, &main))
}
