//! The nodes that use a store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wharf_core::activity::Activity;
use wharf_core::ids::NodeId;
use wharf_core::lease::NodeMark;
use wharf_core::node::Node;

use super::error::StoreError;

/// The nodes that use a store, and what each records about itself.
#[async_trait]
pub trait NodeRegistry: Send + Sync {
    /// Registers this node, or renews its registration. The store sets `seen`. Nodes that have not registered for
    /// longer than `silent` are removed.
    async fn register(&self, node: Node, silent: Duration) -> Result<(), StoreError>;

    /// Removes this node's registration, when it shuts down.
    async fn deregister(&self, node: NodeId) -> Result<(), StoreError>;

    /// Returns the registered nodes, by name.
    async fn nodes(&self) -> Result<Vec<Node>, StoreError>;

    /// Stores the activity of a node that is registered, in place of its last one.
    async fn set_activity(&self, node: NodeId, activity: Arc<Activity>) -> Result<(), StoreError>;

    /// Returns the activities of registered nodes, in no particular order.
    async fn activities(&self) -> Result<Vec<(NodeId, Arc<Activity>)>, StoreError>;

    /// Stores what a node records about itself, in place of its last mark.
    async fn set_node_mark(&self, node: NodeId, mark: NodeMark) -> Result<(), StoreError>;
}
