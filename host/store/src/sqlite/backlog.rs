//! What waits, by task: a bounded look at the lines of ready jobs and at the delayed ones.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Row};
use wharf_core::backlog::Backlog;
use wharf_core::bounds;
use wharf_core::find::{WaitKind, WaitView};
use wharf_core::hold::HoldScope;
use wharf_core::ids::TaskName;
use wharf_core::key::Lane;
use wharf_core::limits::LimitTable;
use wharf_core::line_walk::{LineWalk, SeenLine};
use wharf_core::time::Timestamp;

use super::find::wait_view;
use super::hold_rows;
use super::read::ahead_of_rows;
use super::rows::InternedNames;
use super::unsynced_claims::{self, UnsyncedClaims};
use crate::columns::{key, timestamp};

/// Counts what waits and runs. `waiting` are the numbers of waiting jobs of each task, as the writer knows them.
pub(super) fn backlog(
    conn: &Connection,
    claims: &Mutex<UnsyncedClaims>,
    waiting: Vec<(i64, u64)>,
    walk: &Mutex<LineWalk>,
    (declared, now, time): (&LimitTable, Timestamp, Duration),
) -> rusqlite::Result<Backlog> {
    let started = Instant::now();
    let before = walk.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let claims = unsynced_claims::lock(claims).all();
    let snapshot = conn.unchecked_transaction()?;
    let ahead = ahead_of_rows(&snapshot, claims)?;
    let view = wait_view(&snapshot, &ahead, declared, now)?;
    let mut counts = Counts {
        conn: &snapshot,
        names: InternedNames::default(),
        backlog: Backlog::of_running(&view),
        view,
        looked_at: BTreeSet::new(),
        seen: Vec::new(),
    };
    for (task, jobs) in waiting {
        let task = counts.task(task)?;
        counts.backlog.task(&task).waiting = jobs;
    }
    for claim in ahead.values() {
        let task = counts.task(claim.task)?;
        counts.backlog.task(&task).running += 1;
    }
    counts.count_running()?;
    counts.count_delayed()?;
    for line in before.first() {
        counts.count_first_line((line.saturating_sub(1), line), before.share_of_first(bounds::COUNTED_MAX))?;
    }
    let cut_at = counts.count_lines_in_order(&before, || started.elapsed() >= time)?;
    *walk.lock().unwrap_or_else(PoisonError::into_inner) = before.after(cut_at, counts.seen);
    Ok(counts.backlog)
}

struct Counts<'s> {
    conn: &'s Connection,
    names: InternedNames,
    view: WaitView,
    backlog: Backlog,
    /// The lines that were counted.
    looked_at: BTreeSet<i64>,
    /// Those of them that have jobs whose age is shown.
    seen: Vec<SeenLine>,
}

impl Counts<'_> {
    fn task(&mut self, number: i64) -> rusqlite::Result<TaskName> {
        self.names.task(self.conn, number)
    }

    /// Counts the running jobs whose rows say that they run.
    fn count_running(&mut self) -> rusqlite::Result<()> {
        let conn = self.conn;
        let mut find = conn
            .prepare_cached("SELECT task, count(*) FROM jobs INDEXED BY jobs_running WHERE state = 2 GROUP BY task")?;
        let mut rows = find.query([])?;
        while let Some(row) = rows.next()? {
            let task = self.names.task(self.conn, row.get(0)?)?;
            self.backlog.task(&task).running += row.get::<_, i64>(1)? as u64;
        }
        Ok(())
    }

    /// Counts the jobs that are not due, those that are due first at first. Some are due and not noticed yet.
    fn count_delayed(&mut self) -> rusqlite::Result<()> {
        let conn = self.conn;
        let mut find = conn.prepare_cached(
            "SELECT task, limit_group, key, due_at, attempt FROM jobs INDEXED BY jobs_delayed WHERE state = 0
             ORDER BY due_at LIMIT ?1",
        )?;
        let mut rows = find.query([bounds::BACKLOG_ROWS])?;
        while let Some(row) = rows.next()? {
            let task = self.names.task(self.conn, row.get(0)?)?;
            let due = timestamp(row.get(3)?);
            if due > self.view.now {
                self.backlog.add_delayed(&task, row.get(4)?);
            } else {
                let lane = self.lane(row, 1)?;
                self.add_due(&task, &lane, 1, due)?;
            }
        }
        Ok(())
    }

    /// Counts the lines behind the last look, and then those before, until `is_over`. Returns the last line if there may be more.
    fn count_lines_in_order(&mut self, walk: &LineWalk, is_over: impl Fn() -> bool) -> rusqlite::Result<Option<i64>> {
        for (mut last, to) in [(walk.behind(), i64::MAX), (i64::MIN, walk.behind())] {
            while let Some(line) = self.count_first_line((last, to), bounds::COUNTED_MAX)? {
                last = line;
                if is_over() {
                    return Ok(Some(line));
                }
            }
        }
        Ok(None)
    }

    /// Counts the ready jobs, up to `max`, of the first line behind one and up to another, unless they are counted. Returns the number of
    /// the line; `None` if there is none.
    fn count_first_line(&mut self, (behind, to): (i64, i64), max: u32) -> rusqlite::Result<Option<i64>> {
        let conn = self.conn;
        // `CROSS JOIN`: the first row of the line is read, and then its job.
        let mut find = conn.prepare_cached(
            "SELECT ready.line, jobs.task, jobs.limit_group, jobs.key FROM ready CROSS JOIN jobs ON jobs.id = ready.id
             WHERE ready.line > ?1 AND ready.line <= ?2 ORDER BY ready.line LIMIT 1",
        )?;
        let first = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, self.lane(row, 2)?));
        let Some((line, task, lane)) = find.query_row([behind, to], first).optional()? else { return Ok(None) };
        if !self.looked_at.insert(line) {
            return Ok(Some(line));
        }
        let mut count = conn
            .prepare_cached("SELECT count(*), min(due_at) FROM (SELECT due_at FROM ready WHERE line = ?1 LIMIT ?2)")?;
        let (jobs, oldest): (i64, i64) = count.query_row([line, max.into()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (task, oldest) = (self.task(task)?, timestamp(oldest));
        if let Some(kind) = self.add_due(&task, &lane, jobs as u64, oldest)? {
            self.seen.push(SeenLine { line, task, kind, oldest });
        }
        Ok(Some(line))
    }

    fn lane(&mut self, row: &Row<'_>, first: usize) -> rusqlite::Result<Lane> {
        let group = self.names.group(self.conn, row.get(first)?)?;
        Ok(Lane { group, key: key(row.get_ref(first + 1)?.as_str()?)? })
    }

    fn add_due(
        &mut self,
        task: &TaskName,
        lane: &Lane,
        jobs: u64,
        oldest: Timestamp,
    ) -> rusqlite::Result<Option<WaitKind>> {
        let holds = hold_rows::of_scopes(self.conn, &HoldScope::of_job(task, lane), self.view.now)?;
        holds.into_iter().for_each(|hold| self.view.holds.set(hold));
        Ok(self.backlog.add_due(&self.view, (task, lane), jobs, oldest))
    }
}
