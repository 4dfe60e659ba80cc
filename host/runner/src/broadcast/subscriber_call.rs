//! One subscriber's call, on the node that makes it: what it is told, and what it may ask of its host meanwhile.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use futures_util::{FutureExt, TryFutureExt};
use wharf_core::ids::JobId;
use wharf_core::job::Stream;
use wharf_core::outcome::{Failure, Interruption};
use wharf_core::rollcall::{Answer, Reply};
use wharf_core::topic::Topic;
use wharf_engine::{
    AttemptHandle, AttemptLimits, Call, CallInput, GuestJob, HostCalls, KvAccess, Permit, Plugin, Receive,
};

use super::{Broadcasts, CallChain};
use crate::catalog::Catalog;
use crate::child_jobs::Children;
use crate::kv_view::KvView;
use crate::notice::Notice;

/// What all calls of one broadcast have in common here.
pub(super) struct SubscriberCall {
    pub(super) broadcasts: Arc<Broadcasts>,
    pub(super) id: JobId,
    pub(super) topic: Topic,
    pub(super) payload: Arc<[u8]>,
    /// What led to this broadcast.
    pub(super) chain: CallChain,
    /// Of the moment in which it began: it is kept to the end, whatever is reloaded meanwhile.
    pub(super) catalog: Arc<Catalog>,
}

impl SubscriberCall {
    /// Of the calls, from 1.
    pub(super) fn depth(&self) -> u32 {
        self.chain.depth + 1
    }

    /// How a subscriber is to be called; the error is its answer if it is not.
    pub(super) fn receive<'p>(&self, plugin: &'p Plugin) -> Result<&'p Receive, Answer> {
        let Some(receive) = &plugin.manifest.receive else {
            return Err(Answer::Skipped("it subscribes to nothing any more".to_owned()));
        };
        if self.chain.has(&plugin.id) && !receive.reentrant {
            let why = "it waits itself, further up this chain of broadcasts; `reentrant = true` under [receive] in its manifest would call it again";
            return Err(Answer::Skipped(why.to_owned()));
        }
        Ok(receive)
    }

    /// Calls a subscriber, for `left` at most. `heard` is told its answer.
    pub(super) fn start(
        &self,
        plugin: &Arc<Plugin>,
        receive: &Receive,
        admission: Permit,
        left: Duration,
        heard: impl FnOnce(Answer) + Send + 'static,
    ) -> AttemptHandle {
        let control = AttemptHandle::new();
        let own = AttemptLimits::of(&receive.task);
        let input = CallInput::Message {
            id: self.id.to_string(),
            topic: self.topic.to_string(),
            payload: Arc::clone(&self.payload),
        };
        let call = Call { input, limits: AttemptLimits { timeout: own.timeout.min(left), ..own } };
        let called = Arc::new(Called {
            control: control.clone(),
            broadcasts: Arc::clone(&self.broadcasts),
            catalog: Arc::clone(&self.catalog),
            plugin: Arc::clone(plugin),
            topic: self.topic.clone(),
            chain: self.chain.then(plugin.id.clone()),
            children: Children::default(),
            kept: KvView::of(plugin, &self.broadcasts.inserting.shared),
        });
        let attending = Arc::clone(&called);
        let ended = move |ended: wharf_engine::AttemptEnd| {
            let outcome = match &called.kept {
                Some(kept) => kept.judge(ended.outcome),
                None => ended.outcome,
            };
            let answer = Answer::from(outcome);
            let (children, changes) = (called.children.take(), called.kept.as_ref().and_then(KvView::changes));
            if (children.is_empty() && changes.is_none()) || !matches!(answer, Answer::Replied(_)) {
                return heard(answer);
            }
            let (broadcasts, limits) = (Arc::clone(&called.broadcasts), Arc::clone(called.catalog.limits()));
            let home = broadcasts.home.clone();
            let tasks = broadcasts.inserting.shared.tasks.clone();
            let insert = async move {
                let left = broadcasts.inserting.insert_with_changes(children, limits, changes).await;
                heard(left.map_or_else(
                    |error| {
                        let why = format!("it replied, but what it leaves behind could not be written: {error}");
                        Answer::Failed(Failure::Retry(why))
                    },
                    |()| answer,
                ));
            };
            tasks.spawn_on(insert, &home);
        };
        let engine = &self.broadcasts.inserting.shared.engine;
        engine.start(admission, Arc::clone(plugin), call, attending, control.clone(), ended);
        control
    }
}

struct Called {
    control: AttemptHandle,
    broadcasts: Arc<Broadcasts>,
    catalog: Arc<Catalog>,
    plugin: Arc<Plugin>,
    topic: Topic,
    /// With this subscriber as its last.
    chain: CallChain,
    children: Children,
    kept: Option<KvView>,
}

impl Called {
    fn tell(&self, notice: &Notice) {
        (self.broadcasts.inserting.shared.tell)(notice);
    }
}

impl HostCalls for Called {
    fn emit(&self, _chunk: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        let why = "nobody can follow a live broadcast; return what there is to say as the reply";
        Box::pin(ready(Err(why.to_owned())))
    }

    fn log(&self, stream: Stream, line: String) {
        let (plugin, topic) = (self.plugin.id.clone(), self.topic.clone());
        self.tell(&Notice::SubscriberLog { plugin, topic, stream, line });
    }

    fn log_dropped(&self, lines: u64) {
        let (plugin, topic) = (self.plugin.id.clone(), self.topic.clone());
        self.tell(&Notice::SubscriberLogDropped { plugin, topic, lines });
    }

    fn progress(&self, _fraction: f32, _note: String) {}

    fn enqueue(&self, jobs: Vec<GuestJob>) -> BoxFuture<'_, Result<Vec<String>, String>> {
        let shared = &self.broadcasts.inserting.shared;
        let added = self.children.add(&shared.view(), shared, jobs).map_err(|not| {
            if not.passes {
                self.control.stop(Interruption::Host, format!("it was stopped: it enqueues a job, and {}", not.why));
            }
            not.why
        });
        added.boxed()
    }

    fn broadcast(
        &self,
        topic: String,
        payload: Vec<u8>,
        timeout: Duration,
        remaining: Duration,
    ) -> BoxFuture<'_, Result<Vec<Reply>, String>> {
        let asked = self.broadcasts.from_guest(topic, payload, timeout.min(remaining), &self.chain);
        Box::pin(asked.map_err(|error| error.to_guest(&self.control)))
    }

    fn kv(&self) -> Option<&dyn KvAccess> {
        self.kept.as_ref().map(|kept| kept as &dyn KvAccess)
    }
}
