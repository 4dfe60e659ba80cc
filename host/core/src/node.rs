//! What the nodes of one store tell each other of themselves.

use crate::ids::{NodeId, PluginId};
use crate::time::Timestamp;
use crate::topic::Pattern;

/// One running host, as it announced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    /// For people: the machine and the port.
    pub name: String,
    /// Of the host.
    pub version: String,
    pub started: Timestamp,
    /// When it last said something, by the store's clock.
    pub seen: Timestamp,
    /// Attempts that may run at once, and that do.
    pub capacity: u32,
    pub running: u32,
    pub draining: bool,
    pub plugins: Vec<Carried>,
}

/// A plugin that a node has loaded: only such a node claims its jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    pub plugin: PluginId,
    pub version: String,
    /// Of its file: where two nodes differ here, they run different code.
    pub digest: String,
    /// What it subscribes to there.
    pub topics: Vec<Pattern>,
}
