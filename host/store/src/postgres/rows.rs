//! Jobs and their parts as columns of rows, and back.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Row;
use wharf_core::ids::{JobId, NodeId};
use wharf_core::job::{Batch, Entry, Job, JobStatus, Lineage, NumberedEntry, State, Stream};
use wharf_core::key::{Key, Lane};
use wharf_core::lease::Lease;
use wharf_core::outcome::{OutcomeKind, Report, Usage};
use wharf_core::time::Timestamp;

use super::session::{SessionError, damaged, value};

/// The column `state`. Statements contain these numbers as literals, since the server only uses a partial index if the
/// statement repeats its condition.
pub(super) const DELAYED: i16 = 0;
pub(super) const READY: i16 = 1;
pub(super) const RUNNING: i16 = 2;
pub(super) const SUCCEEDED: i16 = 3;
pub(super) const FAILED: i16 = 4;
pub(super) const CANCELLED: i16 = 5;

/// Returns the number of a state for the column `state`.
pub(super) fn state_number(state: &State, now: Timestamp) -> i16 {
    match state {
        State::Waiting { due } if *due > now => DELAYED,
        State::Waiting { .. } => READY,
        State::Running { .. } => RUNNING,
        State::Succeeded => SUCCEEDED,
        State::Failed => FAILED,
        State::Cancelled => CANCELLED,
    }
}

/// Converts to the database's integers, which are signed. Numbers in the upper half, which only node ids reach, convert back
/// unchanged.
pub(super) const fn signed(number: u64) -> i64 {
    number as i64
}

/// Converts a moment to microseconds since 1970. Moments past the year 294,000 become that year, so they still sort last.
pub(super) fn micros(at: Timestamp) -> i64 {
    i64::try_from(at.as_micros()).unwrap_or(i64::MAX)
}

/// Converts a length of time to microseconds.
pub(super) fn length_us(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX)
}

/// Converts microseconds since 1970 to a moment.
pub(super) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros as u64)
}

/// Reads a column that holds a moment.
pub(super) fn moment(row: &Row, table: &str, column: &str) -> Result<Timestamp, SessionError> {
    value(row, table, column).map(timestamp)
}

/// Converts a number of the database to a job id.
pub(super) fn job_id(number: i64) -> Result<JobId, SessionError> {
    JobId::from_number(number as u64).ok_or_else(|| damaged("job ID", &number.to_string()))
}

/// Parses a text of the database; `what` names it in the error.
pub(super) fn parse<T: FromStr>(what: &str, text: &str) -> Result<T, SessionError> {
    text.parse().map_err(|_| damaged(what, text))
}

/// Returns the column `key` of a lane: empty for jobs without a key.
pub(super) fn key_text(lane: &Lane) -> &str {
    lane.key.as_ref().map_or("", Key::as_str)
}

/// Converts the column `key` back.
pub(super) fn key_from(text: &str) -> Result<Option<Key>, SessionError> {
    if text.is_empty() { Ok(None) } else { parse("key", text).map(Some) }
}

fn bytes(row: &Row, table: &str, column: &str) -> Result<Option<Arc<[u8]>>, SessionError> {
    Ok(value::<Option<&[u8]>>(row, table, column)?.map(Arc::from))
}

