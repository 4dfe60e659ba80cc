//! The registered nodes of a store that only one process can use. Registrations are kept in memory and end with the
//! process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wharf_core::ids::NodeId;
use wharf_core::node::Node;
use wharf_core::time::Timestamp;

/// Time for which a node mark is kept. By then all attempts of the node have ended, and so have their leases.
pub(crate) const MARKS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The registered nodes by ID. The lock is held for one lookup, never across an await.
#[derive(Debug, Default)]
pub(crate) struct NodeList(Mutex<BTreeMap<NodeId, Node>>);

impl NodeList {
    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, Node>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a node at `now`, and removes those that have not registered for longer than `silent`. Nodes whose time
    /// lies in the future are removed as well: the clock was set back.
    pub(crate) fn announce(&self, node: Node, silent: Duration, now: Timestamp) {
        let mut nodes = self.nodes();
        nodes.retain(|_, node| node.seen + silent >= now && node.seen <= now + silent);
        nodes.insert(node.id, Node { seen: now, ..node });
    }

    /// Removes a node.
    pub(crate) fn leave(&self, node: NodeId) {
        self.nodes().remove(&node);
    }

    /// Returns all nodes, by name.
    pub(crate) fn all(&self) -> Vec<Node> {
        let mut nodes: Vec<Node> = self.nodes().values().cloned().collect();
        nodes.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        nodes
    }
}
