//! Bulk operations, and the jobs that they delete.

use rusqlite::{Connection, OptionalExtension, Row, params};
use wharf_core::audit::NewAct;
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::bulk::{BulkOperation, BulkTarget, NewOperation, OperationStep};
use wharf_core::ids::JobId;
use wharf_core::limits::LimitTable;
use wharf_core::time::Timestamp;

use super::ledger::SqliteLedger;
use super::record::FinishedJob;
use crate::columns::{signed, timestamp, timestamp_us, unsigned};
use crate::operation_columns::{OPERATION_COLUMNS, OperationColumns};
use crate::store::StepTaken;

fn read(row: &Row<'_>) -> rusqlite::Result<BulkOperation> {
    let columns = OperationColumns {
        id: row.get(0)?,
        act: row.get(1)?,
        filter: row.get(2)?,
        author: row.get(3)?,
        created_at: row.get(4)?,
        ended_at: row.get(5)?,
        state: row.get(6)?,
        last_job: row.get(7)?,
        step: row.get(8)?,
        trial_jobs: row.get(9)?,
        trial_within_us: row.get(10)?,
        tried: row.get(11)?,
        tried_at: row.get(12)?,
        spread_us: row.get(13)?,
        attempts: row.get(14)?,
        priority: row.get(15)?,
        changed: row.get(16)?,
        skipped: row.get(17)?,
        reason: row.get(18)?,
        token: row.get(19)?,
    };
    Ok(columns.operation()?)
}

/// Returns an operation.
pub(super) fn operation(conn: &Connection, id: JobId) -> rusqlite::Result<Option<BulkOperation>> {
    let mut find = conn.prepare_cached(&format!("SELECT {OPERATION_COLUMNS} FROM operations WHERE id = ?1"))?;
    find.query_row([signed(id.number())], read).optional()
}

/// Returns a page of operations, the newest first.
pub(super) fn page(conn: &Connection, before: Option<JobId>, max: u32) -> rusqlite::Result<Vec<BulkOperation>> {
    let before = before.map_or(i64::MAX, |before| signed(before.number()));
    let mut find = conn.prepare_cached(&format!(
        "SELECT {OPERATION_COLUMNS} FROM operations WHERE id < ?1 ORDER BY id DESC LIMIT ?2"
    ))?;
    find.query_map(params![before, max.clamp(1, bounds::PAGE_MAX)], read)?.collect()
}

/// Returns the operations that have not ended, the oldest first.
pub(super) fn open(conn: &Connection) -> rusqlite::Result<Vec<BulkOperation>> {
    let mut find = conn.prepare_cached(&format!(
        "SELECT {OPERATION_COLUMNS} FROM operations INDEXED BY operations_open WHERE ended_at IS NULL ORDER BY id"
    ))?;
    find.query_map([], read)?.collect()
}

