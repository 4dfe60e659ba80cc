//! The hosts that share the store.

use axum::extract::State;
use maud::{Markup, html};
use wharf_runner::Host;
use wharf_store::StoreError;

use crate::http::api::Node;

use super::answer::Answer;
use super::layout::{Frame, Section, page, state};
use super::listing::{Column, listing};
use super::text::{ago, first_line, line, size};
use super::visitor::Visitor;

/// The columns of the list.
const COLUMNS: [Column; 8] = [
    ("", "State"),
    ("grow", "Host"),
    ("", "Running"),
    ("num c-waited", "Memory"),
    ("c-ran", "Version"),
    ("c-id", "Settings"),
    ("num c-key", "Started"),
    ("num", "Seen"),
];
/// The number of hosts that the page shows.
const NODES: usize = 200;

/// Reads the hosts.
pub(super) async fn read(host: &Host) -> Result<Vec<Node>, StoreError> {
    let here = host.node();
    Ok(host.nodes().await?.into_iter().take(NODES).map(|node| Node::new(node, here)).collect())
}

/// Lists the hosts.
pub(super) async fn list(State(host): State<Host>, visitor: Visitor) -> Answer {
    let nodes = read(&host).await?;
    let main = html! { div id="nodes" { (content(&visitor, &nodes)) } };
    Ok(page(&visitor, &Frame { title: "Hosts", section: Section::Nodes, live: Some("live/nodes".into()) }, &main))
}

/// Returns the content of the list.
pub(super) fn content(visitor: &Visitor, nodes: &[Node]) -> Markup {
    let settings = nodes.iter().find(|node| node.here).and_then(|node| node.settings.as_deref());
    html! {
        div class="head" { h1 { "Hosts" } span class="dim" { "that share this store" } }
        (listing("Hosts", &COLUMNS, &html! { @for node in nodes { (row(visitor, node, settings)) } }))
        @for node in nodes {
            section {
                header { h2 { (line(&node.name)) } span class="dim mono" { (node.id) } }
                p class="note chips" {
                    @for plugin in &node.plugins {
                        span class="chip" {
                            (line(&plugin.id))
                            " "
                            (first_line(&plugin.version, 24))
                            " "
                            (plugin.digest.chars().take(8).collect::<String>())
                        }
                    }
                    @if node.plugins.is_empty() { "No plugins." }
                }
            }
        }
    }
}

fn row(visitor: &Visitor, node: &Node, settings: Option<&str>) -> Markup {
    let is_silent = visitor.now.since(node.seen_at.0).as_secs() > 15;
    let other_settings = node.settings.is_some() && settings.is_some() && node.settings.as_deref() != settings;
    html! {
        tr {
            td class="c-state" {
                @if is_silent {
                    (state("unknown", "silent"))
                } @else if node.draining {
                    (state("retrying", "draining"))
                } @else {
                    (state("succeeded", "live"))
                }
            }
            td class="grow" {
                span class="job" { (line(&node.name)) }
                @if node.here { span class="why" { "this one" } }
            }
            td {
                meter min="0" max=(node.capacity.max(1)) value=(node.running) { }
                " "
                (node.running)
                " of "
                (node.capacity)
            }
            td class="num c-waited" { (node.memory_budget.map_or("–".into(), size)) }
            td class="c-ran" { (first_line(&node.version, 24)) }
            td class="c-id mono" {
                (node.settings.as_deref().map_or("–".into(), |digest| first_line(digest, 12)))
                @if other_settings { " " (state("retrying", "differs")) }
            }
            td class="num c-key" { (ago(node.started_at, visitor.now)) }
            td class="num" { (ago(node.seen_at, visitor.now)) }
        }
    }
}
