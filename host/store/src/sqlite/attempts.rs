//! The attempts of jobs that ended without a result.

use rusqlite::{Connection, OptionalExtension, Row, params};
use wharf_core::attempt::{Attempt, EndedAttempt, dropped_attempt};
use wharf_core::fingerprint::Fingerprint;
use wharf_core::ids::JobId;
use wharf_core::outcome::Usage;
use wharf_core::time::Timestamp;

use super::ledger::SqliteLedger;
use crate::attempt_columns::AttemptColumns;
use crate::columns::{self, signed, timestamp_us, usage_columns};

impl SqliteLedger<'_> {
    /// Adds an attempt to those that its job keeps, in place of another if these are too many.
    pub(super) fn add_attempt(
        &self,
        id: JobId,
        attempt: &EndedAttempt,
        fingerprint: Option<Fingerprint>,
        (began_at, now): (Option<i64>, Timestamp),
    ) -> rusqlite::Result<()> {
        let id = signed(id.number());
        let mut write = self.conn.prepare_cached(
            "INSERT INTO attempts (job, number, node, node_name, plugin_version, digest, began_at, ended_at, outcome, report,
                 fingerprint, queue_wait_us, cpu_us, wall_us, memory_peak_bytes, in_bytes, out_bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        )?;
        let origin = attempt.origin.as_deref();
        let [queue_wait_us, cpu_us, wall_us, memory_peak_bytes, in_bytes, out_bytes] =
            usage_columns(attempt.usage.as_ref());
        write.execute(params![
            id,
            attempt.number,
            signed(attempt.node.0),
            origin.map(|origin| &origin.node_name),
            origin.map(|origin| &origin.plugin_version),
            origin.map(|origin| &origin.digest),
            began_at,
            timestamp_us(now),
            attempt.report.kind.as_str(),
            attempt.report.text,
            fingerprint.map(|fingerprint| fingerprint.to_string()),
            queue_wait_us,
            cpu_us,
            wall_us,
            memory_peak_bytes,
            in_bytes,
            out_bytes
        ])?;
        if let Some(dropped) = dropped_attempt(attempt.number) {
            let mut delete = self.conn.prepare_cached("DELETE FROM attempts WHERE job = ?1 AND number = ?2")?;
            delete.execute(params![id, dropped])?;
        }
        Ok(())
    }

    /// Returns what a job has used after attempt `number` used this. Only a job with earlier attempts is read.
    pub(super) fn total_usage(&self, id: i64, number: u32, used: Option<Usage>) -> rusqlite::Result<Option<Usage>> {
        if number <= 1 {
            return Ok(used);
        }
        let mut read = self.conn.prepare_cached(
            "SELECT queue_wait_us, cpu_us, wall_us, memory_peak_bytes, in_bytes, out_bytes FROM jobs WHERE id = ?1",
        )?;
        let before = read.query_row([id], |row| usage(row, 0)).optional()?.flatten();
        Ok(match (before, used) {
            (Some(before), Some(used)) => Some(before.plus(&used)),
            (before, used) => used.or(before),
        })
    }
}

/// Reads the six columns of a resource usage, of which the first is at index `first`.
fn usage(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Usage>> {
    let mut read = [None; 6];
    for (column, value) in read.iter_mut().enumerate() {
        *value = row.get(first + column)?;
    }
    Ok(columns::usage(read))
}

/// Returns the attempts that a job keeps, in ascending order.
pub(super) fn of_job(conn: &Connection, id: JobId) -> rusqlite::Result<Vec<Attempt>> {
    let mut find = conn.prepare_cached(
        "SELECT number, node, node_name, plugin_version, digest, began_at, ended_at, outcome, report, fingerprint, queue_wait_us, cpu_us,
             wall_us, memory_peak_bytes, in_bytes, out_bytes
         FROM attempts WHERE job = ?1 ORDER BY number",
    )?;
    let found = find.query_map([signed(id.number())], |row| {
        let columns = AttemptColumns {
            number: row.get(0)?,
            node: row.get(1)?,
            node_name: row.get(2)?,
            plugin_version: row.get(3)?,
            digest: row.get(4)?,
            began_at: row.get(5)?,
            ended_at: row.get(6)?,
            outcome: row.get(7)?,
            report: row.get(8)?,
            fingerprint: row.get(9)?,
            usage: [row.get(10)?, row.get(11)?, row.get(12)?, row.get(13)?, row.get(14)?, row.get(15)?],
        };
        Ok(columns.attempt()?)
    })?;
    found.collect()
}
