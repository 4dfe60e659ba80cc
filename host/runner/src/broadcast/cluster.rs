//! Broadcasts over several nodes: plugins that only others have are called there, and their answers come by letter.
//!
//! A letter may be lost; the broadcast's deadline ends the wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::ids::{JobId, NodeId, PluginId};
use wharf_core::node_message::{MessageBody, NodeMessage};
use wharf_core::outcome::Interruption;
use wharf_core::rollcall::Answer;
use wharf_engine::PermitPool;

use super::subscriber_call::SubscriberCall;
use super::{Broadcasts, CallChain};

/// Looks for letters that no nudge tells of: where others are, where answers are waited for, where this node is alone.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_SOON: Duration = Duration::from_millis(50);
const LOOK_ALONE: Duration = Duration::from_secs(5);

/// What was heard of one subscriber's call.
pub(super) type Heard = (PluginId, Answer);

pub(super) struct Cluster {
    node: NodeId,
    /// Who waits here for answers from elsewhere. Locked for one look, never across an await, as is the next.
    waiting: Mutex<HashMap<JobId, UnboundedSender<Heard>>>,
    /// What is called here for others.
    errands: Mutex<HashMap<(NodeId, JobId), CancellationToken>>,
    /// How many subscribers may be called or wait for it here for others.
    places: Arc<Semaphore>,
}

impl Cluster {
    pub(super) fn new(node: NodeId) -> Cluster {
        Cluster {
            node,
            waiting: Mutex::default(),
            errands: Mutex::default(),
            places: Arc::new(Semaphore::new(bounds::BROADCAST_CALLS_MAX as usize)),
        }
    }

    pub(super) fn wait(&self, broadcast: JobId, heard: UnboundedSender<Heard>) {
        lock(&self.waiting).insert(broadcast, heard);
    }

    pub(super) fn wait_no_more(&self, broadcast: JobId) {
        lock(&self.waiting).remove(&broadcast);
    }

    pub(super) fn letter(&self, to: NodeId, broadcast: JobId, about: MessageBody) -> NodeMessage {
        NodeMessage { from: self.node, to, broadcast, about }
    }

    fn look_every(&self, is_alone: bool) -> Duration {
        if !lock(&self.waiting).is_empty() {
            LOOK_SOON
        } else if is_alone {
            LOOK_ALONE
        } else {
            LOOK
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Broadcasts {
    /// Reads the letters to this node until it stops. Ends at once where no other node can be.
    pub(crate) async fn read_letters(self: Arc<Self>) {
        let shared = &self.inserting.shared;
        let mut told = shared.store.message_nudges();
        loop {
            told.mark_unchanged();
            // What failed was told, and is tried again with the next look.
            match shared.ask("collecting letters", shared.store.receive_messages(self.cluster.node)).await {
                Ok(None) => return,
                Ok(Some(letters)) => letters.into_iter().for_each(|letter| self.read(letter)),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                Ok(()) = told.changed() => {}
                () = tokio::time::sleep(self.cluster.look_every(shared.others.load().is_alone())) => {}
            }
        }
    }

    fn read(self: &Arc<Self>, letter: NodeMessage) {
        let NodeMessage { from, broadcast, about, .. } = letter;
        match about {
            MessageBody::Reply { plugin, answer } => {
                if let Some(waiting) = lock(&self.cluster.waiting).get(&broadcast) {
                    let _ = waiting.send((plugin, answer));
                }
            }
            MessageBody::Over => {
                if let Some(errand) = lock(&self.cluster.errands).get(&(from, broadcast)) {
                    errand.cancel();
                }
            }
            MessageBody::Call { plugins, topic, payload, until, depth, chain } => {
                let shared = &self.inserting.shared;
                let calling = Arc::new(SubscriberCall {
                    broadcasts: Arc::clone(self),
                    id: broadcast,
                    topic,
                    payload,
                    chain: CallChain::of_letter(depth, chain),
                    catalog: shared.catalog.load_full(),
                });
                let left = until.since(shared.store.now());
                let over = CancellationToken::new();
                lock(&self.cluster.errands).insert((from, broadcast), over.clone());
                let (broadcasts, tasks) = (Arc::clone(self), shared.tasks.clone());
                tasks.spawn(async move {
                    let until = Instant::now() + left;
                    let errands = plugins.into_iter().map(|plugin| calling.errand(from, plugin, until, &over));
                    futures_util::future::join_all(errands).await;
                    lock(&broadcasts.cluster.errands).remove(&(from, broadcast));
                });
            }
        }
    }
}

impl SubscriberCall {
    /// Calls one subscriber for another node, and writes it the answer.
    async fn errand(&self, from: NodeId, plugin: PluginId, until: Instant, over: &CancellationToken) {
        let Some(answer) = self.answer_of(&plugin, until, over).await else { return };
        let cluster = &self.broadcasts.cluster;
        let letter = cluster.letter(from, self.id, MessageBody::Reply { plugin, answer });
        let shared = &self.broadcasts.inserting.shared;
        // Whoever waits for a letter that cannot be written has a deadline.
        let _ = shared.ask("posting a reply", shared.store.send_messages(vec![letter])).await;
    }

    /// `None` where nobody waits for it any longer.
    async fn answer_of(&self, plugin: &PluginId, until: Instant, over: &CancellationToken) -> Option<Answer> {
        let skipped = |why: String| Some(Answer::Skipped(why));
        let cluster = &self.broadcasts.cluster;
        let name = || cluster.node;
        if self.depth() > bounds::BROADCAST_DEPTH_MAX {
            return skipped(format!("broadcasts within broadcasts go {} deep", bounds::BROADCAST_DEPTH_MAX));
        }
        let subscribers = self.catalog.subscribers(&self.topic);
        let Some(plugin) = subscribers.into_iter().find(|subscriber| subscriber.id == *plugin) else {
            return skipped(format!("node {} does not have it any more", name()));
        };
        let receive = match self.receive(&plugin) {
            Ok(receive) => receive,
            Err(answer) => return Some(answer),
        };
        let Ok(_place) = cluster.places.try_acquire() else {
            return skipped(format!("node {} calls as many for others as it may", name()));
        };
        let admission =
            self.broadcasts.inserting.shared.engine.admit(PermitPool::Broadcasts { depth: self.depth() }, &plugin);
        let admission = tokio::select! {
            biased;
            () = over.cancelled() => return None,
            () = tokio::time::sleep_until(until) => {
                return skipped(format!("it was not called: no sandbox was free in time on node {}", name()));
            }
            admission = admission => admission,
        };
        let (told, heard) = oneshot::channel();
        let left = until.saturating_duration_since(Instant::now());
        let control = self.start(&plugin, receive, admission, left, move |answer| drop(told.send(answer)));
        tokio::select! {
            biased;
            answer = heard => answer.ok(),
            () = over.cancelled() => {
                control.stop(Interruption::Host, "the broadcast is over".to_owned());
                None
            }
        }
    }
}
