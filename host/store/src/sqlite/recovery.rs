//! What the ledger has to know before it can begin: who waits and who runs, read once, when the file is opened.

use wharf_core::ids::NodeId;
use wharf_core::key::Lane;
use wharf_core::lease::Lease;
use wharf_core::lifecycle::Event;

use super::lanes::{Hot, Line};
use super::ledger::{Known, Ledger};
use super::rows::{READY, damaged, job_id, key_of, moment, standing};
use super::unsynced_claims;

impl Ledger<'_> {
    /// One line at a time: there may be as many as keys.
    pub(super) fn read_waiting(&mut self) -> rusqlite::Result<()> {
        let mut find = self.conn.prepare(
            "SELECT line, count(*), min(rank), max(rank), max(id), (SELECT turn FROM turns WHERE turns.line = ready.line)
             FROM ready GROUP BY line ORDER BY line",
        )?;
        let mut of_job = self.conn.prepare("SELECT task, grp, key FROM jobs WHERE id = ?1")?;
        let mut lines = find.query([])?;
        while let Some(row) = lines.next()? {
            let priority = |column: usize| row.get::<_, i64>(column).map(|rank| -rank as i32);
            let (number, count, turn) = (row.get(0)?, row.get::<_, i64>(1)? as u64, row.get::<_, Option<i64>>(5)?);
            let (top, low) = (priority(2)?, priority(3)?);
            let mut jobs = of_job.query([row.get::<_, i64>(4)?])?;
            let job = jobs.next()?.ok_or_else(|| damaged("a ready job", "it has no row of its own"))?;
            let group = self.names.group(self.conn, job.get(1)?)?;
            let lane = Lane { group, key: key_of(job.get_ref(2)?.as_str()?)? };
            let line = Line { number, task: job.get(0)?, count, top, low };
            self.lanes.restore(&lane, line, turn.map(|turn| turn as u64));
        }
        let last: i64 = self.conn.query_row("SELECT coalesce(max(turn), 0) FROM turns", [], |row| row.get(0))?;
        self.lanes.turns_up_to(last as u64);
        Ok(())
    }

    pub(super) fn read_running(&mut self) -> rusqlite::Result<()> {
        let mut find = self.conn.prepare(
            "SELECT id, state, due, attempt, failures, crashes, cancel_asked, node, lease_until, grp, key, task, priority,
                    started_at
             FROM jobs INDEXED BY jobs_running WHERE state = 2",
        )?;
        let mut rows = find.query([])?;
        while let Some(row) = rows.next()? {
            let id = job_id(row.get(0)?)?;
            let lane =
                Lane { group: self.names.group(self.conn, row.get(9)?)?, key: key_of(row.get_ref(10)?.as_str()?)? };
            let hot = Hot {
                standing: standing(id, row, 1)?,
                lane: self.lanes.enter(&lane),
                task: row.get(11)?,
                priority: row.get(12)?,
                started_at: moment(row, "started_at")?,
                claim: None,
            };
            self.lanes.change_job(id, Some(hot));
        }
        Ok(())
    }

    /// Jobs that run by a claim alone: their own rows still say that they are ready for that attempt.
    pub(super) fn read_claims(&mut self) -> rusqlite::Result<()> {
        let mut find = self.conn.prepare("SELECT id, node, claimed_at, lease_until, jobs FROM claims")?;
        let mut claims = find.query([])?;
        let mut found = Vec::new();
        while let Some(row) = claims.next()? {
            let (claim, node): (i64, _) = (row.get(0)?, NodeId(row.get::<_, i64>(1)? as u64));
            let (at, until) = (moment(row, "claimed_at")?, moment(row, "lease_until")?);
            for (job, attempt) in unsynced_claims::jobs(row.get_ref(4)?.as_blob()?) {
                found.push((claim, Lease { job: job_id(job)?, attempt, node, until }, at));
            }
        }
        drop(claims);
        drop(find);
        for (claim, lease, at) in found {
            let Some(Known { standing, state, lane, task, priority, .. }) = self.known(lease.job)? else { continue };
            if state == READY && standing.attempt + 1 == lease.attempt {
                let standing = standing
                    .after(&Event::Claimed { lease }, at)
                    .map_err(|refusal| damaged("a claimed job", &format!("{}: {refusal}", lease.job)))?;
                let hot = Hot { standing, lane, task, priority, started_at: at, claim: Some(claim) };
                self.lanes.change_job(lease.job, Some(hot));
            }
        }
        Ok(())
    }
}
