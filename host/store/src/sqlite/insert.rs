//! New jobs, and what they do to the others of their lane.

use rusqlite::{OptionalExtension, params};
use wharf_core::ids::JobId;
use wharf_core::job::{NewJob, Standing};
use wharf_core::lifecycle::Event;
use wharf_core::limits::OnConflict;
use wharf_core::time::Timestamp;

use super::ledger::Ledger;
use super::rows::{READY, job_id, micros, signed, state_number};
use super::running::LaneRow;
use crate::conflict::{Crowd, HOLDERS_NAMED, Verdict, resolve};
use crate::store::Inserted;

impl Ledger {
    pub(super) fn insert(&mut self, new: &NewJob, now: Timestamp) -> rusqlite::Result<Inserted> {
        let task = self.names.number(&self.conn, new.task.as_str())?;
        let lane = self.lane_row(&new.lane)?;
        if let Some(token) = &new.token {
            let mut find = self.conn.prepare_cached("SELECT id FROM jobs WHERE token = ?1 AND task = ?2")?;
            let known: Option<i64> = find.query_row(params![token.as_str(), task], |row| row.get(0)).optional()?;
            if let Some(known) = known {
                return Ok(Inserted::Known { id: job_id(known)? });
            }
        }
        let (mut replaced, mut cancel_asked) = (Vec::new(), Vec::new());
        if new.on_conflict != OnConflict::Wait {
            if self.exists(new.id)? {
                return Ok(Inserted::Known { id: new.id });
            }
            let per_key = self.limits()?.per_key(&new.lane);
            match resolve(new.on_conflict, self.crowd(&lane, per_key.unwrap_or(0))?, per_key) {
                Verdict::Take => {}
                Verdict::Discard => return Ok(Inserted::Discarded { holders: self.slot_holders(&lane)? }),
                Verdict::TakeInstead { ask } => {
                    replaced = self.waiting(&lane)?;
                    cancel_asked = self.staying(&lane, ask)?;
                }
            }
        }
        for id in &replaced {
            self.apply(*id, &Event::Replaced, now)?.map_err(|refusal| unlawful(*id, refusal))?;
        }
        for id in &cancel_asked {
            self.apply(*id, &Event::CancelAsked, now)?.map_err(|refusal| unlawful(*id, refusal))?;
        }

        let due = new.due.unwrap_or(now);
        let state = state_number(&Standing::new(due).state, now);
        let id = signed(new.id.number());
        let line = if state == READY { Some(self.join_line(&lane, task, new.priority)?) } else { None };
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO jobs (id, state, grp, key, task, line, priority, due, enqueued_at, token, batch, topic,
                 bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT (id) DO NOTHING",
        )?;
        let token = new.token.as_ref().map(|token| token.as_str());
        let batch = new.batch.as_ref().map(|batch| signed(batch.id.number()));
        let topic = new.batch.as_ref().map(|batch| batch.topic.as_str());
        let (due, now) = (micros(due), micros(now));
        let (priority, bytes) = (new.priority, new.payload.len() as i64);
        let row = params![id, state, lane.group, lane.key, task, line, priority, due, now, token, batch, topic, bytes];
        if insert.execute(row)? == 0 {
            // The line may have been made for nobody.
            drop(insert);
            line.map_or(Ok(()), |line| self.settle_line(line))?;
            return Ok(Inserted::Known { id: new.id });
        }
        drop(insert);
        if !new.payload.is_empty() {
            let mut keep = self.conn.prepare_cached("INSERT INTO payloads (job, payload) VALUES (?1, ?2)")?;
            keep.execute(params![id, &*new.payload])?;
        }
        Ok(Inserted::Added { id: new.id, replaced, cancel_asked })
    }

    fn exists(&self, id: JobId) -> rusqlite::Result<bool> {
        self.conn.prepare_cached("SELECT 1 FROM jobs WHERE id = ?1")?.exists([signed(id.number())])
    }

    fn crowd(&self, lane: &LaneRow, most_waiting: u32) -> rusqlite::Result<Crowd> {
        let running: (u32, u32) = self
            .conn
            .prepare_cached(
                "SELECT count(*), coalesce(sum(cancel_asked), 0) FROM jobs WHERE state = 2 AND grp = ?1 AND key = ?2",
            )?
            .query_row(params![lane.group, lane.key], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let waiting = self
            .conn
            .prepare_cached(
                "SELECT (SELECT count(*) FROM (SELECT 1 FROM lines CROSS JOIN jobs ON state = 1 AND line = lines.id
                                              WHERE lines.grp = ?1 AND lines.key = ?2 LIMIT ?3))
                      + (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 0 AND grp = ?1 AND key = ?2 LIMIT ?3))",
            )?
            .query_row(params![lane.group, lane.key, most_waiting], |row| row.get(0))?;
        Ok(Crowd { running: running.0, leaving: running.1, waiting })
    }

    /// Running jobs that nobody asked to end yet, the oldest first.
    fn staying(&self, lane: &LaneRow, most: u32) -> rusqlite::Result<Vec<JobId>> {
        let mut find = self.conn.prepare_cached(
            "SELECT id FROM jobs WHERE state = 2 AND grp = ?1 AND key = ?2 AND cancel_asked = 0 ORDER BY id LIMIT ?3",
        )?;
        let found = find.query_map(params![lane.group, lane.key, most], |row| job_id(row.get(0)?))?;
        found.collect()
    }

    /// Waiting jobs, due or not, by id.
    fn waiting(&self, lane: &LaneRow) -> rusqlite::Result<Vec<JobId>> {
        let mut find = self.conn.prepare_cached(
            "SELECT jobs.id AS id FROM lines CROSS JOIN jobs ON state = 1 AND line = lines.id
             WHERE lines.grp = ?1 AND lines.key = ?2
             UNION ALL SELECT id FROM jobs WHERE state = 0 AND grp = ?1 AND key = ?2 ORDER BY id",
        )?;
        let found = find.query_map(params![lane.group, lane.key], |row| job_id(row.get(0)?))?;
        found.collect()
    }

    /// Who keeps a new job out: the running ones, then the waiting ones.
    fn slot_holders(&self, lane: &LaneRow) -> rusqlite::Result<Vec<JobId>> {
        let mut find = self
            .conn
            .prepare_cached("SELECT id FROM jobs WHERE state = 2 AND grp = ?1 AND key = ?2 ORDER BY id LIMIT ?3")?;
        let found = find.query_map(params![lane.group, lane.key, HOLDERS_NAMED as i64], |row| job_id(row.get(0)?))?;
        let mut holders = found.collect::<rusqlite::Result<Vec<JobId>>>()?;
        if holders.len() < HOLDERS_NAMED {
            holders.extend(self.waiting(lane)?.into_iter().take(HOLDERS_NAMED - holders.len()));
        }
        Ok(holders)
    }
}

/// The queue's own wish was refused: the row is not what the question said it was.
fn unlawful(id: JobId, refusal: wharf_core::lifecycle::Refusal) -> rusqlite::Error {
    super::rows::damaged("a job in two states", &format!("{id}: {refusal}"))
}
