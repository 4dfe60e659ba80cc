//! Messages between the nodes that share a store.

use async_trait::async_trait;
use wharf_core::ids::{JobId, NodeId};
use wharf_core::node_message::NodeMessage;

use super::error::StoreError;
use super::queue::Nudges;

/// Calls between the nodes that share a store. A store that only one node can use has none of them.
#[async_trait]
pub trait NodeMessages: Send + Sync {
    /// Returns jobs that run on this node and whose cancellation another node requested.
    async fn cancel_requests(&self, node: NodeId) -> Result<Vec<JobId>, StoreError>;

    /// Stores messages for other nodes.
    async fn send_messages(&self, messages: Vec<NodeMessage>) -> Result<(), StoreError>;

    /// Removes and returns the messages to this node, each once, in the order in which they were sent.
    async fn receive_messages(&self, node: NodeId) -> Result<Vec<NodeMessage>, StoreError>;

    /// Returns a receiver that changes when there may be messages to this node.
    fn message_nudges(&self) -> Nudges;
}
