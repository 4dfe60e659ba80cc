//! Reads rows of tokio-postgres as the columns that all stores share.

use tokio_postgres::Row;
use wharf_core::ids::JobId;
use wharf_core::job::{Batch, Job, JobStatus, NumberedEntry};
use wharf_core::shared_bytes::SharedBytes;
use wharf_core::time::Timestamp;

use super::session::{ColumnIndex, SessionError, value};
use crate::columns::{self, JobColumns, StatusColumns, unsigned};

/// The columns that [`status`] reads, in its order.
pub(super) const STATUS_COLUMNS: &str =
    "state, due_at, attempt, failures, crashes, cancel_requested, node, lease_expires_at";

/// Reads a column of microseconds since 1970.
pub(super) fn timestamp(row: &Row, table: &str, column: &str) -> Result<Timestamp, SessionError> {
    value(row, table, column).map(columns::timestamp)
}

/// Reads a column that contains a job's ID.
pub(super) fn job_id(row: &Row, table: &str, column: impl ColumnIndex) -> Result<JobId, SessionError> {
    Ok(columns::job_id(value(row, table, column)?)?)
}

fn bytes(row: &Row, table: &str, column: &str) -> Result<Option<SharedBytes>, SessionError> {
    Ok(value::<Option<&[u8]>>(row, table, column)?.map(SharedBytes::from))
}

/// Reads a text that is stored as bytes.
fn text(row: &Row, table: &str, column: &str) -> Result<Option<String>, SessionError> {
    Ok(value::<Option<&[u8]>>(row, table, column)?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

/// Reads a number that SQL counts with a sign.
fn count(row: &Row, table: &str, column: impl ColumnIndex) -> Result<u32, SessionError> {
    value::<i32>(row, table, column).map(|count| count as u32)
}

/// Reads [`STATUS_COLUMNS`], of which the first is at index `first`.
fn status_columns(row: &Row, first: usize) -> Result<StatusColumns, SessionError> {
    Ok(StatusColumns {
        state: value(row, "jobs", first)?,
        due_at: value(row, "jobs", first + 1)?,
        attempt: count(row, "jobs", first + 2)?,
        failures: count(row, "jobs", first + 3)?,
        crashes: count(row, "jobs", first + 4)?,
        cancel_requested: value(row, "jobs", first + 5)?,
        node: value(row, "jobs", first + 6)?,
        lease_expires_at: value(row, "jobs", first + 7)?,
    })
}

/// Reads the status of job `id` from [`STATUS_COLUMNS`], of which the first is at index `first`. Columns are read by index:
/// finding eight of them by name would be a good part of the cost of reading a row.
pub(super) fn status(id: JobId, row: &Row, first: usize) -> Result<JobStatus, SessionError> {
    Ok(status_columns(row, first)?.status(id)?)
}

/// Reads the columns `batch` and `topic`.
pub(super) fn batch(row: &Row) -> Result<Option<Batch>, SessionError> {
    Ok(columns::batch(value(row, "jobs", "batch")?, value(row, "jobs", "topic")?)?)
}

/// Reads a job from a row of the statements in `read.rs`, which begins with [`STATUS_COLUMNS`].
pub(super) fn job(row: &Row) -> Result<Job, SessionError> {
    let columns = JobColumns {
        id: value(row, "jobs", "id")?,
        task: value(row, "names", "task_name")?,
        limit_group: value(row, "names", "group_name")?,
        key: value(row, "jobs", "key")?,
        priority: value(row, "jobs", "priority")?,
        token: text(row, "jobs", "token")?,
        batch: value(row, "jobs", "batch")?,
        topic: value(row, "jobs", "topic")?,
        tick: value(row, "jobs", "tick")?,
        parent: value(row, "jobs", "parent")?,
        generation: count(row, "jobs", "generation")?,
        payload: bytes(row, "jobs", "payload")?,
        status: status_columns(row, 0)?,
        enqueued_at: value(row, "jobs", "enqueued_at")?,
        started_at: value(row, "jobs", "started_at")?,
        finished_at: value(row, "jobs", "finished_at")?,
        requeued_at: value(row, "jobs", "requeued_at")?,
        retried_at: value(row, "jobs", "retried_at")?,
        outcome: value(row, "jobs", "report_outcome")?,
        report: text(row, "jobs", "report_text")?,
        fingerprint: value(row, "jobs", "fingerprint")?,
        output: bytes(row, "jobs", "output")?,
        usage: [
            value(row, "jobs", "queue_wait_us")?,
            value(row, "jobs", "cpu_us")?,
            value(row, "jobs", "wall_us")?,
            value(row, "jobs", "memory_peak_bytes")?,
            value(row, "jobs", "in_bytes")?,
            value(row, "jobs", "out_bytes")?,
        ],
    };
    Ok(columns.job()?)
}

/// Reads an entry of a job's log.
pub(super) fn numbered_entry(row: &Row) -> Result<NumberedEntry, SessionError> {
    let (kind, amount) = (value(row, "entries", "kind")?, value(row, "entries", "amount")?);
    Ok(NumberedEntry {
        number: unsigned(value(row, "entries", "number")?),
        attempt: count(row, "entries", "attempt")?,
        at: timestamp(row, "entries", "written_at")?,
        entry: columns::entry(kind, amount, bytes(row, "entries", "data")?)?,
    })
}
