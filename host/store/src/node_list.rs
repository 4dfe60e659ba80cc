//! The nodes of a store that one process has for itself: there is one, and who else was announced is gone with it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wharf_core::ids::NodeId;
use wharf_core::node::Node;
use wharf_core::time::Timestamp;

/// What a node wrote down of itself is kept for so long: its attempts are over by then, and so are their leases.
pub(crate) const MARKS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Locked for one look-up, never across an await.
#[derive(Debug, Default)]
pub(crate) struct NodeList(Mutex<BTreeMap<NodeId, Node>>);

impl NodeList {
    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, Node>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn announce(&self, node: Node, silent: Duration, now: Timestamp) {
        let mut nodes = self.nodes();
        nodes.retain(|_, node| node.seen + silent >= now && node.seen <= now + silent);
        nodes.insert(node.id, Node { seen: now, ..node });
    }

    pub(crate) fn leave(&self, node: NodeId) {
        self.nodes().remove(&node);
    }

    pub(crate) fn all(&self) -> Vec<Node> {
        let mut nodes: Vec<Node> = self.nodes().values().cloned().collect();
        nodes.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        nodes
    }
}
