//! The hosts that share a store.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_core::ids::NodeId;
use wharf_core::node;

use super::moment::Moment;

/// A node: one running host, as it registered itself in the store.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Node {
    /// ID of the node; each start of a host has a new one.
    pub(crate) id: String,
    /// Name: the machine's name and the port.
    pub(crate) name: String,
    /// Version of Wharf.
    pub(crate) version: String,
    /// True if it is the node that sent this document.
    pub(crate) here: bool,
    /// When the node started.
    pub(crate) started_at: Moment,
    /// When the node last registered, by the store's clock; nodes do so every three seconds.
    pub(crate) seen_at: Moment,
    /// Number of attempts that run on the node.
    pub(crate) running: u32,
    /// Number of attempts that may run at once on the node.
    pub(crate) capacity: u32,
    /// Budget of memory of the node in bytes; absent if the node does not publish it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_budget: Option<u64>,
    /// True if the node starts no more jobs: it is stopping, or an operator drains it.
    pub(crate) draining: bool,
    /// Digest of the settings that all nodes should share; null if the node's version does not publish it. Nodes with different
    /// digests have different settings.
    pub(crate) settings: Option<String>,
    /// Plugins that the node has loaded.
    pub(crate) plugins: Vec<LoadedPlugin>,
}

/// A node that was drained or resumed.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct DrainedNode {
    /// ID of the node.
    pub(crate) id: String,
    /// Name of the node.
    pub(crate) name: String,
    /// True if the node starts no more jobs.
    pub(crate) draining: bool,
    /// Number of attempts that run on the node.
    pub(crate) running: u32,
}

impl From<wharf_runner::DrainedNode> for DrainedNode {
    fn from(node: wharf_runner::DrainedNode) -> DrainedNode {
        let wharf_runner::DrainedNode { id, name, draining, running } = node;
        DrainedNode { id: id.to_string(), name, draining, running }
    }
}

/// A plugin that a node has loaded.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LoadedPlugin {
    /// ID of the plugin.
    pub(crate) id: String,
    /// Version that its manifest declares.
    pub(crate) version: String,
    /// SHA-256 of its file.
    pub(crate) digest: String,
}

impl Node {
    /// Returns the document of a node; `here` is the node that sends it.
    pub(crate) fn new(node: node::Node, here: NodeId) -> Node {
        Node {
            id: node.id.to_string(),
            name: node.name,
            version: node.version,
            here: node.id == here,
            started_at: Moment(node.started),
            seen_at: Moment(node.seen),
            running: node.running,
            capacity: node.capacity,
            memory_budget: node.memory_budget,
            draining: node.draining,
            settings: node.settings,
            plugins: node.plugins.into_iter().map(LoadedPlugin::from).collect(),
        }
    }
}

impl From<node::LoadedPlugin> for LoadedPlugin {
    fn from(loaded: node::LoadedPlugin) -> LoadedPlugin {
        LoadedPlugin { id: loaded.plugin.to_string(), version: loaded.version, digest: loaded.digest }
    }
}