/// Returns the operation that came of a request with the same token, if there is one.
fn with_token(conn: &Connection, new: &NewOperation) -> rusqlite::Result<Option<BulkOperation>> {
    let Some(token) = &new.token else { return Ok(None) };
    let mut find = conn.prepare_cached(&format!(
        "SELECT {OPERATION_COLUMNS} FROM operations INDEXED BY operations_token WHERE token IS NOT NULL AND token = ?1"
    ))?;
    for found in find.query_map([token.as_str().as_bytes()], read)? {
        let found = found?;
        if new.has_become(&found) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Returns how many jobs of a durable broadcast were deleted; zero if no job of it remains.
pub(super) fn deleted_of_batch(conn: &Connection, batch: JobId) -> rusqlite::Result<u64> {
    let mut find = conn.prepare_cached("SELECT jobs FROM deleted_of_batch WHERE batch = ?1")?;
    Ok(find.query_row([signed(batch.number())], |row| row.get(0)).optional()?.map_or(0, unsigned))
}

impl SqliteLedger<'_> {
    fn write_operation(&self, operation: &BulkOperation) -> rusqlite::Result<()> {
        let columns = OperationColumns::from(operation);
        let mut write = self.conn.prepare_cached(&format!(
            "INSERT OR REPLACE INTO operations ({OPERATION_COLUMNS})
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
                     ?19, ?20)"
        ))?;
        write.execute(params![
            columns.id,
            columns.act,
            columns.filter,
            columns.author,
            columns.created_at,
            columns.ended_at,
            columns.state,
            columns.last_job,
            columns.step,
            columns.trial_jobs,
            columns.trial_within_us,
            columns.tried,
            columns.tried_at,
            columns.spread_us,
            columns.attempts,
            columns.priority,
            columns.changed,
            columns.skipped,
            columns.reason,
            columns.token
        ])?;
        Ok(())
    }

    /// Begins an operation, unless too many have not ended.
    pub(super) fn start_operation(
        &mut self,
        new: &NewOperation,
        declared: &LimitTable,
    ) -> rusqlite::Result<Option<BulkOperation>> {
        if let Some(known) = with_token(self.conn, new)? {
            return Ok(Some(known));
        }
        let (open, operation) = (open(self.conn)?, new.started_at(self.now()));
        if !new.has_room(&open) {
            return Ok(None);
        }
        self.write_operation(&operation)?;
        if new.query.needs_wait_view() {
            self.write_operation_waits(&operation, declared)?;
        }
        self.write_act(&NewAct::of_operation(new.author.clone(), &operation))?;
        Ok(Some(operation))
    }

    /// Takes a step: changes the jobs that are still as they were found, and moves the operation on.
    pub(super) fn take_operation_step(&mut self, step: &OperationStep) -> rusqlite::Result<Option<StepTaken>> {
        let now = self.now();
        let Some(operation) = operation(self.conn, step.operation)? else { return Ok(None) };
        if operation.after(step, &[], now).is_none() {
            return Ok(None);
        }
        let (mut changed, mut deleted) = (Vec::new(), Vec::new());
        for target in &step.targets {
            let Some(batch) = self.batch_if_still(target)? else { continue };
            let is_changed = match operation.event(target) {
                Some(event) => self.apply(target.id, &event, now)?.is_ok(),
                None if !target.state.is_final() => false,
                None => {
                    deleted.push(FinishedJob { id: signed(target.id.number()), may_have_attempts: true, batch });
                    true
                }
            };
            changed.extend(is_changed.then_some(target.id));
        }
        if !deleted.is_empty() {
            // What an operator deletes is overwritten in the file. Other deletions need not pay for that.
            self.conn.execute_batch("PRAGMA secure_delete = ON")?;
            let done = self.delete_jobs(&deleted);
            self.conn.execute_batch("PRAGMA secure_delete = OFF")?;
            done?;
        }
        let Some(operation) = operation.after(step, &changed, now) else { return Ok(None) };
        self.write_operation(&operation)?;
        self.delete_operation_waits(&operation)?;
        if let Some(act) = NewAct::of_ended_operation(&operation) {
            self.write_act(&act)?;
        }
        Ok(Some(StepTaken { operation, changed }))
    }

    /// Returns the batch of a job, or that it has none, if the job is still as it was found; `None` if not.
    fn batch_if_still(&mut self, target: &BulkTarget) -> rusqlite::Result<Option<Option<i64>>> {
        let running = self.lanes.running(target.id).map(|running| running.status);
        let status = match running {
            Some(status) => status,
            None => match self.stored_job(target.id)? {
                Some(stored) => stored.status,
                None => return Ok(None),
            },
        };
        let mut read = self.conn.prepare_cached(
            "SELECT finished_at, batch, retried_at FROM jobs LEFT JOIN reports ON job = jobs.id WHERE jobs.id = ?1",
        )?;
        let columns = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let (finished_at, batch, retried_at): (Option<i64>, _, Option<i64>) =
            read.query_row([signed(target.id.number())], columns)?;
        let of = (status.state.name(), status.attempt);
        let is_still = target.is_still(of, finished_at.map(timestamp), retried_at.map(timestamp));
        Ok(is_still.then_some(batch))
    }

    /// Ends an operation before its next step.
    pub(super) fn cancel_operation(&self, id: JobId, by: &Author) -> rusqlite::Result<Option<BulkOperation>> {
        let cancelled = operation(self.conn, id)?.and_then(|operation| operation.cancelled(self.now()));
        if let Some(cancelled) = &cancelled {
            self.write_operation(cancelled)?;
            self.delete_operation_waits(cancelled)?;
            self.write_act(&NewAct::of_operation(by.clone(), cancelled))?;
        }
        Ok(cancelled)
    }

    /// Deletes at most `max` operations that ended before `before`.
    pub(super) fn delete_ended_operations(&self, before: Timestamp, max: u32) -> rusqlite::Result<u32> {
        let mut delete = self.conn.prepare_cached(
            "DELETE FROM operations WHERE id IN (SELECT id FROM operations WHERE ended_at < ?1 ORDER BY id LIMIT ?2)",
        )?;
        Ok(delete.execute(params![timestamp_us(before), max])? as u32)
    }
}
