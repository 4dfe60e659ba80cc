//! The lifecycle of a job: every event, and what it does to a job of each status.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::attempt::AttemptOrigin;
use crate::bounds;
use crate::job::{Entry, JobStatus, NewJob, NotEnqueued, State, StateName};
use crate::kv::KvChanges;
use crate::lease::{Blame, Lease, NodeMark};
use crate::outcome::{CANCELLED, OutcomeKind, Report, Usage};
use crate::retry::FailureCount;
use crate::shared_bytes::SharedBytes;
use crate::time::Timestamp;

/// A durable fact about a job, and the only way to change one. Events carry delays, never absolute times that a host
/// read from its clock: the store's clock may have been set since.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A node leased the waiting job and starts an attempt.
    Claimed {
        /// The attempt's lease.
        lease: Lease,
    },
    /// The attempt emitted chunks, log lines or progress.
    Wrote {
        /// The number of the attempt.
        attempt: u32,
        /// Entries that the attempt emitted, in order.
        entries: Vec<Entry>,
    },
    /// The attempt returned a result. The store writes all of this in one transaction.
    Succeeded {
        /// The number of the attempt.
        attempt: u32,
        /// The result.
        output: SharedBytes,
        /// The jobs that the attempt enqueued.
        children: Vec<NewJob>,
        /// The changes to its plugin's kv values.
        changes: Option<Arc<KvChanges>>,
        /// Resource usage of the attempt.
        usage: Usage,
    },
    /// The attempt failed.
    Failed {
        /// The number of the attempt.
        attempt: u32,
        /// The failure, as its report says it.
        report: Report,
        /// The delay before the next attempt; `None` fails the job.
        retry_in: Option<Duration>,
        /// Resource usage of the attempt.
        usage: Usage,
        /// The node and the plugin of the attempt, if the attempt started.
        origin: Option<Arc<AttemptOrigin>>,
    },
    /// The host returned the job to the queue, through no fault of the job.
    Released {
        /// The number of the attempt.
        attempt: u32,
        /// Why the job was released.
        report: Report,
        /// The delay before the job may be claimed again, which keeps a job that cannot start from being claimed in a
        /// loop.
        claimable_in: Duration,
        /// Resource usage of the attempt, if it started.
        usage: Option<Usage>,
        /// The node and the plugin of the attempt, if the attempt started.
        origin: Option<Arc<AttemptOrigin>>,
    },
    /// The attempt ended because its cancellation was requested.
    Cancelled {
        /// The number of the attempt.
        attempt: u32,
        /// Resource usage of the attempt.
        usage: Usage,
        /// The node and the plugin of the attempt, if the attempt started.
        origin: Option<Arc<AttemptOrigin>>,
    },
    /// The lease expired: its node is gone, or has stopped the attempt itself.
    LeaseExpired {
        /// The number of the attempt.
        attempt: u32,
        /// The mark that the node had recorded about this attempt.
        mark: NodeMark,
    },
    /// A user, or a newer job of the same lane, requests that the job is cancelled.
    CancelRequested,
    /// Another job replaced this one while it waited.
    Replaced,
    /// The job was not enqueued, but its ID had been given out before. A cancelled job under that ID tells why.
    NotEnqueued(NotEnqueued),
    /// An operator requests that a finished job is retried.
    RetryRequested {
        /// The delay before the next attempt.
        delay: Duration,
        /// Number of attempts that may fail from now on, whatever the task's policy says; at least one.
        attempts: u32,
    },
    /// An operator requests that a waiting job which is not due starts as soon as it can.
    RunRequested,
    /// An operator gives a waiting job another priority.
    PriorityChanged {
        /// The priority.
        priority: i32,
    },
}

