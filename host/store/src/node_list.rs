//! The registered nodes of a store that only one process can use. Registrations are kept in memory and end with the
//! process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wharf_core::activity::Activity;
use wharf_core::ids::NodeId;
use wharf_core::node::Node;
use wharf_core::time::Timestamp;

/// Time for which a node mark is kept. By then all attempts of the node have ended, and so have their leases.
pub(crate) const MARKS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The registered nodes by ID. The lock is held for one lookup, never across an await.
#[derive(Debug, Default)]
pub(crate) struct NodeList(Mutex<Registered>);

/// The registered nodes, and their activities.
#[derive(Debug, Default)]
struct Registered {
    nodes: BTreeMap<NodeId, Node>,
    activities: BTreeMap<NodeId, Arc<Activity>>,
}

impl NodeList {
    fn registered(&self) -> MutexGuard<'_, Registered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a node at `now`, and removes those that have not registered for longer than `silent`. Nodes whose time
    /// lies in the future are removed as well: the clock was set back.
    pub(crate) fn announce(&self, node: Node, silent: Duration, now: Timestamp) {
        let mut registered = self.registered();
        let Registered { nodes, activities } = &mut *registered;
        nodes.retain(|_, node| node.seen + silent >= now && node.seen <= now + silent);
        nodes.insert(node.id, Node { seen: now, ..node });
        activities.retain(|node, _| nodes.contains_key(node));
    }

    /// Removes a node.
    pub(crate) fn leave(&self, node: NodeId) {
        let mut registered = self.registered();
        registered.nodes.remove(&node);
        registered.activities.remove(&node);
    }

    /// Returns all nodes, by name.
    pub(crate) fn all(&self) -> Vec<Node> {
        let mut nodes: Vec<Node> = self.registered().nodes.values().cloned().collect();
        nodes.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        nodes
    }

    /// Replaces the activity of a node, if it is registered.
    pub(crate) fn set_activity(&self, node: NodeId, activity: Arc<Activity>) {
        let mut registered = self.registered();
        if registered.nodes.contains_key(&node) {
            registered.activities.insert(node, activity);
        }
    }

    /// Returns the activities of all nodes.
    pub(crate) fn activities(&self) -> Vec<(NodeId, Arc<Activity>)> {
        self.registered().activities.iter().map(|(node, activity)| (*node, activity.clone())).collect()
    }
}
