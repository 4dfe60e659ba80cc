//! Messages between nodes of one store: about a live broadcast whose subscribers are on several nodes, and to drain a node.
//!
//! Messages carry nothing that must survive: every node that waits for one has a deadline.

use crate::ids::{JobId, NodeId, PluginId};
use crate::rollcall::Answer;
use crate::shared_bytes::SharedBytes;
use crate::time::Timestamp;
use crate::topic::Topic;

/// A message from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeMessage {
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// The ID of the broadcast that the message is about.
    pub broadcast: JobId,
    /// The content.
    pub about: MessageBody,
}

/// The content of a [`NodeMessage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageBody {
    /// Asks the receiver to call subscribers that only it has loaded.
    Call {
        /// The subscribers to call.
        plugins: Vec<PluginId>,
        /// The topic of the broadcast.
        topic: Topic,
        /// The payload of the broadcast.
        payload: SharedBytes,
        /// The deadline by the store's clock; later replies are ignored.
        until: Timestamp,
        /// Number of broadcasts that this one is nested in.
        depth: u32,
        /// The plugins whose attempts wait for this broadcast.
        chain: Vec<PluginId>,
    },
    /// The answer of one called subscriber.
    Reply {
        /// The subscriber.
        plugin: PluginId,
        /// Its answer.
        answer: Answer,
    },
    /// The broadcast has ended: the remaining replies are not needed.
    Over,
    /// An operator drains the receiver, or lets it claim jobs again. The ID of the broadcast has no meaning.
    SetDrained {
        /// True to drain it.
        drained: bool,
        /// The name of the operator's token, if the sender knows it.
        by: Option<String>,
        /// The moment by the store's clock from which on the message is ignored: the operator was told by then that it did not
        /// arrive.
        until: Timestamp,
    },
}
