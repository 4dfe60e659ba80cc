//! A job: its input, its status, and what its attempts left.

use std::fmt;
use std::time::Duration;

use crate::bounds;
use crate::fingerprint::Fingerprint;
use crate::hold::Hold;
use crate::ids::{Group, JobId, TaskName};
use crate::key::{Key, Lane};
use crate::lease::Lease;
use crate::limits::OnConflict;
use crate::outcome::{Report, Usage};
use crate::retry::FailureCount;
use crate::shared_bytes::SharedBytes;
use crate::tick::JobTick;
use crate::time::Timestamp;
use crate::topic::Topic;

mod entry;
mod token;

pub use entry::{Entry, NumberedEntry, Stream};
pub use token::{Token, UniqueToken};

/// The durable broadcast that a job is part of. A durable broadcast is one job for each subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The broadcast's ID. It is made like a job's ID and is never the ID of a job.
    pub id: JobId,
    /// The broadcast's topic.
    pub topic: Topic,
}

/// A job to enqueue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// The job's ID, made beforehand.
    pub id: JobId,
    /// The task to run.
    pub task: TaskName,
    /// The lane in which the job waits.
    pub lane: Lane,
    /// The input of the task.
    pub payload: SharedBytes,
    /// Jobs of a higher priority run first.
    pub priority: i32,
    /// The earliest time to run the job; `None` is now.
    pub due: Option<Due>,
    /// The idempotency token.
    pub token: Option<Token>,
    /// Policy for a lane without a free slot.
    pub on_conflict: OnConflict,
    /// The durable broadcast that the job is part of.
    pub batch: Option<Batch>,
    /// The jobs from which the job descends.
    pub lineage: Lineage,
    /// The tick that a schedule enqueued it for. In a box: few jobs have one.
    pub tick: Option<Box<JobTick>>,
}

impl NewJob {
    /// Returns a job in its task's own group that may run at once, with no priority, no idempotency token and no parent.
    #[must_use]
    pub fn ready(id: JobId, task: TaskName, key: Option<Key>, payload: SharedBytes) -> NewJob {
        NewJob {
            id,
            lane: Lane { group: Group::from(&task), key },
            task,
            payload,
            priority: 0,
            due: None,
            token: None,
            on_conflict: OnConflict::Wait,
            batch: None,
            lineage: Lineage::default(),
            tick: None,
        }
    }
}

/// The place of a job among the jobs from which it descends.
///
/// It is not known across nodes: a job of a subscriber that was called on another node than the one of its broadcast has no
/// parent, and its generation is counted anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The job whose attempt enqueued it, itself or by a live broadcast of which the subscriber ran on this node; `None` for
    /// a job of a client.
    pub parent: Option<JobId>,
    /// Number of jobs above it, without those that only enqueued one job which starts later: see
    /// [`Lineage::of_children`].
    pub generation: u32,
}

impl Lineage {
    /// Returns the lineage of the jobs that one attempt enqueues; `by` is the job of the attempt with its generation, `count`
    /// the number of these jobs, and `delay` what the first of them waits for.
    ///
    /// They are the next generation, unless it is a single job that starts `bounds::GENERATION_PAUSE` later or more: so a
    /// job that enqueues itself for the next minute may go on for years, and one that does so without a pause, or that
    /// enqueues two of itself, is counted.
    pub fn of_children(by: Lineage, count: usize, delay: Option<Duration>) -> Lineage {
        let continues = count == 1 && delay.is_some_and(|delay| delay >= bounds::GENERATION_PAUSE);
        Lineage { parent: by.parent, generation: by.generation.saturating_add(u32::from(!continues)) }
    }
}

impl NewJob {
    /// Returns when the job becomes due if it is inserted at `now`.
    pub fn due_at(&self, now: Timestamp) -> Timestamp {
        self.due.map_or(now, |due| due.from(now))
    }

