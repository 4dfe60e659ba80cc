//! One subscriber's call, on the node that makes it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use wharf_core::hold::HoldTable;
use wharf_core::ids::JobId;
use wharf_core::job::Stream;
use wharf_core::key::Lane;
use wharf_core::outcome::Failure;
use wharf_core::rollcall::{Answer, Reply};
use wharf_core::shared_bytes::SharedBytes;
use wharf_core::topic::Topic;
use wharf_engine::{
    AttemptEnd, AttemptHandle, AttemptLimits, Call, CallInput, Engine, GuestJob, HostCalls, KvAccess, Permit,
    PermitPool, Plugin, Receive,
};

use super::call_chain::CallChain;
use super::guest_calls::{Effects, GuestCalls, GuestContext};
use crate::catalog::Catalog;
use crate::enqueuer::Enqueuer;
use crate::held_subscribers::HeldSubscribers;
use crate::notice::{Listener, Notice};

/// The parts of the host that a call of a subscriber needs.
pub(crate) struct CallContext {
    pub(crate) engine: Arc<Engine>,
    pub(crate) enqueuer: Enqueuer,
    pub(crate) listener: Listener,
    pub(crate) held: Arc<HeldSubscribers>,
    pub(crate) tasks: TaskTracker,
    /// The runtime of the host: guest threads write nothing to the store themselves.
    pub(crate) host_runtime: Handle,
}

/// A subscriber that has a sandbox, and is called next.
pub(super) struct Admitted<'a> {
    pub(super) plugin: &'a Arc<Plugin>,
    pub(super) receive: &'a Receive,
    pub(super) permit: Permit,
}

/// Parts that all calls of one broadcast share on this node.
pub(super) struct SubscriberCall {
    pub(super) context: Arc<CallContext>,
    pub(super) guest: Arc<GuestContext>,
    pub(super) id: JobId,
    pub(super) topic: Topic,
    pub(super) payload: SharedBytes,
    /// The chain that led to this broadcast.
    pub(super) chain: CallChain,
    /// The catalog of the moment in which the broadcast started: reloads do not change it.
    pub(super) catalog: Arc<Catalog>,
}

impl SubscriberCall {
    /// Returns the depth of these calls, from 1.
    pub(super) fn depth(&self) -> u32 {
        self.chain.depth + 1
    }

