//! How rusqlite's rows and errors become the columns that all stores share, and the names of tasks and groups.

use hashbrown::HashMap;
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row};
use wharf_core::ids::{Group, JobId, TaskName};
use wharf_core::job::{Batch, Job, JobStatus, NumberedEntry};
use wharf_core::shared_bytes::SharedBytes;
use wharf_core::time::Timestamp;

use crate::columns::{self, DamagedData, JobColumns, StatusColumns, parse};

/// Payloads and results of at most this many bytes are in the job's own row; larger ones are in tables of their own, so that a
/// change of state does not rewrite them.
pub(super) const INLINE_BYTES_MAX: usize = 1024;

/// The columns that [`status`] reads, in its order.
pub(super) const STATUS: &str = "state, due_at, attempt, failures, crashes, cancel_requested, node, lease_expires_at";

impl From<DamagedData> for rusqlite::Error {
    fn from(damage: DamagedData) -> rusqlite::Error {
        rusqlite::Error::FromSqlConversionFailure(0, Type::Null, damage.into())
    }
}

/// Converts a priority to the column `rank`, by which the table `ready` is sorted: the highest priority first.
pub(super) const fn rank(priority: i32) -> i64 {
    -(priority as i64)
}

/// Converts the column `rank` to a priority.
pub(super) const fn priority(rank: i64) -> i32 {
    -rank as i32
}

/// Reads a column of microseconds since 1970.
pub(super) fn timestamp(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    Ok(columns::timestamp(row.get(column)?))
}

/// Returns the bytes of a blob or a text, and `None` for a null or a number.
pub(super) fn bytes(value: ValueRef<'_>) -> Option<SharedBytes> {
    match value {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => Some(bytes.into()),
        _ => None,
    }
}

/// A cache of the names that the numbers of tasks and groups refer to. It must be emptied when a transaction is rolled back,
/// since that may have added names.
#[derive(Debug, Default)]
pub(super) struct InternedNames {
    numbers: HashMap<String, i64>,
    tasks: HashMap<i64, TaskName>,
    groups: HashMap<i64, Group>,
}

impl InternedNames {
    /// Returns the number of a name, if it has one.
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

    /// Returns the number of a name, and adds the name if it has none.
    pub(super) fn number(&mut self, conn: &Connection, text: &str) -> rusqlite::Result<i64> {
        if let Some(number) = self.find(conn, text)? {
            return Ok(number);
        }
        conn.prepare_cached("INSERT INTO names (text) VALUES (?1)")?.execute([text])?;
        let number = conn.last_insert_rowid();
        self.numbers.insert(text.to_owned(), number);
        Ok(number)
    }

    /// Returns the task that a number refers to.
    pub(super) fn task(&mut self, conn: &Connection, number: i64) -> rusqlite::Result<TaskName> {
        if let Some(task) = self.tasks.get(&number) {
            return Ok(task.clone());
        }
        let task: TaskName = parse("task", &name_text(conn, number)?)?;
        self.tasks.insert(number, task.clone());
        Ok(task)
    }

    /// Returns the group that a number refers to.
    pub(super) fn group(&mut self, conn: &Connection, number: i64) -> rusqlite::Result<Group> {
        if let Some(group) = self.groups.get(&number) {
            return Ok(group.clone());
        }
        let group: Group = parse("group", &name_text(conn, number)?)?;
        self.groups.insert(number, group.clone());
        Ok(group)
    }
}

fn name_text(conn: &Connection, number: i64) -> rusqlite::Result<String> {
    conn.prepare_cached("SELECT text FROM names WHERE id = ?1")?.query_row([number], |row| row.get(0))
}

/// Reads the columns of a job's status, of which the first is at index `first`. Columns are read by index: finding eight of
/// them by name would be a good part of the cost of reading a row.
fn status_columns(row: &Row<'_>, first: usize) -> rusqlite::Result<StatusColumns> {
    Ok(StatusColumns {
        state: row.get(first)?,
        due_at: row.get(first + 1)?,
        attempt: row.get(first + 2)?,
        failures: row.get(first + 3)?,
        crashes: row.get(first + 4)?,
        cancel_requested: row.get(first + 5)?,
        node: row.get(first + 6)?,
        lease_expires_at: row.get(first + 7)?,
    })
}

/// Reads the status of job `id` from the columns of [`STATUS`], of which the first is at index `first`.
pub(super) fn status(id: JobId, row: &Row<'_>, first: usize) -> rusqlite::Result<JobStatus> {
    Ok(status_columns(row, first)?.status(id)?)
}

/// Reads a job from a row of the statements in `read.rs`.
pub(super) fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let columns = JobColumns {
        id: row.get("id")?,
        task: row.get("task_name")?,
        limit_group: row.get("group_name")?,
        key: row.get("key")?,
        priority: row.get("priority")?,
        token: row.get("token")?,
        batch: row.get("batch")?,
        topic: row.get("topic")?,
        tick: row.get("tick")?,
        parent: row.get("parent")?,
        generation: row.get("generation")?,
        payload: bytes(row.get_ref("payload")?),
        status: status_columns(row, row.as_ref().column_index("state")?)?,
        enqueued_at: row.get("enqueued_at")?,
        started_at: row.get("started_at")?,
        finished_at: row.get("finished_at")?,
        requeued_at: row.get("requeued_at")?,
        retried_at: row.get("retried_at")?,
        outcome: row.get("outcome")?,
        report: row.get("report")?,
        fingerprint: row.get("fingerprint")?,
        output: bytes(row.get_ref("output")?),
        usage: [
            row.get("queue_wait_us")?,
            row.get("cpu_us")?,
            row.get("wall_us")?,
            row.get("memory_peak_bytes")?,
            row.get("in_bytes")?,
            row.get("out_bytes")?,
        ],
    };
    Ok(columns.job()?)
}

/// Reads the columns `batch` and `topic`, of which the first is at index `first`.
pub(super) fn batch(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Batch>> {
    let topic = row.get_ref(first + 1)?.as_str_or_null()?;
    Ok(columns::batch(row.get(first)?, topic)?)
}

/// Reads an entry from a row that has all columns of the table `entries` but `job`.
pub(super) fn numbered_entry(row: &Row<'_>) -> rusqlite::Result<NumberedEntry> {
    Ok(NumberedEntry {
        number: columns::unsigned(row.get("number")?),
        attempt: row.get("attempt")?,
        at: timestamp(row, "written_at")?,
        entry: columns::entry(row.get("kind")?, row.get("amount")?, bytes(row.get_ref("data")?))?,
    })
}
