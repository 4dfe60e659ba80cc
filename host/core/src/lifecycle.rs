//! What may happen to a job: the whole law, on one screen.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::bounds;
use crate::job::{Entry, JobStatus, NewJob, NotEnqueued, State, StateName};
use crate::kv::KvChanges;
use crate::lease::{Blame, Lease, NodeMark};
use crate::outcome::{Bill, OutcomeKind, Report};
use crate::time::Timestamp;

/// A durable fact about a job, and the only way to change one. A job waits for so long, never for a moment that its host
/// read off a clock: the store's may have been set since.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Claimed {
        lease: Lease,
    },
    /// The attempt emitted chunks, log lines or progress.
    Wrote {
        attempt: u32,
        entries: Vec<Entry>,
    },
    /// The attempt returned. The jobs that it enqueued come with it, and what it changed of its plugin's values, in the
    /// same transaction.
    Succeeded {
        attempt: u32,
        /// The result, shared: events are cloned for the case that the store fails.
        output: Arc<[u8]>,
        children: Vec<NewJob>,
        changes: Option<Arc<KvChanges>>,
        bill: Bill,
    },
    /// The attempt failed; it is tried again after `retry_in`, or never.
    Failed {
        attempt: u32,
        report: Report,
        retry_in: Option<Duration>,
        bill: Bill,
    },
    /// The host gave the job back through no fault of the job's. `claimable_in` keeps one that cannot start from spinning.
    Released {
        attempt: u32,
        report: Report,
        claimable_in: Duration,
    },
    /// The attempt ended because someone asked.
    Cancelled {
        attempt: u32,
        bill: Bill,
    },
    /// The lease ran out: the node that held it is gone, or has stopped the attempt itself. `mark` is what it had written
    /// down about this attempt.
    LeaseExpired {
        attempt: u32,
        mark: NodeMark,
    },
    CancelAsked,
    /// Another job took its place while it waited.
    Replaced,
    /// Its id was given out before it was known that no job comes to be under it: it stands there and says so.
    NotEnqueued(NotEnqueued),
    /// A person wants a finished job tried again.
    RetryAsked,
}

/// Why an event may not happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Forgotten, or never there.
    Unknown,
    /// The job is with another attempt by now, or with none: whoever says this must stop.
    Stale,
    /// The job is already over.
    Finished(StateName),
    /// Only a job that failed or was cancelled can be tried again.
    NotFinished(StateName),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Unknown => f.write_str("there is no such job"),
            Refusal::Stale => f.write_str("the job is no longer with this attempt"),
            Refusal::Finished(state) => write!(f, "the job is over already ({})", state.as_str()),
            Refusal::NotFinished(state) => {
                write!(f, "only a failed or cancelled job can be tried again; this one is {}", state.as_str())
            }
        }
    }
}

impl std::error::Error for Refusal {}

impl JobStatus {
    pub const fn new(due: Timestamp) -> JobStatus {
        JobStatus { state: State::Waiting { due }, attempt: 0, failures: 0, crashes: 0, cancel_asked: false }
    }

