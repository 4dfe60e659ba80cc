//! One attempt: a leased job, its plugin of this moment, its outcome. Ends in exactly one word to the loop.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::task::TaskTracker;
use wharf_core::bounds;
use wharf_core::job::LeasedJob;
use wharf_core::outcome::{Bill, Interruption, Outcome};
use wharf_core::planner::{AttemptId, FinishedAttempt};
use wharf_core::retry::RetryPolicy;
use wharf_engine::{AttemptHandle, AttemptLimits, Call, CallInput, Engine, PermitPool, Plugin, Task};

use crate::attempt_host::{AttemptHost, Left};
use crate::loop_message::{LoopMessage, Over};

/// What an attempt stands on.
pub(crate) struct Attempt {
    pub(crate) engine: Arc<Engine>,
    pub(crate) leased: LeasedJob,
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) desk: Arc<AttemptHost>,
    pub(crate) control: AttemptHandle,
    pub(crate) trusted_until: Instant,
    pub(crate) cancel_grace: Duration,
    pub(crate) words: UnboundedSender<LoopMessage>,
}

impl Attempt {
    /// Starts the attempt. The loop itself hands it over where there is room, and its end comes from where it ran:
    /// a short attempt is worth no task of its own. `tasks` knows of it until its end is told.
    pub(crate) fn start(self, tasks: &TaskTracker) {
        let Attempt { engine, leased, plugin, desk, control, trusted_until, cancel_grace, words } = self;
        let task = match &leased.batch {
            Some(_) => plugin.manifest.receive.as_ref().map(|receive| &receive.task),
            None => plugin.manifest.tasks.get(leased.task.task()),
        };
        let Some(task) = task else {
            let _ = words.send(never_began(&leased, "the plugin no longer has this task".to_owned()));
            return;
        };
        let (retry, began) = (task.retry, Instant::now());
        let call = call(&leased, task, trusted_until, cancel_grace);
        let (attending, known) = (Arc::clone(&desk), tasks.token());
        let over = move |over: wharf_engine::AttemptEnd| {
            let wharf_engine::AttemptEnd { outcome, usage: mut bill, sandbox } = over;
            bill.queue_wait = leased.claimed_at.since(leased.due);
            bill.wall = began.elapsed();
            let outcome = desk.judge(outcome);
            let Left { children, changes, lines_dropped } = desk.close();
            // With it goes the store, for which whoever waits for `tasks` waits.
            drop(desk);
            let attempt = AttemptId::from(&leased.lease);
            let ended = FinishedAttempt { attempt, outcome, bill, children, changes, retry, jitter: fastrand::f64() };
            let _ = words.send(LoopMessage::Over(Box::new(Over { ended, sandbox, lines_dropped })));
            drop(known);
        };
        match engine.admit(PermitPool::Jobs, &plugin).now_or_never() {
            Some(admission) => engine.start(admission, plugin, call, attending, control, over),
            None => drop(tasks.spawn(async move { over(engine.call(plugin, call, attending, control).await) })),
        }
    }
}

/// The end of an attempt that was claimed but could not begin.
pub(crate) fn never_began(leased: &LeasedJob, why: String) -> LoopMessage {
    let retry = RetryPolicy {
        attempts: bounds::RETRY_ATTEMPTS_DEFAULT,
        backoff_min: bounds::BACKOFF_MIN_DEFAULT,
        backoff_max: bounds::BACKOFF_MAX_DEFAULT,
    };
    let ended = FinishedAttempt {
        attempt: AttemptId::from(&leased.lease),
        outcome: Outcome::Interrupted(Interruption::Host, why),
        bill: Bill::default(),
        children: Vec::new(),
        changes: None,
        retry,
        jitter: 0.0,
    };
    LoopMessage::Over(Box::new(Over { ended, sandbox: Duration::ZERO, lines_dropped: 0 }))
}

fn call(leased: &LeasedJob, task: &Task, trusted_until: Instant, cancel_grace: Duration) -> Call {
    let payload = Arc::clone(&leased.payload);
    let input = match &leased.batch {
        Some(batch) => CallInput::Message { id: batch.id.to_string(), topic: batch.topic.to_string(), payload },
        None => CallInput::Job {
            id: leased.lease.job.to_string(),
            task: leased.task.task().to_owned(),
            key: leased.lane.key.as_ref().map(ToString::to_string),
            payload,
            attempt: leased.lease.attempt,
        },
    };
    Call { input, limits: AttemptLimits { cancel_grace, deadline: Some(trusted_until), ..AttemptLimits::of(task) } }
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it said nothing".to_owned())
}
