//! What happens to jobs that are there: events, renewals, leases that run out, and forgetting.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use wharf_core::ids::JobId;
use wharf_core::job::{Entry, Standing, State};
use wharf_core::lease::Lease;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::outcome::{Bill, Report};
use wharf_core::time::Timestamp;

use super::ledger::Ledger;
use super::rows::{self, READY, RUNNING, job_id, micros, signed, state_number};
use super::running::Hot;
use crate::change::change;
use crate::store::{Recorded, Renewed};

impl Ledger {
    /// Applies one event by the law. A refusal leaves everything as it is.
    pub(super) fn apply(
        &mut self,
        id: JobId,
        event: &Event,
        now: Timestamp,
    ) -> rusqlite::Result<Result<Recorded, Refusal>> {
        let Some(hot) = self.hot(id)? else { return Ok(Err(Refusal::Unknown)) };
        let change = match change(&hot.standing, event, now) {
            Ok(change) => change,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let after = change.standing;
        let state = state_number(&after.state, now);
        let joins = state == READY && hot.state != READY;
        let line = if joins { Some(self.join_line(&hot.lane, hot.task, hot.priority)?) } else { None };
        if after != hot.standing {
            let due = match after.state {
                State::Waiting { due } => Some(micros(due)),
                _ => None,
            };
            let mut write = self.conn.prepare_cached(
                "UPDATE jobs SET state = ?2, due = coalesce(?3, due), failures = ?4, crashes = ?5, cancel_asked = ?6,
                     finished_at = ?7, line = ?8 WHERE id = ?1",
            )?;
            let finished_at = change.finished_at.map(micros);
            let number = signed(id.number());
            let (crashes, asked) = (after.crashes, after.cancel_asked);
            write.execute(params![number, state, due, after.failures, crashes, asked, finished_at, line])?;
        }
        if state == RUNNING && after != hot.standing {
            self.running()?.put(id, Hot { standing: after, ..hot.clone() });
        }
        if let Some(line) = hot.line.filter(|_| hot.state == READY) {
            self.settle_line(line)?;
        }
        if change.attempt_ended {
            if self.running()?.remove(id) {
                self.reopen_lane(&hot.lane, line.or(hot.line))?;
            }
            let output = match event {
                Event::Succeeded { output, .. } => Some(output.as_slice()),
                _ => None,
            };
            self.keep_end(id, change.report.as_ref(), change.bill.as_ref(), output)?;
        } else if let Some(report) = &change.report {
            self.keep_report(id, report)?;
        }

        let mut children = Vec::new();
        match event {
            Event::Wrote { attempt, entries } => self.append(id, *attempt, entries, now)?,
            Event::Succeeded { children: new, .. } => {
                for child in new {
                    children.push(self.insert(child, now)?);
                }
            }
            _ => {}
        }
        Ok(Ok(Recorded { state: after.state.name(), cancel_asked: after.cancel_asked, children }))
    }

    fn hot(&mut self, id: JobId) -> rusqlite::Result<Option<Hot>> {
        if let Some(hot) = self.running()?.get(id) {
            return Ok(Some(hot.clone()));
        }
        let mut read = self.conn.prepare_cached(
            "SELECT state, due, attempt, failures, crashes, cancel_asked, node, lease_until, grp, key, task, line, priority
             FROM jobs WHERE id = ?1",
        )?;
        read.query_row([signed(id.number())], |row| Hot::of(id, row, 0)).optional()
    }

    /// What an ended attempt leaves: its bill, its result, and its report if it did not return.
    fn keep_end(
        &self,
        id: JobId,
        report: Option<&Report>,
        bill: Option<&Bill>,
        output: Option<&[u8]>,
    ) -> rusqlite::Result<()> {
        let mut keep = self.conn.prepare_cached(
            "INSERT INTO ends (job, kind, report, queue_wait, guest, wall, memory_peak, bytes_in, bytes_out, output)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (job) DO UPDATE SET
                 kind = coalesce(excluded.kind, kind), report = coalesce(excluded.report, report),
                 queue_wait = excluded.queue_wait, guest = excluded.guest, wall = excluded.wall,
                 memory_peak = excluded.memory_peak, bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out,
                 output = excluded.output",
        )?;
        let kind = report.map(|report| report.kind.as_str());
        let text = report.map(|report| report.text.as_str());
        let [queue_wait, guest, wall, memory, bytes_in, bytes_out] = rows::bill_columns(bill);
        let id = signed(id.number());
        keep.execute(params![id, kind, text, queue_wait, guest, wall, memory, bytes_in, bytes_out, output])?;
        Ok(())
    }

    /// What is left on a job that ended while no attempt ran.
    fn keep_report(&self, id: JobId, report: &Report) -> rusqlite::Result<()> {
        let mut keep = self.conn.prepare_cached(
            "INSERT INTO ends (job, kind, report) VALUES (?1, ?2, ?3)
             ON CONFLICT (job) DO UPDATE SET kind = excluded.kind, report = excluded.report",
        )?;
        keep.execute(params![signed(id.number()), report.kind.as_str(), report.text])?;
        Ok(())
    }

    fn append(&self, id: JobId, attempt: u32, entries: &[Entry], now: Timestamp) -> rusqlite::Result<()> {
        let id = signed(id.number());
        let last: i64 = self
            .conn
            .prepare_cached("SELECT coalesce(max(number), 0) FROM entries WHERE job = ?1")?
            .query_row([id], |row| row.get(0))?;
        let mut append = self.conn.prepare_cached(
            "INSERT INTO entries (job, number, attempt, at, kind, amount, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        for (number, entry) in (last + 1..).zip(entries) {
            let (kind, amount, data) = rows::entry_columns(entry);
            append.execute(params![id, number, attempt, micros(now), kind, amount, data])?;
        }
        Ok(())
    }

    pub(super) fn renew(&mut self, asked: &Lease, until: Timestamp) -> rusqlite::Result<Renewed> {
        let Some(hot) = self.hot(asked.job)? else { return Ok(Renewed::Lost(*asked)) };
        let standing = hot.standing;
        match standing.state {
            State::Running { lease } if lease.attempt == asked.attempt => {
                let mut renew = self.conn.prepare_cached("UPDATE jobs SET lease_until = ?2 WHERE id = ?1")?;
                renew.execute(params![signed(asked.job.number()), micros(until)])?;
                drop(renew);
                let lease = Lease { until, ..lease };
                let standing = Standing { state: State::Running { lease }, ..standing };
                self.running()?.put(asked.job, Hot { standing, ..hot });
                Ok(if standing.cancel_asked { Renewed::HeldCancelAsked(lease) } else { Renewed::Held(lease) })
            }
            _ => Ok(Renewed::Lost(*asked)),
        }
    }

    pub(super) fn renew_all(&mut self, leases: &[Lease], length: Duration) -> rusqlite::Result<Vec<Renewed>> {
        let until = self.now() + length;
        leases.iter().map(|lease| self.renew(lease, until)).collect()
    }

    /// Looks at all running jobs: they are few, and an index of ends of leases would cost every claim and renewal.
    pub(super) fn reclaim(&mut self, most: u32) -> rusqlite::Result<Vec<JobId>> {
        let now = self.now();
        let mut find = self.conn.prepare_cached(
            "SELECT id, attempt FROM jobs INDEXED BY jobs_running WHERE state = 2 AND lease_until <= ?1
             ORDER BY lease_until, id LIMIT ?2",
        )?;
        let found = find.query_map(params![micros(now), most], |row| Ok((job_id(row.get(0)?)?, row.get(1)?)))?;
        let over: Vec<(JobId, u32)> = found.collect::<rusqlite::Result<_>>()?;
        drop(find);
        let mut freed = Vec::new();
        for (id, attempt) in over {
            if self.apply(id, &Event::LeaseExpired { attempt }, now)?.is_ok() {
                freed.push(id);
            }
        }
        Ok(freed)
    }

    pub(super) fn forget(&self, before: Timestamp, most: u32) -> rusqlite::Result<u32> {
        let mut find = self.conn.prepare_cached(
            "SELECT id FROM jobs WHERE state >= 3 AND finished_at < ?1 ORDER BY finished_at, id LIMIT ?2",
        )?;
        let found = find.query_map(params![micros(before), most], |row| row.get(0))?;
        let old: Vec<i64> = found.collect::<rusqlite::Result<_>>()?;
        let Some(last) = old.iter().max() else { return Ok(0) };
        let mut remember = self.conn.prepare_cached(
            "INSERT INTO last_forgotten (one, id) VALUES (1, ?1) ON CONFLICT DO UPDATE SET id = max(id, excluded.id)",
        )?;
        remember.execute([last])?;
        for id in &old {
            self.conn.prepare_cached("DELETE FROM jobs WHERE id = ?1")?.execute([id])?;
            self.conn.prepare_cached("DELETE FROM payloads WHERE job = ?1")?.execute([id])?;
            self.conn.prepare_cached("DELETE FROM ends WHERE job = ?1")?.execute([id])?;
            self.conn.prepare_cached("DELETE FROM entries WHERE job = ?1")?.execute([id])?;
        }
        Ok(old.len() as u32)
    }
}
