//! What the ledger has to know before it can begin: who waits and who runs, read once, when the file is opened.

use wharf_core::ids::NodeId;
use wharf_core::key::Lane;
use wharf_core::lease::Lease;
use wharf_core::lifecycle::Event;

use super::claims;
use super::lanes::{Hot, Line};
use super::ledger::{Known, Ledger};
use super::rows::{READY, damaged, job_id, key_of, moment, standing};

/// A line as its rows say.
struct Found {
    line: Line,
    group: i64,
    key: String,
    turn: Option<i64>,
}

impl Ledger {
    pub(super) fn read_waiting(&mut self) -> rusqlite::Result<()> {
        let mut find = self.conn.prepare(
            "SELECT line, jobs.task, waiting, first, last, grp, key, turn
             FROM (SELECT line, count(*) AS waiting, min(rank) AS first, max(rank) AS last, max(id) AS one
                   FROM ready GROUP BY line)
             JOIN jobs ON jobs.id = one LEFT JOIN turns USING (line) ORDER BY line",
        )?;
        let found = find.query_map([], |row| {
            let priority = |column: usize| row.get::<_, i64>(column).map(|rank| -rank as i32);
            let (number, task, count) = (row.get(0)?, row.get(1)?, row.get::<_, i64>(2)? as u64);
            let line = Line { number, task, count, top: priority(3)?, low: priority(4)? };
            Ok(Found { line, group: row.get(5)?, key: row.get(6)?, turn: row.get(7)? })
        })?;
        let found: Vec<Found> = found.collect::<rusqlite::Result<_>>()?;
        drop(find);
        let last: i64 = self.conn.query_row("SELECT coalesce(max(turn), 0) FROM turns", [], |row| row.get(0))?;
        self.lanes.turns_up_to(last as u64);
        for Found { line, group, key, turn } in found {
            let lane = Lane { group: self.names.group(&self.conn, group)?, key: key_of(&key)? };
            let no = self.lanes.enter(&lane);
            self.lanes.restore(no, line, turn.map(|turn| turn as u64));
        }
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
                Lane { group: self.names.group(&self.conn, row.get(9)?)?, key: key_of(&row.get::<_, String>(10)?)? };
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
            for (job, attempt) in claims::jobs(row.get_ref(4)?.as_blob()?) {
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
