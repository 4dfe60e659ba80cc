//! The planner: decides what one node does next. Inputs go in, actions come out; it does no I/O and reads no clock.
//!
//! Its caller runs a loop and drives it in turns:
//!
//! 1. Wait until something happens, but not longer than until [`Planner::wake_at`].
//! 2. Call [`Planner::on`] for everything that happened: results of earlier actions, messages of attempts, requests, or
//!    [`Input::Tick`] if nothing did.
//! 3. Call [`Planner::decide`] and carry out the returned actions, in their order.
//! 4. Feed the result of each action back as the input that its documentation names, in a later turn.
//! 5. Stop after [`Action::Stopped`], which follows [`Input::Drain`].
//!
//! A turn takes any number of inputs and then one `decide`, so that what happened together is handled together: one
//! record call for all attempts that ended, one claim for all free slots. All times are the store's, because leases are
//! judged by its clock alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crate::attempt::AttemptOrigin;
use crate::ids::JobId;
use crate::job::{Entry, LeasedJob, NewJob};
use crate::kv::KvChanges;
use crate::lease::{Lease, NodeMark};
use crate::lifecycle::{Event, Refusal};
use crate::outcome::{Interruption, Outcome, Usage};
use crate::retry::{FailureCount, RetryPolicy};
use crate::time::Timestamp;

mod recording;
mod suspects;
mod claiming;
mod leases;
#[cfg(test)]
mod tests;

use suspects::{Marks, Suspects};

/// The longest time between two claims of an idle node. Nudges may be lost; polling finds all work.
const POLL: Duration = Duration::from_secs(1);
/// Delay before a call that the store failed is repeated; doubled after each further error.
const STORE_RETRY_MIN: Duration = Duration::from_millis(50);
const STORE_RETRY_MAX: Duration = Duration::from_secs(2);

/// The ID of one attempt of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The job.
    pub job: JobId,
    /// The number of the attempt.
    pub number: u32,
}

impl From<&Lease> for AttemptId {
    fn from(lease: &Lease) -> AttemptId {
        AttemptId { job: lease.job, number: lease.attempt }
    }
}

/// Settings of a [`Planner`].
#[derive(Clone, Copy, Debug)]
pub struct PlannerSettings {
    /// How many attempts may run at once.
    pub capacity: u32,
    /// Length of a lease.
    pub lease: Duration,
    /// How long before the end of its lease an attempt must stop.
    pub lease_margin: Duration,
}

/// An attempt that ended, with everything needed to record it.
#[derive(Clone, Debug)]
pub struct FinishedAttempt {
    /// The attempt's ID.
    pub attempt: AttemptId,
    /// How it ended.
    pub outcome: Outcome,
    /// Its resource usage.
    pub usage: Usage,
    /// The node and the plugin of the attempt. `None` if the attempt returned a result, or could not start.
    pub origin: Option<Arc<AttemptOrigin>>,
    /// The jobs that it enqueued; they are inserted only if it returned a result.
    pub children: Vec<NewJob>,
    /// The changes to its plugin's kv values; they are committed only if it returned a result.
    pub changes: Option<Arc<KvChanges>>,
    /// The retry policy of its task.
    pub retry: RetryPolicy,
    /// A random number from 0 to 1, for the jitter of a retry's delay.
    pub jitter: f64,
}

/// The store's result for one recorded event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordResult {
    /// The event was applied.
    Recorded {
        /// True if the attempt was asked to cancel.
        cancel_requested: bool,
    },
    /// The event was refused and changed nothing.
    Refused(Refusal),
}

/// The store's result for one renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewResult {
    /// The lease was extended.
    Renewed {
        /// The extended lease.
        lease: Lease,
        /// True if the attempt was asked to cancel.
        cancel_requested: bool,
    },
    /// The job belongs to another attempt, or to none.
    Lost(Lease),
}

