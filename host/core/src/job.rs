//! A job: what was asked, how far it is, what came of it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::bounds;
use crate::ids::{JobId, ParseIdError, TaskName};
use crate::key::Lane;
use crate::lease::Lease;
use crate::limits::OnConflict;
use crate::outcome::{Bill, Report};
use crate::time::Timestamp;
use crate::topic::Topic;

/// An idempotency token: of two jobs of one task with the same token, the first stands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(Arc<str>);

impl Token {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Token {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if text.is_empty() || text.len() > bounds::TOKEN_BYTES_MAX {
            return Err(ParseIdError {
                text: text.chars().take(40).collect(),
                reason: "is no token: 1 to 256 bytes are expected",
            });
        }
        Ok(Token(text.into()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Of which durable broadcast a job is: one of its jobs for each subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The broadcast's id. Drawn like a job's, and never one.
    pub id: JobId,
    pub topic: Topic,
}

/// A job to be enqueued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    pub id: JobId,
    pub task: TaskName,
    pub lane: Lane,
    pub payload: Arc<[u8]>,
    /// Higher goes first.
    pub priority: i32,
    /// Not before then; `None` is at once.
    pub due: Option<Due>,
    pub token: Option<Token>,
    pub on_conflict: OnConflict,
    pub batch: Option<Batch>,
}

/// When a new job may run first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    At(Timestamp),
    /// So long from the moment when the store takes it in, by whose clock it then waits.
    In(Duration),
}

impl Due {
    /// The moment, for a job that is taken in `now`.
    pub fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Due::At(at) => at,
            Due::In(delay) => now + delay,
        }
    }
}

/// Where a job stands. The last three are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not before `due`.
    Waiting {
        due: Timestamp,
    },
    Running {
        lease: Lease,
    },
    Succeeded,
    Failed,
    Cancelled,
}

/// The name of a state, without what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateName {
    Waiting,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl StateName {
    pub const ALL: [StateName; 5] =
        [StateName::Waiting, StateName::Running, StateName::Succeeded, StateName::Failed, StateName::Cancelled];

    pub const fn as_str(self) -> &'static str {
        match self {
            StateName::Waiting => "waiting",
            StateName::Running => "running",
            StateName::Succeeded => "succeeded",
            StateName::Failed => "failed",
            StateName::Cancelled => "cancelled",
        }
    }

    pub fn from_name(name: &str) -> Option<StateName> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    pub const fn is_final(self) -> bool {
        matches!(self, StateName::Succeeded | StateName::Failed | StateName::Cancelled)
    }
}

impl State {
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

/// The part of a job that the law of `lifecycle` governs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobStatus {
    pub state: State,
    /// The number of the last attempt that was begun; 0 before the first.
    pub attempt: u32,
    /// Attempts that count against the retry policy.
    pub failures: u32,
    /// Attempts that ended with their host. Kept apart: a host's death is not the job's fault, unless it dies of that job
    /// alone. See [`crate::lease::NodeMark`] for what counts.
    pub crashes: u32,
    /// Someone asked the running attempt to end.
    pub cancel_asked: bool,
}

/// Why no job comes to be of one that was to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotEnqueued {
    /// This job has the same token.
    Known(JobId),
    /// Its lane has no slot left, and its task says that it is then not taken. These jobs hold the slots (the first ten).
    LaneFull(Vec<JobId>),
}

impl fmt::Display for NotEnqueued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotEnqueued::Known(id) => write!(f, "it was not taken: job {id} has the same token and stands"),
            NotEnqueued::LaneFull(holders) => {
                let holders: Vec<String> = holders.iter().map(JobId::to_string).collect();
                write!(
                    f,
                    "it was not taken: its key has no free slot, and its task says that it is then not taken; \
                     the slots are held by {}",
                    holders.join(", ")
                )
            }
        }
    }
}

/// A job as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub id: JobId,
    pub task: TaskName,
    pub lane: Lane,
    pub priority: i32,
    pub token: Option<Token>,
    pub batch: Option<Batch>,
    pub payload: Arc<[u8]>,
    pub standing: JobStatus,
    pub enqueued_at: Timestamp,
    /// When the last attempt was begun.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// How the last ended attempt that did not return ended.
    pub report: Option<Report>,
    /// Only of a job that succeeded.
    pub result: Option<Arc<[u8]>>,
    /// Of the last ended attempt.
    pub bill: Option<Bill>,
}

/// A job that was just claimed: all that an attempt needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedJob {
    pub lease: Lease,
    pub task: TaskName,
    pub lane: Lane,
    pub payload: Arc<[u8]>,
    pub batch: Option<Batch>,
    /// Attempts that failed before this one.
    pub failures: u32,
    /// Attempts that ended with their host before this one.
    pub crashes: u32,
    /// When the job became due.
    pub due: Timestamp,
    pub claimed_at: Timestamp,
}

/// What an attempt tells its followers.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    Chunk(Arc<[u8]>),
    Log {
        stream: Stream,
        line: Arc<str>,
    },
    /// This many log lines were dropped here, since they came faster than they could be kept or past the bound.
    LogDropped {
        lines: u64,
    },
    Progress {
        fraction: f32,
        note: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// An entry as it stands in the job's log. Numbers of one job begin at 1 and have no gap.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberedEntry {
    pub number: u64,
    pub attempt: u32,
    pub at: Timestamp,
    pub entry: Entry,
}

/// Why a waiting job does not run at this moment, as far as the queue itself can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitReason {
    NotDue {
        until: Timestamp,
    },
    /// Its lane is full: these jobs hold its slots, each since its moment (the first ten).
    LaneFull {
        limit: u32,
        holders: Vec<(JobId, Timestamp)>,
    },
    GroupFull {
        limit: u32,
        holders: Vec<(JobId, Timestamp)>,
    },
    /// A limit of zero: the operator's pause.
    Paused,
    /// Nothing of its own holds it: other jobs are before it, or every node is busy.
    InTurn,
}
