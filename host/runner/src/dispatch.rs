//! The loop that carries out what the planner decides: every trigger of one node passes here, one turn at a time.
//!
//! A turn takes in all that has come, asks the planner once, and does what it says. Nothing in it waits.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::ids::{JobId, NodeId, TaskName};
use wharf_core::job::LeasedJob;
use wharf_core::lease::{Lease, NodeMark, is_suspect};
use wharf_core::lifecycle::Event;
use wharf_core::outcome::{Interruption, OutcomeKind};
use wharf_core::planner::{Action, AttemptId, Input, Planner};
use wharf_core::time::Timestamp;
use wharf_engine::AttemptHandle;
use wharf_store::{Claim, Claimed, Inserted, Nudges};

use crate::attempt::{Attempt, never_began};
use crate::attempt_host::{AttemptHost, room};
use crate::broadcast::{Broadcasts, CallChain};
use crate::kv_view::KvView;
use crate::loop_message::{LoopMessage, Over, Said, Written, confirmation};
use crate::notice::{AttemptEnded, Notice};
use crate::shared::Shared;
use crate::task_concurrency::TaskConcurrency;

/// How much is taken in before the planner is asked.
const WORDS_PER_TURN: usize = 4096;

/// An attempt that begins to wait makes room without a word.
const ROOM_EVERY: Duration = Duration::from_millis(10);

/// How the loop stands, for whoever asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) running: u32,
    pub(crate) draining: bool,
    pub(crate) stopped: bool,
}

pub(crate) struct Dispatch {
    pub(crate) shared: Shared,
    pub(crate) broadcasts: Arc<Broadcasts>,
    pub(crate) planner: Planner,
    pub(crate) node: NodeId,
    pub(crate) lease: Duration,
    pub(crate) cancel_grace: Duration,
    pub(crate) words: UnboundedReceiver<LoopMessage>,
    pub(crate) to_self: UnboundedSender<LoopMessage>,
    pub(crate) load: watch::Sender<Load>,
    pub(crate) attempts: HashMap<AttemptId, Running>,
    /// What the store was asked and has not answered. The loop itself waits for it: a task for each would wake a thread each time.
    pub(crate) asked: FuturesUnordered<BoxFuture<'static, LoopMessage>>,
    /// Progress that waits for its time; each waits as long as any other.
    pub(crate) progress: VecDeque<(Instant, AttemptId)>,
    pub(crate) stopping: CancellationToken,
    pub(crate) paces: TaskConcurrency,
    /// Tasks that had no room for all that was free when the store was asked last, each with how much; once it has answered,
    /// those that have none left.
    pub(crate) bounded: Vec<(TaskName, u32)>,
    /// When to see whether one of those has room by now; `None` where none of their jobs can have been left.
    pub(crate) held_back: Option<Instant>,
}

/// An attempt from its start until its end is recorded.
pub(crate) struct Running {
    task: TaskName,
    /// It counts among those of its task that run.
    counts: bool,
    control: AttemptHandle,
    desk: Arc<AttemptHost>,
}

