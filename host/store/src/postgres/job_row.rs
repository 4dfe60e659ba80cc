//! The cached parts of rows of `jobs` and `lines`.

use tokio_postgres::Row;
use wharf_core::fingerprint::Fingerprint;
use wharf_core::ids::JobId;
use wharf_core::job::{JobStatus, NewJob, State, Token};
use wharf_core::key::Lane;
use wharf_core::time::Timestamp;

use super::lane_rows::LaneRow;
use super::rows::{job_id, status};
use super::session::{SessionError, value};
use crate::columns::{key_text, timestamp, timestamp_us};

/// The columns that `JobRow::read` reads.
pub(super) const JOB_COLUMNS: &str =
    "id, state, due_at, attempt, failures, crashes, cancel_requested, node, lease_expires_at,
    limit_group, key, task, line, priority, finished_at";

/// The part of a job's row that events change.
#[derive(Clone, Debug)]
pub(super) struct JobRow {
    pub(super) status: JobStatus,
    /// The column `state`: a delayed job that is due stays delayed until a claim makes it ready.
    pub(super) state: i16,
    pub(super) lane: LaneRow,
    /// The number of its task.
    pub(super) task: i32,
    /// The id of its line; only valid while it is ready.
    pub(super) line: Option<i64>,
    pub(super) priority: i32,
    pub(super) finished_at: Option<Timestamp>,
    /// The fingerprint that a changed job gets: it is not read.
    pub(super) fingerprint: Option<Fingerprint>,
    /// When a changed job came back to wait, and when an operator retried it: they are not read, and written where they are set.
    pub(super) requeued_at: Option<Timestamp>,
    pub(super) retried_at: Option<Timestamp>,
    /// The whole job, if it is not inserted yet.
    pub(super) new: Option<Box<NewJob>>,
}

impl JobRow {
    /// Reads a row with `JOB_COLUMNS`.
    pub(super) fn read(row: &Row) -> Result<(JobId, JobRow), SessionError> {
        let id = job_id(row, "jobs", "id")?;
        let lane = LaneRow { group: value(row, "jobs", "limit_group")?, key: value(row, "jobs", "key")? };
        let job = JobRow {
            status: status(id, row, 1)?,
            state: value(row, "jobs", "state")?,
            lane,
            task: value(row, "jobs", "task")?,
            line: value(row, "jobs", "line")?,
            priority: value(row, "jobs", "priority")?,
            fingerprint: None,
            requeued_at: None,
            retried_at: None,
            finished_at: value::<Option<i64>>(row, "jobs", "finished_at")?.map(timestamp),
            new: None,
        };
        Ok((id, job))
    }

    /// Returns the position of a job that is ready.
    pub(super) fn ready_position(&self) -> Option<ReadyPosition> {
        match self.status.state {
            State::Waiting { due } => Some((self.line?, rank(self.priority), timestamp_us(due))),
            _ => None,
        }
    }
}

/// A row of `lines` without its lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineRow {
    pub(super) id: i64,
    /// The number of its task.
    pub(super) task: i32,
    pub(super) top_priority: i32,
    pub(super) turn: i64,
    pub(super) closed_by_limit: Option<i32>,
    /// The column `held_until_at`: a lane that is held is closed until then.
    pub(super) held_until_at: Option<i64>,
}

impl LineRow {
    /// Reads a row of `lines`, with its lane.
    pub(super) fn read(row: &Row) -> Result<(LaneRow, LineRow), SessionError> {
        let lane = LaneRow { group: value(row, "lines", "limit_group")?, key: value(row, "lines", "key")? };
        let line = LineRow {
            id: value(row, "lines", "id")?,
            task: value(row, "lines", "task")?,
            top_priority: value(row, "lines", "top_priority")?,
            turn: value(row, "lines", "turn")?,
            closed_by_limit: value(row, "lines", "closed_by_limit")?,
            held_until_at: value(row, "lines", "held_until_at")?,
        };
        Ok((lane, line))
    }
}

/// A group of ready jobs in the table `ready`: the line, the rank (`~priority`), and the moment when they are due, in
/// microseconds.
pub(super) type ReadyPosition = (i64, i32, i64);

/// Returns the rank of a priority. Ranks ascend as priorities fall, so the whole order of ready jobs ascends.
pub(super) const fn rank(priority: i32) -> i32 {
    !priority
}

/// An idempotency token with the task and the key that it is unique for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TokenRow {
    pub(super) token: Vec<u8>,
    pub(super) task: i32,
    pub(super) key: String,
}

impl TokenRow {
    pub(super) fn new(token: &Token, task: i32, lane: &Lane) -> TokenRow {
        TokenRow { token: token.as_str().as_bytes().to_vec(), task, key: key_text(lane.key.as_ref()).to_owned() }
    }
}
