//! What one node does next: inputs in, actions out. Does nothing itself, and reads no clock.
//!
//! A turn is any number of inputs and then one `decide`, so that what came together is carried out together:
//! one record call for all attempts that ended, one claim for all slots that are free.
//! Time is always the store's, since leases are judged by it and by nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::JobId;
use crate::job::{Entry, LeasedJob, NewJob};
use crate::kv::KvChanges;
use crate::lease::{Lease, NodeMark};
use crate::lifecycle::{Event, Refusal};
use crate::outcome::{Bill, Interruption, Outcome};
use crate::retry::RetryPolicy;
use crate::time::Timestamp;

mod recording;
mod suspects;
mod claiming;
mod leases;
#[cfg(test)]
mod tests;

use suspects::{Marks, Suspects};

/// Where nothing says that there is work, the store is asked this often: nudges may be lost, polling is the truth.
const POLL: Duration = Duration::from_secs(1);
/// After an error of the store, doubled for each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// One attempt of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    pub job: JobId,
    pub number: u32,
}

impl From<&Lease> for AttemptId {
    fn from(lease: &Lease) -> AttemptId {
        AttemptId { job: lease.job, number: lease.attempt }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct PlannerSettings {
    /// Attempts at once.
    pub capacity: u32,
    pub lease: Duration,
    /// A lease is trusted this much less than it is long.
    pub lease_margin: Duration,
}

/// How an attempt ended, with all that its record needs.
#[derive(Clone, Debug)]
pub struct FinishedAttempt {
    pub attempt: AttemptId,
    pub outcome: Outcome,
    pub bill: Bill,
    /// Jobs that it enqueued; they count only if it returned.
    pub children: Vec<NewJob>,
    /// What it changed of its plugin's values; counts as they do.
    pub changes: Option<Arc<KvChanges>>,
    pub retry: RetryPolicy,
    /// In 0..1, for the jitter of a retry.
    pub jitter: f64,
}

/// What the store said to one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordResult {
    Stands { cancel_asked: bool },
    Refused(Refusal),
}

/// What the store said to one renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewResult {
    Held { lease: Lease, cancel_asked: bool },
    Lost(Lease),
}

#[derive(Clone, Debug)]
pub enum Input {
    /// Something in the store may have changed.
    Nudged,
    /// The plugins changed; whether there is a task that this node can run at all.
    CatalogChanged {
        any_task: bool,
    },
    Claimed {
        leased: Vec<LeasedJob>,
        wake_at: Option<Timestamp>,
    },
    ClaimFailed,
    /// A running attempt emitted a chunk, a log line or progress.
    Wrote {
        attempt: AttemptId,
        entry: Entry,
    },
    FinishedAttempt(Box<FinishedAttempt>),
    /// One answer for each event of the last `Action::Record`, in its order.
    Recorded(Vec<RecordResult>),
    /// The events come back as they were.
    RecordFailed(Vec<(JobId, Event)>),
    Renewed(Vec<RenewResult>),
    RenewFailed,
    Marked,
    MarkFailed,
    CancelAsked(JobId),
    /// Claim no more; what still runs at `until` is stopped and given back.
    Drain {
        until: Timestamp,
    },
    /// Time has passed.
    Tick,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Answered by `Recorded` or `RecordFailed`. Never two at once, so that what an attempt wrote keeps its order.
    Record(Vec<(JobId, Event)>),
    /// Answered by `Claimed` or `ClaimFailed`. Never two at once.
    Claim {
        free: u32,
    },
    /// Answered by `Renewed` or `RenewFailed`. Never two at once.
    Renew(Vec<Lease>),
    /// What this node writes down of itself, in place of what it wrote before: durable once it is answered by `Marked`; else
    /// by `MarkFailed`. Never two at once.
    Mark(NodeMark),
    /// Answered by `FinishedAttempt`, whatever happens.
    Start {
        leased: Box<LeasedJob>,
        trusted_until: Timestamp,
    },
    /// The attempt may act until then, and no longer.
    Trust {
        attempt: AttemptId,
        until: Timestamp,
    },
    AskCancel(AttemptId),
    Stop {
        attempt: AttemptId,
        why: Interruption,
        text: &'static str,
    },
    /// The store has refused the attempt: nothing more comes of it.
    Dropped(AttemptId),
    /// A drain is over: nothing runs, all is recorded (or can't be any more).
    Stopped,
}

const DRAINED: &str = "the host is stopping; the job was given back";

/// An attempt from its claim until its end is recorded.
struct Held {
    lease: Lease,
    failures: u32,
    /// When the claim or renewal that the store confirmed last was sent.
    confirmed: Timestamp,
    trusted_until: Timestamp,
    running: bool,
    stopping: bool,
    /// The store refused this attempt: nothing of it is written any more.
    lost: bool,
    cancel_asked: bool,
    unwritten: Vec<Entry>,
    end: Option<Event>,
    queued: bool,
}

struct InFlightClaim {
    sent: Timestamp,
    asked: u32,
    /// Requests to cancel jobs that are not here yet: this claim may bring them.
    cancels: BTreeSet<JobId>,
}

struct Drain {
    until: Timestamp,
    /// How long it was to be at most.
    patience: Duration,
    done: bool,
}

/// How long a kind of call is not repeated after the store failed it.
#[derive(Default)]
struct Backoff {
    errors: u32,
    until: Timestamp,
}

impl Backoff {
    fn failed(&mut self, now: Timestamp) {
        self.until = now + (BACKOFF_MIN * (1 << self.errors.min(10))).min(BACKOFF_MAX);
        self.errors = self.errors.saturating_add(1);
    }

    fn worked(&mut self) {
        *self = Backoff::default();
    }
}

