//! How jobs, entries and moments are written as columns, and read back: the numbers and the conversions that SQLite and
//! PostgreSQL share. A store's own code only moves columns between these types and its driver.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use wharf_core::audit::{Act, ActId, ActKind};
use wharf_core::author::Author;
use wharf_core::hold::Hold;
use wharf_core::ids::{JobId, NodeId};
use wharf_core::job::{Batch, Entry, Job, JobStatus, Lineage, State, StateName, Stream};
use wharf_core::key::{Key, Lane};
use wharf_core::lease::Lease;
use wharf_core::lifecycle::Refusal;
use wharf_core::outcome::{OutcomeKind, Report, Usage};
use wharf_core::retry::FailureCount;
use wharf_core::shared_bytes::SharedBytes;
use wharf_core::tick::JobTick;
use wharf_core::time::Timestamp;

/// The column `state` of a waiting job that was not due when it was written. SQL statements contain the numbers of states as
/// literals, since a database only uses a partial index whose condition the statement repeats.
pub(crate) const DELAYED: i16 = 0;
/// The column `state` of a waiting job that is due.
pub(crate) const READY: i16 = 1;
/// The column `state` of a running job.
pub(crate) const RUNNING: i16 = 2;
/// The column `state` of a job that succeeded. From here on, states are final.
pub(crate) const SUCCEEDED: i16 = 3;
/// The column `state` of a job that failed.
pub(crate) const FAILED: i16 = 4;
/// The column `state` of a job that was cancelled.
pub(crate) const CANCELLED: i16 = 5;

/// The column `kind` of an entry that is a chunk of the result.
const CHUNK: i16 = 0;
/// The column `kind` of a line that a guest wrote to its standard output.
const STDOUT: i16 = 1;
/// The column `kind` of a line that a guest wrote to its standard error.
const STDERR: i16 = 2;
/// The column `kind` of an entry that says how many log lines were dropped.
const LOG_DROPPED: i16 = 3;
/// The column `kind` of a progress report.
const PROGRESS: i16 = 4;

/// Rows that no version of Wharf writes.
#[derive(Debug)]
pub(crate) struct DamagedData(String);

impl DamagedData {
    /// Describes a column whose value is not a valid `what`.
    pub(crate) fn invalid(what: &str, found: &str) -> DamagedData {
        DamagedData(format!("the database contains an invalid {what}: `{}`", found.escape_debug()))
    }

    /// Describes rows that contradict each other.
    pub(crate) fn inconsistent(text: impl fmt::Display) -> DamagedData {
        DamagedData(format!("the database is inconsistent: {text}"))
    }

    /// Describes a job that refused an event of the store's own: its row differs from what a query returned.
    pub(crate) fn refused(id: JobId, refusal: Refusal) -> DamagedData {
        DamagedData::inconsistent(format_args!("job {id} refused an event: {refusal}"))
    }
}

impl fmt::Display for DamagedData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DamagedData {}

/// Parses a column's text as a `what`, such as "task".
///
/// # Errors
/// If the text is not valid.
pub(crate) fn parse<T: FromStr>(what: &str, text: &str) -> Result<T, DamagedData> {
    text.parse().map_err(|_| DamagedData::invalid(what, text))
}

/// Converts a number to a column: SQL's integers are signed. Numbers of the upper half, which only node IDs reach, become
/// negative, and [`unsigned`] restores them.
pub(crate) const fn signed(number: u64) -> i64 {
    number as i64
}

/// Converts a column to the number that [`signed`] wrote.
pub(crate) const fn unsigned(column: i64) -> u64 {
    column as u64
}

/// Converts a moment to a column, in microseconds since 1970. Moments after the year 294,000 are moved to that year: they
/// still sort last.
pub(crate) fn timestamp_us(at: Timestamp) -> i64 {
    i64::try_from(at.as_micros()).unwrap_or(i64::MAX)
}

/// Converts a column of microseconds since 1970 to a moment.
pub(crate) fn timestamp(us: i64) -> Timestamp {
    Timestamp::from_micros(unsigned(us))
}