/// Why an event may not happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There is no such job: it was deleted, or never existed.
    Unknown,
    /// The job belongs to another attempt by now, or to none. The attempt that sent the event must stop.
    Stale,
    /// The job has already finished.
    Finished(StateName),
    /// Only a job that failed or was cancelled can be retried.
    NotFinished(StateName),
    /// Only a job that waits can be told to run now, or get another priority.
    NotWaiting(StateName),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Unknown => f.write_str("no such job"),
            Refusal::Stale => f.write_str("the job no longer belongs to this attempt"),
            Refusal::Finished(state) => write!(f, "the job has already finished ({})", state.as_str()),
            Refusal::NotFinished(state) => {
                write!(f, "only a failed or cancelled job can be retried; this one is {}", state.as_str())
            }
            Refusal::NotWaiting(state) => {
                write!(
                    f,
                    "only a job that waits can be told to run now, or get another priority; this one is {}",
                    state.as_str()
                )
            }
        }
    }
}

impl std::error::Error for Refusal {}

impl JobStatus {
    /// Returns the status of a new job that becomes due at `due`.
    pub const fn new(due: Timestamp) -> JobStatus {
        JobStatus {
            state: State::Waiting { due },
            attempt: 0,
            failures: FailureCount::NONE,
            crashes: 0,
            cancel_requested: false,
        }
    }

    /// Returns the job's status after `event` at `now`. This match is the complete job lifecycle.
    ///
    /// # Errors
    /// Why the event may not happen to a job of this status; the job then stays as it is.
    pub fn after(&self, event: &Event, now: Timestamp) -> Result<JobStatus, Refusal> {
        use Event as E;
        use State as S;
        let to = |state: State| JobStatus { state, cancel_requested: false, ..*self };
        let again = |due: Timestamp| {
            if self.cancel_requested { S::Cancelled } else { S::Waiting { due } }
        };

        match (&self.state, event) {
            (S::Waiting { .. }, E::Claimed { lease }) => {
                Ok(JobStatus { attempt: lease.attempt, ..to(S::Running { lease: *lease }) })
            }
            (S::Waiting { .. }, E::CancelRequested | E::Replaced | E::NotEnqueued(_)) => Ok(to(S::Cancelled)),
            (S::Waiting { due }, E::RunRequested) => Ok(to(S::Waiting { due: (*due).min(now) })),
            (S::Waiting { .. }, E::PriorityChanged { .. }) => Ok(*self),
            (S::Waiting { .. }, E::RetryRequested { .. }) => Err(Refusal::NotFinished(StateName::Waiting)),
            (S::Waiting { .. }, _) => Err(Refusal::Stale),

            (S::Running { .. }, E::CancelRequested) => Ok(JobStatus { cancel_requested: true, ..*self }),
            (S::Running { .. }, E::RetryRequested { .. }) => Err(Refusal::NotFinished(StateName::Running)),
            (_, E::RunRequested | E::PriorityChanged { .. }) => Err(Refusal::NotWaiting(self.state.name())),
            (S::Running { .. }, E::Claimed { .. } | E::Replaced | E::NotEnqueued(_)) => Err(Refusal::Stale),
            (S::Running { lease }, _) if event.attempt() != Some(lease.attempt) => Err(Refusal::Stale),
            (S::Running { .. }, E::Wrote { .. }) => Ok(*self),
            (S::Running { .. }, E::Succeeded { .. }) => Ok(to(S::Succeeded)),
            (S::Running { .. }, E::Cancelled { .. }) => Ok(to(S::Cancelled)),
            (S::Running { .. }, E::Released { claimable_in, .. }) => Ok(to(again(now + *claimable_in))),
            (S::Running { .. }, E::Failed { retry_in, .. }) => {
                let state = retry_in.map_or(S::Failed, |delay| again(now + delay));
                Ok(JobStatus { failures: self.failures.plus_one(), ..to(state) })
            }
            (S::Running { lease }, E::LeaseExpired { mark, .. }) => {
                let blame = mark.blame(lease.job, lease.attempt, self.crashes);
                let crashes = self.crashes.saturating_add(u32::from(blame != Blame::Nobody));
                let kills = blame == Blame::ThisOne && crashes >= bounds::CRASHES_MAX;
                let state = if kills { S::Failed } else { again(now) };
                Ok(JobStatus { crashes, ..to(state) })
            }

            (S::Failed | S::Cancelled, E::RetryRequested { delay, attempts }) => {
                let failures = FailureCount::granted(*attempts);
                Ok(JobStatus { failures, crashes: 0, ..to(S::Waiting { due: now + *delay }) })
            }
            (S::Succeeded, E::RetryRequested { .. }) => Err(Refusal::NotFinished(StateName::Succeeded)),
            (S::Succeeded | S::Failed | S::Cancelled, E::CancelRequested) => Err(Refusal::Finished(self.state.name())),
            (S::Succeeded | S::Failed | S::Cancelled, _) => Err(Refusal::Stale),
        }
    }
}

