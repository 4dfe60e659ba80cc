//! The loop that carries out what the planner decides: every trigger of one node passes here, one turn at a time.
//!
//! A turn takes in everything that has arrived, asks the planner once, and does what it decides. Nothing in a turn waits.

use std::collections::{HashMap, VecDeque};
use std::future::{pending, ready};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::ids::{JobId, NodeId, TaskName};
use wharf_core::job::{LeasedJob, StateName};
use wharf_core::key::Key;
use wharf_core::lease::{Lease, NodeMark, is_suspect};
use wharf_core::lifecycle::Event;
use wharf_core::outcome::{Interruption, Outcome, OutcomeKind};
use wharf_core::planner::{Action, AttemptId, FinishedAttempt, Input, Planner};
use wharf_core::time::Timestamp;
use wharf_engine::{AttemptHandle, Reservation};
use wharf_store::{Claim, Claimed, Inserted, Nudges};

use crate::attempt::{Attempt, AttemptStarter};
use crate::attempt_host::{AttemptHost, buffered_bytes};
use crate::attempt_room::{AttemptRoom, Taken};
use crate::enqueuer::InsertNotifier;
use crate::failed_jobs::FailedJobs;
use crate::loop_message::{LoopMessage, PendingEvent, RecordedEvent, renew_result};
use crate::notice::{AttemptEnded, Notice};
use crate::plugin_view::PluginIndex;
use crate::shared_activity::SharedActivity;
use crate::store_health::WatchedStore;
use crate::task_concurrency::ClaimQuotas;
use crate::task_memory::TaskCosts;

mod make_room;

/// Number of messages that are taken in before the planner is asked.
const MESSAGES_PER_TURN: usize = 4096;

/// The state of the loop, for the parts of the host that read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) running: u32,
    /// The host claims no jobs, as it stops or an operator drains it.
    pub(crate) draining: bool,
    /// The host stops: it does not claim again.
    pub(crate) stopping: bool,
    pub(crate) stopped: bool,
}

/// Parts of the host that the loop needs.
pub(crate) struct DispatchParts {
    pub(crate) node: NodeId,
    /// The length of the leases with which jobs are claimed.
    pub(crate) lease: Duration,
    pub(crate) store: WatchedStore,
    pub(crate) plugins: Arc<PluginIndex>,
    pub(crate) inserts: InsertNotifier,
    pub(crate) starter: AttemptStarter,
    pub(crate) inbox: UnboundedReceiver<LoopMessage>,
    pub(crate) load: watch::Sender<Load>,
    pub(crate) activity: SharedActivity,
    /// Takes the jobs that fail.
    pub(crate) failed: FailedJobs,
    /// Receives what an attempt of each task costs.
    pub(crate) costs: watch::Sender<TaskCosts>,
    pub(crate) stopping: CancellationToken,
}

/// The loop, with all that it owns.
pub(crate) struct Dispatch {
    parts: DispatchParts,
    planner: Planner,
    attempts: HashMap<AttemptId, RunningAttempt>,
    /// The pending calls of the store. The loop itself waits for them: a task for each would wake a thread each time.
    store_calls: FuturesUnordered<BoxFuture<'static, LoopMessage>>,
    /// Progress that waits for its interval to end; each waits equally long.
    progress: VecDeque<(Instant, AttemptId)>,
    quotas: ClaimQuotas,
    room: AttemptRoom,
    /// The attempts that were released last to make room in the budget of memory.
    released: Vec<AttemptId>,
}

/// An attempt from its start until its end is recorded.
struct RunningAttempt {
    task: TaskName,
    key: Option<Key>,
    /// The attempt has not ended: it counts among the running ones of its task.
    counts: bool,
    /// The room that it takes.
    room: Taken,
    handle: AttemptHandle,
    host: Arc<AttemptHost>,
}

/// Facts about an attempt that has ended, for the loop and for listeners.
struct EndFacts {
    sandbox: Duration,
    lines_dropped: u64,
    held_bytes: u64,
    left: Option<Reservation>,
}

/// The moment of a turn, by the store's clock and by the monotonic clock of this machine.
#[derive(Clone, Copy)]
struct Now {
    stamp: Timestamp,
    instant: Instant,
}