/// Reads a text that is stored as bytes; empty if it is null.
fn text(row: &Row, table: &str, column: &str) -> Result<String, SessionError> {
    let bytes = value::<Option<&[u8]>>(row, table, column)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// The columns of a job's status.
pub(super) const STATUS_COLUMNS: &str =
    "state, due_at, attempt, failures, crashes, cancel_requested, node, lease_expires_at";

/// Reads the status of job `id` from `STATUS_COLUMNS`.
pub(super) fn status(id: JobId, row: &Row) -> Result<JobStatus, SessionError> {
    let count = |column: &str| value::<i32>(row, "jobs", column).map(|count| count as u32);
    let attempt = count("attempt")?;
    let state = match value::<i16>(row, "jobs", "state")? {
        DELAYED | READY => State::Waiting { due: moment(row, "jobs", "due_at")? },
        RUNNING => State::Running {
            lease: Lease {
                job: id,
                attempt,
                node: NodeId(value::<i64>(row, "jobs", "node")? as u64),
                until: moment(row, "jobs", "lease_expires_at")?,
            },
        },
        SUCCEEDED => State::Succeeded,
        FAILED => State::Failed,
        CANCELLED => State::Cancelled,
        other => return Err(damaged("job state", &other.to_string())),
    };
    Ok(JobStatus {
        state,
        attempt,
        failures: count("failures")?,
        crashes: count("crashes")?,
        cancel_requested: value(row, "jobs", "cancel_requested")?,
    })
}

/// Reads the columns `batch` and `topic`.
pub(super) fn batch(row: &Row) -> Result<Option<Batch>, SessionError> {
    let Some(id) = value::<Option<i64>>(row, "jobs", "batch")? else { return Ok(None) };
    Ok(Some(Batch { id: job_id(id)?, topic: parse("topic", value(row, "jobs", "topic")?)? }))
}

/// Reads a whole job from a row of the statements in `read`.
pub(super) fn job(row: &Row) -> Result<Job, SessionError> {
    let id = job_id(value(row, "jobs", "id")?)?;
    let report = match value::<Option<&str>>(row, "jobs", "report_outcome")? {
        Some(kind) => {
            let kind = OutcomeKind::from_name(kind).ok_or_else(|| damaged("outcome", kind))?;
            Some(Report { kind, text: text(row, "jobs", "report_text")? })
        }
        None => None,
    };
    let token = bytes(row, "jobs", "token")?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let optional_moment = |column: &str| value::<Option<i64>>(row, "jobs", column).map(|micros| micros.map(timestamp));
    Ok(Job {
        id,
        task: parse("task", value(row, "names", "task_name")?)?,
        lane: Lane {
            group: parse("limit group", value(row, "names", "group_name")?)?,
            key: key_from(value(row, "jobs", "key")?)?,
        },
        priority: value(row, "jobs", "priority")?,
        token: token.map(|token| parse("token", &token)).transpose()?,
        batch: batch(row)?,
        lineage: Lineage {
            parent: value::<Option<i64>>(row, "jobs", "parent")?.map(job_id).transpose()?,
            generation: value::<i32>(row, "jobs", "generation")? as u32,
        },
        payload: bytes(row, "jobs", "payload")?.unwrap_or_default(),
        status: status(id, row)?,
        enqueued_at: moment(row, "jobs", "enqueued_at")?,
        started_at: optional_moment("started_at")?,
        finished_at: optional_moment("finished_at")?,
        report,
        result: bytes(row, "jobs", "output")?,
        usage: usage(row)?,
    })
}

fn usage(row: &Row) -> Result<Option<Usage>, SessionError> {
    let Some(queue_wait) = value::<Option<i64>>(row, "jobs", "queue_wait_us")? else { return Ok(None) };
    let number =
        |column: &str| value::<Option<i64>>(row, "jobs", column).map(|number| number.unwrap_or_default() as u64);
    Ok(Some(Usage {
        queue_wait: Duration::from_micros(queue_wait as u64),
        cpu: Duration::from_micros(number("cpu_us")?),
        wall: Duration::from_micros(number("wall_us")?),
        memory_peak_bytes: number("memory_peak_bytes")?,
        in_bytes: number("in_bytes")?,
        out_bytes: number("out_bytes")?,
    }))
}

/// Returns the six columns of an attempt's resource usage, in the order of the table.
pub(super) fn usage_columns(usage: Option<&Usage>) -> [Option<i64>; 6] {
    usage.map_or([None; 6], |usage| {
        [
            length_us(usage.queue_wait),
            length_us(usage.cpu),
            length_us(usage.wall),
            signed(usage.memory_peak_bytes),
            signed(usage.in_bytes),
            signed(usage.out_bytes),
        ]
        .map(Some)
    })
}

/// Returns the columns `kind`, `amount` and `data` of a log entry.
pub(super) fn entry_columns(entry: &Entry) -> (i16, Option<f64>, Option<&[u8]>) {
    match entry {
        Entry::Chunk(bytes) => (0, None, Some(bytes)),
        Entry::Log { stream: Stream::Stdout, line } => (1, None, Some(line.as_bytes())),
        Entry::Log { stream: Stream::Stderr, line } => (2, None, Some(line.as_bytes())),
        Entry::LogDropped { lines } => (3, Some(*lines as f64), None),
        Entry::Progress { fraction, note } => (4, Some(f64::from(*fraction)), Some(note.as_bytes())),
    }
}

/// Reads a log entry.
pub(super) fn numbered_entry(row: &Row) -> Result<NumberedEntry, SessionError> {
    let amount = || value::<Option<f64>>(row, "entries", "amount").map(Option::unwrap_or_default);
    let text = || text(row, "entries", "data");
    let entry = match value::<i16>(row, "entries", "kind")? {
        0 => Entry::Chunk(bytes(row, "entries", "data")?.unwrap_or_default()),
        1 => Entry::Log { stream: Stream::Stdout, line: text()?.into() },
        2 => Entry::Log { stream: Stream::Stderr, line: text()?.into() },
        3 => Entry::LogDropped { lines: amount()? as u64 },
        4 => Entry::Progress { fraction: amount()? as f32, note: text()? },
        other => return Err(damaged("kind of log entry", &other.to_string())),
    };
    Ok(NumberedEntry {
        number: value::<i64>(row, "entries", "number")? as u64,
        attempt: value::<i32>(row, "entries", "attempt")? as u32,
        at: moment(row, "entries", "written_at")?,
        entry,
    })
}
