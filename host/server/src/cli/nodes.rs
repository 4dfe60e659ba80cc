//! `wharf node`: the hosts that share a store.

use clap::Subcommand;
use serde_json::value::RawValue;

use super::client::Client;
use crate::cli_error::ExitStatus;
use crate::http::api::{LoadedPlugin, Node};
use crate::output::{Table, print_json};

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List the hosts that share the store, with their load, their plugins and when they were last seen
    List,
}

impl NodeCommand {
    pub(crate) fn run(self, client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
        match self {
            NodeCommand::List if json => print_json(&client.get::<Box<RawValue>>("/v1/nodes".to_owned())?)?,
            NodeCommand::List => list(&client.get::<Vec<Node>>("/v1/nodes".to_owned())?)?,
        }
        Ok(ExitStatus::Done)
    }
}

fn list(nodes: &[Node]) -> anyhow::Result<()> {
    let mut table = Table::new(&["NODE", "NAME", "VERSION", "STATE", "RUNNING", "SEEN", "PLUGINS"]);
    for node in nodes {
        let state = match (node.draining, node.here) {
            (true, _) => "draining",
            (false, true) => "here",
            (false, false) => "up",
        };
        let plugin = |loaded: &LoadedPlugin| {
            format!("{} {} ({})", loaded.id, loaded.version, loaded.digest.chars().take(8).collect::<String>())
        };
        let plugins: Vec<String> = node.plugins.iter().map(plugin).collect();
        table.row([
            node.id.clone(),
            node.name.clone(),
            node.version.clone(),
            state.to_owned(),
            format!("{} of {}", node.running, node.capacity),
            format!("{:.0}", node.seen_at.date()),
            plugins.join(", "),
        ]);
    }
    Ok(table.print()?)
}
