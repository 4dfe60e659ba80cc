//! How jobs and what belongs to them are written as rows, and read back.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row};
use wharf_core::ids::{Group, JobId, NodeId, TaskName};
use wharf_core::job::{Batch, Entry, Job, JobStatus, NumberedEntry, State, Stream};
use wharf_core::key::{Key, Lane};
use wharf_core::lease::Lease;
use wharf_core::outcome::{Bill, OutcomeKind, Report};
use wharf_core::time::Timestamp;

/// The column `state`. Statements name these numbers, since a partial index is only used where its condition stands.
pub(super) const DELAYED: i64 = 0;
pub(super) const READY: i64 = 1;
pub(super) const RUNNING: i64 = 2;
pub(super) const SUCCEEDED: i64 = 3;
pub(super) const FAILED: i64 = 4;
pub(super) const CANCELLED: i64 = 5;

pub(super) fn state_number(state: &State, now: Timestamp) -> i64 {
    match state {
        State::Waiting { due } if *due > now => DELAYED,
        State::Waiting { .. } => READY,
        State::Running { .. } => RUNNING,
        State::Succeeded => SUCCEEDED,
        State::Failed => FAILED,
        State::Cancelled => CANCELLED,
    }
}

/// SQLite's integers have a sign. Numbers of the upper half, which only node ids reach, come back as they were.
pub(super) const fn signed(number: u64) -> i64 {
    number as i64
}

/// Moments past the year 294,000 are brought forward to it, so that they still sort last.
pub(super) fn micros(at: Timestamp) -> i64 {
    i64::try_from(at.as_micros()).unwrap_or(i64::MAX)
}

/// Payloads of at most this size lie in the job's own row; others beside it, so that a change of state does not rewrite them.
pub(super) const SMALL_BYTES_MAX: usize = 1024;

/// How `ready` sorts by priority: the highest first.
pub(super) const fn rank(priority: i32) -> i64 {
    -(priority as i64)
}

fn length(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn moment(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_micros(row.get::<_, i64>(column)? as u64))
}

fn moment_if(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(|at| Timestamp::from_micros(at as u64)))
}

pub(super) fn job_id(number: i64) -> rusqlite::Result<JobId> {
    JobId::from_number(number as u64).ok_or_else(|| damaged("a job id", &number.to_string()))
}

pub(super) fn damaged(what: &str, found: &str) -> rusqlite::Error {
    let text = format!("the database holds {what} that is none: `{}`", found.escape_debug());
    rusqlite::Error::FromSqlConversionFailure(0, Type::Null, text.into())
}

pub(super) fn parse<T: FromStr>(what: &str, text: &str) -> rusqlite::Result<T> {
    text.parse().map_err(|_| damaged(what, text))
}

pub(super) fn key_text(lane: &Lane) -> &str {
    lane.key.as_ref().map_or("", Key::as_str)
}

pub(super) fn key_of(text: &str) -> rusqlite::Result<Option<Key>> {
    if text.is_empty() { Ok(None) } else { parse("a key", text).map(Some) }
}

pub(super) fn bytes(value: ValueRef<'_>) -> Option<Arc<[u8]>> {
    match value {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => Some(bytes.into()),
        _ => None,
    }
}

/// What the numbers of tasks and groups mean. To be forgotten when a transaction is undone: it may have made some.
#[derive(Debug, Default)]
pub(super) struct Names {
    numbers: HashMap<String, i64>,
    tasks: HashMap<i64, TaskName>,
    groups: HashMap<i64, Group>,
}

impl Names {
    /// The number of a name, if it has one.
    pub(super) fn find(&mut self, conn: &Connection, text: &str) -> rusqlite::Result<Option<i64>> {
        if let Some(number) = self.numbers.get(text) {
            return Ok(Some(*number));
        }
        let mut find = conn.prepare_cached("SELECT id FROM names WHERE text = ?1")?;
        let number: Option<i64> = find.query_row([text], |row| row.get(0)).optional()?;
        if let Some(number) = number {
            self.numbers.insert(text.to_owned(), number);
        }
        Ok(number)
    }

    /// The number of a name, made now if it has none yet.
    pub(super) fn number(&mut self, conn: &Connection, text: &str) -> rusqlite::Result<i64> {
        if let Some(number) = self.find(conn, text)? {
            return Ok(number);
        }
        conn.prepare_cached("INSERT INTO names (text) VALUES (?1)")?.execute([text])?;
        let number = conn.last_insert_rowid();
        self.numbers.insert(text.to_owned(), number);
        Ok(number)
    }

    pub(super) fn task(&mut self, conn: &Connection, number: i64) -> rusqlite::Result<TaskName> {
        if let Some(task) = self.tasks.get(&number) {
            return Ok(task.clone());
        }
        let task: TaskName = parse("a task", &text(conn, number)?)?;
        self.tasks.insert(number, task.clone());
        Ok(task)
    }

    pub(super) fn group(&mut self, conn: &Connection, number: i64) -> rusqlite::Result<Group> {
        if let Some(group) = self.groups.get(&number) {
            return Ok(group.clone());
        }
        let group: Group = parse("a group", &text(conn, number)?)?;
        self.groups.insert(number, group.clone());
        Ok(group)
    }
}

