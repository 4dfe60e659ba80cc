//! What nodes of one store write to each other about a broadcast that reaches plugins of several of them.
//!
//! Letters carry no truth that must survive: who waits for one has a deadline.

use std::sync::Arc;

use crate::ids::{JobId, NodeId, PluginId};
use crate::rollcall::Answer;
use crate::time::Timestamp;
use crate::topic::Topic;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeMessage {
    pub from: NodeId,
    pub to: NodeId,
    pub broadcast: JobId,
    pub about: MessageBody,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageBody {
    /// Calls these subscribers, which only the other node has.
    Call {
        plugins: Vec<PluginId>,
        topic: Topic,
        payload: Arc<[u8]>,
        /// By the store's clock: who has not replied by then is not waited for.
        until: Timestamp,
        /// Broadcasts above this one, and plugins whose attempts wait for it.
        depth: u32,
        chain: Vec<PluginId>,
    },
    /// What one of them answered.
    Reply { plugin: PluginId, answer: Answer },
    /// Nobody waits for the rest any longer.
    Over,
}
