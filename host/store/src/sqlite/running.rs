//! Who runs, by lane: the rows in state 2, as the one writer of this file knows them without asking again.
//! The holders themselves, no count of them; read anew after a transaction that was undone.

use std::collections::HashMap;

use rusqlite::Connection;

use super::ledger::LaneRow;

#[derive(Debug, Default)]
pub(super) struct Running(HashMap<LaneRow, Held>);

/// A lane of which jobs run.
#[derive(Debug)]
struct Held {
    jobs: Vec<i64>,
    /// A claim may have closed it since it runs jobs.
    closed: bool,
}

impl Running {
    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Running> {
        let mut find = conn.prepare_cached("SELECT id, grp, key FROM jobs INDEXED BY jobs_running WHERE state = 2")?;
        let rows = find.query_map([], |row| Ok((row.get(0)?, LaneRow { group: row.get(1)?, key: row.get(2)? })))?;
        let mut running = Running::default();
        for row in rows {
            let (job, lane) = row?;
            running.add(lane, job);
        }
        for held in running.0.values_mut() {
            held.closed = true;
        }
        Ok(running)
    }

    /// How many jobs of the lane run.
    pub(super) fn count(&self, lane: &LaneRow) -> u32 {
        self.0.get(lane).map_or(0, |held| held.jobs.len() as u32)
    }

    pub(super) fn add(&mut self, lane: LaneRow, job: i64) {
        self.0.entry(lane).or_insert(Held { jobs: Vec::new(), closed: false }).jobs.push(job);
    }

    /// The job runs no more. Answers whether its lane may be closed.
    pub(super) fn remove(&mut self, lane: &LaneRow, job: i64) -> bool {
        let Some(held) = self.0.get_mut(lane) else { return true };
        if let Some(place) = held.jobs.iter().position(|held| *held == job) {
            held.jobs.swap_remove(place);
        }
        let closed = held.closed;
        if held.jobs.is_empty() {
            self.0.remove(lane);
        }
        closed
    }

    /// A claim left the lane closed. Where nothing of it runs, no end of an attempt will open it.
    pub(super) fn close(&mut self, lane: &LaneRow) {
        if let Some(held) = self.0.get_mut(lane) {
            held.closed = true;
        }
    }

    pub(super) fn open(&mut self, lane: &LaneRow) {
        if let Some(held) = self.0.get_mut(lane) {
            held.closed = false;
        }
    }
}
