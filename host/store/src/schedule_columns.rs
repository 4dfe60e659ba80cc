//! How schedules are written as columns, and read back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use wharf_core::ids::{JobId, ScheduleId};
use wharf_core::schedule::{Pause, Schedule, ScheduleSpec, TickRecord, Timing};

use crate::columns::{DamagedData, duration_us, key, key_text, parse, signed, timestamp, timestamp_us, unsigned};

/// The columns of a schedule, in the order of [`ScheduleColumns`].
pub(crate) const SCHEDULE_COLUMNS: &str = "id, task, key, payload, priority, cron, zone, every_us, missed, window_us, overlap,
    spread_us, pause_after, source, revision, version, author, created_at, changed_at, moved_at, next_at, last_tick, open_jobs,
    failures, paused_at, paused_until, paused_by, pause_reason, retired_at, fired_count, missed_count, skipped_count, recent,
    tick_as";

/// The columns of a schedule.
#[derive(Debug)]
pub(crate) struct ScheduleColumns {
    pub(crate) id: String,
    pub(crate) task: String,
    pub(crate) key: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) priority: i32,
    /// The expression and its zone; both are null for an interval.
    pub(crate) cron: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) every_us: Option<i64>,
    pub(crate) missed: String,
    pub(crate) window_us: i64,
    pub(crate) overlap: String,
    pub(crate) spread_us: i64,
    pub(crate) pause_after: Option<i64>,
    pub(crate) source: String,
    pub(crate) revision: i64,
    pub(crate) version: i64,
    pub(crate) author: Option<String>,
    pub(crate) created_at: i64,
    pub(crate) changed_at: i64,
    pub(crate) moved_at: i64,
    pub(crate) next_at: Option<i64>,
    pub(crate) last_tick: Option<i64>,
    /// IDs with spaces between them.
    pub(crate) open_jobs: String,
    pub(crate) failures: i64,
    /// This and the next three columns are the pause.
    pub(crate) paused_at: Option<i64>,
    pub(crate) paused_until: Option<i64>,
    pub(crate) paused_by: Option<String>,
    pub(crate) pause_reason: Option<String>,
    pub(crate) retired_at: Option<i64>,
    pub(crate) fired_count: i64,
    pub(crate) missed_count: i64,
    pub(crate) skipped_count: i64,
    /// One line for each tick: its moment, the number of ticks, what became of it, its job, the reason.
    pub(crate) recent: String,
    pub(crate) tick_as: Option<String>,
}

impl From<&Schedule> for ScheduleColumns {
    fn from(schedule: &Schedule) -> ScheduleColumns {
        let (spec, pause) = (&schedule.spec, schedule.pause.as_ref());
        let (cron, zone, every_us) = match &spec.timing {
            Timing::Cron { expression, zone } => (Some(expression.clone()), Some(zone.clone()), None),
            Timing::Every(interval) => (None, None, Some(duration_us(*interval))),
        };
        let open: Vec<String> = schedule.open.iter().map(JobId::to_string).collect();
        ScheduleColumns {
            id: schedule.id.to_string(),
            task: spec.task.to_string(),
            key: key_text(spec.key.as_ref()).to_owned(),
            payload: spec.payload.to_vec(),
            priority: spec.priority,
            cron,
            zone,
            every_us,
            missed: spec.missed.as_str().to_owned(),
            window_us: duration_us(spec.window),
            overlap: spec.overlap.as_str().to_owned(),
            spread_us: duration_us(spec.spread),
            pause_after: spec.pause_after.map(i64::from),
            source: schedule.source.as_str().to_owned(),
            revision: timestamp_us(schedule.revision),
            version: signed(schedule.version),
            author: schedule.author.clone(),
            created_at: timestamp_us(schedule.created_at),
            changed_at: timestamp_us(schedule.changed_at),
            moved_at: timestamp_us(schedule.moved_at),
            next_at: schedule.next_at.map(timestamp_us),
            last_tick: schedule.last_tick.map(timestamp_us),
            open_jobs: open.join(" "),
            failures: schedule.failures.into(),
            paused_at: pause.map(|pause| timestamp_us(pause.since)),
            paused_until: pause.and_then(|pause| pause.until).map(timestamp_us),
            paused_by: pause.and_then(|pause| pause.by.clone()),
            pause_reason: pause.map(|pause| pause.reason.clone()),
            retired_at: schedule.retired_at.map(timestamp_us),
            fired_count: signed(schedule.fired),
            missed_count: signed(schedule.missed),
            skipped_count: signed(schedule.skipped),
            recent: recent_text(&schedule.recent),
            tick_as: spec.tick_as.as_ref().map(ToString::to_string),
        }
    }
}

