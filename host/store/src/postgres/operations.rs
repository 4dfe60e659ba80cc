//! Bulk operations, and the jobs that they delete.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::audit::NewAct;
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::bulk::{BulkAct, BulkOperation, NewOperation, OperationStep};
use wharf_core::ids::JobId;
use wharf_core::limits::LimitTable;
use wharf_core::time::Timestamp;

use super::ledger::PostgresLedger;
use super::operation::{WriteRequest, WriteResult};
use super::rows;
use super::session::{Session, SessionError, computed, value};
use super::{PostgresStore, unexpected_reply};
use crate::columns::{signed, timestamp_us, unsigned};
use crate::operation_columns::{OPERATION_COLUMNS, OperationColumns};
use crate::store::{OperationStore, StepTaken, StoreError};

/// The lock under which operations begin: otherwise there could be more of them than there may be.
const LOCK_START: &str = "SELECT pg_advisory_xact_lock('$schema.operations'::regclass::oid::bigint << 32)";

/// The part of a statement that records the jobs which the statement deletes: their ids and batches are the rows of its `gone`.
/// `last_deleted` is written first: the lock on its row keeps others away that delete jobs of the same broadcasts. A broadcast whose last job goes is
/// forgotten. Where several hosts delete the last ones at once, none of them sees that; [`delete_orphaned_counts`] does.
pub(super) const COUNT_DELETED: &str = "
    last AS (
        INSERT INTO $schema.last_deleted (one, id) SELECT 1, max(id) FROM gone HAVING count(*) > 0
        ON CONFLICT (one) DO UPDATE SET id = greatest(last_deleted.id, excluded.id) RETURNING 1
    ), of_batches AS MATERIALIZED (
        SELECT batch, count(*) AS deleted, EXISTS (
            SELECT FROM $schema.jobs WHERE jobs.batch IS NOT NULL AND jobs.batch = counted.batch AND jobs.id NOT IN (SELECT id FROM gone)
        ) AS has_others FROM gone AS counted
        WHERE batch IS NOT NULL AND (SELECT count(*) FROM last) = 1 GROUP BY batch
    ), counted AS (
        INSERT INTO $schema.deleted_of_batch (batch, jobs) SELECT batch, deleted FROM of_batches WHERE has_others
        ON CONFLICT (batch) DO UPDATE SET jobs = deleted_of_batch.jobs + excluded.jobs
    ), forgotten AS (
        DELETE FROM $schema.deleted_of_batch USING of_batches
        WHERE deleted_of_batch.batch = of_batches.batch AND NOT has_others
    )";

/// Returns how many jobs of a durable broadcast were deleted; zero if no job of it remains.
pub(super) async fn deleted_of_batch(session: &Session, batch: JobId) -> Result<u64, SessionError> {
    let text = "SELECT jobs FROM $schema.deleted_of_batch AS deleted WHERE batch = $1
                AND EXISTS (SELECT FROM $schema.jobs WHERE jobs.batch IS NOT NULL AND jobs.batch = deleted.batch)";
    let found = session.query(text, &[(&signed(batch.number()), Type::INT8)]).await?;
    found.first().map_or(Ok(0), |row| value::<i64>(row, "deleted_of_batch", 0).map(unsigned))
}

/// Forgets durable broadcasts of which no job remains, at most a thousand.
pub(super) async fn delete_orphaned_counts(session: &Session) -> Result<(), SessionError> {
    let text = "DELETE FROM $schema.deleted_of_batch WHERE batch = ANY(ARRAY(
                    SELECT batch FROM $schema.deleted_of_batch AS deleted WHERE NOT EXISTS (
                        SELECT FROM $schema.jobs WHERE jobs.batch IS NOT NULL AND jobs.batch = deleted.batch) LIMIT 1000))";
    session.query(text, &[]).await.map(drop)
}