    /// Where the job stands after `event` at `now`, or why the event may not happen.
    pub fn after(&self, event: &Event, now: Timestamp) -> Result<JobStatus, Refusal> {
        use Event as E;
        use State as S;
        let to = |state: State| JobStatus { state, cancel_asked: false, ..*self };
        let again = |due: Timestamp| {
            if self.cancel_asked { S::Cancelled } else { S::Waiting { due } }
        };

        match (&self.state, event) {
            (S::Waiting { .. }, E::Claimed { lease }) => {
                Ok(JobStatus { attempt: lease.attempt, ..to(S::Running { lease: *lease }) })
            }
            (S::Waiting { .. }, E::CancelAsked | E::Replaced | E::NotEnqueued(_)) => Ok(to(S::Cancelled)),
            (S::Waiting { .. }, E::RetryAsked) => Err(Refusal::NotFinished(StateName::Waiting)),
            (S::Waiting { .. }, _) => Err(Refusal::Stale),

            (S::Running { .. }, E::CancelAsked) => Ok(JobStatus { cancel_asked: true, ..*self }),
            (S::Running { .. }, E::RetryAsked) => Err(Refusal::NotFinished(StateName::Running)),
            (S::Running { .. }, E::Claimed { .. } | E::Replaced | E::NotEnqueued(_)) => Err(Refusal::Stale),
            (S::Running { lease }, _) if event.attempt() != Some(lease.attempt) => Err(Refusal::Stale),
            (S::Running { .. }, E::Wrote { .. }) => Ok(*self),
            (S::Running { .. }, E::Succeeded { .. }) => Ok(to(S::Succeeded)),
            (S::Running { .. }, E::Cancelled { .. }) => Ok(to(S::Cancelled)),
            (S::Running { .. }, E::Released { claimable_in, .. }) => Ok(to(again(now + *claimable_in))),
            (S::Running { .. }, E::Failed { retry_in, .. }) => {
                let state = retry_in.map_or(S::Failed, |delay| again(now + delay));
                Ok(JobStatus { failures: self.failures.saturating_add(1), ..to(state) })
            }
            (S::Running { lease }, E::LeaseExpired { mark, .. }) => {
                let blame = mark.blame(lease.job, lease.attempt, self.crashes);
                let crashes = self.crashes.saturating_add(u32::from(blame != Blame::Nobody));
                let kills = blame == Blame::ThisOne && crashes >= bounds::CRASHES_MAX;
                let state = if kills { S::Failed } else { again(now) };
                Ok(JobStatus { crashes, ..to(state) })
            }

            (S::Failed | S::Cancelled, E::RetryAsked) => {
                Ok(JobStatus { failures: 0, crashes: 0, ..to(S::Waiting { due: now }) })
            }
            (S::Succeeded, E::RetryAsked) => Err(Refusal::NotFinished(StateName::Succeeded)),
            (S::Succeeded | S::Failed | S::Cancelled, E::CancelAsked) => Err(Refusal::Finished(self.state.name())),
            (S::Succeeded | S::Failed | S::Cancelled, _) => Err(Refusal::Stale),
        }
    }
}

impl Event {
    /// The attempt that says this; `None` where a person or the queue itself does.
    pub const fn attempt(&self) -> Option<u32> {
        match self {
            Event::Claimed { lease } => Some(lease.attempt),
            Event::Wrote { attempt, .. }
            | Event::Succeeded { attempt, .. }
            | Event::Failed { attempt, .. }
            | Event::Released { attempt, .. }
            | Event::Cancelled { attempt, .. }
            | Event::LeaseExpired { attempt, .. } => Some(*attempt),
            Event::CancelAsked | Event::Replaced | Event::NotEnqueued(_) | Event::RetryAsked => None,
        }
    }

    /// What the event leaves on the job for people; `None` leaves what was there.
    pub fn report(&self) -> Option<Report> {
        let report = |kind, text: &str| Some(Report { kind, text: text.to_owned() });
        match self {
            Event::Failed { report, .. } | Event::Released { report, .. } => Some(report.clone()),
            Event::Cancelled { .. } | Event::CancelAsked => report(OutcomeKind::Cancelled, "cancelled on request"),
            Event::Replaced => report(OutcomeKind::Cancelled, "replaced by a newer job of the same key"),
            Event::NotEnqueued(why) => report(OutcomeKind::Cancelled, &why.to_string()),
            Event::LeaseExpired { mark, .. } => report(OutcomeKind::Interrupted, expired(mark)),
            Event::Claimed { .. } | Event::Wrote { .. } | Event::Succeeded { .. } | Event::RetryAsked => None,
        }
    }
}

/// Why an attempt ended with its lease, as far as its node wrote that down.
fn expired(mark: &NodeMark) -> &'static str {
    match mark.suspect {
        _ if mark.draining => {
            "the host that ran this attempt was killed while it was being stopped, before it had given the job back; that does \
             not count against the job"
        }
        Some(begun) if begun.alone => {
            "the host that ran this attempt died or could not confirm its lease; no other job ran there, since several of this \
             job's attempts had ended with their hosts before"
        }
        _ => "the host that ran this attempt died or could not confirm its lease",
    }
}

#[cfg(test)]
mod tests;