impl Now {
    fn instant_of(self, stamp: Timestamp) -> Instant {
        self.instant + stamp.since(self.stamp)
    }
}

impl Dispatch {
    pub(crate) fn new(parts: DispatchParts, planner: Planner, quotas: ClaimQuotas) -> Dispatch {
        let room = AttemptRoom::new(Arc::clone(&parts.starter.engine), parts.costs.clone());
        Dispatch {
            parts,
            planner,
            attempts: HashMap::new(),
            store_calls: FuturesUnordered::new(),
            progress: VecDeque::new(),
            quotas,
            room,
            released: Vec::new(),
        }
    }

    /// Runs until the planner has stopped after a drain, or until the host stops.
    pub(crate) async fn run(mut self) {
        let mut nudges = self.parts.store.nudges();
        let budget = self.parts.starter.engine.budget().clone();
        let mut messages = Vec::with_capacity(MESSAGES_PER_TURN);
        loop {
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                () = self.parts.stopping.cancelled() => return self.abandon(),
                () = changed(&mut nudges) => self.planner.on(Input::Nudged, self.parts.store.now()),
                Some(message) = self.store_calls.next() => messages.push(message),
                Some(message) = self.parts.inbox.recv() => messages.push(message),
                () = budget.changed() => self.memory_changed(),
                () = until(wake_at) => {}
            }
            while let Some(message) = self.store_calls.next().now_or_never().flatten() {
                messages.push(message);
            }
            while messages.len() < MESSAGES_PER_TURN
                && let Ok(message) = self.parts.inbox.try_recv()
            {
                messages.push(message);
            }
            let now = Now { stamp: self.parts.store.now(), instant: Instant::now() };
            for message in messages.drain(..) {
                self.take_in(message, now);
            }
            self.write_progress(now);
            self.check_quotas(now);
            let actions = self.planner.decide(now.stamp);
            let stopped = self.carry_out(actions, now);
            self.publish_load(stopped);
            if stopped {
                return;
            }
        }
    }

    /// Ends without any write to the store, as if the power was cut: leases run out by themselves.
    fn abandon(self) {
        for running in self.attempts.values() {
            running.handle.stop(Interruption::Drain, "the host has stopped".to_owned());
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let planned = self.planner.wake_at().map(|at| Instant::now() + at.since(self.parts.store.now()));
        let progress = self.progress.front().map(|(at, _)| *at);
        [planned, progress, self.quotas.check_at()].into_iter().flatten().min()
    }

    fn publish_load(&self, stopped: bool) {
        let planner = &self.planner;
        let (draining, stopping) = (planner.is_draining(), planner.is_stopping());
        let load = Load { running: planner.running(), draining, stopping, stopped };
        self.parts.load.send_if_modified(|shown| std::mem::replace(shown, load) != load);
    }

    fn notify(&self, notice: &Notice) {
        self.parts.inserts.listener.notify(notice);
    }

    fn wake_followers(&self, job: JobId) {
        self.parts.inserts.followers.wake(job);
    }

    // What comes in.

    fn take_in(&mut self, message: LoopMessage, now: Now) {
        match message {
            LoopMessage::Input(input) => {
                if let Input::RecordFailed(events) = &input {
                    self.record_failed(events);
                }
                self.planner.on(input, now.stamp);
            }
            LoopMessage::Claimed(Claimed { leased, wake_at, quota_reached, short_of_room, overtook }) => {
                self.quotas.claimed(&leased, quota_reached, now.instant);
                self.room.claimed(&leased, overtook, short_of_room);
                self.planner.on(Input::Claimed { leased, wake_at, short_of_room }, now.stamp);
            }
            LoopMessage::ProgressLater(attempt) => {
                self.progress.push_back((now.instant + bounds::PROGRESS_EVERY, attempt))
            }
            LoopMessage::AttemptFinished { attempt, sandbox, lines_dropped, held_bytes, left } => {
                self.attempt_finished(&attempt, EndFacts { sandbox, lines_dropped, held_bytes, left }, now);
                self.planner.on(Input::FinishedAttempt(attempt), now.stamp);
            }
            LoopMessage::Recorded(recorded) => {
                let results = recorded.iter().map(RecordedEvent::planner_result).collect();
                for event in recorded {
                    self.recorded(event, now);
                }
                self.planner.on(Input::Recorded(results), now.stamp);
            }
            LoopMessage::SetDrained { drained, by } => {
                let before = self.planner.is_draining();
                self.planner.on(Input::SetDrained(drained), now.stamp);
                // A node that is stopping does not claim again.
                if self.planner.is_draining() != before {
                    self.notify(&Notice::NodeDrained { drained, by });
                }
            }
            // Whoever asked may have given up.
            LoopMessage::Turned(answer) => _ = answer.send(()),
        }
    }

    /// Notes in the attempts' hosts that the store failed: the attempts may have to wait until it works again.
    fn record_failed(&self, events: &[(JobId, Event)]) {
        for (job, event) in events {
            if let Event::Wrote { attempt, .. } = event
                && let Some(running) = self.attempts.get(&AttemptId { job: *job, number: *attempt })
            {
                running.host.store_failed();
            }
        }
    }

    fn attempt_finished(&mut self, finished: &FinishedAttempt, facts: EndFacts, now: Now) {
        let EndFacts { sandbox, lines_dropped, held_bytes, left } = facts;
        // What it leaves is counted as unwritten in the same turn.
        self.room.keep_until_settled(left);
        let Some(running) = self.attempts.get_mut(&finished.attempt) else { return };
        running.counts = false;
        let key = running.key.take();
        let unwritten = running.host.unwritten_bytes() + unwritten_bytes(finished);
        self.room.ended(&running.task, &mut running.room, held_bytes, unwritten);
        let (task, job, number) = (running.task.clone(), finished.attempt.job, finished.attempt.number);
        if lines_dropped > 0 {
            self.notify(&Notice::LogDropped { task: task.clone(), job, lines: lines_dropped });
        }
        let (kind, report, usage) = (finished.outcome.kind(), finished.outcome.report().to_owned(), finished.usage);
        // An attempt that failed at once, or was stopped, says little about how long others compute.
        let is_whole = matches!(kind, OutcomeKind::Returned | OutcomeKind::TimedOut);
        self.quotas.finished(&task, is_whole.then_some(usage.cpu), now.instant);
        self.parts.activity.add(&task, key.as_ref(), kind, &usage, now.instant);
        self.notify(&Notice::AttemptEnded(Box::new(AttemptEnded { task, job, number, kind, report, usage, sandbox })));
    }

    fn write_progress(&mut self, now: Now) {
        while let Some((at, attempt)) = self.progress.front().copied()
            && at <= now.instant
        {
            self.progress.pop_front();
            if let Some(running) = self.attempts.get(&attempt) {
                running.host.write_progress();
            }
        }
    }

    /// Has the planner claim again if the last claim left jobs behind for a task's quota, and the quota has grown since.
    fn check_quotas(&mut self, now: Now) {
        let attempts = &self.attempts;
        if self.quotas.has_grown(now.instant, |task| suspended(attempts, task)) {
            self.planner.on(Input::Nudged, now.stamp);
        }
    }

    fn recorded(&mut self, recorded: RecordedEvent, now: Now) {
        let RecordedEvent { event: PendingEvent { attempt, entry_bytes, child_tasks }, result } = recorded;
        self.wake_followers(attempt.job);
        if let Some(bytes) = entry_bytes {
            if let Some(running) = self.attempts.get(&attempt) {
                running.host.free(bytes);
            }
            return;
        }
        let Some(task) = self.remove(attempt) else { return };
        match result {
            Err(_) => self.notify(&Notice::AttemptStale { task, job: attempt.job, number: attempt.number }),
            Ok(recorded) => {
                for (task, child) in child_tasks.into_iter().zip(&recorded.children) {
                    self.child_inserted(task, child, now);
                }
                if let Some(fingerprint) = recorded.regressed {
                    self.notify(&Notice::FailureRegressed { task: task.clone(), job: attempt.job, fingerprint });
                }
                if recorded.state == StateName::Failed {
                    self.parts.failed.failed(&task, attempt.job);
                }
                if recorded.state.is_final() {
                    self.notify(&Notice::JobEnded { task, job: attempt.job, state: recorded.state });
                }
            }
        }
    }

    fn child_inserted(&mut self, task: TaskName, child: &Inserted, now: Now) {
        self.parts.inserts.notify(task, child);
        if let Inserted::Added { cancel_requested, .. } = child {
            for job in cancel_requested {
                self.planner.on(Input::CancelRequested(*job), now.stamp);
            }
        }
    }

    // What goes out.

    /// Does what the planner decided; returns true if the planner has stopped.
    fn carry_out(&mut self, actions: Vec<Action>, now: Now) -> bool {
        let mut stopped = false;
        let (mut record, mut claim) = (None, None);
        for action in actions {
            match action {
                Action::Record(events) => record = Some(self.record(events)),
                Action::Claim { free } => claim = Some(self.claim(free)),
                Action::Renew(leases) => self.store_calls.push(self.renew(leases)),
                Action::Mark(mark) => self.store_calls.push(self.set_node_mark(mark)),
                Action::Start { leased, trusted_until } => {
                    self.start(*leased, now.instant_of(trusted_until), now.instant)
                }
                Action::Trust { attempt, until } => self.with(attempt, |h| h.trust_until(now.instant_of(until))),
                Action::RequestCancel(attempt) => self.with(attempt, AttemptHandle::request_cancel),
                Action::Stop { attempt, why, text } => self.with(attempt, |h| h.stop(why, text.to_owned())),
                Action::Dropped(attempt) => self.dropped(attempt),
                Action::Stopped => stopped = true,
            }
        }
        // Both are sent together, and the store does them in whatever order it likes: slots that the record frees are found
        // by the next claim.
        self.store_calls.extend(record);
        self.store_calls.extend(claim);
        self.room.all_started();
        stopped
    }

    fn dropped(&mut self, attempt: AttemptId) {
        if let Some(task) = self.remove(attempt) {
            self.notify(&Notice::AttemptStale { task, job: attempt.job, number: attempt.number });
        }
    }

    /// Removes the attempt and returns its task, if the attempt was known.
    fn remove(&mut self, attempt: AttemptId) -> Option<TaskName> {
        let RunningAttempt { task, counts, room, .. } = self.attempts.remove(&attempt)?;
        if counts {
            self.room.left(&room);
            self.quotas.removed(&task);
        }
        self.room.written(&room);
        Some(task)
    }

    fn with(&self, attempt: AttemptId, act: impl FnOnce(&AttemptHandle)) {
        if let Some(running) = self.attempts.get(&attempt) {
            act(&running.handle);
        }
    }

    fn start(&mut self, leased: LeasedJob, trusted_until: Instant, now: Instant) {
        let id = AttemptId::from(&leased.lease);
        self.wake_followers(id.job);
        let task = leased.task.clone();
        let plugin = self.parts.plugins.plugin(&task.plugin());
        let handle = AttemptHandle::new();
        let host = Arc::new(self.parts.starter.host(&leased, plugin.as_deref(), &handle));
        let first_pages = plugin.as_deref().map_or(0, |plugin| plugin.first_pages);
        let room = self.room.starts(&leased, first_pages);
        let (its_handle, its_host) = (handle.clone(), Arc::clone(&host));
        let running = RunningAttempt {
            task: task.clone(),
            key: leased.lane.key.clone(),
            counts: true,
            room,
            handle: its_handle,
            host: its_host,
        };
        self.attempts.insert(id, running);
        self.quotas.started(&task);
        self.parts.activity.add_start(&task, now);
        let Some(plugin) = plugin else {
            let why = format!("plugin `{}` was removed before the attempt started", task.plugin());
            return self.parts.starter.cannot_start(&leased, why);
        };
        let Some(permit) = self.room.permit(&plugin, room) else {
            let why = format!("plugin `{}` was replaced by one that needs more sandboxes than are free", task.plugin());
            return self.parts.starter.cannot_start(&leased, why);
        };
        let queue_wait = leased.claimed_at.since(leased.due);
        if is_suspect(leased.crashes) {
            let (task, job, crashes) = (task.clone(), id.job, leased.crashes);
            self.notify(&Notice::SuspectStarted { task, job, crashes });
        }
        self.notify(&Notice::AttemptStarted { task, job: id.job, number: id.number, queue_wait });
        self.parts.starter.start(Attempt { leased, plugin, permit, host, handle, trusted_until });
    }

    fn record(&self, events: Vec<(JobId, Event)>) -> BoxFuture<'static, LoopMessage> {
        let store = self.parts.store.clone();
        Box::pin(async move {
            // What the store cannot write now is written later.
            let events = Arc::new(events);
            match store.call("recording", store.record(Arc::clone(&events))).await {
                Ok(results) => {
                    let recorded = events.iter().map(pending_event).zip(results);
                    LoopMessage::Recorded(recorded.map(|(event, result)| RecordedEvent { event, result }).collect())
                }
                Err(_) => LoopMessage::Input(Input::RecordFailed(Arc::unwrap_or_clone(events))),
            }
        })
    }

    fn claim(&mut self, free: u32) -> BoxFuture<'static, LoopMessage> {
        let room = self.room.now();
        if room.free.sandboxes == 0 {
            let leased = Vec::new();
            let none = Claimed { leased, wake_at: None, quota_reached: false, short_of_room: true, overtook: 0 };
            return Box::pin(ready(LoopMessage::Claimed(none)));
        }
        let store = self.parts.store.clone();
        let catalog = self.parts.plugins.catalog();
        let (tasks, attempts) = (catalog.claimable(), &self.attempts);
        let task_quotas =
            self.quotas.for_claim(tasks.iter().map(|(task, _)| task), free, |task| suspended(attempts, task));
        let claim = Claim {
            node: self.parts.node,
            tasks: Arc::clone(tasks),
            declared: Arc::clone(catalog.limits()),
            free,
            room,
            costs: self.room.offer(&catalog),
            task_quotas,
            lease: self.parts.lease,
        };
        Box::pin(async move {
            match store.call("claiming", store.claim(claim)).await {
                Ok(claimed) => LoopMessage::Claimed(claimed),
                Err(_) => LoopMessage::Input(Input::ClaimFailed),
            }
        })
    }

    fn set_node_mark(&self, mark: NodeMark) -> BoxFuture<'static, LoopMessage> {
        let (store, node) = (self.parts.store.clone(), self.parts.node);
        Box::pin(async move {
            let written = store.call("writing the node mark", store.set_node_mark(node, mark)).await;
            LoopMessage::Input(if written.is_ok() { Input::Marked } else { Input::MarkFailed })
        })
    }

    fn renew(&self, leases: Vec<Lease>) -> BoxFuture<'static, LoopMessage> {
        let (store, length) = (self.parts.store.clone(), self.parts.lease);
        Box::pin(async move {
            LoopMessage::Input(match store.call("renewing leases", store.renew(leases, length)).await {
                Ok(renewed) => Input::Renewed(renewed.into_iter().map(renew_result).collect()),
                Err(_) => Input::RenewFailed,
            })
        })
    }
}

