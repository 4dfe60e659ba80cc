//! New jobs: the check of their idempotency tokens, and their effect on other jobs of their lane.

use rusqlite::{OptionalExtension, params};
use wharf_core::bounds;
use wharf_core::conflict::{ConflictDecision, LaneCounts, make_room, resolve};
use wharf_core::ids::JobId;
use wharf_core::job::{JobStatus, NewJob};
use wharf_core::lifecycle::Event;
use wharf_core::limits::OnConflict;
use wharf_core::time::Timestamp;

use super::lanes::LaneNo;
use super::large_values::PAYLOADS;
use super::ledger::SqliteLedger;
use super::row_padding;
use super::rows::INLINE_BYTES_MAX;
use crate::columns::{DamagedData, READY, job_id, key_text, signed, state_number, timestamp_us};
use crate::store::Inserted;

impl SqliteLedger<'_> {
    /// Inserts a job whose ID was handed out before. If it is not enqueued, a cancelled job that says why is inserted under
    /// this ID.
    pub(super) fn insert_child(&mut self, new: &NewJob, now: Timestamp) -> rusqlite::Result<Inserted> {
        let inserted = self.insert(new, now)?;
        // A child that is written twice exists already.
        if let Some((placeholder, end)) = inserted.placeholder(new)
            && !self.exists(new.id)?
            && let Inserted::Added { .. } = self.insert(&placeholder, now)?
        {
            self.apply_own(new.id, &end, now)?;
        }
        Ok(inserted)
    }

    /// Applies an event of the store itself.
    fn apply_own(&mut self, id: JobId, event: &Event, now: Timestamp) -> rusqlite::Result<()> {
        self.apply(id, event, now)?.map_err(|refusal| DamagedData::refused(id, refusal))?;
        Ok(())
    }

    fn exists(&self, id: JobId) -> rusqlite::Result<bool> {
        let mut find = self.conn.prepare_cached("SELECT 1 FROM jobs WHERE id = ?1")?;
        find.exists([signed(id.number())])
    }

    /// Inserts a job, unless one with its token exists or its lane is full and its task discards it then. Jobs that it replaces
    /// are cancelled.
    pub(super) fn insert(&mut self, new: &NewJob, now: Timestamp) -> rusqlite::Result<Inserted> {
        let task = self.names.number(self.conn, new.task.as_str())?;
        let group = self.names.number(self.conn, new.lane.group.as_str())?;
        let lane = self.lanes.find_or_add(&new.lane);
        let lane_columns = (group, key_text(new.lane.key.as_ref()));
        if let Some(token) = &new.token {
            let mut find =
                self.conn.prepare_cached("SELECT id FROM jobs WHERE token = ?1 AND task = ?2 AND key = ?3")?;
            let known: Option<i64> =
                find.query_row(params![token.as_str(), task, lane_columns.1], |row| row.get(0)).optional()?;
            if let Some(known) = known {
                return Ok(Inserted::Duplicate { id: job_id(known)? });
            }
        }
        let (mut replaced, mut cancel_requested) = (Vec::new(), Vec::new());
        if new.on_conflict != OnConflict::Wait {
            let per_key = self.limits()?.per_key(&new.lane);
            match resolve(new.on_conflict, self.lane_counts(lane, lane_columns, per_key.unwrap_or(0))?, per_key) {
                ConflictDecision::Enqueue => {}
                ConflictDecision::Discard => {
                    return Ok(Inserted::Discarded { holders: self.slot_holders(lane, lane_columns)? });
                }
                ConflictDecision::Replace { cancel_running } => {
                    replaced = self.waiting(lane, lane_columns)?;
                    cancel_requested = self.oldest_staying(lane, cancel_running);
                }
            }
        }
        for (id, event) in make_room(&replaced, &cancel_requested) {
            self.apply_own(id, &event, now)?;
        }

        let due = new.due_at(now);
        let state = state_number(&JobStatus::new(due).state, now);
        let is_inline = new.payload.len() <= INLINE_BYTES_MAX;
        let token = new.token.as_ref().map(|token| token.as_str());
        let batch = new.batch.as_ref().map(|batch| signed(batch.id.number()));
        let topic = new.batch.as_ref().map(|batch| batch.topic.as_str());
        let tick = new.tick.as_ref().map(ToString::to_string);
        let (due_at, enqueued_at) = (timestamp_us(due), timestamp_us(now));
        let (priority, payload_bytes) = (new.priority, new.payload.len() as i64);
        let payload = (is_inline && !new.payload.is_empty()).then_some(&*new.payload);
        let key = key_text(new.lane.key.as_ref());
        let parent = new.lineage.parent.map(|parent| signed(parent.number()));
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
                due_at,
                enqueued_at,
                token,
                batch,
                topic,
                payload_bytes,
                payload,
                row_padding::BYTES,
                parent,
                new.lineage.generation,
                tick
            ];
            if self.statements.insert_job.prepared()?.execute(row)? > 0 {
                break id;
            }
            // Another job has this ID.
            job = self.next_id();
        };
        if state == READY {
            self.add_ready((lane, task, priority), due_at, id)?;
        }
        self.waiting.add(task, 1);
        if !is_inline {
            PAYLOADS.insert(self.conn, id, &new.payload)?;
        }
        Ok(Inserted::Added { id: job, replaced, cancel_requested })
    }

    /// Counts the unfinished jobs of a lane; delayed ones up to `delayed_max`.
    fn lane_counts(&self, lane: LaneNo, (group, key): (i64, &str), delayed_max: u32) -> rusqlite::Result<LaneCounts> {
        let holders = self.lanes.holders(lane);
        let leaving = holders.iter().filter(|id| !self.stays(**id)).count();
        let ready: u64 = self.lanes.lines(lane).map(|line| line.count).sum();
        let mut delayed = self.conn.prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 0 AND limit_group = ?1 AND key = ?2 LIMIT ?3)",
        )?;
        let delayed: u32 = delayed.query_row(params![group, key, delayed_max], |row| row.get(0))?;
        let waiting = u32::try_from(ready).unwrap_or(u32::MAX).saturating_add(delayed);
        Ok(LaneCounts { running: holders.len() as u32, leaving: leaving as u32, waiting })
    }

    /// Returns true if the job runs and its cancellation was not requested.
    fn stays(&self, id: JobId) -> bool {
        self.lanes.running(id).is_some_and(|job| !job.status.cancel_requested)
    }

    /// Returns the oldest `max` running jobs of a lane whose cancellation was not requested.
    fn oldest_staying(&self, lane: LaneNo, max: u32) -> Vec<JobId> {
        let mut staying: Vec<JobId> = self.lanes.holders(lane).iter().copied().filter(|id| self.stays(*id)).collect();
        staying.sort_unstable();
        staying.truncate(max as usize);
        staying
    }

    /// Returns the waiting jobs of a lane, due or not, by ID.
    fn waiting(&self, lane: LaneNo, (group, key): (i64, &str)) -> rusqlite::Result<Vec<JobId>> {
        let mut ids = Vec::new();
        for line in self.lanes.lines(lane) {
            let mut find = self.conn.prepare_cached("SELECT id FROM ready WHERE line = ?1")?;
            for id in find.query_map([line.number], |row| Ok(job_id(row.get(0)?)?))? {
                ids.push(id?);
            }
        }
        let mut find =
            self.conn.prepare_cached("SELECT id FROM jobs WHERE state = 0 AND limit_group = ?1 AND key = ?2")?;
        for id in find.query_map(params![group, key], |row| Ok(job_id(row.get(0)?)?))? {
            ids.push(id?);
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Returns the first `HOLDERS_NAMED` jobs that keep a new one out of a lane: the running ones, then the waiting ones.
    fn slot_holders(&self, lane: LaneNo, lane_columns: (i64, &str)) -> rusqlite::Result<Vec<JobId>> {
        let mut holders = self.lanes.holders(lane).to_vec();
        holders.sort_unstable();
        if holders.len() < bounds::HOLDERS_NAMED {
            holders.extend(self.waiting(lane, lane_columns)?);
        }
        holders.truncate(bounds::HOLDERS_NAMED);
        Ok(holders)
    }
}