    /// Returns what no second job may have; `None` if the job has no token.
    pub fn unique_token(&self) -> Option<UniqueToken> {
        let token = self.token.clone()?;
        Some(UniqueToken { task: self.task.clone(), key: self.lane.key.clone(), token })
    }
}

/// The earliest time at which a new job may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A fixed time.
    At(Timestamp),
    /// A delay from when the store inserts the job, measured by the store's clock.
    In(Duration),
}

impl Due {
    /// Returns the time at which a job inserted at `now` becomes due.
    pub fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Due::At(at) => at,
            Due::In(delay) => now + delay,
        }
    }
}

/// A job's state. The last three are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The job waits for a slot.
    Waiting {
        /// The earliest time at which the job may run.
        due: Timestamp,
    },
    /// An attempt is running.
    Running {
        /// The attempt's lease.
        lease: Lease,
    },
    /// An attempt returned a result.
    Succeeded,
    /// The attempts are used up, or a retry was ruled out.
    Failed,
    /// The job was cancelled, replaced or not enqueued.
    Cancelled,
}

/// The name of a [`State`], without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateName {
    /// The name of [`State::Waiting`].
    Waiting,
    /// The name of [`State::Running`].
    Running,
    /// The name of [`State::Succeeded`].
    Succeeded,
    /// The name of [`State::Failed`].
    Failed,
    /// The name of [`State::Cancelled`].
    Cancelled,
}

impl StateName {
    /// All names.
    pub const ALL: [StateName; 5] =
        [StateName::Waiting, StateName::Running, StateName::Succeeded, StateName::Failed, StateName::Cancelled];

    /// Returns the name used in JSON, metrics and filters.
    pub const fn as_str(self) -> &'static str {
        match self {
            StateName::Waiting => "waiting",
            StateName::Running => "running",
            StateName::Succeeded => "succeeded",
            StateName::Failed => "failed",
            StateName::Cancelled => "cancelled",
        }
    }

    /// Returns the state with this name.
    pub fn from_name(name: &str) -> Option<StateName> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Returns true if the job has finished. Only an operator's retry makes a finished job wait again.
    pub const fn is_final(self) -> bool {
        matches!(self, StateName::Succeeded | StateName::Failed | StateName::Cancelled)
    }
}

impl State {
    /// Returns the state's name.
    pub const fn name(&self) -> StateName {
        match self {
            State::Waiting { .. } => StateName::Waiting,
            State::Running { .. } => StateName::Running,
            State::Succeeded => StateName::Succeeded,
            State::Failed => StateName::Failed,
            State::Cancelled => StateName::Cancelled,
        }
    }
}

/// The part of a job that [`crate::lifecycle`] governs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobStatus {
    /// The job's state.
    pub state: State,
    /// The number of the attempt that started last; 0 before the first.
    pub attempt: u32,
    /// Number of attempts that failed and count against the retry policy, with the number of those that an operator granted.
    pub failures: FailureCount,
    /// Number of attempts that ended with their host. They are counted apart from failures: a host's death is not the job's
    /// fault, unless the host dies while only that job runs. [`crate::lease::NodeMark::blame`] defines what counts.
    pub crashes: u32,
    /// True if the running attempt was asked to cancel.
    pub cancel_requested: bool,
}

/// Why a job was not enqueued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotEnqueued {
    /// This job has the same token.
    Duplicate(JobId),
    /// The lane has no free slot, and the task discards jobs in that case. These jobs use the slots
    /// (the first `bounds::HOLDERS_NAMED`).
    LaneFull(Vec<JobId>),
}

impl fmt::Display for NotEnqueued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotEnqueued::Duplicate(id) => write!(f, "the job was not enqueued: job {id} has the same token"),
            NotEnqueued::LaneFull(holders) => {
                let holders: Vec<String> = holders.iter().map(JobId::to_string).collect();
                write!(
                    f,
                    "the job was not enqueued: all slots of its key are in use, and its task discards jobs in that case; \
                     the slots are used by {}",
                    holders.join(", ")
                )
            }
        }
    }
}