impl ScheduleColumns {
    /// Converts the columns to a schedule.
    ///
    /// # Errors
    /// If one of them has a value that is not valid.
    pub(crate) fn schedule(self) -> Result<Schedule, DamagedData> {
        let length = |us: i64| Duration::from_micros(unsigned(us));
        let timing = match (self.cron, self.zone, self.every_us) {
            (Some(expression), Some(zone), _) => Timing::Cron { expression, zone },
            (_, _, Some(interval)) => Timing::Every(length(interval)),
            _ => {
                return Err(DamagedData::inconsistent(format_args!(
                    "schedule {} has neither an expression nor an interval",
                    self.id
                )));
            }
        };
        let pause = self.paused_at.map(|since| Pause {
            since: timestamp(since),
            until: self.paused_until.map(timestamp),
            by: self.paused_by,
            reason: self.pause_reason.unwrap_or_default(),
        });
        let spec = ScheduleSpec {
            task: parse("task", &self.task)?,
            payload: self.payload.into(),
            key: key(&self.key)?,
            priority: self.priority,
            timing,
            missed: parse("policy for missed ticks", &self.missed)?,
            window: length(self.window_us),
            overlap: parse("policy for overlaps", &self.overlap)?,
            spread: length(self.spread_us),
            pause_after: self.pause_after.map(|after| after as u32),
            tick_as: self.tick_as.map(|path| parse("JSON pointer", &path)).transpose()?,
        };
        Ok(Schedule {
            id: parse("schedule ID", &self.id)?,
            spec,
            source: parse("source of a schedule", &self.source)?,
            revision: timestamp(self.revision),
            version: unsigned(self.version),
            author: self.author,
            created_at: timestamp(self.created_at),
            changed_at: timestamp(self.changed_at),
            moved_at: timestamp(self.moved_at),
            next_at: self.next_at.map(timestamp),
            last_tick: self.last_tick.map(timestamp),
            open: self.open_jobs.split_whitespace().map(|id| parse("job ID", id)).collect::<Result<_, _>>()?,
            failures: self.failures as u32,
            pause,
            retired_at: self.retired_at.map(timestamp),
            fired: unsigned(self.fired_count),
            missed: unsigned(self.missed_count),
            skipped: unsigned(self.skipped_count),
            recent: self.recent.lines().map(record).collect::<Result<_, _>>()?,
        })
    }
}

fn recent_text(records: &[TickRecord]) -> String {
    let mut text = String::new();
    for TickRecord { tick, count, outcome, job, reason } in records {
        let job = job.map_or_else(|| "-".to_owned(), |job| job.to_string());
        let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} {count} {} {job} {reason}", timestamp_us(*tick), outcome.as_str());
    }
    text
}

fn record(line: &str) -> Result<TickRecord, DamagedData> {
    let damaged = || DamagedData::invalid("tick of a schedule", line);
    let mut parts = line.splitn(5, ' ');
    let mut part = || parts.next().ok_or_else(damaged);
    let (tick, count, outcome, job, reason) = (part()?, part()?, part()?, part()?, part()?);
    Ok(TickRecord {
        tick: timestamp(tick.parse().map_err(|_| damaged())?),
        count: count.parse().map_err(|_| damaged())?,
        outcome: parse("outcome of a tick", outcome)?,
        job: if job == "-" { None } else { Some(parse("job ID", job)?) },
        reason: reason.to_owned(),
    })
}

/// Returns the column of the schedules in a node's file: one line for each, its ID and the digest of its definition.
pub(crate) fn file_text(file: &BTreeMap<ScheduleId, u64>) -> String {
    let mut text = String::new();
    for (id, digest) in file {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{id} {digest:016x}");
    }
    text
}

/// Reads what [`file_text`] wrote.
///
/// # Errors
/// If the text is not one that it writes.
pub(crate) fn file(text: &str) -> Result<BTreeMap<ScheduleId, u64>, DamagedData> {
    let damaged = |line: &str| DamagedData::invalid("schedule of a node's file", line);
    let line = |line: &str| {
        let (id, digest) = line.split_once(' ').ok_or_else(|| damaged(line))?;
        Ok((parse("schedule ID", id)?, u64::from_str_radix(digest, 16).map_err(|_| damaged(line))?))
    };
    text.lines().map(line).collect()
}
