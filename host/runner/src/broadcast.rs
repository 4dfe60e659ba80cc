//! Broadcasts: one call to every subscriber of a topic, and exactly one reply from each.
//!
//! A live one calls them now, in parallel, and needs no store. A durable one is a job for each.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use wharf_core::bounds;
use wharf_core::ids::{JobId, JobIds, NodeId, ParseIdError, PluginId};
use wharf_core::outcome::Interruption;
use wharf_core::rollcall::{Answer, Mode, Reply};
use wharf_core::topic::Topic;
use wharf_engine::{AttemptHandle, Plugin};
use wharf_store::StoreError;

use crate::enqueuer::Enqueuer;
use crate::notice::Notice;
use crate::request::View;

mod call_chain;
mod subscriber_call;
mod cluster;
mod live;
mod durable;

pub(crate) use call_chain::CallChain;
use cluster::Cluster;
pub(crate) use durable::prepare;
pub use durable::{Batch, BatchJob};
use subscriber_call::SubscriberCall;

/// A broadcast as someone asks for it.
#[derive(Clone, Debug)]
pub struct Broadcast {
    /// "document.saved".
    pub topic: String,
    pub payload: Arc<[u8]>,
    /// For the whole: whoever has not replied by then is stopped. At most `bounds::BROADCAST_TIMEOUT_MAX`.
    pub timeout: Duration,
    pub mode: Mode,
}

/// Why a broadcast is not begun. Variants are what a caller does about it.
#[derive(Debug, thiserror::Error)]
pub enum BroadcastError {
    #[error("topic: {0}")]
    BadTopic(ParseIdError),
    #[error("payload: it has {bytes} bytes; {max} is the most")]
    TooLarge { bytes: u64, max: u64 },
    #[error("timeout: {asked:?} is too long; {max:?} is the most")]
    TooLong { asked: Duration, max: Duration },
    #[error("mode: the first 0 replies are none; 1 or more is expected")]
    FirstOfNone,
    #[error("this host is carrying {max} broadcasts, which is all that it may; try again when some have ended")]
    TooMany { max: u32 },
    #[error("broadcasts within broadcasts go {max} deep, and this one would go deeper")]
    TooDeep { max: u32 },
    #[error("this host is stopping and begins no more broadcasts")]
    Draining,
    /// Passes: some who may subscribe would not be reached.
    #[error("{}; nobody was asked: try again in a moment", loading(.plugins, *.open))]
    Loading {
        /// What is being made ready.
        plugins: Vec<PluginId>,
        /// The folder was gone through, and the other nodes were heard of.
        open: bool,
    },
    /// Passes where the plugins come to this node as well, or their nodes are of this version; else those have to be asked.
    #[error("{}; nobody was asked: send it there, or try again later", untold(.0))]
    Elsewhere(
        /// Each with the nodes that have it, by name.
        Vec<(PluginId, Vec<String>)>,
    ),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BroadcastError {
    /// What a guest is told whose broadcast is not begun. Where it would be a moment later its attempt is given back: it
    /// is not to fail for that.
    pub(crate) fn to_guest(&self, control: &AttemptHandle) -> String {
        let why = self.to_string();
        if matches!(self, BroadcastError::Loading { .. }) {
            control.stop(Interruption::Host, format!("it was stopped: it broadcasts, and {why}"));
        }
        why
    }
}

/// The replies to a live broadcast, as they come. When this is dropped, the broadcast ends and who is still called is stopped.
#[derive(Debug)]
pub struct Replies {
    pub id: JobId,
    pub topic: Topic,
    /// Who was asked, in the order of the final list.
    pub asked: Vec<PluginId>,
    /// Who may subscribe, and was not asked, since it is still being made ready and no node has it.
    pub loading: Vec<PluginId>,
    missing: BTreeSet<PluginId>,
    pending: UnboundedReceiver<Reply>,
    began: Instant,
    _end: DropGuard,
}

impl Replies {
    /// The next reply; `None` after the last. There is exactly one for each who was asked.
    pub async fn next(&mut self) -> Option<Reply> {
        if let Some(reply) = self.pending.recv().await {
            self.missing.remove(&reply.plugin);
            return Some(reply);
        }
        // Whoever carried it is gone without having answered for all.
        let plugin = self.missing.pop_first()?;
        let why = "the host failed while it carried this broadcast; this is a bug of the host, please report it";
        Some(Reply { plugin, answer: Answer::Skipped(why.to_owned()), elapsed: self.began.elapsed() })
    }