/// A job as it is read from a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The job's ID.
    pub id: JobId,
    /// The task that the job runs.
    pub task: TaskName,
    /// The lane of the job.
    pub lane: Lane,
    /// Jobs of a higher priority run first.
    pub priority: i32,
    /// The idempotency token.
    pub token: Option<Token>,
    /// The durable broadcast that the job is part of.
    pub batch: Option<Batch>,
    /// The jobs from which the job descends.
    pub lineage: Lineage,
    /// The input of the task.
    pub payload: SharedBytes,
    /// The job's status.
    pub status: JobStatus,
    /// When the store inserted the job.
    pub enqueued_at: Timestamp,
    /// When the last attempt started.
    pub started_at: Option<Timestamp>,
    /// When the job reached a final state.
    pub finished_at: Option<Timestamp>,
    /// When the job last came back to wait: after an attempt, or by an operator's retry.
    pub requeued_at: Option<Timestamp>,
    /// When an operator last retried the job.
    pub retried_at: Option<Timestamp>,
    /// Report of the last attempt that did not return a result.
    pub report: Option<Report>,
    /// The fingerprint of a job that failed, by which it belongs to a failure group.
    pub fingerprint: Option<Fingerprint>,
    /// The result, if the job succeeded.
    pub result: Option<SharedBytes>,
    /// Resource usage of all ended attempts that were measured.
    pub usage: Option<Usage>,
    /// The tick that a schedule enqueued it for.
    pub tick: Option<Box<JobTick>>,
}

impl Job {
    /// Returns a new job as it is when it was inserted at `now`.
    #[must_use]
    pub fn inserted(new: NewJob, now: Timestamp) -> Job {
        Job {
            status: JobStatus::new(new.due_at(now)),
            id: new.id,
            task: new.task,
            lane: new.lane,
            priority: new.priority,
            token: new.token,
            batch: new.batch,
            lineage: new.lineage,
            payload: new.payload,
            enqueued_at: now,
            started_at: None,
            finished_at: None,
            requeued_at: None,
            retried_at: None,
            report: None,
            fingerprint: None,
            result: None,
            usage: None,
            tick: new.tick,
        }
    }
}

/// A job that was just claimed, with everything that an attempt needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedJob {
    /// The attempt's lease.
    pub lease: Lease,
    /// The task to run.
    pub task: TaskName,
    /// The lane of the job.
    pub lane: Lane,
    /// The input of the task.
    pub payload: SharedBytes,
    /// The durable broadcast that the job is part of.
    pub batch: Option<Batch>,
    /// The job's generation, see [`Lineage`].
    pub generation: u32,
    /// Number of attempts that failed before this one, as in [`JobStatus::failures`].
    pub failures: FailureCount,
    /// Number of attempts that ended with their host before this one.
    pub crashes: u32,
    /// When the job became due.
    pub due: Timestamp,
    /// When the job was claimed, by the store's clock.
    pub claimed_at: Timestamp,
    /// The tick that a schedule enqueued it for.
    pub tick: Option<Box<JobTick>>,
}

/// Why a waiting job does not run now, as far as the queue itself can know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// The job is not due.
    NotDue {
        /// When it becomes due.
        until: Timestamp,
    },
    /// An operator holds it.
    Held(Box<Hold>),
    /// The lane's slots are all taken.
    LaneFull {
        /// Number of jobs of the lane that may run at once.
        limit: u32,
        /// The jobs in the slots (the first `bounds::HOLDERS_NAMED`), each with the time when it started.
        holders: Vec<(JobId, Timestamp)>,
    },
    /// The group's slots are all taken.
    GroupFull {
        /// Number of jobs of the group that may run at once.
        limit: u32,
        /// The jobs in the slots (the first `bounds::HOLDERS_NAMED`), each with the time when it started.
        holders: Vec<(JobId, Timestamp)>,
    },
    /// The lane or the group has a limit of zero, by which an operator pauses it.
    Paused,
    /// No limit blocks the job: other jobs are ahead of it, or every node is busy.
    InTurn,
}

