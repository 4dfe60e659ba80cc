//! Broadcasts over several nodes: plugins that only others have are called there, and their answers come by letter.
//!
//! What others have is known from what they announce, some seconds old. A letter may be lost; the broadcast's deadline ends the wait.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::ids::{JobId, NodeId, PluginId};
use wharf_core::letter::{About, Letter};
use wharf_core::node::Node;
use wharf_core::outcome::Interruption;
use wharf_core::rollcall::Answer;
use wharf_core::time::Timestamp;
use wharf_core::topic::{Subscriptions, Topic};
use wharf_engine::Share;

use super::called::Calling;
use super::{Broadcasts, Chain};

/// Who was not heard of for this long is not asked, nor waited for: it would have said something three times.
const GONE: Duration = Duration::from_secs(10);
/// Looks for letters that no nudge tells of: where others are, where answers are waited for, where this node is alone.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_SOON: Duration = Duration::from_millis(50);
const LOOK_ALONE: Duration = Duration::from_secs(5);

/// What was heard of one subscriber's call.
pub(super) type Heard = (PluginId, Answer);

pub(super) struct Cluster {
    node: NodeId,
    others: ArcSwap<Others>,
    /// Who waits here for answers from elsewhere. Locked for one look, never across an await, as is the next.
    waiting: Mutex<HashMap<JobId, UnboundedSender<Heard>>>,
    /// What is called here for others.
    errands: Mutex<HashMap<(NodeId, JobId), CancellationToken>>,
    /// How many subscribers may be called or wait for it here for others.
    places: Arc<Semaphore>,
}

/// The other nodes as they announced themselves.
#[derive(Default)]
struct Others {
    names: BTreeMap<NodeId, (String, Timestamp)>,
    subscriptions: Subscriptions<PluginId>,
    /// Who has a plugin that subscribes, and does not stop.
    at: BTreeMap<PluginId, Vec<NodeId>>,
}

impl Cluster {
    pub(super) fn new(node: NodeId) -> Cluster {
        Cluster {
            node,
            others: ArcSwap::default(),
            waiting: Mutex::default(),
            errands: Mutex::default(),
            places: Arc::new(Semaphore::new(bounds::BROADCAST_CALLS_MAX as usize)),
        }
    }

    fn learn(&self, nodes: Vec<Node>) {
        let mut others = Others::default();
        for node in nodes.into_iter().filter(|node| node.id != self.node) {
            if !node.draining {
                for carried in node.plugins {
                    carried.topics.iter().for_each(|topic| others.subscriptions.add(topic, carried.plugin.clone()));
                    others.at.entry(carried.plugin).or_default().push(node.id);
                }
            }
            others.names.insert(node.id, (node.name, node.seen));
        }
        self.others.store(Arc::new(others));
    }

    /// Who subscribes on other nodes and not here, each with the one node that is to call it.
    pub(super) fn elsewhere(&self, topic: &Topic, here: &[PluginId], now: Timestamp) -> Vec<(NodeId, Vec<PluginId>)> {
        let others = self.others.load();
        let mut asked: BTreeMap<NodeId, Vec<PluginId>> = BTreeMap::new();
        for plugin in others.subscriptions.of(topic) {
            if here.binary_search(&plugin).is_ok() {
                continue;
            }
            let there = others.at.get(&plugin).into_iter().flatten().filter(|node| others.is_there(**node, now));
            // The work is shared out among those who have it.
            let least = there.min_by_key(|node| asked.get(*node).map_or(0, Vec::len)).copied();
            if let Some(node) = least {
                asked.entry(node).or_default().push(plugin);
            }
        }
        asked.into_iter().collect()
    }

    pub(super) fn is_there(&self, node: NodeId, now: Timestamp) -> bool {
        self.others.load().is_there(node, now)
    }

    pub(super) fn name(&self, node: NodeId) -> String {
        self.others.load().names.get(&node).map_or_else(|| node.to_string(), |(name, _)| name.clone())
    }

    pub(super) fn wait(&self, broadcast: JobId, heard: UnboundedSender<Heard>) {
        lock(&self.waiting).insert(broadcast, heard);
    }

    pub(super) fn wait_no_more(&self, broadcast: JobId) {
        lock(&self.waiting).remove(&broadcast);
    }

    pub(super) fn letter(&self, to: NodeId, broadcast: JobId, about: About) -> Letter {
        Letter { from: self.node, to, broadcast, about }
    }

    fn look_every(&self) -> Duration {
        if !lock(&self.waiting).is_empty() {
            LOOK_SOON
        } else if self.others.load().names.is_empty() {
            LOOK_ALONE
        } else {
            LOOK
        }
    }
}

impl Others {
    fn is_there(&self, node: NodeId, now: Timestamp) -> bool {
        // One that was seen long after now was seen by a clock that was set back since.
        self.names.get(&node).is_some_and(|(_, seen)| *seen + GONE >= now && *seen <= now + GONE)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Broadcasts {
    /// Takes in what the nodes of the store have announced.
    pub(crate) fn learn(&self, nodes: Vec<Node>) {
        self.cluster.learn(nodes);
    }

    /// Reads the letters to this node until it stops. Ends at once where no other node can be.
    pub(crate) async fn read_letters(self: Arc<Self>) {
        let shared = &self.inserting.shared;
        let mut told = shared.store.letters();
        loop {
            told.mark_unchanged();
            // What failed was told, and is tried again with the next look.
            match shared.ask("collecting letters", shared.store.collect(self.cluster.node)).await {
                Ok(None) => return,
                Ok(Some(letters)) => letters.into_iter().for_each(|letter| self.read(letter)),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                Ok(()) = told.changed() => {}
                () = tokio::time::sleep(self.cluster.look_every()) => {}
            }
        }
    }

    fn read(self: &Arc<Self>, letter: Letter) {
        let Letter { from, broadcast, about, .. } = letter;
        match about {
            About::Reply { plugin, answer } => {
                if let Some(waiting) = lock(&self.cluster.waiting).get(&broadcast) {
                    let _ = waiting.send((plugin, answer));
                }
            }
            About::Over => {
                if let Some(errand) = lock(&self.cluster.errands).get(&(from, broadcast)) {
                    errand.cancel();
                }
            }
            About::Call { plugins, topic, payload, until, depth, chain } => {
                let shared = &self.inserting.shared;
                let calling = Arc::new(Calling {
                    broadcasts: Arc::clone(self),
                    id: broadcast,
                    topic,
                    payload,
                    chain: Chain::of_letter(depth, chain),
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

impl Calling {
    /// Calls one subscriber for another node, and writes it the answer.
    async fn errand(&self, from: NodeId, plugin: PluginId, until: Instant, over: &CancellationToken) {
        let Some(answer) = self.answer_of(&plugin, until, over).await else { return };
        let cluster = &self.broadcasts.cluster;
        let letter = cluster.letter(from, self.id, About::Reply { plugin, answer });
        let shared = &self.broadcasts.inserting.shared;
        // Whoever waits for a letter that cannot be written has a deadline.
        let _ = shared.ask("posting a reply", shared.store.post(vec![letter])).await;
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
            self.broadcasts.inserting.shared.engine.admit(Share::Broadcasts { depth: self.depth() }, &plugin);
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