impl Event {
    /// Returns the number of the attempt that the event is about; `None` if a user or the queue itself caused it.
    pub const fn attempt(&self) -> Option<u32> {
        match self {
            Event::Claimed { lease } => Some(lease.attempt),
            Event::Wrote { attempt, .. }
            | Event::Succeeded { attempt, .. }
            | Event::Failed { attempt, .. }
            | Event::Released { attempt, .. }
            | Event::Cancelled { attempt, .. }
            | Event::LeaseExpired { attempt, .. } => Some(*attempt),
            Event::CancelRequested
            | Event::Replaced
            | Event::NotEnqueued(_)
            | Event::RetryRequested { .. }
            | Event::RunRequested
            | Event::PriorityChanged { .. } => None,
        }
    }

    /// Returns true if `record` of a store accepts this event.
    ///
    /// A store rejects two events there. Only a claim may grant leases, because only a claim checks limits. Only an
    /// insert finds out that a job is not enqueued.
    pub const fn is_recordable(&self) -> bool {
        !matches!(self, Event::Claimed { .. } | Event::NotEnqueued(_))
    }

    /// Returns about how many bytes a store writes for this event.
    pub fn bytes(&self) -> usize {
        match self {
            Event::Wrote { entries, .. } => entries.iter().map(Entry::bytes).sum(),
            Event::Succeeded { output, children, changes, .. } => {
                let changed = changes.as_ref().map_or(0, |changes| changes.bytes() as usize);
                output.len() + children.iter().map(|job| job.payload.len()).sum::<usize>() + changed
            }
            Event::Failed { report, .. } | Event::Released { report, .. } => report.text.len(),
            _ => 0,
        }
    }

    /// Returns what the event says of where its attempt ran.
    pub(crate) fn origin(&self) -> Option<Arc<AttemptOrigin>> {
        match self {
            Event::Failed { origin, .. } | Event::Released { origin, .. } | Event::Cancelled { origin, .. } => {
                origin.clone()
            }
            _ => None,
        }
    }

    /// Returns the report that the event leaves on the job for users; `None` keeps the old one.
    pub fn report(&self) -> Option<Report> {
        let report = |kind, text: &str| Some(Report { kind, text: text.to_owned() });
        match self {
            Event::Failed { report, .. } | Event::Released { report, .. } => Some(report.clone()),
            Event::Cancelled { .. } | Event::CancelRequested => report(OutcomeKind::Cancelled, CANCELLED),
            Event::Replaced => report(OutcomeKind::Cancelled, "replaced by a newer job of the same key"),
            Event::NotEnqueued(why) => report(OutcomeKind::Cancelled, &why.to_string()),
            Event::LeaseExpired { mark, .. } => report(OutcomeKind::Interrupted, expired(mark)),
            Event::Claimed { .. }
            | Event::Wrote { .. }
            | Event::Succeeded { .. }
            | Event::RetryRequested { .. }
            | Event::RunRequested
            | Event::PriorityChanged { .. } => None,
        }
    }
}

/// Returns why an attempt ended with its lease, as far as its node recorded it.
fn expired(mark: &NodeMark) -> &'static str {
    match mark.suspect {
        _ if mark.draining => {
            "the host that ran this attempt was killed during its shutdown, before it could release the job; \
             this does not count against the job"
        }
        Some(started) if started.alone => {
            "the host that ran this attempt died or could not renew its lease; no other job was running there, because \
             several earlier attempts of this job had ended with their hosts"
        }
        _ => "the host that ran this attempt died or could not renew its lease",
    }
}

#[cfg(test)]
mod tests;
