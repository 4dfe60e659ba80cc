//! New jobs: the check of their idempotency tokens, and their effect on other jobs of their lane.

use tokio_postgres::types::Type;
use tracing::warn;
use wharf_core::bounds;
use wharf_core::conflict::{ConflictDecision, LaneCounts, make_room, resolve};
use wharf_core::ids::JobId;
use wharf_core::job::{JobStatus, NewJob};
use wharf_core::lifecycle::Event;
use wharf_core::limits::OnConflict;

use super::job_row::{JobRow, TokenRow};
use super::lane_rows::LaneRow;
use super::ledger::PostgresLedger;
use super::rows::job_id;
use super::session::{SessionError, value};
use crate::columns::{self, DamagedData, READY, state_number};
use crate::store::Inserted;

/// The waiting jobs of a lane, due or not, sorted by id.
const WAITING: &str = "SELECT unnest(ids) AS id FROM $schema.lines JOIN $schema.ready ON ready.line = lines.id
                       WHERE lines.limit_group = $1 AND lines.key = $2
                       UNION ALL SELECT id FROM $schema.jobs WHERE delayed AND limit_group = $1 AND key = $2 ORDER BY id";

impl PostgresLedger<'_> {
    /// Adds a job whose id was given out before. If it is not accepted, a job with this id is added that is cancelled and
    /// reports the reason.
    pub(super) async fn insert_child(&mut self, new: &NewJob) -> Result<Inserted, SessionError> {
        let inserted = self.insert(new).await?;
        // A job that is written twice is already present.
        if let Some((placeholder, end)) = inserted.placeholder(new)
            && !self.jobs.contains_key(&new.id)
            && let Inserted::Added { .. } = self.insert(&placeholder).await?
        {
            self.apply_own(new.id, &end).await?;
        }
        Ok(inserted)
    }

    /// Applies an event of the store itself.
    async fn apply_own(&mut self, id: JobId, event: &Event) -> Result<(), SessionError> {
        self.apply(id, event).await?.map_err(|refusal| DamagedData::refused(id, refusal))?;
        Ok(())
    }

    /// Adds a job, under a new id if its own belongs to another job.
    pub(super) async fn insert(&mut self, new: &NewJob) -> Result<Inserted, SessionError> {
        let task = self.names.number(new.task.as_str())?;
        let lane = self.names.lane_row(&new.lane)?;
        let token = new.token.as_ref().map(|token| TokenRow::new(token, task, &new.lane));
        if let Some(id) = token.as_ref().and_then(|token| self.tokens.get(token)) {
            return Ok(Inserted::Duplicate { id: *id });
        }
        let mut id = new.id;
        while self.jobs.contains_key(&id) {
            id = self.source.next(self.now)?;
            warn!("a new job gets ID {id}: its own, {}, belongs to another job", new.id);
        }
        let (mut replaced, mut cancelled) = (Vec::new(), Vec::new());
        if new.on_conflict != OnConflict::Wait {
            // Earlier changes of this transaction count as well.
            self.flush().await?;
            let per_key = self.limits().per_key(&new.lane);
            match resolve(new.on_conflict, self.lane_counts(&lane, per_key.unwrap_or(0)).await?, per_key) {
                ConflictDecision::Enqueue => {}
                ConflictDecision::Discard => {
                    return Ok(Inserted::Discarded { holders: self.slot_holders(&lane).await? });
                }
                ConflictDecision::Replace { cancel_running } => {
                    replaced = self.waiting(&lane).await?;
                    cancelled = self.not_cancelled(&lane, cancel_running).await?;
                }
            }
        }
        self.load(&replaced).await?;
        self.load(&cancelled).await?;
        for (id, event) in make_room(&replaced, &cancelled) {
            self.apply_own(id, &event).await?;
        }

        let status = JobStatus::new(new.due_at(self.now));
        let state = state_number(&status.state, self.now);
        let line = if state == READY { Some(self.join_line(&lane, task, new.priority).await?) } else { None };
        let whole = Some(Box::new(NewJob { id, ..new.clone() }));
        let job = JobRow {
            status,
            state,
            lane,
            task,
            line,
            priority: new.priority,
            finished_at: None,
            fingerprint: None,
            requeued_at: None,
            retried_at: None,
            new: whole,
        };
        self.jobs.insert(id, job);
        self.tokens.extend(token.map(|token| (token, id)));
        self.writes.inserted.push(id);
        self.waiting.add(task, 1);
        if state == READY {
            self.writes.joined.insert(id);
        }
        Ok(Inserted::Added { id, replaced, cancel_requested: cancelled })
    }

    /// Counts the jobs of a lane; delayed jobs only up to `waiting_max`.
    async fn lane_counts(&self, lane: &LaneRow, waiting_max: u32) -> Result<LaneCounts, SessionError> {
        let running = self.running.of_lane(lane);
        let text = "SELECT (SELECT count(*) FROM $schema.jobs WHERE id = ANY($4) AND state = 2 AND cancel_requested),
                        (SELECT coalesce(sum(cardinality(ids)), 0) FROM $schema.lines JOIN $schema.ready ON ready.line = lines.id
                         WHERE lines.limit_group = $1 AND lines.key = $2)
                        + (SELECT count(*) FROM (
                            SELECT FROM $schema.jobs WHERE delayed AND limit_group = $1 AND key = $2 LIMIT $3) AS delayed)";
        let max = i64::from(waiting_max);
        let args = [
            (&lane.group as _, Type::INT4),
            (&lane.key as _, Type::TEXT),
            (&max as _, Type::INT8),
            (&running as _, Type::INT8_ARRAY),
        ];
        let row = self.session.query_one(text, &args).await?;
        let leaving = value::<i64>(&row, "jobs", 0)? as u32;
        let waiting = value::<i64>(&row, "ready", 1)? as u32;
        Ok(LaneCounts { running: running.len() as u32, leaving, waiting })
    }

    async fn waiting(&self, lane: &LaneRow) -> Result<Vec<JobId>, SessionError> {
        let args = [(&lane.group as _, Type::INT4), (&lane.key as _, Type::TEXT)];
        self.session.query(WAITING, &args).await?.iter().map(|row| job_id(row, "ready", 0)).collect()
    }

    /// Returns the first running jobs of a lane without a cancel request.
    async fn not_cancelled(&self, lane: &LaneRow, max: u32) -> Result<Vec<JobId>, SessionError> {
        let (running, max) = (self.running.of_lane(lane), i64::from(max));
        let text = "SELECT id FROM $schema.jobs WHERE id = ANY($1) AND state = 2 AND NOT cancel_requested ORDER BY id LIMIT $2";
        let args = [(&running as _, Type::INT8_ARRAY), (&max as _, Type::INT8)];
        self.session.query(text, &args).await?.iter().map(|row| job_id(row, "jobs", 0)).collect()
    }

    /// Returns the jobs that keep a new job out: the running ones, then the waiting ones.
    async fn slot_holders(&self, lane: &LaneRow) -> Result<Vec<JobId>, SessionError> {
        let running = self.running.of_lane(lane);
        let mut holders: Vec<JobId> =
            running.into_iter().take(bounds::HOLDERS_NAMED).map(columns::job_id).collect::<Result<_, _>>()?;
        if holders.len() < bounds::HOLDERS_NAMED {
            holders.extend(self.waiting(lane).await?.into_iter().take(bounds::HOLDERS_NAMED - holders.len()));
        }
        Ok(holders)
    }
}