/// The moment of a turn, by the store's clock and by the machine's.
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
    pub(crate) async fn run(mut self) {
        let mut nudges = self.shared.store.nudges();
        let mut words = Vec::with_capacity(WORDS_PER_TURN);
        loop {
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return self.abandon(),
                () = changed(&mut nudges) => self.planner.on(Input::Nudged, self.shared.store.now()),
                Some(word) = self.asked.next() => words.push(word),
                Some(word) = self.words.recv() => words.push(word),
                () = until(wake_at) => {}
            }
            while let Some(word) = self.asked.next().now_or_never().flatten() {
                words.push(word);
            }
            while words.len() < WORDS_PER_TURN
                && let Ok(word) = self.words.try_recv()
            {
                words.push(word);
            }
            let now = Now { stamp: self.shared.store.now(), instant: Instant::now() };
            for word in words.drain(..) {
                self.take_in(word, now);
            }
            self.write_progress(now);
            self.look_for_room(now);
            let actions = self.planner.decide(now.stamp);
            let stopped = self.carry_out(actions, now);
            self.show(stopped);
            if stopped {
                return;
            }
        }
    }

    /// Ends without a word to the store, as if the power was cut: leases run out by themselves.
    fn abandon(self) {
        for running in self.attempts.values() {
            running.control.stop(Interruption::Drain, "the host has stopped".to_owned());
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let planned = self.planner.wake_at().map(|at| Instant::now() + at.since(self.shared.store.now()));
        let progress = self.progress.front().map(|(at, _)| *at);
        [planned, progress, self.held_back].into_iter().flatten().min()
    }

    fn show(&self, stopped: bool) {
        let load = Load { running: self.planner.running(), draining: self.planner.is_draining(), stopped };
        self.load.send_if_modified(|shown| std::mem::replace(shown, load) != load);
    }

    fn tell(&self, notice: &Notice) {
        (self.shared.tell)(notice);
    }

    // What comes in.

    fn take_in(&mut self, word: LoopMessage, now: Now) {
        match word {
            LoopMessage::Input(input) => {
                if let Input::RecordFailed(events) = &input {
                    self.unwritten(events);
                }
                self.planner.on(input, now.stamp);
            }
            LoopMessage::Claimed(Claimed { leased, wake_at, held_back }) => {
                let taken = |task: &TaskName| leased.iter().filter(|leased| leased.task == *task).count();
                self.bounded.retain(|(task, room)| held_back && taken(task) >= *room as usize);
                self.held_back = (!self.bounded.is_empty()).then(|| now.instant + ROOM_EVERY);
                self.planner.on(Input::Claimed { leased, wake_at }, now.stamp);
            }
            LoopMessage::ProgressLater(attempt) => {
                self.progress.push_back((now.instant + bounds::PROGRESS_EVERY, attempt))
            }
            LoopMessage::Over(over) => self.attempt_over(*over, now),
            LoopMessage::Recorded(written) => {
                let answers = written.iter().map(Written::answer).collect();
                for one in written {
                    self.written(one, now);
                }
                self.planner.on(Input::Recorded(answers), now.stamp);
            }
        }
    }

    /// Attempts may have to wait until what they wrote is written.
    fn unwritten(&self, events: &[(JobId, Event)]) {
        for (job, event) in events {
            if let Event::Wrote { attempt, .. } = event
                && let Some(running) = self.attempts.get(&AttemptId { job: *job, number: *attempt })
            {
                running.desk.store_failed();
            }
        }
    }

    fn attempt_over(&mut self, over: Over, now: Now) {
        let Over { ended, sandbox, lines_dropped } = over;
        if let Some(running) = self.attempts.get_mut(&ended.attempt) {
            running.counts = false;
            let (task, job, number) = (running.task.clone(), ended.attempt.job, ended.attempt.number);
            if lines_dropped > 0 {
                self.tell(&Notice::LogDropped { task: task.clone(), job, lines: lines_dropped });
            }
            let (kind, report, bill) = (ended.outcome.kind(), ended.outcome.report().to_owned(), ended.bill);
            // One that failed at once, or was stopped, says little about what others would take.
            let is_whole = matches!(kind, OutcomeKind::Returned | OutcomeKind::TimedOut);
            self.paces.ends(&task, is_whole.then_some(bill.guest));
            if self.held_back.is_some() && self.bounded.iter().any(|(bounded, _)| *bounded == task) {
                self.held_back = Some(now.instant);
            }
            self.tell(&Notice::AttemptEnded(Box::new(AttemptEnded { task, job, number, kind, report, bill, sandbox })));
        }
        self.planner.on(Input::FinishedAttempt(Box::new(ended)), now.stamp);
    }

    fn write_progress(&mut self, now: Now) {
        while let Some((at, attempt)) = self.progress.front().copied()
            && at <= now.instant
        {
            self.progress.pop_front();
            if let Some(running) = self.attempts.get(&attempt) {
                running.desk.write_progress();
            }
        }
    }

    /// Asks for more where jobs were left for want of room in their task, and there is some.
    fn look_for_room(&mut self, now: Now) {
        if self.held_back.is_none_or(|at| at > now.instant) {
            return;
        }
        let has_room = |(task, _): &(TaskName, u32)| self.paces.room(task, || self.waiting(task)) > 0;
        if self.bounded.iter().any(has_room) {
            self.held_back = None;
            self.planner.on(Input::Nudged, now.stamp);
        } else {
            self.held_back = Some(now.instant + ROOM_EVERY);
        }
    }

    /// Attempts of a task that take no processor now.
    fn waiting(&self, task: &TaskName) -> u32 {
        let waiting = self.attempts.values().filter(|running| running.task == *task && running.control.is_waiting());
        u32::try_from(waiting.count()).unwrap_or(u32::MAX)
    }

    fn written(&mut self, written: Written, now: Now) {
        let Written { said: Said { attempt, room, children }, result } = written;
        self.shared.followers.wake(attempt.job);
        if let Some(bytes) = room {
            if let Some(running) = self.attempts.get(&attempt) {
                running.desk.clear(bytes);
            }
            return;
        }
        let Some(task) = self.forget(attempt) else { return };
        match result {
            Err(_) => self.tell(&Notice::AttemptStale { task, job: attempt.job, number: attempt.number }),
            Ok(recorded) => {
                for (task, child) in children.into_iter().zip(&recorded.children) {
                    self.child(task, child, now);
                }
                if recorded.state.is_final() {
                    self.tell(&Notice::JobEnded { task, job: attempt.job, state: recorded.state });
                }
            }
        }
    }

    fn child(&mut self, task: TaskName, child: &Inserted, now: Now) {
        self.shared.tell_inserted(task, child);
        if let Inserted::Added { cancel_asked, .. } = child {
            for job in cancel_asked {
                self.planner.on(Input::CancelAsked(*job), now.stamp);
            }
        }
    }

    // What goes out.

    /// Does what the planner says; true when it says that all is over.
    fn carry_out(&mut self, actions: Vec<Action>, now: Now) -> bool {
        let mut stopped = false;
        let (mut record, mut claim) = (None, None);
        for action in actions {
            match action {
                Action::Record(events) => record = Some(self.record(events)),
                Action::Claim { free } => claim = Some(self.claim(free)),
                Action::Renew(leases) => self.asked.push(self.renew(leases)),
                Action::Mark(mark) => self.asked.push(self.mark(mark)),
                Action::Start { leased, trusted_until } => self.start(*leased, now.instant_of(trusted_until)),
                Action::Trust { attempt, until } => self.with(attempt, |c| c.trust_until(now.instant_of(until))),
                Action::AskCancel(attempt) => self.with(attempt, AttemptHandle::request_cancel),
                Action::Stop { attempt, why, text } => self.with(attempt, |c| c.stop(why, text.to_owned())),
                Action::Dropped(attempt) => self.dropped(attempt),
                Action::Stopped => stopped = true,
            }
        }
        // Asked together, and done in whatever order the store likes: the room that the record makes, the next claim finds.
        self.asked.extend(record);
        self.asked.extend(claim);
        stopped
    }

    fn dropped(&mut self, attempt: AttemptId) {
        if let Some(task) = self.forget(attempt) {
            self.tell(&Notice::AttemptStale { task, job: attempt.job, number: attempt.number });
        }
    }

    /// Answers the attempt's task.
    fn forget(&mut self, attempt: AttemptId) -> Option<TaskName> {
        let Running { task, counts, .. } = self.attempts.remove(&attempt)?;
        if counts {
            self.paces.ends(&task, None);
        }
        Some(task)
    }

    fn with(&self, attempt: AttemptId, act: impl FnOnce(&AttemptHandle)) {
        if let Some(running) = self.attempts.get(&attempt) {
            act(&running.control);
        }
    }

    fn start(&mut self, leased: LeasedJob, trusted_until: Instant) {
        let attempt = AttemptId::from(&leased.lease);
        self.shared.followers.wake(attempt.job);
        let task = leased.task.clone();
        let plugin = self.shared.catalog.load().plugin(&task.plugin()).map(|loaded| Arc::clone(&loaded.plugin));
        let chain = CallChain::of_job(task.plugin());
        let kept = plugin.as_ref().and_then(|plugin| KvView::of(plugin, &self.shared));
        let control = AttemptHandle::new();
        let (words, broadcasts) = (self.to_self.clone(), Arc::clone(&self.broadcasts));
        let desk = Arc::new(AttemptHost::new(attempt, control.clone(), words, broadcasts, chain, kept));
        let running = Running { task: task.clone(), counts: true, control: control.clone(), desk: Arc::clone(&desk) };
        self.attempts.insert(attempt, running);
        self.paces.begins(&task);
        let Some(plugin) = plugin else {
            let word = never_began(&leased, format!("plugin `{}` was removed before the attempt began", task.plugin()));
            // To the loop itself, which cannot be gone.
            let _ = self.to_self.send(word);
            return;
        };
        let queue_wait = leased.claimed_at.since(leased.due);
        if is_suspect(leased.crashes) {
            let (task, job, crashes) = (task.clone(), attempt.job, leased.crashes);
            self.tell(&Notice::SuspectStarted { task, job, crashes });
        }
        self.tell(&Notice::AttemptStarted { task, job: attempt.job, number: attempt.number, queue_wait });
        let attempt = Attempt {
            engine: Arc::clone(&self.shared.engine),
            leased,
            plugin,
            desk,
            control,
            trusted_until,
            cancel_grace: self.cancel_grace,
            words: self.to_self.clone(),
        };
        attempt.start(&self.shared.tasks);
    }

    fn record(&self, events: Vec<(JobId, Event)>) -> BoxFuture<'static, LoopMessage> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let said: Vec<Said> = events.iter().map(said).collect();
            // Kept, since the store takes them with it: what it cannot write now is written later.
            let kept = events.clone();
            match shared.ask("recording", shared.store.record(events)).await {
                Ok(results) => {
                    let written = said.into_iter().zip(results).map(|(said, result)| Written { said, result });
                    LoopMessage::Recorded(written.collect())
                }
                Err(_) => LoopMessage::Input(Input::RecordFailed(kept)),
            }
        })
    }

    fn claim(&mut self, free: u32) -> BoxFuture<'static, LoopMessage> {
        let shared = self.shared.clone();
        let catalog = shared.catalog.load_full();
        let room = |(task, _): &(TaskName, _)| {
            let room = self.paces.room(task, || self.waiting(task));
            (room < free).then(|| (task.clone(), room))
        };
        let task_quotas: Vec<(TaskName, u32)> = catalog.claimable().iter().filter_map(room).collect();
        self.bounded.clone_from(&task_quotas);
        let claim = Claim {
            node: self.node,
            tasks: Arc::clone(catalog.claimable()),
            declared: Arc::clone(catalog.limits()),
            free,
            task_quotas,
            lease: self.lease,
        };
        Box::pin(async move {
            match shared.ask("claiming", shared.store.claim(claim)).await {
                Ok(claimed) => LoopMessage::Claimed(claimed),
                Err(_) => LoopMessage::Input(Input::ClaimFailed),
            }
        })
    }

    fn mark(&self, mark: NodeMark) -> BoxFuture<'static, LoopMessage> {
        let (shared, node) = (self.shared.clone(), self.node);
        Box::pin(async move {
            let written = shared.ask("writing down how this node stands", shared.store.set_node_mark(node, mark)).await;
            LoopMessage::Input(if written.is_ok() { Input::Marked } else { Input::MarkFailed })
        })
    }

    fn renew(&self, leases: Vec<Lease>) -> BoxFuture<'static, LoopMessage> {
        let (shared, length) = (self.shared.clone(), self.lease);
        Box::pin(async move {
            LoopMessage::Input(match shared.ask("renewing leases", shared.store.renew(leases, length)).await {
                Ok(renewed) => Input::Renewed(renewed.into_iter().map(confirmation).collect()),
                Err(_) => Input::RenewFailed,
            })
        })
    }
}

fn said((job, event): &(JobId, Event)) -> Said {
    let attempt = AttemptId { job: *job, number: event.attempt().unwrap_or_default() };
    let (room, children) = match event {
        Event::Wrote { entries, .. } => (Some(entries.iter().map(room).sum()), Vec::new()),
        Event::Succeeded { children, .. } => (None, children.iter().map(|child| child.task.clone()).collect()),
        _ => (None, Vec::new()),
    };
    Said { attempt, room, children }
}

async fn changed(nudges: &mut Nudges) {
    // A store that is gone nudges no more; polling goes on.
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
