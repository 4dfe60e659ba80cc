//! What nodes have written down of themselves, for whoever finds that their leases have run out.

use rusqlite::{OptionalExtension, params};
use wharf_core::ids::NodeId;
use wharf_core::lease::{NodeMark, StartedSuspect};

use super::ledger::Ledger;
use super::rows::{job_id, micros, signed};
use crate::node_list::MARKS_KEPT;

impl Ledger<'_> {
    pub(super) fn write_mark(&self, node: NodeId, mark: NodeMark) -> rusqlite::Result<()> {
        let now = self.now();
        self.conn.prepare_cached("DELETE FROM node_marks WHERE at < ?1")?.execute([micros(now - MARKS_KEPT)])?;
        let mut write = self.conn.prepare_cached(
            "INSERT OR REPLACE INTO node_marks (node, at, draining, job, attempt, alone) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        let (job, attempt) = (mark.suspect.map(|of| signed(of.job.number())), mark.suspect.map(|of| of.attempt));
        let alone = mark.suspect.map(|of| of.alone);
        write.execute(params![signed(node.0), micros(now), mark.draining, job, attempt, alone])?;
        Ok(())
    }

    pub(super) fn mark_of(&self, node: NodeId) -> rusqlite::Result<NodeMark> {
        let mut find =
            self.conn.prepare_cached("SELECT draining, job, attempt, alone FROM node_marks WHERE node = ?1")?;
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