fn read(row: &Row) -> Result<BulkOperation, SessionError> {
    const TABLE: &str = "operations";
    let columns = OperationColumns {
        id: value(row, TABLE, 0)?,
        act: value(row, TABLE, 1)?,
        filter: value(row, TABLE, 2)?,
        author: value(row, TABLE, 3)?,
        created_at: value(row, TABLE, 4)?,
        ended_at: value(row, TABLE, 5)?,
        state: value(row, TABLE, 6)?,
        last_job: value(row, TABLE, 7)?,
        step: value(row, TABLE, 8)?,
        trial_jobs: value(row, TABLE, 9)?,
        trial_within_us: value(row, TABLE, 10)?,
        tried: value(row, TABLE, 11)?,
        tried_at: value(row, TABLE, 12)?,
        spread_us: value(row, TABLE, 13)?,
        attempts: value(row, TABLE, 14)?,
        priority: value(row, TABLE, 15)?,
        changed: value(row, TABLE, 16)?,
        skipped: value(row, TABLE, 17)?,
        reason: value(row, TABLE, 18)?,
        token: value(row, TABLE, 19)?,
    };
    Ok(columns.operation()?)
}

/// Reads an operation.
pub(super) async fn operation(session: &Session, id: JobId) -> Result<Option<BulkOperation>, SessionError> {
    find(session, id, "").await
}

async fn find(session: &Session, id: JobId, lock: &str) -> Result<Option<BulkOperation>, SessionError> {
    let text = format!("SELECT {OPERATION_COLUMNS} FROM $schema.operations WHERE id = $1 {lock}");
    let found = session.query(&text, &[(&signed(id.number()), Type::INT8)]).await?;
    found.first().map(read).transpose()
}

/// Reads a page of operations, the newest first.
pub(super) async fn page(
    session: &Session,
    before: Option<JobId>,
    max: u32,
) -> Result<Vec<BulkOperation>, SessionError> {
    let before = before.map_or(i64::MAX, |before| signed(before.number()));
    let max = i64::from(max.clamp(1, bounds::PAGE_MAX));
    let text = format!("SELECT {OPERATION_COLUMNS} FROM $schema.operations WHERE id < $1 ORDER BY id DESC LIMIT $2");
    session.query_selective(&text, &[(&before, Type::INT8), (&max, Type::INT8)]).await?.iter().map(read).collect()
}

/// Reads the operations that have not ended, the oldest first.
pub(super) async fn open(session: &Session) -> Result<Vec<BulkOperation>, SessionError> {
    let text = format!("SELECT {OPERATION_COLUMNS} FROM $schema.operations WHERE ended_at IS NULL ORDER BY id");
    session.query(&text, &[]).await?.iter().map(read).collect()
}

