//! Starts live broadcasts on one node, for clients and plugins, and knows which are open.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wharf_core::bounds;
use wharf_core::ids::{JobIds, PluginId};
use wharf_core::topic::Topic;
use wharf_engine::Plugin;

use super::call_chain::CallChain;
use super::cluster::Cluster;
use super::guest_calls::{Broadcaster, GuestContext};
use super::live::Live;
use super::replies::Replies;
use super::request::{Broadcast, BroadcastError, check, check_open, loading_subscribers};
use super::subscriber_call::{CallContext, SubscriberCall};
use crate::guest_store::GuestStore;
use crate::notice::Notice;
use crate::queue_bounds::QueueBounds;

/// The live broadcasts of one node, shared by clients and plugins.
pub(crate) struct Broadcasts {
    context: Arc<CallContext>,
    guest_store: GuestStore,
    bounds: Arc<QueueBounds>,
    cluster: Arc<Cluster>,
    /// Permits for open broadcasts, indexed by depth: one inside a broadcast never waits for the permit of its own caller.
    permits: Vec<Arc<Semaphore>>,
    max: u32,
    /// The broadcasts that are open: a drain waits for them.
    open: TaskTracker,
    stopping: CancellationToken,
    /// The IDs of live broadcasts, which need no store: together with its node, an ID is unique. Locked for one addition.
    ids: Mutex<JobIds>,
}

impl Broadcasts {
    /// `max` broadcasts of each depth may be open at once.
    pub(crate) fn new(
        context: Arc<CallContext>,
        cluster: Arc<Cluster>,
        (guest_store, bounds): (GuestStore, Arc<QueueBounds>),
        max: u32,
        stopping: CancellationToken,
    ) -> Arc<Broadcasts> {
        let permits = (0..bounds::BROADCAST_DEPTH_MAX).map(|_| Arc::new(Semaphore::new(max as usize))).collect();
        let (open, ids) = (TaskTracker::new(), Mutex::new(JobIds::of_source(cluster.node().0, None)));
        Arc::new(Broadcasts { context, guest_store, bounds, cluster, permits, max, open, stopping, ids })
    }

    /// Returns what guests of this node reach.
    pub(crate) fn guest_context(self: &Arc<Self>) -> Arc<GuestContext> {
        Arc::new(GuestContext {
            plugins: Arc::clone(self.cluster.plugins()),
            store: self.guest_store.clone(),
            bounds: Arc::clone(&self.bounds),
            broadcaster: Arc::clone(self) as Arc<dyn Broadcaster>,
            listener: self.context.listener.clone(),
        })
    }

    fn permit(&self, depth: u32) -> Result<OwnedSemaphorePermit, BroadcastError> {
        let Some(permits) = self.permits.get(depth as usize - 1) else {
            return Err(BroadcastError::TooDeep { max: bounds::BROADCAST_DEPTH_MAX });
        };
        Arc::clone(permits).try_acquire_owned().map_err(|_| BroadcastError::TooMany { max: self.max })
    }

    /// Returns how many broadcasts are open, at every depth.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// Waits until no broadcast is open. No new ones may start meanwhile.
    pub(crate) async fn ended(&self) {
        self.open.close();
        self.open.wait().await;
    }
}

impl Broadcaster for Broadcasts {
    /// Nothing waits here: either a permit is free, or the broadcast is refused.
    fn start(self: Arc<Self>, request: Broadcast, chain: &CallChain) -> Result<Replies, BroadcastError> {
        let topic: Topic = request.topic.parse().map_err(BroadcastError::BadTopic)?;
        check(&request)?;
        let now = self.guest_store.store().now();
        let view = self.cluster.plugins().view(now);
        check_open(&view)?;
        let permit = self.permit(chain.depth + 1).inspect_err(|error| {
            if matches!(error, BroadcastError::TooMany { .. }) {
                self.context.listener.notify(&Notice::BroadcastRefused { topic: topic.clone() });
            }
        })?;
        let here: Vec<Arc<Plugin>> = view.catalog.subscribers(&topic);
        let mut called: Vec<PluginId> = here.iter().map(|plugin| plugin.id.clone()).collect();
        let elsewhere = view.others.subscribers(&topic, &called, now);
        let loading = loading_subscribers(&view, &topic);
        called.extend(elsewhere.iter().flat_map(|(_, plugins)| plugins).cloned());
        called.sort();
        let id = self.ids.lock().unwrap_or_else(PoisonError::into_inner).next(now);
        let (replies, pending) = unbounded_channel();
        let caller_gone = CancellationToken::new();
        let started = Instant::now();
        let call = SubscriberCall {
            context: Arc::clone(&self.context),
            guest: self.guest_context(),
            id,
            topic: topic.clone(),
            payload: request.payload,
            chain: chain.clone(),
            catalog: view.catalog,
        };
        let live = Live {
            call,
            cluster: Arc::clone(&self.cluster),
            stopping: self.stopping.clone(),
            timeout: request.timeout,
            mode: request.mode,
            started,
            here,
            elsewhere,
            replies,
        };
        self.open.spawn_on(live.run(permit, caller_gone.clone()), &self.context.host_runtime);
        let (missing, _end) = (called.iter().cloned().collect(), caller_gone.drop_guard());
        Ok(Replies { id, topic, asked: called, loading, missing, pending, started, _end })
    }
}
