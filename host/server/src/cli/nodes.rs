//! `wharf node`: the hosts that share a store.

use clap::Subcommand;
use serde_json::value::RawValue;

use super::cli_error::Exit;
use super::client::Client;
use super::output::{Table, print_json};
use crate::http::api::{LoadedPlugin, Node};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the hosts that share the store: their load, their plugins, when they were last seen
    List,
}

impl Command {
    pub(crate) fn run(self, client: &Client, json: bool) -> anyhow::Result<Exit> {
        match self {
            Command::List if json => print_json(&client.get::<Box<RawValue>>("/v1/nodes".to_owned())?)?,
            Command::List => list(&client.get::<Vec<Node>>("/v1/nodes".to_owned())?)?,
        }
        Ok(Exit::Done)
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
        let plugin = |carried: &LoadedPlugin| {
            format!("{} {} ({})", carried.id, carried.version, carried.digest.chars().take(8).collect::<String>())
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