/// Something that happened to the node.
#[derive(Clone, Debug)]
pub enum Input {
    /// The store may have new work.
    Nudged,
    /// The loaded plugins changed.
    CatalogChanged {
        /// True if this node can run at least one task.
        any_task: bool,
    },
    /// A claim succeeded.
    Claimed {
        /// The jobs that were leased.
        leased: Vec<LeasedJob>,
        /// When the next delayed job becomes due, or now if jobs are due that this claim did not take.
        wake_at: Option<Timestamp>,
        /// True if the node's room did not suffice: there may be more jobs once an attempt ends.
        short_of_room: bool,
    },
    /// A claim failed.
    ClaimFailed,
    /// A running attempt emitted a chunk, a log line or progress.
    Wrote {
        /// The attempt.
        attempt: AttemptId,
        /// What it emitted.
        entry: Entry,
    },
    /// An attempt ended.
    FinishedAttempt(Box<FinishedAttempt>),
    /// A record call succeeded: one result for each event of the last `Action::Record`, in the same order.
    Recorded(Vec<RecordResult>),
    /// A record call failed: the events of the last `Action::Record`, unchanged.
    RecordFailed(Vec<(JobId, Event)>),
    /// A renewal succeeded: one result for each lease.
    Renewed(Vec<RenewResult>),
    /// A renewal failed.
    RenewFailed,
    /// The node mark was stored.
    Marked,
    /// The node mark could not be stored.
    MarkFailed,
    /// The cancellation of a job was requested.
    CancelRequested(JobId),
    /// The node shuts down: it claims no more jobs, and stops and releases what is still running at `until`.
    Drain {
        /// When the remaining attempts are stopped.
        until: Timestamp,
    },
    /// An operator drains the node, or lets it claim again: a drained node claims no jobs, and goes on with what runs.
    SetDrained(bool),
    /// Time has passed.
    Tick,
}

/// Something for the node to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Record these events in the store. The next input for it is `Recorded` or `RecordFailed`. There is never more
    /// than one record call in flight, so that the entries of an attempt stay in order.
    Record(Vec<(JobId, Event)>),
    /// Claim jobs. The next input for it is `Claimed` or `ClaimFailed`. There is never more than one claim in flight.
    Claim {
        /// How many jobs to lease at most.
        free: u32,
    },
    /// Renew these leases. The next input for it is `Renewed` or `RenewFailed`. There is never more than one renewal in
    /// flight.
    Renew(Vec<Lease>),
    /// Store this node mark in place of the last one. The next input for it is `Marked`, once the mark is durable, or
    /// `MarkFailed`. There is never more than one mark in flight.
    Mark(NodeMark),
    /// Start an attempt. The input for its end is `FinishedAttempt`, whatever happens.
    Start {
        /// The job to run.
        leased: Box<LeasedJob>,
        /// When the attempt must stop, unless `Trust` extends this.
        trusted_until: Timestamp,
    },
    /// Let a running attempt continue until a new time.
    Trust {
        /// The attempt.
        attempt: AttemptId,
        /// When it must stop.
        until: Timestamp,
    },
    /// Ask a running attempt to cancel.
    RequestCancel(AttemptId),
    /// Stop a running attempt.
    Stop {
        /// The attempt.
        attempt: AttemptId,
        /// The reason.
        why: Interruption,
        /// The reason as a report for users.
        text: &'static str,
    },
    /// Forget an attempt: the store has refused it, so nothing of it is recorded any more.
    Dropped(AttemptId),
    /// The drain has finished: nothing is running, and everything is recorded that still can be.
    Stopped,
}

/// The report of an attempt that ends because its host shuts down.
const STOPPING: &str = "the host is shutting down; the job was released";
/// The report of an attempt that does not start because an operator drains its host.
const DRAINED: &str = "an operator drains the host; the job was released";

/// An attempt from its claim until its end is recorded.
struct AttemptState {
    lease: Lease,
    failures: FailureCount,
    /// When the last claim or renewal that the store confirmed was sent.
    confirmed: Timestamp,
    trusted_until: Timestamp,
    running: bool,
    stopping: bool,
    /// True if the store refused this attempt: nothing of it is written any more.
    lost: bool,
    cancel_requested: bool,
    unwritten: Vec<Entry>,
    end: Option<Event>,
    /// True if the attempt is in `Planner::unwritten`.
    queued: bool,
}