fn text(conn: &Connection, number: i64) -> rusqlite::Result<String> {
    conn.prepare_cached("SELECT text FROM names WHERE id = ?1")?.query_row([number], |row| row.get(0))
}

/// The standing in a row of which the columns of `STANDING` begin at `first`. By number: to find eight columns by name is
/// a good part of what it costs to read a row.
pub(super) const STANDING: &str = "state, due, attempt, failures, crashes, cancel_asked, node, lease_until";

pub(super) fn standing(id: JobId, row: &Row<'_>, first: usize) -> rusqlite::Result<JobStatus> {
    let at = |column: usize| row.get::<_, i64>(first + column).map(|micros| Timestamp::from_micros(micros as u64));
    let attempt = row.get(first + 2)?;
    let state = match row.get::<_, i64>(first)? {
        DELAYED | READY => State::Waiting { due: at(1)? },
        RUNNING => State::Running {
            lease: Lease { job: id, attempt, node: NodeId(row.get::<_, i64>(first + 6)? as u64), until: at(7)? },
        },
        SUCCEEDED => State::Succeeded,
        FAILED => State::Failed,
        CANCELLED => State::Cancelled,
        other => return Err(damaged("a state", &other.to_string())),
    };
    Ok(JobStatus {
        state,
        attempt,
        failures: row.get(first + 3)?,
        crashes: row.get(first + 4)?,
        cancel_asked: row.get(first + 5)?,
    })
}

/// A row of the statements of `read`.
pub(super) fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let id = job_id(row.get("id")?)?;
    let token: Option<String> = row.get("token")?;
    let kind: Option<String> = row.get("kind")?;
    let report = match kind {
        Some(kind) => {
            let kind = OutcomeKind::from_name(&kind).ok_or_else(|| damaged("an outcome", &kind))?;
            Some(Report { kind, text: row.get("report")? })
        }
        None => None,
    };
    Ok(Job {
        id,
        task: parse("a task", &row.get::<_, String>("task_name")?)?,
        lane: Lane {
            group: parse("a group", &row.get::<_, String>("group_name")?)?,
            key: key_of(&row.get::<_, String>("key")?)?,
        },
        priority: row.get("priority")?,
        token: token.map(|token| parse("a token", &token)).transpose()?,
        batch: batch(row)?,
        payload: bytes(row.get_ref("payload")?).unwrap_or_default(),
        standing: standing(id, row, row.as_ref().column_index("state")?)?,
        enqueued_at: moment(row, "enqueued_at")?,
        started_at: moment_if(row, "started_at")?,
        finished_at: moment_if(row, "finished_at")?,
        report,
        result: bytes(row.get_ref("output")?),
        bill: bill(row)?,
    })
}

/// The columns `batch` and `topic`.
pub(super) fn batch(row: &Row<'_>) -> rusqlite::Result<Option<Batch>> {
    let Some(id) = row.get::<_, Option<i64>>("batch")? else { return Ok(None) };
    Ok(Some(Batch { id: job_id(id)?, topic: parse("a topic", &row.get::<_, String>("topic")?)? }))
}

fn bill(row: &Row<'_>) -> rusqlite::Result<Option<Bill>> {
    let Some(queue_wait) = row.get::<_, Option<i64>>("queue_wait")? else { return Ok(None) };
    let number = |column: &str| row.get::<_, i64>(column).map(|number| number as u64);
    Ok(Some(Bill {
        queue_wait: Duration::from_micros(queue_wait as u64),
        guest: Duration::from_micros(number("guest")?),
        wall: Duration::from_micros(number("wall")?),
        memory_peak_bytes: number("memory_peak")?,
        in_bytes: number("bytes_in")?,
        out_bytes: number("bytes_out")?,
    }))
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
pub(super) fn entry_columns(entry: &Entry) -> (i64, Option<f64>, Option<&[u8]>) {
    match entry {
        Entry::Chunk(bytes) => (0, None, Some(bytes)),
        Entry::Log { stream: Stream::Stdout, line } => (1, None, Some(line.as_bytes())),
        Entry::Log { stream: Stream::Stderr, line } => (2, None, Some(line.as_bytes())),
        Entry::LogDropped { lines } => (3, Some(*lines as f64), None),
        Entry::Progress { fraction, note } => (4, Some(f64::from(*fraction)), Some(note.as_bytes())),
    }
}

pub(super) fn numbered(row: &Row<'_>) -> rusqlite::Result<NumberedEntry> {
    let data = || row.get_ref("data").map(|data| bytes(data).unwrap_or_default());
    let text = || data().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let amount = || row.get::<_, Option<f64>>("amount").map(Option::unwrap_or_default);
    let entry = match row.get::<_, i64>("kind")? {
        0 => Entry::Chunk(data()?),
        1 => Entry::Log { stream: Stream::Stdout, line: text()?.into() },
        2 => Entry::Log { stream: Stream::Stderr, line: text()?.into() },
        3 => Entry::LogDropped { lines: amount()? as u64 },
        4 => Entry::Progress { fraction: amount()? as f32, note: text()? },
        other => return Err(damaged("a kind of entry", &other.to_string())),
    };
    Ok(NumberedEntry {
        number: row.get::<_, i64>("number")? as u64,
        attempt: row.get("attempt")?,
        at: moment(row, "at")?,
        entry,
    })
}
