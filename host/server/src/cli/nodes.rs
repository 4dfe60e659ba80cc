//! `wharf node`: the hosts that share a store, and draining them.

use clap::Subcommand;
use serde_json::value::RawValue;
use wharf_core::node::NodeName;

use super::client::{ApiRequest, Client};
use crate::cli_error::ExitStatus;
use crate::http::api::{DrainedNode, LoadedPlugin, Node};
use crate::http::encode;
use crate::output::{Table, print_json};

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List the hosts that share the store, with their load, their plugins and when they were last seen
    ///
    /// SETTINGS is the beginning of a digest of the settings that all of them should share: grants, task settings, limits and
    /// tokens of wharf.toml among them, but no secret, and not the address, the store, the log and the folders of one host.
    /// Hosts that show different ones have different settings.
    List,
    /// Drain a host: it goes on with what runs, and begins no more
    ///
    /// The host claims no jobs, starts no live broadcasts and fires no schedules; other hosts of the store do. Its API answers, and
    /// `/ready` says that it is draining. A host that starts does not remember it.
    Drain {
        /// ID or name of the host, as `wharf node list` shows them [default: the one that is asked]
        node: Option<String>,
    },
    /// Have a drained host claim jobs again
    Resume {
        /// ID or name of the host, as `wharf node list` shows them [default: the one that is asked]
        node: Option<String>,
    },
}

impl NodeCommand {
    pub(crate) fn run(self, client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
        match self {
            NodeCommand::List if json => print_json(&client.get::<Box<RawValue>>("/v1/nodes".to_owned())?)?,
            NodeCommand::List => list(&client.get::<Vec<Node>>("/v1/nodes".to_owned())?)?,
            NodeCommand::Drain { node } => set_drained(client, node.as_deref(), "drain", json)?,
            NodeCommand::Resume { node } => set_drained(client, node.as_deref(), "resume", json)?,
        }
        Ok(ExitStatus::Done)
    }
}

fn set_drained(client: &Client, node: Option<&str>, verb: &str, json: bool) -> anyhow::Result<()> {
    let path = format!("/v1/nodes/{}/{verb}", encode(node.unwrap_or(NodeName::HERE)));
    let request = ApiRequest { method: "POST", path, ..ApiRequest::default() };
    let (done, raw): (DrainedNode, Box<RawValue>) = client.request_with_raw(request)?;
    if json {
        print_json(&raw)?;
        return Ok(());
    }
    let mut table = Table::new(&["NODE", "NAME", "STATE", "RUNNING"]);
    let state = if done.draining { "draining" } else { "up" };
    table.row([done.id, done.name, state.to_owned(), done.running.to_string()]);
    table.print()?;
    Ok(())
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
