//! Who runs: the rows in state 2, as the one writer of this file knows them without asking again.
//! The holders of each lane themselves, no count of them; read anew after a transaction that was undone.

use std::collections::HashMap;

use rusqlite::{Connection, Row};
use wharf_core::ids::JobId;
use wharf_core::job::Standing;

use super::rows::{self, job_id};

/// A lane as the database names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LaneRow {
    pub(super) group: i64,
    pub(super) key: String,
}

/// The part of a job's row that events change, and what decides what else they change.
#[derive(Clone, Debug)]
pub(super) struct Hot {
    pub(super) standing: Standing,
    /// As it is written: a delayed job that is due stays delayed until a claim makes it ready.
    pub(super) state: i64,
    pub(super) lane: LaneRow,
    pub(super) task: i64,
    pub(super) line: Option<i64>,
    pub(super) priority: i32,
}

impl Hot {
    /// From a row whose columns, beginning at `first`, are those of `STANDING`, then grp, key, task, line, priority.
    pub(super) fn of(id: JobId, row: &Row<'_>, first: usize) -> rusqlite::Result<Hot> {
        Ok(Hot {
            standing: rows::standing(id, row, first)?,
            state: row.get(first)?,
            lane: LaneRow { group: row.get(first + 8)?, key: row.get(first + 9)? },
            task: row.get(first + 10)?,
            line: row.get(first + 11)?,
            priority: row.get(first + 12)?,
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Running {
    jobs: HashMap<JobId, Hot>,
    lanes: HashMap<LaneRow, Held>,
}

/// A lane of which jobs run.
#[derive(Debug, Default)]
struct Held {
    jobs: Vec<JobId>,
    /// A claim may have closed it since it runs jobs.
    closed: bool,
}

impl Running {
    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Running> {
        let mut find = conn.prepare_cached(
            "SELECT id, state, due, attempt, failures, crashes, cancel_asked, node, lease_until, grp, key, task, line,
                    priority
             FROM jobs INDEXED BY jobs_running WHERE state = 2",
        )?;
        let rows = find.query_map([], |row| {
            let id = job_id(row.get(0)?)?;
            Ok((id, Hot::of(id, row, 1)?))
        })?;
        let mut running = Running::default();
        for row in rows {
            let (job, hot) = row?;
            running.put(job, hot);
        }
        for held in running.lanes.values_mut() {
            held.closed = true;
        }
        Ok(running)
    }

    pub(super) fn get(&self, job: JobId) -> Option<&Hot> {
        self.jobs.get(&job)
    }

    /// How many jobs of the lane run.
    pub(super) fn count(&self, lane: &LaneRow) -> u32 {
        self.lanes.get(lane).map_or(0, |held| held.jobs.len() as u32)
    }

    /// The job runs, and stands like this.
    pub(super) fn put(&mut self, job: JobId, hot: Hot) {
        let lane = hot.lane.clone();
        if self.jobs.insert(job, hot).is_none() {
            self.lanes.entry(lane).or_default().jobs.push(job);
        }
    }

    /// The job runs no more. Answers whether its lane may be closed.
    pub(super) fn remove(&mut self, job: JobId) -> bool {
        let Some(hot) = self.jobs.remove(&job) else { return true };
        let Some(held) = self.lanes.get_mut(&hot.lane) else { return true };
        if let Some(place) = held.jobs.iter().position(|held| *held == job) {
            held.jobs.swap_remove(place);
        }
        let closed = held.closed;
        if held.jobs.is_empty() {
            self.lanes.remove(&hot.lane);
        }
        closed
    }

    /// A claim left the lane closed. Where nothing of it runs, no end of an attempt will open it.
    pub(super) fn close(&mut self, lane: &LaneRow) {
        if let Some(held) = self.lanes.get_mut(lane) {
            held.closed = true;
        }
    }

    pub(super) fn open(&mut self, lane: &LaneRow) {
        if let Some(held) = self.lanes.get_mut(lane) {
            held.closed = false;
        }
    }
}