    /// All replies, by plugin.
    pub async fn all(mut self) -> Vec<Reply> {
        let mut replies = Vec::with_capacity(self.asked.len());
        while let Some(reply) = self.next().await {
            replies.push(reply);
        }
        replies.sort_by(|a, b| a.plugin.cmp(&b.plugin));
        replies
    }
}

/// What carries the broadcasts of one node. Shared by people and plugins.
pub(crate) struct Broadcasts {
    pub(crate) inserting: Enqueuer,
    /// How many of one depth may be open: whoever broadcasts from within a broadcast never waits for a place of its own caller.
    places: Vec<Arc<Semaphore>>,
    max: u32,
    home: Handle,
    /// Broadcasts that are open, so that a drain can wait for them.
    open: TaskTracker,
    stopping: CancellationToken,
    cluster: Cluster,
    /// Of live broadcasts, which need no store: they are told apart by who carries them. Locked for one addition.
    ids: Mutex<JobIds>,
}

impl Broadcasts {
    /// Made on the runtime that is to carry them.
    pub(crate) fn new(inserting: Enqueuer, node: NodeId, max: u32, stopping: CancellationToken) -> Arc<Broadcasts> {
        let places = (0..bounds::BROADCAST_DEPTH_MAX).map(|_| Arc::new(Semaphore::new(max as usize))).collect();
        let open = TaskTracker::new();
        let cluster = Cluster::new(node);
        let ids = Mutex::new(JobIds::of_source(node.0, None));
        Arc::new(Broadcasts { inserting, places, max, home: Handle::current(), open, stopping, cluster, ids })
    }

    /// Begins a broadcast. Nothing waits here: either there is a place, or it is refused.
    pub(crate) fn begin(self: &Arc<Self>, asked: Broadcast, chain: &CallChain) -> Result<Replies, BroadcastError> {
        let topic: Topic = asked.topic.parse().map_err(BroadcastError::BadTopic)?;
        check(&asked)?;
        let view = self.inserting.shared.view();
        view.is_open_for_broadcasts()?;
        let depth = chain.depth + 1;
        let place = self.place(depth).inspect_err(|error| {
            if matches!(error, BroadcastError::TooMany { .. }) {
                (self.inserting.shared.tell)(&Notice::BroadcastRefused { topic: topic.clone() });
            }
        })?;
        let store = &self.inserting.shared.store;
        let called: Vec<Arc<Plugin>> = view.catalog.subscribers(&topic);
        let mut ids: Vec<PluginId> = called.iter().map(|plugin| plugin.id.clone()).collect();
        let elsewhere = view.others.subscribers(&topic, &ids, view.now);
        let loading = view.new_subscribers(&topic);
        ids.extend(elsewhere.iter().flat_map(|(_, plugins)| plugins).cloned());
        ids.sort();
        let id = self.ids.lock().unwrap_or_else(PoisonError::into_inner).next(store.now());
        let (told, pending) = unbounded_channel();
        let gone = CancellationToken::new();
        let began = Instant::now();
        let calling = SubscriberCall {
            broadcasts: Arc::clone(self),
            id,
            topic: topic.clone(),
            payload: asked.payload,
            chain: chain.clone(),
            catalog: view.catalog,
        };
        let live = live::Live { calling, timeout: asked.timeout, mode: asked.mode, began, called, elsewhere, told };
        self.open.spawn_on(live.run(place, gone.clone()), &self.home);
        let missing = ids.iter().cloned().collect();
        Ok(Replies { id, topic, asked: ids, loading, missing, pending, began, _end: gone.drop_guard() })
    }

