//! What happens to jobs that are there: events, renewals, leases that run out, and forgetting.

use std::time::Duration;

use rusqlite::params;
use wharf_core::ids::JobId;
use wharf_core::job::{Entry, JobStatus, State};
use wharf_core::lease::Lease;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::outcome::Report;
use wharf_core::time::Timestamp;

use super::lanes::Hot;
use super::ledger::{Known, Ledger};
use super::row_padding;
use super::rows::{self, READY, RUNNING, SMALL_BYTES_MAX, micros, signed, state_number};
use crate::change::{Change, change};
use crate::store::{Recorded, Renewed};

impl Ledger<'_> {
    /// Applies one event by the law. A refusal leaves everything as it is.
    pub(super) fn apply(
        &mut self,
        id: JobId,
        event: &Event,
        now: Timestamp,
    ) -> rusqlite::Result<Result<Recorded, Refusal>> {
        let running = self.lanes.running(id).cloned();
        let known = match &running {
            Some(hot) => Known {
                standing: hot.standing,
                state: RUNNING,
                lane: hot.lane,
                task: hot.task,
                priority: hot.priority,
                due: 0,
                started_at: Some(micros(hot.started_at)),
            },
            None => match self.known(id)? {
                Some(known) => known,
                None => return Ok(Err(Refusal::Unknown)),
            },
        };
        let change = match change(&known.standing, event, now) {
            Ok(change) => change,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let after = change.standing;
        if change.attempt_ended {
            let output = match event {
                Event::Succeeded { output, .. } => Some(&**output),
                _ => None,
            };
            self.change_place(id, &known, &after, now)?;
            self.write_end(id, &known, &change, output, now)?;
            self.lanes.change_job(id, None);
            self.reopen_lane(known.lane);
        } else if after == known.standing {
        } else if let Some(hot) = running {
            self.write_running(id, Hot { standing: after, ..hot })?;
        } else {
            self.change_place(id, &known, &after, now)?;
            self.write_standing(id, &change, now)?;
        }
        if let Some(report) = &change.report {
            self.keep_report(id, report)?;
        }

        let mut children = Vec::new();
        match event {
            Event::Wrote { attempt, entries } => self.append(id, *attempt, entries, now)?,
            Event::Succeeded { children: new, changes, .. } => {
                for child in new {
                    children.push(self.insert_child(child, now)?);
                }
                if let Some(changes) = changes {
                    self.change_values(changes)?;
                }
            }
            _ => {}
        }
        Ok(Ok(Recorded { state: after.state.name(), cancel_asked: after.cancel_asked, children }))
    }

    /// A job's place among the ready ones: it leaves it, or is given one.
    fn change_place(&mut self, id: JobId, before: &Known, after: &JobStatus, now: Timestamp) -> rusqlite::Result<()> {
        let (number, place) = (signed(id.number()), (before.lane, before.task, before.priority));
        match after.state {
            State::Waiting { due } if due <= now && before.state != READY => self.add_ready(place, micros(due), number),
            State::Waiting { .. } => Ok(()),
            _ if before.state == READY => self.remove_ready(place, before.due, number),
            _ => Ok(()),
        }
    }

    /// An attempt ended: where its job stands, what the attempt cost, its result.
    fn write_end(
        &mut self,
        id: JobId,
        before: &Known,
        change: &Change,
        output: Option<&[u8]>,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let (number, (state, due)) = (signed(id.number()), state_columns(&change.standing.state, now));
        let JobStatus { attempt, failures, crashes, cancel_asked, .. } = change.standing;
        let (started_at, finished_at) = (before.started_at, change.finished_at.map(micros));
        let bill = rows::bill_columns(change.bill.as_ref());
        let small = output.filter(|output| output.len() <= SMALL_BYTES_MAX);
        let added =
            [Some(state), Some(attempt.into()), Some(failures.into()), Some(crashes.into()), started_at, finished_at];
        let room = row_padding::left(added.into_iter().chain(bill), small.unwrap_or_default());
        let [queue_wait, guest, wall, memory, bytes_in, bytes_out] = bill;
        self.statements.write_end.prepared()?.execute(params![
            number,
            state,
            due,
            attempt,
            failures,
            crashes,
            cancel_asked,
            started_at,
            finished_at,
            queue_wait,
            guest,
            wall,
            memory,
            bytes_in,
            bytes_out,
            small,
            room
        ])?;
        if let (Some(large), None) = (output, small) {
            let mut keep = self.conn.prepare_cached("INSERT INTO outputs (job, output) VALUES (?1, ?2)")?;
            keep.execute(params![number, large])?;
        }
        Ok(())
    }

    /// Where a job stands that somebody moved while no attempt ran.
    fn write_standing(&mut self, id: JobId, change: &Change, now: Timestamp) -> rusqlite::Result<()> {
        let mut write = self.conn.prepare_cached(
            "UPDATE jobs SET state = ?2, due = coalesce(?3, due), failures = ?4, crashes = ?5, finished_at = ?6
             WHERE id = ?1",
        )?;
        let (number, (state, due)) = (signed(id.number()), state_columns(&change.standing.state, now));
        let JobStatus { failures, crashes, .. } = change.standing;
        write.execute(params![number, state, due, failures, crashes, change.finished_at.map(micros)])?;
        Ok(())
    }

    /// A job that runs: from here on its own row says so.
    fn write_running(&mut self, id: JobId, hot: Hot) -> rusqlite::Result<()> {
        let Some(lease) = hot.lease() else { return Ok(()) };
        let mut write = self.conn.prepare_cached(
            "UPDATE jobs SET state = 2, attempt = ?2, cancel_asked = ?3, node = ?4, lease_until = ?5, started_at = ?6
             WHERE id = ?1",
        )?;
        let (number, node) = (signed(id.number()), signed(lease.node.0));
        let (asked, until, at) = (hot.standing.cancel_asked, micros(lease.until), micros(hot.started_at));
        write.execute(params![number, lease.attempt, asked, node, until, at])?;
        drop(write);
        self.lanes.change_job(id, Some(Hot { claim: None, ..hot }));
        Ok(())
    }

    /// How the last unsuccessful attempt ended, or what became of the job without one.
    fn keep_report(&self, id: JobId, report: &Report) -> rusqlite::Result<()> {
        let mut keep =
            self.conn.prepare_cached("INSERT OR REPLACE INTO reports (job, kind, report) VALUES (?1, ?2, ?3)")?;
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

    fn renew(&mut self, asked: &Lease, until: Timestamp) -> rusqlite::Result<Renewed> {
        let Some(hot) = self.lanes.running(asked.job).cloned() else { return Ok(Renewed::Lost(*asked)) };
        match hot.standing.state {
            State::Running { lease } if lease.attempt == asked.attempt => {
                let lease = Lease { until, ..lease };
                let standing = JobStatus { state: State::Running { lease }, ..hot.standing };
                self.write_running(asked.job, Hot { standing, ..hot })?;
                Ok(if standing.cancel_asked { Renewed::HeldCancelAsked(lease) } else { Renewed::Held(lease) })
            }
            _ => Ok(Renewed::Lost(*asked)),
        }
    }

    pub(super) fn renew_all(&mut self, leases: &[Lease], length: Duration) -> rusqlite::Result<Vec<Renewed>> {
        let until = self.now() + length;
        leases.iter().map(|lease| self.renew(lease, until)).collect()
    }

    /// Looks at all running jobs: they are few.
    pub(super) fn reclaim(&mut self, max: u32) -> rusqlite::Result<Vec<JobId>> {
        let now = self.now();
        let leases = self.lanes.all_running().filter_map(|(_, hot)| hot.lease());
        let mut over: Vec<Lease> = leases.filter(|lease| lease.until <= now).collect();
        over.sort_unstable_by_key(|lease| (lease.until, lease.job));
        over.truncate(max as usize);
        let mut freed = Vec::new();
        for Lease { job, attempt, node, .. } in over {
            let mark = self.mark_of(node)?.about(job, attempt);
            if self.apply(job, &Event::LeaseExpired { attempt, mark }, now)?.is_ok() {
                freed.push(job);
            }
        }
        Ok(freed)
    }

    pub(super) fn delete_finished(&self, before: Timestamp, max: u32) -> rusqlite::Result<u32> {
        let mut find = self.conn.prepare_cached(
            "SELECT id FROM jobs WHERE state >= 3 AND finished_at < ?1 ORDER BY finished_at, id LIMIT ?2",
        )?;
        let found = find.query_map(params![micros(before), max], |row| row.get(0))?;
        let old: Vec<i64> = found.collect::<rusqlite::Result<_>>()?;
        let Some(last) = old.iter().max() else { return Ok(0) };
        let mut remember = self.conn.prepare_cached(
            "INSERT INTO last_forgotten (one, id) VALUES (1, ?1) ON CONFLICT DO UPDATE SET id = max(id, excluded.id)",
        )?;
        remember.execute([last])?;
        for id in &old {
            self.conn.prepare_cached("DELETE FROM jobs WHERE id = ?1")?.execute([id])?;
            self.conn.prepare_cached("DELETE FROM payloads WHERE job = ?1")?.execute([id])?;
            self.conn.prepare_cached("DELETE FROM outputs WHERE job = ?1")?.execute([id])?;
            self.conn.prepare_cached("DELETE FROM reports WHERE job = ?1")?.execute([id])?;
            self.conn.prepare_cached("DELETE FROM entries WHERE job = ?1")?.execute([id])?;
        }
        Ok(old.len() as u32)
    }
}

/// The columns `state` and `due`; a job that waits for nothing keeps when it was due.
fn state_columns(state: &State, now: Timestamp) -> (i64, Option<i64>) {
    let due = match state {
        State::Waiting { due } => Some(micros(*due)),
        _ => None,
    };
    (state_number(state, now), due)
}