/// Converts a duration to a column, in microseconds.
pub(crate) fn duration_us(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Converts a column to a job's ID.
///
/// # Errors
/// If the number is not that of an ID.
pub(crate) fn job_id(column: i64) -> Result<JobId, DamagedData> {
    JobId::from_number(unsigned(column)).ok_or_else(|| DamagedData::invalid("job ID", &column.to_string()))
}

/// Returns the column `key`: empty for jobs without a key.
pub(crate) fn key_text(key: Option<&Key>) -> &str {
    key.map_or("", Key::as_str)
}

/// Converts the column `key`.
///
/// # Errors
/// If the text is neither empty nor a key.
pub(crate) fn key(text: &str) -> Result<Option<Key>, DamagedData> {
    if text.is_empty() { Ok(None) } else { parse("key", text).map(Some) }
}

/// Returns the column `state`: a waiting job is ready if it is due at `now`.
pub(crate) fn state_number(state: &State, now: Timestamp) -> i16 {
    match state {
        State::Waiting { due } if *due > now => DELAYED,
        State::Waiting { .. } => READY,
        State::Running { .. } => RUNNING,
        State::Succeeded => SUCCEEDED,
        State::Failed => FAILED,
        State::Cancelled => CANCELLED,
    }
}

/// Converts the column `state` of a job.
///
/// # Errors
/// If the number is not that of a state.
pub(crate) fn state_name(number: i16) -> Result<StateName, DamagedData> {
    match number {
        DELAYED | READY => Ok(StateName::Waiting),
        RUNNING => Ok(StateName::Running),
        SUCCEEDED => Ok(StateName::Succeeded),
        FAILED => Ok(StateName::Failed),
        CANCELLED => Ok(StateName::Cancelled),
        other => Err(DamagedData::invalid("state of a job", &other.to_string())),
    }
}

/// The columns of a hold.
#[derive(Debug)]
pub(crate) struct HoldColumns<'r> {
    pub(crate) scope: &'r str,
    pub(crate) until_at: Option<i64>,
    pub(crate) reason: &'r str,
    pub(crate) by: Option<String>,
    pub(crate) at: i64,
}

/// Converts the columns of a hold.
///
/// # Errors
/// If the scope or the reason is not valid.
pub(crate) fn hold(columns: HoldColumns<'_>) -> Result<Hold, DamagedData> {
    let HoldColumns { scope, until_at, reason, by, at } = columns;
    Ok(Hold {
        scope: parse("scope of a hold", scope)?,
        until: until_at.map(timestamp),
        reason: parse("reason of a hold", reason)?,
        by,
        since: timestamp(at),
    })
}

/// The columns of an act.
#[derive(Debug)]
pub(crate) struct ActColumns<'r> {
    pub(crate) id: i64,
    pub(crate) acted_at: i64,
    pub(crate) author: Option<&'r str>,
    pub(crate) address: Option<&'r str>,
    pub(crate) act: &'r str,
    pub(crate) target: String,
    pub(crate) detail: String,
    pub(crate) count: i64,
}

impl ActColumns<'_> {
    /// Converts the columns to an act.
    pub(crate) fn act(self) -> Act {
        Act {
            id: ActId { at: timestamp(self.acted_at), number: unsigned(self.id) },
            author: Author::from_parts(self.author, self.address),
            kind: ActKind::from_name(self.act),
            target: self.target,
            detail: self.detail,
            count: unsigned(self.count),
        }
    }
}

/// The columns of a job's status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatusColumns {
    pub(crate) state: i16,
    /// In microseconds since 1970.
    pub(crate) due_at: i64,
    pub(crate) attempt: u32,
    /// The number of a `FailureCount`.
    pub(crate) failures: u32,
    pub(crate) crashes: u32,
    pub(crate) cancel_requested: bool,
    /// The node of the lease; only read of a running job.
    pub(crate) node: Option<i64>,
    /// The end of the lease, in microseconds since 1970; only read of a running job.
    pub(crate) lease_expires_at: Option<i64>,
}

