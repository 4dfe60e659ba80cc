//! Deletes finished jobs that were kept long enough.

use rusqlite::params;
use wharf_core::keep::FinishedPlace;

use super::ledger::SqliteLedger;
use super::record::FinishedJob;
use super::rows;
use crate::columns::{job_id, signed, state_name, timestamp, timestamp_us};
use crate::store::{ExpiredDeleted, ExpiredJobs};

/// Jobs in the order in which they finished.
const FINISHED: &str = "SELECT id, finished_at, state, task, attempt > 1, batch FROM jobs INDEXED BY jobs_finished
    WHERE state >= 3 AND finished_at >= ?1 AND (finished_at > ?1 OR id > ?2) AND finished_at < ?3
    ORDER BY finished_at, id LIMIT ?4";
/// Query that tells if an unfinished job needs a job: as the one that enqueued it, or as another one of its durable broadcast.
const IS_NEEDED: &str = "SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_parent WHERE parent = ?1 AND state < 3)
    OR ?2 IS NOT NULL AND EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_batch WHERE batch = ?2 AND state < 3)";

impl SqliteLedger<'_> {
    /// Looks through finished jobs, and deletes those that were kept long enough and that no other job needs.
    pub(super) fn delete_expired(&mut self, expired: &ExpiredJobs) -> rusqlite::Result<ExpiredDeleted> {
        let ExpiredJobs { rules, from: (from, behind), before, max } = expired;
        let now = self.now();
        let behind = behind.map_or(-1, |id| signed(id.number()));
        let mut old = Vec::new();
        let (mut looked_at, mut last): (u32, Option<FinishedPlace>) = (0, None);
        let mut names = rows::InternedNames::default();
        let (mut find, mut is_needed) = (self.conn.prepare_cached(FINISHED)?, self.conn.prepare_cached(IS_NEEDED)?);
        let mut found = find.query(params![timestamp_us(*from), behind, timestamp_us(*before), max])?;
        while let Some(row) = found.next()? {
            let (id, finished, state): (i64, _, i16) = (row.get(0)?, timestamp(row.get(1)?), row.get(2)?);
            (looked_at, last) = (looked_at + 1, Some((finished, Some(job_id(id)?))));
            let (task, batch): (_, Option<i64>) = (names.task(self.conn, row.get(3)?)?, row.get(5)?);
            // Most jobs of a walk are kept: whether another one needs them is not asked then.
            if rules.is_expired(&task, state_name(state)?, finished, now)
                && !is_needed.query_one(params![id, batch], |row| row.get::<_, bool>(0))?
            {
                let may_have_attempts = state > 3 || row.get(4)?;
                old.push(FinishedJob { id, may_have_attempts, batch });
            }
        }
        drop(found);
        self.delete_jobs(&old)?;
        Ok(ExpiredDeleted { deleted: old.len() as u32, next: last.filter(|_| looked_at == *max) })
    }
}
