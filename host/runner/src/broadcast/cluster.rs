//! Broadcasts over several nodes, seen from the node that starts one: subscribers that only other nodes have are called there,
//! and their answers come back as messages.
//!
//! A message may be lost; the broadcast's deadline ends the wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use wharf_core::ids::{JobId, NodeId, PluginId};
use wharf_core::node_message::{MessageBody, NodeMessage};
use wharf_core::rollcall::Answer;
use wharf_store::StoreError;

use crate::other_nodes::OtherNodes;
use crate::plugin_view::PluginIndex;
use crate::store_health::WatchedStore;

/// Interval at which messages are polled that no nudge reports: while answers are awaited, if there are other nodes, if there are none.
const POLL_AWAITING: Duration = Duration::from_millis(50);
pub(super) const POLL: Duration = Duration::from_secs(1);
const POLL_ALONE: Duration = Duration::from_secs(5);

/// A subscriber, and the answer to its call.
pub(super) type PluginAnswer = (PluginId, Answer);

/// The messages of this node about its broadcasts.
pub(crate) struct Cluster {
    node: NodeId,
    store: WatchedStore,
    plugins: Arc<PluginIndex>,
    /// The broadcasts of this node that await answers from others. Locked for one look-up, never across an await.
    awaiting: Mutex<HashMap<JobId, UnboundedSender<PluginAnswer>>>,
}

impl Cluster {
    pub(crate) fn new(node: NodeId, store: WatchedStore, plugins: Arc<PluginIndex>) -> Cluster {
        Cluster { node, store, plugins, awaiting: Mutex::default() }
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn store(&self) -> &WatchedStore {
        &self.store
    }

    pub(super) fn plugins(&self) -> &Arc<PluginIndex> {
        &self.plugins
    }

    pub(super) fn others(&self) -> Arc<OtherNodes> {
        self.plugins.others()
    }

    /// Delivers the answers from other nodes to `answers`, until `stop_awaiting`.
    pub(super) fn await_answers(&self, broadcast: JobId, answers: UnboundedSender<PluginAnswer>) {
        self.lock().insert(broadcast, answers);
    }

    pub(super) fn stop_awaiting(&self, broadcast: JobId) {
        self.lock().remove(&broadcast);
    }

    /// Hands an answer to the broadcast that awaits it, if it still does.
    pub(super) fn deliver(&self, broadcast: JobId, answer: PluginAnswer) {
        if let Some(answers) = self.lock().get(&broadcast) {
            let _ = answers.send(answer);
        }
    }

    /// Returns the message about a broadcast to another node.
    pub(super) fn message(&self, to: NodeId, broadcast: JobId, about: MessageBody) -> NodeMessage {
        NodeMessage { from: self.node, to, broadcast, about }
    }

    /// Writes messages to other nodes; `doing` names that in notices.
    ///
    /// # Errors
    ///
    /// Returns the store's error; then the messages may be lost. Returns [`StoreError::Broken`] if only this node can use the
    /// store.
    pub(super) async fn send(&self, doing: &'static str, messages: Vec<NodeMessage>) -> Result<(), StoreError> {
        let send = async {
            let text = "a message to another node was sent, but no other node can use this store: a bug";
            let channel = self.store.messages().ok_or_else(|| StoreError::Broken(text.to_owned()))?;
            channel.send_messages(messages).await
        };
        self.store.call(doing, send).await
    }

    /// Returns how long to wait before messages are polled again.
    pub(super) fn poll_interval(&self) -> Duration {
        if !self.lock().is_empty() {
            POLL_AWAITING
        } else if self.others().is_alone() {
            POLL_ALONE
        } else {
            POLL
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, UnboundedSender<PluginAnswer>>> {
        self.awaiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