impl StatusColumns {
    /// Converts the columns to the status of job `id`.
    ///
    /// # Errors
    /// If the state is unknown, or a running job has no lease.
    pub(crate) fn status(&self, id: JobId) -> Result<JobStatus, DamagedData> {
        let StatusColumns { attempt, crashes, cancel_requested, .. } = *self;
        let failures = FailureCount::from_number(self.failures);
        let state = match self.state {
            DELAYED | READY => State::Waiting { due: timestamp(self.due_at) },
            RUNNING => {
                let missing = |column: &str| {
                    let text = format_args!("job {id} is running, but column `{column}` of table `jobs` is null");
                    DamagedData::inconsistent(text)
                };
                let node = NodeId(unsigned(self.node.ok_or_else(|| missing("node"))?));
                let until = timestamp(self.lease_expires_at.ok_or_else(|| missing("lease_expires_at"))?);
                State::Running { lease: Lease { job: id, attempt, node, until } }
            }
            SUCCEEDED => State::Succeeded,
            FAILED => State::Failed,
            CANCELLED => State::Cancelled,
            other => return Err(DamagedData::invalid("state", &other.to_string())),
        };
        Ok(JobStatus { state, attempt, failures, crashes, cancel_requested })
    }
}

/// The columns of a whole job.
#[derive(Debug)]
pub(crate) struct JobColumns {
    pub(crate) id: i64,
    pub(crate) task: String,
    pub(crate) limit_group: String,
    pub(crate) key: String,
    pub(crate) priority: i32,
    pub(crate) token: Option<String>,
    pub(crate) batch: Option<i64>,
    pub(crate) topic: Option<String>,
    pub(crate) tick: Option<String>,
    pub(crate) parent: Option<i64>,
    pub(crate) generation: u32,
    pub(crate) payload: Option<SharedBytes>,
    pub(crate) status: StatusColumns,
    /// In microseconds since 1970.
    pub(crate) enqueued_at: i64,
    /// In microseconds since 1970.
    pub(crate) started_at: Option<i64>,
    /// In microseconds since 1970.
    pub(crate) finished_at: Option<i64>,
    /// In microseconds since 1970.
    pub(crate) requeued_at: Option<i64>,
    /// In microseconds since 1970.
    pub(crate) retried_at: Option<i64>,
    /// The name of the outcome that `report` is about.
    pub(crate) outcome: Option<String>,
    pub(crate) report: Option<String>,
    pub(crate) fingerprint: Option<String>,
    pub(crate) output: Option<SharedBytes>,
    /// Read by [`usage`].
    pub(crate) usage: [Option<i64>; 6],
}

impl JobColumns {
    /// Converts the columns to a job.
    ///
    /// # Errors
    /// If one of them has a value that is not valid.
    pub(crate) fn job(self) -> Result<Job, DamagedData> {
        let id = job_id(self.id)?;
        let report = self.outcome.map(|outcome| report(&outcome, self.report.unwrap_or_default())).transpose()?;
        Ok(Job {
            id,
            task: parse("task", &self.task)?,
            lane: Lane { group: parse("group", &self.limit_group)?, key: key(&self.key)? },
            priority: self.priority,
            token: self.token.map(|token| parse("token", &token)).transpose()?,
            batch: batch(self.batch, self.topic.as_deref())?,
            lineage: lineage(self.parent, self.generation)?,
            payload: self.payload.unwrap_or_default(),
            status: self.status.status(id)?,
            enqueued_at: timestamp(self.enqueued_at),
            started_at: self.started_at.map(timestamp),
            finished_at: self.finished_at.map(timestamp),
            requeued_at: self.requeued_at.map(timestamp),
            retried_at: self.retried_at.map(timestamp),
            report,
            fingerprint: self.fingerprint.map(|text| parse("fingerprint", &text)).transpose()?,
            result: self.output,
            usage: usage(self.usage),
            tick: tick(self.tick.as_deref())?,
        })
    }
}

