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
    ///
    /// SETTINGS is the beginning of a digest of the settings that all of them should share: grants, task settings, limits and
    /// tokens of wharf.toml among them, but no secret, and not the address, the store, the log and the folders of one host.
    /// Hosts that show different ones have different settings.
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
    let mut table = Table::new(&["NODE", "NAME", "VERSION", "STATE", "RUNNING", "SEEN", "SETTINGS", "PLUGINS"]);
    for node in nodes {
        let state = match (node.draining, node.here) {
            (true, _) => "draining",
            (false, true) => "here",
            (false, false) => "up",
        };
        let plugin =
            |loaded: &LoadedPlugin| format!("{} {} ({})", loaded.id, loaded.version, beginning(&loaded.digest));
        let plugins: Vec<String> = node.plugins.iter().map(plugin).collect();
        table.row([
            node.id.clone(),
            node.name.clone(),
            node.version.clone(),
            state.to_owned(),
            format!("{} of {}", node.running, node.capacity),
            format!("{:.0}", node.seen_at.date()),
            node.settings.as_deref().filter(|digest| !digest.is_empty()).map_or_else(|| "-".to_owned(), beginning),
            plugins.join(", "),
        ]);
    }
    Ok(table.print()?)
}

/// Returns as much of a digest as tells it from others.
fn beginning(digest: &str) -> String {
    digest.chars().take(8).collect()
}
