//! New jobs, and what they do to the others of their lane.

use tokio_postgres::types::Type;
use tracing::warn;
use wharf_core::bounds;
use wharf_core::conflict::{ConflictDecision, LaneCounts, placeholder, resolve};
use wharf_core::ids::JobId;
use wharf_core::job::{JobStatus, NewJob};
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::OnConflict;

use super::lane_rows::LaneRow;
use super::ledger::{JobRow, Ledger};
use super::rows::{READY, job_id, state_number};
use super::session::{SessionError, damaged};
use crate::store::Inserted;

/// The waiting jobs of a lane, due or not, by id.
const WAITING: &str = "SELECT unnest(ids) AS id FROM wharf.lines JOIN wharf.queued ON queued.line = lines.id
                       WHERE lines.grp = $1 AND lines.key = $2
                       UNION ALL SELECT id FROM wharf.jobs WHERE delayed AND grp = $1 AND key = $2 ORDER BY id";

impl Ledger<'_> {
    /// Adds a job whose id was given out before: where it is not taken, it stands under this id and says so.
    pub(super) async fn insert_child(&mut self, new: &NewJob) -> Result<Inserted, SessionError> {
        let inserted = self.insert(new).await?;
        // One that is written twice stands there already.
        if let Some(why) = inserted.not_enqueued(new.id)
            && !self.jobs.contains_key(&new.id)
            && let Inserted::Added { .. } = self.insert(&placeholder(new)).await?
        {
            let refused = self.change(new.id, &Event::NotEnqueued(why)).await?;
            refused.map_err(|refusal| unlawful(new.id, refusal))?;
        }
        Ok(inserted)
    }

    pub(super) async fn insert(&mut self, new: &NewJob) -> Result<Inserted, SessionError> {
        let task = self.names.number(new.task.as_str())?;
        let lane = self.names.lane_row(&new.lane)?;
        let token = new.token.as_ref().map(|token| (token.as_str().as_bytes().to_vec(), task));
        if let Some(id) = token.as_ref().and_then(|token| self.tokens.get(token)) {
            return Ok(Inserted::Duplicate { id: *id });
        }
        let mut id = new.id;
        while self.jobs.contains_key(&id) {
            id = self.source.next(self.now)?;
            warn!("a new job has id {id} in place of {}, which is another's", new.id);
        }
        let (mut replaced, mut cancel_asked) = (Vec::new(), Vec::new());
        if new.on_conflict != OnConflict::Wait {
            // What this transaction did so far counts as well.
            self.flush().await?;
            let per_key = self.limits().per_key(&new.lane);
            match resolve(new.on_conflict, self.crowd(&lane, per_key.unwrap_or(0)).await?, per_key) {
                ConflictDecision::Enqueue => {}
                ConflictDecision::Discard => {
                    return Ok(Inserted::Discarded { holders: self.slot_holders(&lane).await? });
                }
                ConflictDecision::Replace { cancel_running } => {
                    replaced = self.waiting(&lane).await?;
                    cancel_asked = self.staying(&lane, cancel_running).await?;
                }
            }
        }
        self.load(&replaced).await?;
        self.load(&cancel_asked).await?;
        for id in &replaced {
            self.change(*id, &Event::Replaced).await?.map_err(|refusal| unlawful(*id, refusal))?;
        }
        for id in &cancel_asked {
            self.change(*id, &Event::CancelAsked).await?.map_err(|refusal| unlawful(*id, refusal))?;
        }

        let standing = JobStatus::new(new.due.map_or(self.now, |due| due.from(self.now)));
        let state = state_number(&standing.state, self.now);
        let line = if state == READY { Some(self.join_line(&lane, task, new.priority).await?) } else { None };
        let new_row = Some(Box::new(NewJob { id, ..new.clone() }));
        let hot = JobRow { standing, state, lane, task, line, priority: new.priority, finished_at: None, new: new_row };
        self.jobs.insert(id, hot);
        self.tokens.extend(token.map(|token| (token, id)));
        self.writes.inserted.push(id);
        if state == READY {
            self.writes.joined.insert(id);
        }
        Ok(Inserted::Added { id, replaced, cancel_asked })
    }

    async fn crowd(&self, lane: &LaneRow, most_waiting: u32) -> Result<LaneCounts, SessionError> {
        let running = self.held.of_lane(lane);
        let text = "SELECT (SELECT count(*) FROM wharf.jobs WHERE id = ANY($4) AND state = 2 AND cancel_asked),
                        (SELECT coalesce(sum(cardinality(ids)), 0) FROM wharf.lines JOIN wharf.queued ON queued.line = lines.id
                         WHERE lines.grp = $1 AND lines.key = $2)
                        + (SELECT count(*) FROM (
                            SELECT FROM wharf.jobs WHERE delayed AND grp = $1 AND key = $2 LIMIT $3) AS delayed)";
        let max = i64::from(most_waiting);
        let args = [
            (&lane.group as _, Type::INT4),
            (&lane.key as _, Type::TEXT),
            (&max as _, Type::INT8),
            (&running as _, Type::INT8_ARRAY),
        ];
        let row = self.session.ask_one(text, &args).await?;
        let count = |place: usize| row.get::<_, i64>(place) as u32;
        Ok(LaneCounts { running: running.len() as u32, leaving: count(0), waiting: count(1) })
    }

    async fn waiting(&self, lane: &LaneRow) -> Result<Vec<JobId>, SessionError> {
        let args = [(&lane.group as _, Type::INT4), (&lane.key as _, Type::TEXT)];
        self.session.ask(WAITING, &args).await?.iter().map(|row| job_id(row.get(0))).collect()
    }

    /// The first running jobs of a lane that nobody asked to end.
    async fn staying(&self, lane: &LaneRow, max: u32) -> Result<Vec<JobId>, SessionError> {
        let (running, max) = (self.held.of_lane(lane), i64::from(max));
        let text =
            "SELECT id FROM wharf.jobs WHERE id = ANY($1) AND state = 2 AND NOT cancel_asked ORDER BY id LIMIT $2";
        let args = [(&running as _, Type::INT8_ARRAY), (&max as _, Type::INT8)];
        self.session.ask(text, &args).await?.iter().map(|row| job_id(row.get(0))).collect()
    }

    /// Who keeps a new job out: the running ones, then the waiting ones.
    async fn slot_holders(&self, lane: &LaneRow) -> Result<Vec<JobId>, SessionError> {
        let running = self.held.of_lane(lane);
        let mut holders: Vec<JobId> =
            running.into_iter().take(bounds::HOLDERS_NAMED).map(job_id).collect::<Result<_, SessionError>>()?;
        if holders.len() < bounds::HOLDERS_NAMED {
            holders.extend(self.waiting(lane).await?.into_iter().take(bounds::HOLDERS_NAMED - holders.len()));
        }
        Ok(holders)
    }
}

/// The queue's own wish was refused: the row is not what the question said it was.
fn unlawful(id: JobId, refusal: Refusal) -> SessionError {
    damaged("a job in two states", &format!("{id}: {refusal}"))
}