/// Converts the columns `batch` and `topic`: the durable broadcast that a job belongs to.
///
/// # Errors
/// If either is not valid, or a batch has no topic.
pub(crate) fn batch(id: Option<i64>, topic: Option<&str>) -> Result<Option<Batch>, DamagedData> {
    let Some(id) = id else { return Ok(None) };
    Ok(Some(Batch { id: job_id(id)?, topic: parse("topic", topic.unwrap_or_default())? }))
}

/// Converts the column `tick`.
///
/// # Errors
/// If it is not valid.
pub(crate) fn tick(text: Option<&str>) -> Result<Option<Box<JobTick>>, DamagedData> {
    text.map(|text| parse("tick", text).map(Box::new)).transpose()
}

/// Converts the columns `parent` and `generation`: the jobs from which a job descends.
///
/// # Errors
/// If the parent is not the number of an ID.
pub(crate) fn lineage(parent: Option<i64>, generation: u32) -> Result<Lineage, DamagedData> {
    Ok(Lineage { parent: parent.map(job_id).transpose()?, generation })
}

/// Converts the columns of a report: the name of the outcome, and the text.
///
/// # Errors
/// If no outcome has this name.
pub(crate) fn report(outcome: &str, text: String) -> Result<Report, DamagedData> {
    let kind = OutcomeKind::from_name(outcome).ok_or_else(|| DamagedData::invalid("outcome", outcome))?;
    Ok(Report { kind, text })
}

/// Returns the columns `queue_wait_us`, `cpu_us`, `wall_us`, `memory_peak_bytes`, `in_bytes` and `out_bytes`.
pub(crate) fn usage_columns(usage: Option<&Usage>) -> [Option<i64>; 6] {
    usage.map_or([None; 6], |usage| {
        [
            duration_us(usage.queue_wait),
            duration_us(usage.cpu),
            duration_us(usage.wall),
            signed(usage.memory_peak_bytes),
            signed(usage.in_bytes),
            signed(usage.out_bytes),
        ]
        .map(Some)
    })
}

/// Converts the columns of [`usage_columns`]; returns `None` if the first one is null.
pub(crate) fn usage(columns: [Option<i64>; 6]) -> Option<Usage> {
    columns[0]?;
    let [queue_wait, cpu, wall, memory_peak_bytes, in_bytes, out_bytes] =
        columns.map(|column| unsigned(column.unwrap_or_default()));
    Some(Usage {
        queue_wait: Duration::from_micros(queue_wait),
        cpu: Duration::from_micros(cpu),
        wall: Duration::from_micros(wall),
        memory_peak_bytes,
        in_bytes,
        out_bytes,
    })
}

/// Returns the columns `kind`, `amount` and `data` of an entry.
pub(crate) fn entry_columns(entry: &Entry) -> (i16, Option<f64>, Option<&[u8]>) {
    match entry {
        Entry::Chunk(bytes) => (CHUNK, None, Some(bytes)),
        Entry::Log { stream: Stream::Stdout, line } => (STDOUT, None, Some(line.as_bytes())),
        Entry::Log { stream: Stream::Stderr, line } => (STDERR, None, Some(line.as_bytes())),
        Entry::LogDropped { lines } => (LOG_DROPPED, Some(*lines as f64), None),
        Entry::Progress { fraction, note } => (PROGRESS, Some(f64::from(*fraction)), Some(note.as_bytes())),
    }
}

/// Converts the columns of [`entry_columns`].
///
/// # Errors
/// If the kind is unknown.
pub(crate) fn entry(kind: i16, amount: Option<f64>, data: Option<SharedBytes>) -> Result<Entry, DamagedData> {
    let data = data.unwrap_or_default();
    let amount = amount.unwrap_or_default();
    let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
    Ok(match kind {
        CHUNK => Entry::Chunk(data),
        STDOUT => Entry::Log { stream: Stream::Stdout, line: text(&data).into() },
        STDERR => Entry::Log { stream: Stream::Stderr, line: text(&data).into() },
        LOG_DROPPED => Entry::LogDropped { lines: amount as u64 },
        PROGRESS => Entry::Progress { fraction: amount as f32, note: text(&data) },
        other => return Err(DamagedData::invalid("kind of entry", &other.to_string())),
    })
}