/// Returns the operation that came of a request with the same token, if there is one.
async fn with_token(session: &Session, new: &NewOperation) -> Result<Option<BulkOperation>, SessionError> {
    let Some(token) = &new.token else { return Ok(None) };
    let text = format!(
        "SELECT {OPERATION_COLUMNS} FROM $schema.operations WHERE token IS NOT NULL AND token = $1 ORDER BY id"
    );
    for row in &session.query(&text, &[(&token.as_str().as_bytes(), Type::BYTEA)]).await? {
        let found = read(row)?;
        if new.has_become(&found) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Deletes at most `max` operations that ended before `before`.
pub(super) async fn delete_ended(session: &Session, before: Timestamp, max: u32) -> Result<u32, SessionError> {
    let text = "WITH old AS (SELECT id FROM $schema.operations WHERE ended_at < $1 ORDER BY id LIMIT $2),
                     gone AS (DELETE FROM $schema.operations USING old WHERE operations.id = old.id RETURNING 1)
                SELECT count(*) FROM gone";
    let args = [(&timestamp_us(before) as _, Type::INT8), (&i64::from(max) as _, Type::INT8)];
    let row = session.query_one(text, &args).await?;
    Ok(computed::<i64>(&row, 0)? as u32)
}

impl PostgresLedger<'_> {
    async fn write_operation(&self, operation: &BulkOperation) -> Result<(), SessionError> {
        let columns = OperationColumns::from(operation);
        let text = format!(
            "INSERT INTO $schema.operations ({OPERATION_COLUMNS})
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
             ON CONFLICT (id) DO UPDATE SET ended_at = excluded.ended_at, state = excluded.state, last_job = excluded.last_job,
                 step = excluded.step, tried = excluded.tried, tried_at = excluded.tried_at, changed = excluded.changed,
                 skipped = excluded.skipped, reason = excluded.reason"
        );
        let args = [
            (&columns.id as _, Type::INT8),
            (&columns.act as _, Type::TEXT),
            (&columns.filter as _, Type::TEXT),
            (&columns.author as _, Type::TEXT),
            (&columns.created_at as _, Type::INT8),
            (&columns.ended_at as _, Type::INT8),
            (&columns.state as _, Type::TEXT),
            (&columns.last_job as _, Type::INT8),
            (&columns.step as _, Type::INT8),
            (&columns.trial_jobs as _, Type::INT8),
            (&columns.trial_within_us as _, Type::INT8),
            (&columns.tried as _, Type::TEXT),
            (&columns.tried_at as _, Type::INT8),
            (&columns.spread_us as _, Type::INT8),
            (&columns.attempts as _, Type::INT4),
            (&columns.priority as _, Type::INT4),
            (&columns.changed as _, Type::INT8),
            (&columns.skipped as _, Type::INT8),
            (&columns.reason as _, Type::TEXT),
            (&columns.token as _, Type::BYTEA),
        ];
        self.session.query(&text, &args).await.map(drop)
    }

    /// Begins an operation, unless too many have not ended.
    pub(super) async fn start_operation(
        &self,
        new: &NewOperation,
        declared: &LimitTable,
    ) -> Result<Option<BulkOperation>, SessionError> {
        self.session.query(LOCK_START, &[]).await?;
        if let Some(known) = with_token(self.session, new).await? {
            return Ok(Some(known));
        }
        let (open, operation) = (open(self.session).await?, new.started_at(self.now));
        if !new.has_room(&open) {
            return Ok(None);
        }
        self.write_operation(&operation).await?;
        if new.query.needs_wait_view() {
            self.write_operation_waits(&operation, declared).await?;
        }
        self.write_act(&NewAct::of_operation(new.author.clone(), &operation)).await?;
        Ok(Some(operation))
    }

    /// Takes a step: changes the jobs that are still as they were found, and moves the operation on. The operation's row is locked,
    /// so that of two hosts that take the step one finds that it was taken.
    pub(super) async fn take_operation_step(
        &mut self,
        step: &OperationStep,
    ) -> Result<Option<StepTaken>, SessionError> {
        let Some(operation) = find(self.session, step.operation, "FOR UPDATE").await? else { return Ok(None) };
        if operation.after(step, &[], self.now).is_none() {
            return Ok(None);
        }
        let retried = self.retried(step).await?;
        let mut changed = Vec::new();
        for target in &step.targets {
            let retried_at = retried.get(&target.id).copied();
            let is_still = self.jobs.get(&target.id).is_some_and(|job| {
                target.is_still((job.status.state.name(), job.status.attempt), job.finished_at, retried_at)
            });
            let is_changed = match operation.event(target) {
                _ if !is_still => false,
                Some(event) => self.apply(target.id, &event).await?.is_ok(),
                None if !target.state.is_final() => false,
                None => {
                    self.jobs.remove(&target.id);
                    self.deleted.push(signed(target.id.number()));
                    true
                }
            };
            changed.extend(is_changed.then_some(target.id));
        }
        let Some(operation) = operation.after(step, &changed, self.now) else { return Ok(None) };
        self.write_operation(&operation).await?;
        self.delete_operation_waits(&operation).await?;
        if let Some(act) = NewAct::of_ended_operation(&operation) {
            self.write_act(&act).await?;
        }
        Ok(Some(StepTaken { operation, changed }))
    }

    /// Reads when operators last retried the jobs of a step, of those that anybody has.
    async fn retried(&self, step: &OperationStep) -> Result<HashMap<JobId, Timestamp>, SessionError> {
        let ids: Vec<i64> = step.targets.iter().map(|target| signed(target.id.number())).collect();
        let text = "SELECT id, retried_at FROM $schema.jobs WHERE id = ANY($1) AND retried_at IS NOT NULL";
        let found = self.session.query_if(!ids.is_empty(), text, &[(&ids, Type::INT8_ARRAY)]).await?;
        found
            .iter()
            .map(|row| Ok((rows::job_id(row, "jobs", 0)?, rows::timestamp(row, "jobs", "retried_at")?)))
            .collect()
    }

    /// Deletes finished jobs, whose rows are locked, with their logs, attempts and failure samples. The lists of `finished` that name
    /// them are passed over. Must be the last statement before the commit: who deletes jobs waits for `last_deleted`, and a
    /// transaction that has it must wait for nothing else.
    pub(super) async fn delete_jobs(&self, ids: &[i64]) -> Result<(), SessionError> {
        let text = format!(
            "WITH gone AS (DELETE FROM $schema.jobs WHERE id = ANY($1) AND state >= 3 RETURNING id, batch),
                  attempts AS (DELETE FROM $schema.attempts USING gone WHERE job = gone.id),
                  samples AS (DELETE FROM $schema.failure_samples USING gone WHERE job = gone.id),
                  entries AS (DELETE FROM $schema.entries USING gone WHERE job = gone.id),
                  {COUNT_DELETED}
             SELECT count(*) FROM gone"
        );
        self.session.query_if(!ids.is_empty(), &text, &[(&ids, Type::INT8_ARRAY)]).await.map(drop)
    }

    /// Ends an operation before its next step.
    pub(super) async fn cancel_operation(&self, id: JobId, by: &Author) -> Result<Option<BulkOperation>, SessionError> {
        let found = find(self.session, id, "FOR UPDATE").await?;
        let cancelled = found.and_then(|operation| operation.cancelled(self.now));
        if let Some(cancelled) = &cancelled {
            self.write_operation(cancelled).await?;
            self.delete_operation_waits(cancelled).await?;
            self.write_act(&NewAct::of_operation(by.clone(), cancelled)).await?;
        }
        Ok(cancelled)
    }
}

#[async_trait]
impl OperationStore for PostgresStore {
    async fn start_operation(
        &self,
        new: NewOperation,
        declared: Arc<LimitTable>,
    ) -> Result<Option<BulkOperation>, StoreError> {
        match self.write(WriteRequest::StartOperation(Box::new(new), declared)).await? {
            WriteResult::Operation(started) => Ok(started.map(|started| *started)),
            other => Err(unexpected_reply(&other)),
        }
    }

    async fn operation(&self, id: JobId) -> Result<Option<BulkOperation>, StoreError> {
        let session = self.reader().await?;
        let found = operation(&session, id).await;
        self.finish(session, found)
    }

    async fn operations(&self, before: Option<JobId>, max: u32) -> Result<Vec<BulkOperation>, StoreError> {
        let session = self.reader().await?;
        let found = page(&session, before, max).await;
        self.finish(session, found)
    }

    async fn open_operations(&self) -> Result<Vec<BulkOperation>, StoreError> {
        let session = self.reader().await?;
        let found = open(&session).await;
        self.finish(session, found)
    }

    async fn take_operation_step(&self, step: OperationStep) -> Result<Option<StepTaken>, StoreError> {
        match self.write(WriteRequest::OperationStep(step)).await? {
            WriteResult::StepTaken(taken) => {
                let taken = taken.map(|taken| *taken);
                let deletes = |taken: &&StepTaken| taken.operation.act == BulkAct::Delete;
                self.vacuum.deleted(taken.iter().filter(deletes).map(|taken| taken.changed.len() as u64).sum());
                Ok(taken)
            }
            other => Err(unexpected_reply(&other)),
        }
    }

    async fn cancel_operation(&self, id: JobId, by: Author) -> Result<Option<BulkOperation>, StoreError> {
        match self.write(WriteRequest::CancelOperation(id, by)).await? {
            WriteResult::Operation(cancelled) => Ok(cancelled.map(|cancelled| *cancelled)),
            other => Err(unexpected_reply(&other)),
        }
    }

    async fn delete_ended_operations(&self, before: Timestamp, max: u32) -> Result<u32, StoreError> {
        let session = self.reader().await?;
        let found = delete_ended(&session, before, max).await;
        self.finish(session, found)
    }
}
