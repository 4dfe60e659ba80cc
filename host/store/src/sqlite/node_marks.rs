//! What nodes recorded about themselves, for the node that finds their leases expired.

use rusqlite::{OptionalExtension, params};
use wharf_core::ids::NodeId;
use wharf_core::lease::{NodeMark, StartedSuspect};

use super::ledger::SqliteLedger;
use crate::columns::{job_id, signed, timestamp_us};
use crate::node_list::MARKS_KEPT;

impl SqliteLedger<'_> {
    /// Replaces the mark of a node, and deletes marks that are older than `MARKS_KEPT`.
    pub(super) fn write_mark(&self, node: NodeId, mark: NodeMark) -> rusqlite::Result<()> {
        let now = self.now();
        let mut delete = self.conn.prepare_cached("DELETE FROM node_marks WHERE marked_at < ?1")?;
        delete.execute([timestamp_us(now - MARKS_KEPT)])?;
        let mut write = self.conn.prepare_cached(
            "INSERT OR REPLACE INTO node_marks (node, marked_at, draining, suspect_job, suspect_attempt, suspect_alone)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        let job = mark.suspect.map(|suspect| signed(suspect.job.number()));
        let attempt = mark.suspect.map(|suspect| suspect.attempt);
        let alone = mark.suspect.map(|suspect| suspect.alone);
        write.execute(params![signed(node.0), timestamp_us(now), mark.draining, job, attempt, alone])?;
        Ok(())
    }

    /// Returns the mark of a node; the default one if it has none.
    pub(super) fn mark_of(&self, node: NodeId) -> rusqlite::Result<NodeMark> {
        let mut find = self.conn.prepare_cached(
            "SELECT draining, suspect_job, suspect_attempt, suspect_alone FROM node_marks WHERE node = ?1",
        )?;
        let found = find.query_row([signed(node.0)], |row| {
            let suspect = match row.get::<_, Option<i64>>(1)? {
                Some(job) => Some(StartedSuspect { job: job_id(job)?, attempt: row.get(2)?, alone: row.get(3)? }),
                None => None,
            };
            Ok(NodeMark { draining: row.get(0)?, suspect })
        });
        Ok(found.optional()?.unwrap_or_default())
    }
}