struct InFlightClaim {
    sent: Timestamp,
    /// How many jobs were requested.
    requested: u32,
    /// Jobs whose cancellation was requested and that are not here: this claim may bring them.
    cancels: BTreeSet<JobId>,
}

struct Drain {
    until: Timestamp,
    /// The longest time that the drain may take from its start.
    length: Duration,
    done: bool,
}

/// The delay of a kind of call after the store failed it.
#[derive(Default)]
struct Backoff {
    errors: u32,
    until: Timestamp,
}

impl Backoff {
    fn failed(&mut self, now: Timestamp) {
        self.until = now + (STORE_RETRY_MIN * (1 << self.errors.min(10))).min(STORE_RETRY_MAX);
        self.errors = self.errors.saturating_add(1);
    }

    fn succeeded(&mut self) {
        *self = Backoff::default();
    }
}

/// The planner of one node: knows its attempts, and decides what the node does next. The [module](self) describes how
/// to drive it.
///
/// The claims, leases, records and suspects of a node have each their own file below this module.
pub struct Planner {
    settings: PlannerSettings,
    /// Ordered, so that the same inputs always lead to the same actions.
    attempts: BTreeMap<AttemptId, AttemptState>,
    /// How many attempts are running.
    running: u32,
    /// Attempts with something to record, in the order in which it came.
    unwritten: VecDeque<AttemptId>,
    claim: Option<InFlightClaim>,
    /// The attempts of the events in the record call in flight, each with true if the event is its end.
    record: Option<Vec<(AttemptId, bool)>>,
    /// When the renewal in flight was sent.
    renewal: Option<Timestamp>,
    any_task: bool,
    /// True if the last claim returned as many jobs as were requested, or as there was room for: there may be more.
    claim_was_full: bool,
    poll_now: bool,
    next_poll_at: Timestamp,
    next_lease_check: Timestamp,
    // Two of them: a claim that succeeds does not show that records do.
    claim_backoff: Backoff,
    record_backoff: Backoff,
    drain: Option<Drain>,
    /// True from the moment when an operator drained the node until one lets it claim again.
    drained: bool,
    suspects: Suspects,
    marks: Marks,
    actions: Vec<Action>,
}

impl Planner {
    /// Creates the planner of a node without attempts.
    pub fn new(settings: PlannerSettings) -> Planner {
        Planner {
            settings,
            attempts: BTreeMap::new(),
            running: 0,
            unwritten: VecDeque::new(),
            claim: None,
            record: None,
            renewal: None,
            any_task: false,
            claim_was_full: false,
            poll_now: true,
            next_poll_at: Timestamp::ZERO,
            next_lease_check: Timestamp::ZERO,
            claim_backoff: Backoff::default(),
            record_backoff: Backoff::default(),
            drain: None,
            drained: false,
            suspects: Suspects::default(),
            marks: Marks::default(),
            actions: Vec::new(),
        }
    }

    /// Returns how many attempts are running.
    pub fn running(&self) -> u32 {
        self.running
    }

    /// Returns true if the node claims no jobs, as it stops or an operator drains it.
    pub fn is_draining(&self) -> bool {
        self.is_stopping() || self.drained
    }

    /// Returns true after `Input::Drain`.
    pub fn is_stopping(&self) -> bool {
        self.drain.is_some()
    }