    fn place(&self, depth: u32) -> Result<OwnedSemaphorePermit, BroadcastError> {
        let Some(places) = self.places.get(depth as usize - 1) else {
            return Err(BroadcastError::TooDeep { max: bounds::BROADCAST_DEPTH_MAX });
        };
        Arc::clone(places).try_acquire_owned().map_err(|_| BroadcastError::TooMany { max: self.max })
    }

    /// What a guest's own call of `broadcast` does: no longer than the guest has left, and all replies at once.
    pub(crate) fn from_guest(
        self: &Arc<Self>,
        topic: String,
        payload: Vec<u8>,
        timeout: Duration,
        chain: &CallChain,
    ) -> BoxFuture<'static, Result<Vec<Reply>, BroadcastError>> {
        let timeout = timeout.min(bounds::BROADCAST_TIMEOUT_MAX);
        let asked = Broadcast { topic, payload: payload.into(), timeout, mode: Mode::All };
        match self.begin(asked, chain) {
            Ok(replies) => Box::pin(async move { Ok(replies.all().await) }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// How many are open, at every depth.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// Returns when no broadcast is open any more. To be asked when no new ones begin.
    pub(crate) async fn ended(&self) {
        self.open.close();
        self.open.wait().await;
    }
}

impl View {
    fn is_open_for_broadcasts(&self) -> Result<(), BroadcastError> {
        if self.catalog.is_open() && self.others.are_heard() {
            return Ok(());
        }
        Err(BroadcastError::Loading { plugins: self.catalog.pending().keys().cloned().collect(), open: false })
    }

    /// Who may subscribe and is still being made ready, here or elsewhere, while no node has it.
    fn new_subscribers(&self, topic: &Topic) -> Vec<PluginId> {
        let awaited = self.catalog.awaited().chain(self.others.awaited(self.now).map(|(_, awaited)| awaited));
        let may = awaited.filter(|awaited| awaited.may_subscribe(topic)).map(|awaited| &awaited.plugin);
        let mut new: Vec<PluginId> = may.cloned().collect();
        new.sort_unstable();
        new.dedup();
        new.retain(|plugin| self.catalog.plugin(plugin).is_none() && !self.others.has(plugin, self.now));
        new
    }
}

fn loading(plugins: &[PluginId], open: bool) -> String {
    match (open, plugins) {
        (false, []) => "this host has just started, and does not know its plugins yet".to_owned(),
        (false, _) => format!("this host has just started, and still makes {} ready", names(plugins)),
        (true, _) => format!("{} may subscribe, and is still being made ready", names(plugins)),
    }
}

fn untold(plugins: &[(PluginId, Vec<String>)]) -> String {
    let ids: Vec<PluginId> = plugins.iter().map(|(plugin, _)| plugin.clone()).collect();
    let nodes: BTreeSet<&str> = plugins.iter().flat_map(|(_, nodes)| nodes).map(String::as_str).collect();
    let nodes: Vec<&str> = nodes.into_iter().collect();
    format!(
        "{} subscribes, and what its job needs is known only where it is loaded: on {}",
        names(&ids),
        nodes.join(" and ")
    )
}

/// The first of them, and how many more there are.
fn names(plugins: &[PluginId]) -> String {
    const NAMED_MAX: usize = 10;
    let named: Vec<String> = plugins.iter().take(NAMED_MAX).map(|plugin| format!("`{plugin}`")).collect();
    match plugins.len().saturating_sub(NAMED_MAX) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn check(asked: &Broadcast) -> Result<(), BroadcastError> {
    let bytes = asked.payload.len() as u64;
    if bytes > bounds::PAYLOAD_BYTES_MAX {
        return Err(BroadcastError::TooLarge { bytes, max: bounds::PAYLOAD_BYTES_MAX });
    }
    if asked.timeout > bounds::BROADCAST_TIMEOUT_MAX {
        return Err(BroadcastError::TooLong { asked: asked.timeout, max: bounds::BROADCAST_TIMEOUT_MAX });
    }
    if asked.mode == Mode::First(0) {
        return Err(BroadcastError::FirstOfNone);
    }
    Ok(())
}