    /// Waits for a sandbox for a call of `plugin`.
    pub(super) fn admit(&self, plugin: &Plugin) -> impl Future<Output = Permit> + Send + 'static + use<> {
        self.context.engine.admit(PermitPool::Broadcasts { depth: self.depth() }, plugin)
    }

    /// Returns how a subscriber is called; the error is its answer if it is not called. `holds` are those on subscribers.
    pub(super) fn receive<'p>(&self, plugin: &'p Plugin, holds: &HoldTable) -> Result<&'p Receive, Answer> {
        let Some(receive) = &plugin.manifest.receive else {
            return Err(Answer::Skipped("it no longer subscribes to anything".to_owned()));
        };
        if self.chain.contains(&plugin.id) && !receive.reentrant {
            let why = "it already waits further up this chain of broadcasts; to call it again, set `reentrant = true` under [receive] in its manifest";
            return Err(Answer::Skipped(why.to_owned()));
        }
        // A durable broadcast would make a job of this task and lane.
        let lane = Lane { group: receive.task.group.clone(), key: None };
        if let Some(hold) = holds.on_job(&receive.task.name, &lane, self.context.enqueuer.store.now()) {
            return Err(Answer::Skipped(format!(
                "it was not called: an operator holds it, by the hold `{}`",
                hold.scope
            )));
        }
        Ok(receive)
    }

    /// Calls a subscriber, for at most `remaining`. `on_answer` receives its answer.
    pub(super) fn start(
        &self,
        Admitted { plugin, receive, permit }: Admitted<'_>,
        remaining: Duration,
        on_answer: impl FnOnce(Answer) + Send + 'static,
    ) -> AttemptHandle {
        let handle = AttemptHandle::new();
        let own = AttemptLimits::of(&receive.task);
        let input = CallInput::Message {
            id: self.id.to_string(),
            topic: self.topic.to_string(),
            payload: self.payload.clone(),
        };
        let call = Call { input, limits: AttemptLimits { timeout: own.timeout.min(remaining), ..own } };
        let chain = self.chain.then(plugin.id.clone());
        let host = Arc::new(SubscriberHost {
            calls: GuestCalls::new(Arc::clone(&self.guest), Some(plugin), chain, handle.clone()),
            plugin: Arc::clone(plugin),
            topic: self.topic.clone(),
            listener: self.context.listener.clone(),
        });
        let (calls, context, catalog) = (Arc::clone(&host), Arc::clone(&self.context), Arc::clone(&self.catalog));
        let on_end = move |end: AttemptEnd| {
            let (answer, room) = (Answer::from(calls.calls.judge(end.outcome)), end.left);
            let Effects { children, changes } = calls.calls.take_effects();
            if (children.is_empty() && changes.is_none()) || !matches!(answer, Answer::Replied(_)) {
                // Who receives the answer finds room for it.
                drop(room);
                return on_answer(answer);
            }
            let (enqueuer, limits) = (context.enqueuer.clone(), Arc::clone(catalog.limits()));
            let insert = async move {
                // The places of the jobs in the queue are kept until the jobs are in it.
                let _until_written = calls;
                let written = enqueuer.insert_with_changes((children, changes), limits, room).await;
                on_answer(written.map_or_else(
                    |error| {
                        let why = format!("it replied, but its jobs and changes could not be written: {error}");
                        Answer::Failed(Failure::Retry(why))
                    },
                    |()| answer,
                ));
            };
            context.tasks.spawn_on(insert, &context.host_runtime);
        };
        self.context.engine.start(permit, Arc::clone(plugin), call, host, handle.clone(), on_end);
        handle
    }
}

/// The host as a subscriber of a live broadcast sees it.
struct SubscriberHost {
    calls: GuestCalls,
    plugin: Arc<Plugin>,
    topic: Topic,
    listener: Listener,
}

impl HostCalls for SubscriberHost {
    fn emit(&self, _chunk: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        let why = "only jobs have an output stream; return everything as the reply of the broadcast";
        Box::pin(ready(Err(why.to_owned())))
    }

    fn log(&self, stream: Stream, line: String) {
        tracing::debug!(target: "wharf::guest", plugin = %self.plugin.id, topic = %self.topic, ?stream, "{line}");
        let (plugin, topic) = (self.plugin.id.clone(), self.topic.clone());
        self.listener.notify(&Notice::SubscriberLog { plugin, topic, stream, line });
    }

    fn log_dropped(&self, lines: u64) {
        let (plugin, topic) = (self.plugin.id.clone(), self.topic.clone());
        self.listener.notify(&Notice::SubscriberLogDropped { plugin, topic, lines });
    }

    fn progress(&self, _fraction: f32, _note: String) {}

    fn enqueue(&self, jobs: Vec<GuestJob>) -> BoxFuture<'_, Result<Vec<String>, String>> {
        self.calls.enqueue(jobs, "it was stopped")
    }

    fn broadcast(
        &self,
        topic: String,
        payload: Vec<u8>,
        timeout: Duration,
        remaining: Duration,
    ) -> BoxFuture<'_, Result<Vec<Reply>, String>> {
        self.calls.broadcast(topic, payload, timeout.min(remaining))
    }

    fn placeholder_sent(&self, secret: &str, part: &'static str) {
        self.calls.placeholder_sent(&self.plugin.id, secret, part);
    }

    fn kv(&self) -> Option<&dyn KvAccess> {
        self.calls.kv()
    }
}
