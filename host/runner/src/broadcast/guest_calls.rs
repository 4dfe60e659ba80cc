//! What every guest may call on its host, whether it runs for a job or for a live broadcast.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use futures_util::{FutureExt, TryFutureExt};
use wharf_core::bounds;
use wharf_core::hold::NewHold;
use wharf_core::ids::PluginId;
use wharf_core::job::NewJob;
use wharf_core::kv::KvChanges;
use wharf_core::outcome::{Interruption, Outcome};
use wharf_core::rollcall::{Mode, Reply};
use wharf_engine::{AttemptHandle, GuestJob, KvAccess, Plugin};

use super::call_chain::CallChain;
use super::replies::Replies;
use super::request::{Broadcast, BroadcastError};
use crate::child_jobs::Children;
use crate::guest_store::GuestStore;
use crate::kv_view::KvView;
use crate::notice::{Listener, Notice};
use crate::plugin_view::PluginIndex;
use crate::queue_bounds::QueueBounds;
use crate::store_health::WatchedStore;

/// Starts live broadcasts. Guests inside a broadcast may start further ones; this is all that they know of what runs them.
pub(crate) trait Broadcaster: Send + Sync {
    /// Starts a broadcast without waiting.
    ///
    /// # Errors
    ///
    /// Returns why it was refused.
    fn start(self: Arc<Self>, request: Broadcast, chain: &CallChain) -> Result<Replies, BroadcastError>;
}

/// The parts of the host that guests reach.
pub(crate) struct GuestContext {
    pub(crate) plugins: Arc<PluginIndex>,
    pub(crate) store: GuestStore,
    pub(crate) bounds: Arc<QueueBounds>,
    pub(crate) broadcaster: Arc<dyn Broadcaster>,
    pub(crate) listener: Listener,
}

/// The calls of one guest, and what they leave until its end.
pub(crate) struct GuestCalls {
    context: Arc<GuestContext>,
    handle: AttemptHandle,
    /// With the plugin of this guest as its last.
    chain: CallChain,
    children: Children,
    /// The plugin's values; `None` if it has no grant for any.
    kv: Option<KvView>,
}

/// Jobs and kv changes that a guest leaves if it succeeds.
pub(crate) struct Effects {
    pub(crate) children: Vec<NewJob>,
    pub(crate) changes: Option<Arc<KvChanges>>,
}

impl GuestCalls {
    /// `plugin` is the plugin of the guest, if it is loaded; `chain` ends with it.
    pub(crate) fn new(
        context: Arc<GuestContext>,
        plugin: Option<&Plugin>,
        chain: CallChain,
        handle: AttemptHandle,
    ) -> GuestCalls {
        let kv = plugin.and_then(|plugin| KvView::new(plugin, &context.store));
        let children = Children::new(chain.top);
        GuestCalls { context, handle, chain, children, kv }
    }

    /// Takes out what the guest leaves, at its end.
    pub(crate) fn take_effects(&self) -> Effects {
        Effects { children: self.children.take(), changes: self.kv.as_ref().and_then(KvView::take_changes) }
    }

    /// Returns the outcome as it counts: time that the guest waited for a store that was away is not its own.
    pub(crate) fn judge(&self, outcome: Outcome) -> Outcome {
        match &self.kv {
            Some(kv) => kv.judge(outcome),
            None => outcome,
        }
    }

    /// Takes jobs to be enqueued with the guest's success. `stopped` opens the report of a guest that must be stopped because
    /// the jobs may be accepted a moment later.
    pub(crate) fn enqueue(
        &self,
        jobs: Vec<GuestJob>,
        stopped: &'static str,
    ) -> BoxFuture<'_, Result<Vec<String>, String>> {
        let store = &self.context.store;
        let view = self.context.plugins.view(store.store().now());
        let added = self.children.add(&view, store, &self.context.bounds, jobs).map_err(move |rejected| {
            // The attempt is given back, which costs the job nothing.
            if rejected.passes {
                let why = format!("{stopped}: it enqueues a job, and {}", rejected.why);
                self.handle.stop(Interruption::Host, why);
            }
            rejected.why
        });
        added.boxed()
    }

    /// Broadcasts to the subscribers of a topic, for no longer than the guest has left, and returns all replies at once.
    pub(crate) fn broadcast(
        &self,
        topic: String,
        payload: Vec<u8>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Vec<Reply>, String>> {
        let timeout = timeout.min(bounds::BROADCAST_TIMEOUT_MAX);
        let request = Broadcast { topic, payload: payload.into(), timeout, mode: Mode::All };
        match Arc::clone(&self.context.broadcaster).start(request, &self.chain) {
            Ok(replies) => Box::pin(async move { Ok(replies.all().await) }),
            Err(error) => ready(Err(self.refused(&error))).boxed(),
        }
    }

    /// Returns the error that a guest gets whose broadcast was refused. If a moment later it would not be, the attempt is given
    /// back: it must not fail for that.
    fn refused(&self, error: &BroadcastError) -> String {
        let why = error.to_string();
        if matches!(error, BroadcastError::Loading { .. }) {
            self.handle.stop(Interruption::Host, format!("it was stopped: it broadcasts, and {why}"));
        }
        why
    }

    /// Returns the store, for what a guest's host itself needs of it.
    pub(crate) fn store(&self) -> &WatchedStore {
        self.context.store.store()
    }

    /// Sets a hold that the guest asks for.
    ///
    /// # Errors
    /// The text that the guest receives.
    pub(crate) async fn hold(&self, hold: NewHold) -> Result<(), String> {
        let others_max = hold.others_max();
        let set =
            self.context.store.call("holding a key", move |store| async move { store.set_hold(hold).await }).await?;
        let too_many = || format!("there are {others_max} holds, which is the limit for those of plugins");
        set.map(drop).ok_or_else(too_many)
    }

    /// Takes note that the placeholder of a secret went out as it is, in a request of a plugin.
    pub(crate) fn placeholder_sent(&self, plugin: &PluginId, secret: &str, part: &'static str) {
        let (plugin, secret) = (plugin.clone(), secret.to_owned());
        self.context.listener.notify(&Notice::PlaceholderSent { plugin, secret, part });
    }

    pub(crate) fn kv(&self) -> Option<&dyn KvAccess> {
        self.kv.as_ref().map(|kv| kv as &dyn KvAccess)
    }
}
