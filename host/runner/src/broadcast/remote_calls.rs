//! Receives the messages of other nodes, and calls subscribers of this node for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::ids::{JobId, NodeId, PluginId};
use wharf_core::node_message::{MessageBody, NodeMessage};
use wharf_core::outcome::Interruption;
use wharf_core::rollcall::Answer;

use super::call_chain::CallChain;
use super::cluster::{Cluster, POLL};
use super::guest_calls::GuestContext;
use super::subscriber_call::{Admitted, CallContext, SubscriberCall};

/// A broadcast of another node.
struct RemoteBroadcast {
    from: NodeId,
    call: SubscriberCall,
    /// Its deadline.
    until: Instant,
    /// Cancelled when the other node no longer waits for answers.
    over: CancellationToken,
}

/// The calls that this node makes for broadcasts of others.
pub(crate) struct RemoteCalls {
    cluster: Arc<Cluster>,
    context: Arc<CallContext>,
    guest: Arc<GuestContext>,
    stopping: CancellationToken,
    /// The broadcasts for which subscribers are called here. Locked for one look-up, never across an await.
    running: Mutex<HashMap<(NodeId, JobId), CancellationToken>>,
    /// Number of subscribers that may be called here for others at once, or wait for a sandbox.
    permits: Semaphore,
}

impl RemoteCalls {
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        context: Arc<CallContext>,
        guest: Arc<GuestContext>,
        stopping: CancellationToken,
    ) -> RemoteCalls {
        let permits = Semaphore::new(bounds::BROADCAST_CALLS_MAX as usize);
        RemoteCalls { cluster, context, guest, stopping, running: Mutex::default(), permits }
    }

    /// Receives the messages to this node until it stops. Ends at once if the store can have no other node.
    pub(crate) async fn receive_messages(self: Arc<Self>) {
        let store = self.cluster.store();
        let Some(channel) = store.messages() else { return };
        let mut nudges = channel.message_nudges();
        loop {
            nudges.mark_unchanged();
            // A failure was reported by the call; the next poll tries again.
            match store.call("receiving messages", channel.receive_messages(self.cluster.node())).await {
                Ok(messages) => messages.into_iter().for_each(|message| self.handle(message)),
                Err(_) => tokio::time::sleep(POLL).await,
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                Ok(()) = nudges.changed() => {}
                () = tokio::time::sleep(self.cluster.poll_interval()) => {}
            }
        }
    }

    fn handle(self: &Arc<Self>, message: NodeMessage) {
        let NodeMessage { from, broadcast, about, .. } = message;
        match about {
            MessageBody::Reply { plugin, answer } => self.cluster.deliver(broadcast, (plugin, answer)),
            MessageBody::SetDrained { drained, by, until } => {
                if self.cluster.store().now() < until {
                    self.context.enqueuer.set_drained(drained, by);
                }
            }
            MessageBody::Over => {
                if let Some(over) = self.lock().get(&(from, broadcast)) {
                    over.cancel();
                }
            }
            MessageBody::Call { plugins, topic, payload, until, depth, chain } => {
                let call = SubscriberCall {
                    context: Arc::clone(&self.context),
                    guest: Arc::clone(&self.guest),
                    id: broadcast,
                    topic,
                    payload,
                    chain: CallChain::from_message(depth, chain),
                    catalog: self.guest.plugins.catalog(),
                };
                let until = Instant::now() + until.since(self.cluster.store().now());
                let over = CancellationToken::new();
                self.lock().insert((from, broadcast), over.clone());
                let (this, remote) = (Arc::clone(self), RemoteBroadcast { from, call, until, over });
                self.context.tasks.spawn(async move {
                    let calls = plugins.into_iter().map(|plugin| this.call_for(&remote, plugin));
                    futures_util::future::join_all(calls).await;
                    this.lock().remove(&(from, broadcast));
                });
            }
        }
    }

    /// Calls one subscriber for another node, and sends it the answer.
    async fn call_for(&self, remote: &RemoteBroadcast, plugin: PluginId) {
        let Some(answer) = self.answer(remote, &plugin).await else { return };
        let message = self.cluster.message(remote.from, remote.call.id, MessageBody::Reply { plugin, answer });
        // If this fails, the deadline ends the wait for the message.
        let _ = self.cluster.send("sending a reply to another node", vec![message]).await;
    }

    /// Returns the answer of one subscriber; `None` if the broadcast has ended by then.
    async fn answer(&self, remote: &RemoteBroadcast, plugin: &PluginId) -> Option<Answer> {
        let RemoteBroadcast { call, until, over, .. } = remote;
        let skipped = |why: String| Some(Answer::Skipped(why));
        let node = || self.cluster.node();
        if call.depth() > bounds::BROADCAST_DEPTH_MAX {
            let max = bounds::BROADCAST_DEPTH_MAX;
            return skipped(format!("broadcast is nested too deeply; the limit is {max} broadcasts within each other"));
        }
        let subscribers = call.catalog.subscribers(&call.topic);
        let Some(plugin) = subscribers.into_iter().find(|subscriber| subscriber.id == *plugin) else {
            return skipped(format!("node {} no longer has this subscriber", node()));
        };
        let holds = self.context.held.holds(until.saturating_duration_since(Instant::now())).await;
        let receive = match call.receive(&plugin, &holds) {
            Ok(receive) => receive,
            Err(answer) => return Some(answer),
        };
        let Ok(_permit) = self.permits.try_acquire() else {
            let max = bounds::BROADCAST_CALLS_MAX;
            return skipped(format!("node {} makes too many calls for other nodes; the limit is {max}", node()));
        };
        let permit = tokio::select! {
            biased;
            () = over.cancelled() => return None,
            () = tokio::time::sleep_until(*until) => {
                return skipped(format!("it was not called: no sandbox was free in time on node {}", node()));
            }
            permit = call.admit(&plugin) => permit,
        };
        let (to_here, answer) = oneshot::channel();
        let remaining = until.saturating_duration_since(Instant::now());
        let admitted = Admitted { plugin: &plugin, receive, permit };
        let handle = call.start(admitted, remaining, move |answer| drop(to_here.send(answer)));
        tokio::select! {
            biased;
            answer = answer => answer.ok(),
            () = over.cancelled() => {
                handle.stop(Interruption::Host, "the broadcast is over".to_owned());
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(NodeId, JobId), CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
