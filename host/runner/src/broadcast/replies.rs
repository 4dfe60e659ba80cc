//! The replies to a live broadcast, for its caller.

use std::collections::BTreeSet;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;
use wharf_core::ids::{JobId, PluginId};
use wharf_core::rollcall::{Answer, Reply};
use wharf_core::topic::Topic;

/// The replies to a live broadcast, as they arrive.
///
/// When this is dropped, the broadcast ends and the subscribers that still run for it are stopped.
#[derive(Debug)]
pub struct Replies {
    /// The ID of the broadcast.
    pub id: JobId,
    /// The topic.
    pub topic: Topic,
    /// The subscribers that the broadcast calls, in the order of the final list.
    pub asked: Vec<PluginId>,
    /// Plugins that may subscribe but are not called, since they are still loading and no node has them loaded.
    pub loading: Vec<PluginId>,
    /// The subscribers without a reply so far.
    pub(super) missing: BTreeSet<PluginId>,
    pub(super) pending: UnboundedReceiver<Reply>,
    pub(super) started: Instant,
    /// Ends the broadcast when it is dropped.
    pub(super) _end: DropGuard,
}

impl Replies {
    /// Waits for the next reply; returns `None` after the last. Each subscriber has exactly one.
    pub async fn next(&mut self) -> Option<Reply> {
        if let Some(reply) = self.pending.recv().await {
            self.missing.remove(&reply.plugin);
            return Some(reply);
        }
        // The task that ran the broadcast is gone without having replied for all.
        let plugin = self.missing.pop_first()?;
        let why = "the host failed during this broadcast; this is a bug of the host, please report it";
        Some(Reply { plugin, answer: Answer::Skipped(why.to_owned()), elapsed: self.started.elapsed() })
    }

    /// Waits for all replies; returns them ordered by plugin.
    pub async fn all(mut self) -> Vec<Reply> {
        let mut replies = Vec::with_capacity(self.asked.len());
        while let Some(reply) = self.next().await {
            replies.push(reply);
        }
        replies.sort_by(|a, b| a.plugin.cmp(&b.plugin));
        replies
    }
}