    /// Returns the report of a job that the node does not start, if it starts none.
    fn starts_none(&self) -> Option<&'static str> {
        if self.is_stopping() { Some(STOPPING) } else { self.drained.then_some(DRAINED) }
    }

    /// Sets the wanted node mark at the start of a drain, once for all attempts: if this node is killed from then on, no job is to
    /// blame.
    fn mark_drain(&mut self) {
        self.marks.wanted.draining |= !self.attempts.is_empty() || self.claim.is_some();
    }

    fn set_drained(&mut self, drained: bool) {
        self.drained = drained;
        if drained {
            self.mark_drain();
        } else {
            self.marks.wanted.draining &= self.is_stopping();
            self.poll_now = true;
        }
    }

    /// Handles an input. The actions that follow from it are returned by the next `decide`.
    pub fn on(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Nudged => self.poll_now = true,
            Input::CatalogChanged { any_task } => {
                self.any_task = any_task;
                self.poll_now = true;
            }
            Input::Claimed { leased, wake_at, short_of_room } => self.claimed(leased, wake_at, short_of_room, now),
            Input::ClaimFailed => {
                self.claim = None;
                self.poll_now = true;
                self.claim_backoff.failed(now);
            }
            Input::Wrote { attempt, entry } => {
                if let Some(state) = self.attempts.get_mut(&attempt)
                    && !state.lost
                {
                    state.unwritten.push(entry);
                    self.queue_write(attempt);
                }
            }
            Input::FinishedAttempt(finished) => self.attempt_finished(*finished),
            Input::Recorded(results) => self.recorded(&results),
            Input::RecordFailed(events) => self.record_failed(events, now),
            Input::Renewed(results) => self.renewed(&results, now),
            // The next lease check tries again.
            Input::RenewFailed => self.renewal = None,
            Input::Marked => self.marked(),
            Input::MarkFailed => self.mark_failed(now),
            Input::CancelRequested(job) => self.cancel_requested(job),
            Input::Drain { until } => {
                self.mark_drain();
                match &mut self.drain {
                    Some(drain) => drain.until = drain.until.min(until),
                    None => self.drain = Some(Drain { until, length: until.since(now), done: false }),
                }
            }
            Input::SetDrained(drained) => self.set_drained(drained),
            Input::Tick => {}
        }
    }

    /// Ends a turn: returns the actions that follow from its inputs, in the order in which to carry them out.
    pub fn decide(&mut self, now: Timestamp) -> Vec<Action> {
        self.clamp_times(now);
        self.stop_overdue(now);
        self.drive_suspects(now);
        self.send_mark(now);
        self.send_record(now);
        self.send_claim(now);
        if now >= self.next_lease_check {
            self.send_renewal(now);
            self.next_lease_check = now + self.lease_check_interval();
        }
        self.finish_drain(now);
        mem::take(&mut self.actions)
    }

    /// Returns when to start the next turn if no input comes before; `None` is never.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let unwritten = (self.record.is_none() && !self.unwritten.is_empty()).then_some(self.record_backoff.until);
        let poll_at = if self.poll_now { Timestamp::ZERO } else { self.next_poll_at };
        let claim = self.may_claim().then_some(poll_at.max(self.claim_backoff.until));
        let lease_check = (!self.attempts.is_empty()).then_some(self.next_lease_check);
        let drain = self.drain.as_ref().filter(|d| !d.done).map(|d| {
            let anything_to_stop = self.attempts.values().any(|state| state.running && !state.stopping);
            if anything_to_stop { d.until } else { d.until + self.settings.lease }
        });
        let suspects = self.suspects_wake_at();
        let mark = self.mark_wakes_at();
        [unwritten, claim, lease_check, drain, suspects, mark].into_iter().flatten().min()
    }

    /// Returns the interval at which all leases are checked: one timer for all of them, not one each.
    fn lease_check_interval(&self) -> Duration {
        self.settings.lease / 12
    }

    /// Limits all wake-up times after the clock was set back; they would be far in the future.
    fn clamp_times(&mut self, now: Timestamp) {
        self.next_lease_check = self.next_lease_check.min(now + self.lease_check_interval());
        self.next_poll_at = self.next_poll_at.min(now + POLL);
        self.suspects.clamp_times(now);
        for backoff in [&mut self.claim_backoff, &mut self.record_backoff, &mut self.marks.backoff] {
            backoff.until = backoff.until.min(now + STORE_RETRY_MAX);
        }
        if let Some(drain) = &mut self.drain {
            drain.until = drain.until.min(now + drain.length);
        }
    }

    fn finish_drain(&mut self, now: Timestamp) {
        let idle = self.attempts.is_empty() && self.claim.is_none() && self.record.is_none();
        if let Some(drain) = &mut self.drain {
            // After the end of the last lease nothing is left to release: all leases have expired.
            let hopeless = now >= drain.until + self.settings.lease;
            if !drain.done && (idle || hopeless) {
                drain.done = true;
                self.actions.push(Action::Stopped);
            }
        }
    }
}
