//! How jobs and what belongs to them are written as rows, and read back.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Row;
use wharf_core::ids::{JobId, NodeId};
use wharf_core::job::{Batch, Entry, Job, JobStatus, NumberedEntry, State, Stream};
use wharf_core::key::{Key, Lane};
use wharf_core::lease::Lease;
use wharf_core::outcome::{Bill, OutcomeKind, Report};
use wharf_core::time::Timestamp;

use super::session::{SessionError, damaged};

/// The column `state`. Statements name these numbers, since a partial index is only used where its condition stands.
pub(super) const DELAYED: i16 = 0;
pub(super) const READY: i16 = 1;
pub(super) const RUNNING: i16 = 2;
pub(super) const SUCCEEDED: i16 = 3;
pub(super) const FAILED: i16 = 4;
pub(super) const CANCELLED: i16 = 5;

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

/// The database's integers have a sign. Numbers of the upper half, which only node ids reach, come back as they were.
pub(super) const fn signed(number: u64) -> i64 {
    number as i64
}

/// Moments past the year 294,000 are brought forward to it, so that they still sort last.
pub(super) fn micros(at: Timestamp) -> i64 {
    i64::try_from(at.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn length(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn stamp(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros as u64)
}

pub(super) fn moment(row: &Row, column: &str) -> Timestamp {
    stamp(row.get(column))
}

fn moment_if(row: &Row, column: &str) -> Option<Timestamp> {
    row.get::<_, Option<i64>>(column).map(stamp)
}

pub(super) fn job_id(number: i64) -> Result<JobId, SessionError> {
    JobId::from_number(number as u64).ok_or_else(|| damaged("a job id", &number.to_string()))
}

pub(super) fn parse<T: FromStr>(what: &str, text: &str) -> Result<T, SessionError> {
    text.parse().map_err(|_| damaged(what, text))
}

pub(super) fn key_text(lane: &Lane) -> &str {
    lane.key.as_ref().map_or("", Key::as_str)
}

pub(super) fn key_of(text: &str) -> Result<Option<Key>, SessionError> {
    if text.is_empty() { Ok(None) } else { parse("a key", text).map(Some) }
}

fn bytes(row: &Row, column: &str) -> Option<Arc<[u8]>> {
    row.get::<_, Option<&[u8]>>(column).map(Arc::from)
}

fn text(row: &Row, column: &str) -> String {
    row.get::<_, Option<&[u8]>>(column).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

/// The columns of a standing.
pub(super) const STANDING: &str = "state, due, attempt, failures, crashes, cancel_asked, node, lease_until";

pub(super) fn standing(id: JobId, row: &Row) -> Result<JobStatus, SessionError> {
    let attempt = row.get::<_, i32>("attempt") as u32;
    let state = match row.get::<_, i16>("state") {
        DELAYED | READY => State::Waiting { due: moment(row, "due") },
        RUNNING => State::Running {
            lease: Lease {
                job: id,
                attempt,
                node: NodeId(row.get::<_, i64>("node") as u64),
                until: moment(row, "lease_until"),
            },
        },
        SUCCEEDED => State::Succeeded,
        FAILED => State::Failed,
        CANCELLED => State::Cancelled,
        other => return Err(damaged("a state", &other.to_string())),
    };
    Ok(JobStatus {
        state,
        attempt,
        failures: row.get::<_, i32>("failures") as u32,
        crashes: row.get::<_, i32>("crashes") as u32,
        cancel_asked: row.get("cancel_asked"),
    })
}

/// The columns `batch` and `topic`.
pub(super) fn batch(row: &Row) -> Result<Option<Batch>, SessionError> {
    let Some(id) = row.get::<_, Option<i64>>("batch") else { return Ok(None) };
    Ok(Some(Batch { id: job_id(id)?, topic: parse("a topic", row.get("topic"))? }))
}

/// A row of the statements of `read`.
pub(super) fn job(row: &Row) -> Result<Job, SessionError> {
    let id = job_id(row.get("id"))?;
    let report = match row.get::<_, Option<&str>>("kind") {
        Some(kind) => {
            let kind = OutcomeKind::from_name(kind).ok_or_else(|| damaged("an outcome", kind))?;
            Some(Report { kind, text: text(row, "report") })
        }
        None => None,
    };
    let token = bytes(row, "token").map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Job {
        id,
        task: parse("a task", row.get("task_name"))?,
        lane: Lane { group: parse("a group", row.get("group_name"))?, key: key_of(row.get("key"))? },
        priority: row.get("priority"),
        token: token.map(|token| parse("a token", &token)).transpose()?,
        batch: batch(row)?,
        payload: bytes(row, "payload").unwrap_or_default(),
        standing: standing(id, row)?,
        enqueued_at: moment(row, "enqueued_at"),
        started_at: moment_if(row, "started_at"),
        finished_at: moment_if(row, "finished_at"),
        report,
        result: bytes(row, "output"),
        bill: bill(row),
    })
}

fn bill(row: &Row) -> Option<Bill> {
    let queue_wait = row.get::<_, Option<i64>>("queue_wait")?;
    let number = |column: &str| row.get::<_, Option<i64>>(column).unwrap_or_default() as u64;
    Some(Bill {
        queue_wait: Duration::from_micros(queue_wait as u64),
        guest: Duration::from_micros(number("guest")),
        wall: Duration::from_micros(number("wall")),
        memory_peak_bytes: number("memory_peak"),
        in_bytes: number("bytes_in"),
        out_bytes: number("bytes_out"),
    })
}

/// The six columns of a bill, in the order of the table.
pub(super) fn bill_columns(bill: Option<&Bill>) -> [Option<i64>; 6] {
    bill.map_or([None; 6], |bill| {
        [
            length(bill.queue_wait),
            length(bill.guest),
            length(bill.wall),
            signed(bill.memory_peak_bytes),
            signed(bill.in_bytes),
            signed(bill.out_bytes),
        ]
        .map(Some)
    })
}

/// The columns `kind`, `amount` and `data` of an entry.
pub(super) fn entry_columns(entry: &Entry) -> (i16, Option<f64>, Option<&[u8]>) {
    match entry {
        Entry::Chunk(bytes) => (0, None, Some(bytes)),
        Entry::Log { stream: Stream::Stdout, line } => (1, None, Some(line.as_bytes())),
        Entry::Log { stream: Stream::Stderr, line } => (2, None, Some(line.as_bytes())),
        Entry::LogDropped { lines } => (3, Some(*lines as f64), None),
        Entry::Progress { fraction, note } => (4, Some(f64::from(*fraction)), Some(note.as_bytes())),
    }
}

pub(super) fn numbered(row: &Row) -> Result<NumberedEntry, SessionError> {
    let amount = || row.get::<_, Option<f64>>("amount").unwrap_or_default();
    let entry = match row.get::<_, i16>("kind") {
        0 => Entry::Chunk(bytes(row, "data").unwrap_or_default()),
        1 => Entry::Log { stream: Stream::Stdout, line: text(row, "data").into() },
        2 => Entry::Log { stream: Stream::Stderr, line: text(row, "data").into() },
        3 => Entry::LogDropped { lines: amount() as u64 },
        4 => Entry::Progress { fraction: amount() as f32, note: text(row, "data") },
        other => return Err(damaged("a kind of entry", &other.to_string())),
    };
    Ok(NumberedEntry {
        number: row.get::<_, i64>("number") as u64,
        attempt: row.get::<_, i32>("attempt") as u32,
        at: moment(row, "at"),
        entry,
    })
}