impl WaitReason {
    /// Returns the hold on the job, if there is one, in place of a limit or of other jobs. A job that is not due waits for its
    /// time first.
    pub fn or_held(self, hold: Option<&Hold>) -> WaitReason {
        match (self, hold) {
            (WaitReason::NotDue { until }, _) => WaitReason::NotDue { until },
            (_, Some(hold)) => WaitReason::Held(Box::new(hold.clone())),
            (reason, None) => reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_any_text_within_the_bound_and_reads_as_it_was_written() {
        let longest = "x".repeat(bounds::TOKEN_BYTES_MAX);
        for good in ["a", "order 7\n", &longest] {
            assert_eq!(good.parse::<Token>().unwrap().as_str(), good);
        }
        for (bad, length) in [("", 0), (&*"x".repeat(257), 257)] {
            let reason = bad.parse::<Token>().unwrap_err().reason;
            assert_eq!(reason, format!("expected 1 to 256 bytes, got {length}"));
        }
    }

    #[test]
    fn a_delay_counts_from_when_the_job_is_inserted_and_a_fixed_time_does_not() {
        let (now, at) = (Timestamp::from_millis(5_000), Timestamp::from_millis(9_000));
        assert_eq!(Due::In(Duration::from_secs(2)).from(now), Timestamp::from_millis(7_000));
        assert_eq!(Due::At(at).from(now), at);
    }

    #[test]
    fn a_generation_is_counted_unless_a_single_job_starts_later() {
        let by = Lineage { parent: JobId::from_number(7), generation: 3 };
        let (now, soon, later) = (None, Some(Duration::from_millis(999)), Some(bounds::GENERATION_PAUSE));
        let generation = |count, delay| Lineage::of_children(by, count, delay).generation;
        assert_eq!([generation(1, now), generation(1, soon), generation(1, later)], [4, 4, 3]);
        assert_eq!([generation(2, later), generation(2, now)], [4, 4]);
        assert_eq!(Lineage::of_children(by, 1, now).parent, by.parent);
        assert_eq!(Lineage::of_children(Lineage { generation: u32::MAX, ..by }, 1, now).generation, u32::MAX);
    }

    #[test]
    fn each_state_has_a_name_that_filters_and_json_know() {
        let names = StateName::ALL.map(StateName::as_str);
        assert_eq!(names, ["waiting", "running", "succeeded", "failed", "cancelled"]);
        assert_eq!(names.map(StateName::from_name), StateName::ALL.map(Some));
        assert_eq!(["", "Waiting", "done"].map(StateName::from_name), [None; 3]);
    }

    #[test]
    fn a_job_has_finished_once_it_neither_waits_nor_runs() {
        assert_eq!(StateName::ALL.map(StateName::is_final), [false, false, true, true, true]);
    }

    #[test]
    fn the_size_of_an_entry_is_what_the_attempt_wrote() {
        let sizes = [
            Entry::Chunk([1, 2, 3].into()),
            Entry::Log { stream: Stream::Stderr, line: "four".into() },
            Entry::Progress { fraction: 0.5, note: "fives".to_owned() },
            Entry::LogDropped { lines: 9 },
        ]
        .map(|entry| entry.bytes());
        assert_eq!(sizes, [3, 4, 5, 0], "the host itself notes dropped lines");
    }

    #[test]
    fn a_job_that_was_not_enqueued_names_the_jobs_that_are_the_reason() {
        let [a, b] = [1, 2].map(|number| JobId::from_number(number).unwrap());
        let duplicate = NotEnqueued::Duplicate(a).to_string();
        assert_eq!(duplicate, format!("the job was not enqueued: job {a} has the same token"));
        let full = NotEnqueued::LaneFull(vec![a, b]).to_string();
        assert!(full.ends_with(&format!("the slots are used by {a}, {b}")), "{full}");
    }
}
