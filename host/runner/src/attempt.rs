//! One attempt: a leased job, its plugin of this moment, its outcome. It ends in exactly one message to the loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio_util::task::TaskTracker;
use wharf_core::attempt::AttemptOrigin;
use wharf_core::bounds;
use wharf_core::job::LeasedJob;
use wharf_core::outcome::{Interruption, Outcome, OutcomeKind, Usage};
use wharf_core::planner::{AttemptId, FinishedAttempt};
use wharf_core::retry::RetryPolicy;
use wharf_engine::{AttemptEnd, AttemptHandle, AttemptLimits, Call, CallInput, Engine, Permit, Plugin, Task};

use crate::attempt_host::AttemptHost;
use crate::broadcast::{CallChain, Effects, GuestCalls, GuestContext};
use crate::loop_message::LoopMessage;

/// Starts attempts, each with what it needs of the host.
pub(crate) struct AttemptStarter {
    pub(crate) engine: Arc<Engine>,
    /// The name of this node.
    pub(crate) node_name: Arc<str>,
    pub(crate) guest: Arc<GuestContext>,
    pub(crate) cancel_grace: Duration,
    pub(crate) tasks: TaskTracker,
    pub(crate) to_loop: UnboundedSender<LoopMessage>,
}

/// An attempt that is ready to start.
pub(crate) struct Attempt {
    pub(crate) leased: LeasedJob,
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) permit: Permit,
    pub(crate) host: Arc<AttemptHost>,
    pub(crate) handle: AttemptHandle,
    pub(crate) trusted_until: Instant,
}

impl AttemptStarter {
    /// Returns the host of an attempt of this job; `plugin` is its plugin, if it is loaded.
    pub(crate) fn host(&self, leased: &LeasedJob, plugin: Option<&Plugin>, handle: &AttemptHandle) -> AttemptHost {
        let (attempt, id) = (AttemptId::from(&leased.lease), leased.task.plugin());
        let span = tracing::debug_span!("attempt", job = %attempt.job, attempt = attempt.number, task = %leased.task);
        let chain = CallChain::of_job(id.clone(), attempt.job, leased.generation);
        let calls = GuestCalls::new(Arc::clone(&self.guest), plugin, chain, handle.clone());
        AttemptHost::new(attempt, (id, leased.lane.clone()), calls, self.to_loop.clone(), span)
    }

    /// Starts an attempt. The loop itself hands it to the engine, with its permit, and its end comes from the thread on
    /// which it ran: a short attempt is not worth a task of its own. `tasks` tracks it until its end is sent to the loop.
    pub(crate) fn start(&self, attempt: Attempt) {
        let Attempt { leased, plugin, permit, host, handle, trusted_until } = attempt;
        let span = host.span().clone();
        let task = match &leased.batch {
            Some(_) => plugin.manifest.receive.as_ref().map(|receive| &receive.task),
            None => plugin.manifest.tasks.get(leased.task.task()),
        };
        let Some(task) = task else {
            self.cannot_start(&leased, "the plugin no longer has this task".to_owned());
            return;
        };
        let (retry, started) = (task.retry, Instant::now());
        let call = call(&leased, task, trusted_until, self.cancel_grace);
        let (host_calls, token, to_loop) = (Arc::clone(&host), self.tasks.token(), self.to_loop.clone());
        let (ran, node_name) = (Arc::clone(&plugin), Arc::clone(&self.node_name));
        let on_end = move |end: AttemptEnd| {
            let entered = host.span().clone().entered();
            let AttemptEnd { outcome, mut usage, sandbox, held_bytes, left } = end;
            usage.queue_wait = leased.claimed_at.since(leased.due);
            usage.wall = started.elapsed();
            let outcome = host.judge(outcome);
            tracing::debug!(outcome = outcome.kind().as_str(), wall = ?usage.wall, "attempt finished");
            let lines_dropped = host.close();
            let Effects { children, changes } = host.take_effects();
            // With it goes its handle of the store: what waits for `tasks` waits for that.
            drop(host);
            let attempt = AttemptId::from(&leased.lease);
            let origin = (outcome.kind() != OutcomeKind::Returned)
                .then(|| Arc::new(AttemptOrigin::new(&node_name, &ran.manifest.version, &ran.digest)));
            drop(ran);
            let jitter = fastrand::f64();
            let finished = FinishedAttempt { attempt, outcome, usage, origin, children, changes, retry, jitter };
            let attempt = Box::new(finished);
            let _ = to_loop.send(LoopMessage::AttemptFinished { attempt, sandbox, lines_dropped, held_bytes, left });
            drop(entered);
            drop(token);
        };
        span.in_scope(|| self.engine.start(permit, plugin, call, host_calls, handle, on_end));
    }

    /// Ends an attempt that was claimed but cannot start.
    pub(crate) fn cannot_start(&self, leased: &LeasedJob, why: String) {
        let retry = RetryPolicy {
            attempts: bounds::RETRY_ATTEMPTS_DEFAULT,
            backoff_min: bounds::BACKOFF_MIN_DEFAULT,
            backoff_max: bounds::BACKOFF_MAX_DEFAULT,
        };
        let finished = FinishedAttempt {
            attempt: AttemptId::from(&leased.lease),
            outcome: Outcome::Interrupted(Interruption::Host, why),
            usage: Usage::default(),
            origin: None,
            children: Vec::new(),
            changes: None,
            retry,
            jitter: 0.0,
        };
        let attempt = Box::new(finished);
        // The loop runs: it is the loop that starts attempts.
        let (sandbox, lines_dropped, held_bytes, left) = (Duration::ZERO, 0, 0, None);
        let _ = self.to_loop.send(LoopMessage::AttemptFinished { attempt, sandbox, lines_dropped, held_bytes, left });
    }
}

fn call(leased: &LeasedJob, task: &Task, trusted_until: Instant, cancel_grace: Duration) -> Call {
    let payload = leased.payload.clone();
    let input = match &leased.batch {
        Some(batch) => CallInput::Message { id: batch.id.to_string(), topic: batch.topic.to_string(), payload },
        None => CallInput::Job {
            id: leased.lease.job.to_string(),
            task: leased.task.task().to_owned(),
            key: leased.lane.key.as_ref().map(ToString::to_string),
            payload,
            attempt: leased.lease.attempt,
            tick: leased.tick.clone(),
        },
    };
    Call {
        input,
        limits: AttemptLimits { cancel_grace, first_lease_end: Some(trusted_until), ..AttemptLimits::of(task) },
    }
}
