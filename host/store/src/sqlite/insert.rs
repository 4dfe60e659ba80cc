//! New jobs, and what they do to the others of their lane.

use rusqlite::{OptionalExtension, params};
use wharf_core::bounds;
use wharf_core::conflict::{ConflictDecision, LaneCounts, placeholder, resolve};
use wharf_core::ids::JobId;
use wharf_core::job::{JobStatus, NewJob};
use wharf_core::lifecycle::Event;
use wharf_core::limits::OnConflict;
use wharf_core::time::Timestamp;

use super::lanes::LaneNo;
use super::ledger::Ledger;
use super::row_padding;
use super::rows::{READY, SMALL_BYTES_MAX, job_id, key_text, micros, signed, state_number};
use crate::store::Inserted;

impl Ledger<'_> {
    /// Adds a job whose id was given out before: where it is not taken, it stands under this id and says so.
    pub(super) fn insert_child(&mut self, new: &NewJob, now: Timestamp) -> rusqlite::Result<Inserted> {
        let inserted = self.insert(new, now)?;
        // One that is written twice stands there already.
        if let Some(why) = inserted.not_enqueued(new.id)
            && !self.stands(new.id)?
            && let Inserted::Added { .. } = self.insert(&placeholder(new), now)?
        {
            self.apply(new.id, &Event::NotEnqueued(why), now)?.map_err(|refusal| unlawful(new.id, refusal))?;
        }
        Ok(inserted)
    }

    fn stands(&self, id: JobId) -> rusqlite::Result<bool> {
        let mut find = self.conn.prepare_cached("SELECT 1 FROM jobs WHERE id = ?1")?;
        find.exists([signed(id.number())])
    }

    pub(super) fn insert(&mut self, new: &NewJob, now: Timestamp) -> rusqlite::Result<Inserted> {
        let task = self.names.number(self.conn, new.task.as_str())?;
        let group = self.names.number(self.conn, new.lane.group.as_str())?;
        let lane = self.lanes.enter(&new.lane);
        let row = (group, key_text(&new.lane));
        if let Some(token) = &new.token {
            let mut find = self.conn.prepare_cached("SELECT id FROM jobs WHERE token = ?1 AND task = ?2")?;
            let known: Option<i64> = find.query_row(params![token.as_str(), task], |row| row.get(0)).optional()?;
            if let Some(known) = known {
                return Ok(Inserted::Duplicate { id: job_id(known)? });
            }
        }
        let (mut replaced, mut cancel_asked) = (Vec::new(), Vec::new());
        if new.on_conflict != OnConflict::Wait {
            let per_key = self.limits()?.per_key(&new.lane);
            match resolve(new.on_conflict, self.crowd(lane, row, per_key.unwrap_or(0))?, per_key) {
                ConflictDecision::Enqueue => {}
                ConflictDecision::Discard => return Ok(Inserted::Discarded { holders: self.slot_holders(lane, row)? }),
                ConflictDecision::Replace { cancel_running } => {
                    replaced = self.waiting(lane, row)?;
                    cancel_asked = self.staying(lane, cancel_running);
                }
            }
        }
        for id in &replaced {
            self.apply(*id, &Event::Replaced, now)?.map_err(|refusal| unlawful(*id, refusal))?;
        }
        for id in &cancel_asked {
            self.apply(*id, &Event::CancelAsked, now)?.map_err(|refusal| unlawful(*id, refusal))?;
        }

        let due = new.due.map_or(now, |due| due.from(now));
        let state = state_number(&JobStatus::new(due).state, now);
        let small = new.payload.len() <= SMALL_BYTES_MAX;
        let token = new.token.as_ref().map(|token| token.as_str());
        let batch = new.batch.as_ref().map(|batch| signed(batch.id.number()));
        let topic = new.batch.as_ref().map(|batch| batch.topic.as_str());
        let (due, now) = (micros(due), micros(now));
        let (priority, bytes) = (new.priority, new.payload.len() as i64);
        let payload = (small && !new.payload.is_empty()).then_some(&*new.payload);
        let key = key_text(&new.lane);
        let mut job = new.id;
        let id = loop {
            let id = signed(job.number());
            let row = params![
                id,
                state,
                group,
                key,
                task,
                priority,
                due,
                now,
                token,
                batch,
                topic,
                bytes,
                payload,
                row_padding::ALL
            ];
            if self.statements.insert_job.prepared()?.execute(row)? > 0 {
                break id;
            }
            // Another job has it.
            job = self.next_id();
        };
        if state == READY {
            self.add_ready((lane, task, priority), due, id)?;
        }
        if !small {
            let mut keep = self.conn.prepare_cached("INSERT INTO payloads (job, payload) VALUES (?1, ?2)")?;
            keep.execute(params![id, &*new.payload])?;
        }
        Ok(Inserted::Added { id: job, replaced, cancel_asked })
    }

    fn crowd(&self, lane: LaneNo, row: (i64, &str), most_waiting: u32) -> rusqlite::Result<LaneCounts> {
        let holders = self.lanes.holders(lane);
        let leaving = holders.iter().filter(|id| !self.stays(**id)).count();
        let ready: u64 = self.lanes.lines(lane).map(|line| line.count).sum();
        let mut delayed = self.conn.prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 0 AND grp = ?1 AND key = ?2 LIMIT ?3)",
        )?;
        let delayed: u32 = delayed.query_row(params![row.0, row.1, most_waiting], |row| row.get(0))?;
        let waiting = u32::try_from(ready).unwrap_or(u32::MAX).saturating_add(delayed);
        Ok(LaneCounts { running: holders.len() as u32, leaving: leaving as u32, waiting })
    }

    /// Whether nobody asked the running job to end yet.
    fn stays(&self, id: JobId) -> bool {
        self.lanes.running(id).is_some_and(|hot| !hot.standing.cancel_asked)
    }

    /// Running jobs that nobody asked to end yet, the oldest first.
    fn staying(&self, lane: LaneNo, max: u32) -> Vec<JobId> {
        let mut staying: Vec<JobId> = self.lanes.holders(lane).iter().copied().filter(|id| self.stays(*id)).collect();
        staying.sort_unstable();
        staying.truncate(max as usize);
        staying
    }

    /// Waiting jobs, due or not, by id.
    fn waiting(&self, lane: LaneNo, row: (i64, &str)) -> rusqlite::Result<Vec<JobId>> {
        let mut ids = Vec::new();
        for line in self.lanes.lines(lane) {
            let mut find = self.conn.prepare_cached("SELECT id FROM ready WHERE line = ?1")?;
            for id in find.query_map([line.number], |row| job_id(row.get(0)?))? {
                ids.push(id?);
            }
        }
        let mut find = self.conn.prepare_cached("SELECT id FROM jobs WHERE state = 0 AND grp = ?1 AND key = ?2")?;
        for id in find.query_map(params![row.0, row.1], |row| job_id(row.get(0)?))? {
            ids.push(id?);
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Who keeps a new job out: the running ones, then the waiting ones.
    fn slot_holders(&self, lane: LaneNo, row: (i64, &str)) -> rusqlite::Result<Vec<JobId>> {
        let mut holders = self.lanes.holders(lane).to_vec();
        holders.sort_unstable();
        if holders.len() < bounds::HOLDERS_NAMED {
            holders.extend(self.waiting(lane, row)?);
        }
        holders.truncate(bounds::HOLDERS_NAMED);
        Ok(holders)
    }
}

/// The queue's own wish was refused: the row is not what the question said it was.
fn unlawful(id: JobId, refusal: wharf_core::lifecycle::Refusal) -> rusqlite::Error {
    super::rows::damaged("a job in two states", &format!("{id}: {refusal}"))
}