/// Returns how many attempts of a task take no processor now.
fn suspended(attempts: &HashMap<AttemptId, RunningAttempt>, task: &TaskName) -> u32 {
    let suspended = attempts.values().filter(|running| running.task == *task && running.handle.is_waiting());
    u32::try_from(suspended.count()).unwrap_or(u32::MAX)
}

/// Returns how many bytes of an attempt that has ended wait to be written, besides its entries.
fn unwritten_bytes(finished: &FinishedAttempt) -> u64 {
    let result = if let Outcome::Returned(result) = &finished.outcome { result.len() } else { 0 };
    let children: usize = finished.children.iter().map(|child| child.payload.len()).sum();
    let changes = finished.changes.as_ref().map_or(0, |changes| changes.bytes());
    (result + children) as u64 + changes
}

fn pending_event((job, event): &(JobId, Event)) -> PendingEvent {
    let attempt = AttemptId { job: *job, number: event.attempt().unwrap_or_default() };
    let (entry_bytes, child_tasks) = match event {
        Event::Wrote { entries, .. } => (Some(entries.iter().map(buffered_bytes).sum()), Vec::new()),
        Event::Succeeded { children, .. } => (None, children.iter().map(|child| child.task.clone()).collect()),
        _ => (None, Vec::new()),
    };
    PendingEvent { attempt, entry_bytes, child_tasks }
}

async fn changed(nudges: &mut Nudges) {
    // A store that is gone sends no more nudges; polling goes on.
    if nudges.changed().await.is_err() {
        pending::<()>().await;
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}
