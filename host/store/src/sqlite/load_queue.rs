//! Recovery after a restart or a crash: loads the ready lines and the running jobs when the file is opened. Leases of the host
//! before are ended by `SqliteLedger::open`.

use wharf_core::ids::NodeId;
use wharf_core::key::Lane;
use wharf_core::lease::Lease;
use wharf_core::lifecycle::Event;

use super::lanes::{Line, RunningJob};
use super::ledger::{SqliteLedger, StoredJob};
use super::rows::{priority, status, timestamp};
use super::unsynced_claims;
use crate::columns::{DamagedData, job_id, key, unsigned};

impl SqliteLedger<'_> {
    /// Loads the ready lines, one at a time: there may be as many as keys.
    pub(super) fn load_ready(&mut self) -> rusqlite::Result<()> {
        let mut find = self.conn.prepare(
            "SELECT line, count(*), min(rank), max(rank), max(id), (SELECT turn FROM turns WHERE turns.line = ready.line)
             FROM ready GROUP BY line ORDER BY line",
        )?;
        let mut find_job = self.conn.prepare("SELECT task, limit_group, key FROM jobs WHERE id = ?1")?;
        let mut lines = find.query([])?;
        while let Some(row) = lines.next()? {
            let (top, low) = (priority(row.get(2)?), priority(row.get(3)?));
            let (id, turn): (i64, Option<i64>) = (row.get(4)?, row.get(5)?);
            let mut jobs = find_job.query([id])?;
            let missing =
                || DamagedData::inconsistent(format_args!("the row of the ready job {id} is missing in `jobs`"));
            let job = jobs.next()?.ok_or_else(missing)?;
            let group = self.names.group(self.conn, job.get(1)?)?;
            let lane = Lane { group, key: key(job.get_ref(2)?.as_str()?)? };
            let line = Line { number: row.get(0)?, task: job.get(0)?, count: row.get(1).map(unsigned)?, top, low };
            self.lanes.load_line(&lane, line, turn.map(unsigned));
            self.waiting.add(line.task, line.count as i64);
        }
        let last = self.conn.query_row("SELECT coalesce(max(turn), 0) FROM turns", [], |row| row.get(0))?;
        self.lanes.load_turn(unsigned(last));
        Ok(())
    }

    /// Counts the delayed jobs.
    pub(super) fn load_delayed(&mut self) -> rusqlite::Result<()> {
        let mut count = self
            .conn
            .prepare("SELECT task, count(*) FROM jobs INDEXED BY jobs_delayed_lane WHERE state = 0 GROUP BY task")?;
        let mut counts = count.query([])?;
        while let Some(row) = counts.next()? {
            self.waiting.add(row.get(0)?, row.get(1)?);
        }
        Ok(())
    }

    /// Loads the jobs whose rows say that they run.
    pub(super) fn load_running(&mut self) -> rusqlite::Result<()> {
        let mut find = self.conn.prepare(
            "SELECT id, state, due_at, attempt, failures, crashes, cancel_requested, node, lease_expires_at, limit_group,
                    key, task, priority, started_at
             FROM jobs INDEXED BY jobs_running WHERE state = 2",
        )?;
        let mut rows = find.query([])?;
        while let Some(row) = rows.next()? {
            let id = job_id(row.get(0)?)?;
            let lane = Lane { group: self.names.group(self.conn, row.get(9)?)?, key: key(row.get_ref(10)?.as_str()?)? };
            let job = RunningJob {
                status: status(id, row, 1)?,
                lane: self.lanes.find_or_add(&lane),
                task: row.get(11)?,
                priority: row.get(12)?,
                started_at: timestamp(row, "started_at")?,
                claim: None,
            };
            self.lanes.set_running(id, Some(job));
        }
        Ok(())
    }

    /// Loads the jobs that only a claim records as running: their own rows still say that they are ready for that attempt.
    pub(super) fn load_claims(&mut self) -> rusqlite::Result<()> {
        let mut find = self.conn.prepare("SELECT id, node, claimed_at, lease_expires_at, jobs FROM claims")?;
        let mut claims = find.query([])?;
        let mut found = Vec::new();
        while let Some(row) = claims.next()? {
            let (claim, node): (i64, _) = (row.get(0)?, NodeId(row.get(1).map(unsigned)?));
            let (at, until) = (timestamp(row, "claimed_at")?, timestamp(row, "lease_expires_at")?);
            for (job, attempt) in unsynced_claims::decode_jobs(row.get_ref(4)?.as_blob()?) {
                found.push((claim, Lease { job: job_id(job)?, attempt, node, until }, at));
            }
        }
        drop(claims);
        drop(find);
        for (claim, lease, at) in found {
            let Some(stored) = self.stored_job(lease.job)? else { continue };
            let StoredJob { status, ready_due_at, lane, task, priority, .. } = stored;
            if ready_due_at.is_some() && status.attempt + 1 == lease.attempt {
                let status = status.after(&Event::Claimed { lease }, at).map_err(|refusal| {
                    DamagedData::inconsistent(format_args!(
                        "the ready job {} could not be claimed: {refusal}",
                        lease.job
                    ))
                })?;
                let job = RunningJob { status, lane, task, priority, started_at: at, claim: Some(claim) };
                self.lanes.set_running(lease.job, Some(job));
            }
        }
        Ok(())
    }
}