pub struct Planner {
    settings: PlannerSettings,
    /// Ordered, so that the same inputs always give the same actions.
    held: BTreeMap<AttemptId, Held>,
    running: u32,
    /// Attempts with something to write, in the order in which it came.
    unwritten: VecDeque<AttemptId>,
    claim: Option<InFlightClaim>,
    /// What the record call in flight carries: of which attempt, and whether it is the end.
    record: Option<Vec<(AttemptId, bool)>>,
    /// When the renewal in flight was sent.
    renewal: Option<Timestamp>,
    any_task: bool,
    /// The last claim was answered in full: there may be more.
    claim_was_full: bool,
    look: bool,
    look_at: Timestamp,
    next_beat: Timestamp,
    /// Apart from each other: that claims work does not mean that records do.
    claim_backoff: Backoff,
    record_backoff: Backoff,
    drain: Option<Drain>,
    suspects: Suspects,
    marks: Marks,
    actions: Vec<Action>,
}

impl Planner {
    pub fn new(settings: PlannerSettings) -> Planner {
        Planner {
            settings,
            held: BTreeMap::new(),
            running: 0,
            unwritten: VecDeque::new(),
            claim: None,
            record: None,
            renewal: None,
            any_task: false,
            claim_was_full: false,
            look: true,
            look_at: Timestamp::ZERO,
            next_beat: Timestamp::ZERO,
            claim_backoff: Backoff::default(),
            record_backoff: Backoff::default(),
            drain: None,
            suspects: Suspects::default(),
            marks: Marks::default(),
            actions: Vec::new(),
        }
    }

    pub fn running(&self) -> u32 {
        self.running
    }

    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Takes in what happened. What follows from it comes with the next `decide`.
    pub fn on(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Nudged => self.look = true,
            Input::CatalogChanged { any_task } => {
                self.any_task = any_task;
                self.look = true;
            }
            Input::Claimed { leased, wake_at } => self.claimed(leased, wake_at, now),
            Input::ClaimFailed => {
                self.claim = None;
                self.look = true;
                self.claim_backoff.failed(now);
            }
            Input::Wrote { attempt, entry } => {
                if let Some(held) = self.held.get_mut(&attempt)
                    && !held.lost
                {
                    held.unwritten.push(entry);
                    self.queue(attempt);
                }
            }
            Input::FinishedAttempt(ended) => self.ended(*ended),
            Input::Recorded(answers) => self.recorded(&answers),
            Input::RecordFailed(events) => self.give_back(events, now),
            Input::Renewed(confirmations) => self.renewed(&confirmations, now),
            // The next beat tries again.
            Input::RenewFailed => self.renewal = None,
            Input::Marked => self.marked(),
            Input::MarkFailed => self.mark_failed(now),
            Input::CancelAsked(job) => self.cancel_asked(job),
            Input::Drain { until } => {
                // In the same turn, and once for all that is held: whoever kills this node from now on means no job.
                self.marks.wanted.draining |= !self.held.is_empty() || self.claim.is_some();
                match &mut self.drain {
                    Some(drain) => drain.until = drain.until.min(until),
                    None => self.drain = Some(Drain { until, patience: until.since(now), done: false }),
                }
            }
            Input::Tick => {}
        }
    }

    /// What is to be done after this turn's inputs, in this order.
    pub fn decide(&mut self, now: Timestamp) -> Vec<Action> {
        self.keep_time(now);
        self.stop_overdue(now);
        self.see_to_suspects(now);
        self.send_mark(now);
        self.send_record(now);
        self.send_claim(now);
        if now >= self.next_beat {
            self.send_renewal(now);
            self.next_beat = now + self.beat();
        }
        self.finish_drain(now);
        mem::take(&mut self.actions)
    }

    /// When to come back if nothing happens before; `None` is never.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let unwritten = (self.record.is_none() && !self.unwritten.is_empty()).then_some(self.record_backoff.until);
        let look_at = if self.look { Timestamp::ZERO } else { self.look_at };
        let claim = self.may_claim().then_some(look_at.max(self.claim_backoff.until));
        let beat = (!self.held.is_empty()).then_some(self.next_beat);
        let drain = self.drain.as_ref().filter(|d| !d.done).map(|d| {
            let anything_to_stop = self.held.values().any(|held| held.running && !held.stopping);
            if anything_to_stop { d.until } else { d.until + self.settings.lease }
        });
        let suspects = self.suspects_wake_at();
        let mark = self.mark_wakes_at();
        [unwritten, claim, beat, drain, suspects, mark].into_iter().flatten().min()
    }

    /// Leases and trust are looked through this often: once for all, not one timer each.
    fn beat(&self) -> Duration {
        self.settings.lease / 12
    }

    /// A clock that was set back must not leave us waiting for moments that are far away by now.
    fn keep_time(&mut self, now: Timestamp) {
        self.next_beat = self.next_beat.min(now + self.beat());
        self.look_at = self.look_at.min(now + POLL);
        self.suspects.keep_time(now);
        for backoff in [&mut self.claim_backoff, &mut self.record_backoff, &mut self.marks.backoff] {
            backoff.until = backoff.until.min(now + BACKOFF_MAX);
        }
        if let Some(drain) = &mut self.drain {
            drain.until = drain.until.min(now + drain.patience);
        }
    }

    fn finish_drain(&mut self, now: Timestamp) {
        let idle = self.held.is_empty() && self.claim.is_none() && self.record.is_none();
        if let Some(drain) = &mut self.drain {
            // Past the last lease there is nothing left to give back: the leases have run out by themselves.
            let hopeless = now >= drain.until + self.settings.lease;
            if !drain.done && (idle || hopeless) {
                drain.done = true;
                self.actions.push(Action::Stopped);
            }
        }
    }
}
