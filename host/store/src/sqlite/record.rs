//! What happens to existing jobs: events, renewed and expired leases, and deletion.

use std::time::Duration;

use rusqlite::params;
use wharf_core::change::Change;
use wharf_core::ids::JobId;
use wharf_core::job::{Entry, JobStatus, State};
use wharf_core::lease::Lease;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::outcome::Report;
use wharf_core::time::Timestamp;

use super::lanes::RunningJob;
use super::large_values::OUTPUTS;
use super::ledger::{SqliteLedger, StoredJob};
use super::row_padding;
use super::rows::INLINE_BYTES_MAX;
use crate::columns::{entry_columns, signed, state_number, timestamp_us, usage_columns};
use crate::store::{Recorded, Renewed};

impl SqliteLedger<'_> {
    /// Applies one event by the rules of the lifecycle. A refused event changes nothing.
    pub(super) fn apply(
        &mut self,
        id: JobId,
        event: &Event,
        now: Timestamp,
    ) -> rusqlite::Result<Result<Recorded, Refusal>> {
        let running = self.lanes.running(id).cloned();
        let stored = match &running {
            Some(job) => StoredJob {
                status: job.status,
                ready_due_at: None,
                lane: job.lane,
                task: job.task,
                priority: job.priority,
                started_at: Some(timestamp_us(job.started_at)),
            },
            None => match self.stored_job(id)? {
                Some(stored) => stored,
                None => return Ok(Err(Refusal::Unknown)),
            },
        };
        let change = match Change::of(&stored.status, event, now) {
            Ok(change) => change,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let after = change.status;
        self.waiting.add(stored.task, change.added_waiting(&stored.status));
        if change.attempt_ended {
            let output = match event {
                Event::Succeeded { output, .. } => Some(&**output),
                _ => None,
            };
            self.update_ready(id, &stored, &after, now)?;
            self.write_ended(id, &stored, &change, output, now)?;
            self.lanes.set_running(id, None);
            self.reopen_lane(stored.lane);
        } else if after != stored.status {
            match running {
                Some(job) => self.write_running(id, RunningJob { status: after, ..job })?,
                None => {
                    self.update_ready(id, &stored, &after, now)?;
                    self.write_status(id, &change, now)?;
                }
            }
        }
        if let Some(report) = &change.report {
            self.write_report(id, report)?;
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
        Ok(Ok(Recorded::new(&after, children)))
    }

    /// Adds a job to the ready ones or removes it from them, as its new status requires.
    fn update_ready(
        &mut self,
        id: JobId,
        before: &StoredJob,
        after: &JobStatus,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let (id, line) = (signed(id.number()), (before.lane, before.task, before.priority));
        match (after.state, before.ready_due_at) {
            (State::Waiting { due }, None) if due <= now => self.add_ready(line, timestamp_us(due), id),
            (State::Waiting { .. }, _) | (_, None) => Ok(()),
            (_, Some(due_at)) => self.remove_ready(line, due_at, id),
        }
    }

    /// Writes the end of an attempt: the job's new status, what the attempt used, and its result.
    fn write_ended(
        &mut self,
        id: JobId,
        before: &StoredJob,
        change: &Change,
        output: Option<&[u8]>,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let (id, (state, due_at)) = (signed(id.number()), state_columns(&change.status.state, now));
        let JobStatus { attempt, failures, crashes, cancel_requested, .. } = change.status;
        let (started_at, finished_at) = (before.started_at, change.finished_at.map(timestamp_us));
        let usage = usage_columns(change.usage.as_ref());
        let inline = output.filter(|output| output.len() <= INLINE_BYTES_MAX);
        let status = [i64::from(state), attempt.into(), failures.into(), crashes.into()];
        let numbers = status.map(Some).into_iter().chain([started_at, finished_at]).chain(usage);
        let padding = row_padding::remaining(numbers, inline.unwrap_or_default());
        let [queue_wait_us, cpu_us, wall_us, memory_peak_bytes, in_bytes, out_bytes] = usage;
        self.statements.update_ended.prepared()?.execute(params![
            id,
            state,
            due_at,
            attempt,
            failures,
            crashes,
            cancel_requested,
            started_at,
            finished_at,
            queue_wait_us,
            cpu_us,
            wall_us,
            memory_peak_bytes,
            in_bytes,
            out_bytes,
            inline,
            padding
        ])?;
        if let (Some(large), None) = (output, inline) {
            OUTPUTS.insert(self.conn, id, large)?;
        }
        Ok(())
    }

    /// Writes the new status of a job that changed while no attempt ran.
    fn write_status(&mut self, id: JobId, change: &Change, now: Timestamp) -> rusqlite::Result<()> {
        let mut write = self.conn.prepare_cached(
            "UPDATE jobs SET state = ?2, due_at = coalesce(?3, due_at), failures = ?4, crashes = ?5, finished_at = ?6
             WHERE id = ?1",
        )?;
        let (id, (state, due_at)) = (signed(id.number()), state_columns(&change.status.state, now));
        let JobStatus { failures, crashes, .. } = change.status;
        write.execute(params![id, state, due_at, failures, crashes, change.finished_at.map(timestamp_us)])?;
        Ok(())
    }

    /// Writes to a running job's own row that it runs; from here on it needs no claim.
    fn write_running(&mut self, id: JobId, job: RunningJob) -> rusqlite::Result<()> {
        let Some(lease) = job.lease() else { return Ok(()) };
        let mut write = self.conn.prepare_cached(
            "UPDATE jobs SET state = 2, attempt = ?2, cancel_requested = ?3, node = ?4, lease_expires_at = ?5,
                 started_at = ?6
             WHERE id = ?1",
        )?;
        let (expires_at, started_at) = (timestamp_us(lease.until), timestamp_us(job.started_at));
        let (number, node, cancel_requested) = (signed(id.number()), signed(lease.node.0), job.status.cancel_requested);
        write.execute(params![number, lease.attempt, cancel_requested, node, expires_at, started_at])?;
        drop(write);
        self.lanes.set_running(id, Some(RunningJob { claim: None, ..job }));
        Ok(())
    }

    /// Writes how the last unsuccessful attempt ended, or why the job ended without one.
    fn write_report(&self, id: JobId, report: &Report) -> rusqlite::Result<()> {
        let mut write =
            self.conn.prepare_cached("INSERT OR REPLACE INTO reports (job, outcome, text) VALUES (?1, ?2, ?3)")?;
        write.execute(params![signed(id.number()), report.kind.as_str(), report.text])?;
        Ok(())
    }

    fn append(&self, id: JobId, attempt: u32, entries: &[Entry], now: Timestamp) -> rusqlite::Result<()> {
        let id = signed(id.number());
        let last: i64 = self
            .conn
            .prepare_cached("SELECT coalesce(max(number), 0) FROM entries WHERE job = ?1")?
            .query_row([id], |row| row.get(0))?;
        let mut append = self.conn.prepare_cached(
            "INSERT INTO entries (job, number, attempt, written_at, kind, amount, data)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        for (number, entry) in (last + 1..).zip(entries) {
            let (kind, amount, data) = entry_columns(entry);
            append.execute(params![id, number, attempt, timestamp_us(now), kind, amount, data])?;
        }
        Ok(())
    }

    fn renew(&mut self, requested: &Lease, until: Timestamp) -> rusqlite::Result<Renewed> {
        let Some(job) = self.lanes.running(requested.job).cloned() else { return Ok(Renewed::Lost(*requested)) };
        match job.lease().and_then(|lease| lease.renewed(requested.attempt, until)) {
            Some(lease) => {
                let status = JobStatus { state: State::Running { lease }, ..job.status };
                self.write_running(requested.job, RunningJob { status, ..job })?;
                Ok(if status.cancel_requested {
                    Renewed::RenewedCancelRequested(lease)
                } else {
                    Renewed::Renewed(lease)
                })
            }
            None => Ok(Renewed::Lost(*requested)),
        }
    }

    /// Extends leases to `length` from now.
    pub(super) fn renew_all(&mut self, leases: &[Lease], length: Duration) -> rusqlite::Result<Vec<Renewed>> {
        let until = self.now() + length;
        leases.iter().map(|lease| self.renew(lease, until)).collect()
    }

    /// Ends at most `max` expired leases, the oldest first, and returns their jobs. It checks all running jobs: they are few.
    pub(super) fn reclaim(&mut self, max: u32) -> rusqlite::Result<Vec<JobId>> {
        let now = self.now();
        let leases = self.lanes.all_running().filter_map(|(_, job)| job.lease());
        let mut expired: Vec<Lease> = leases.filter(|lease| lease.is_expired(now)).collect();
        expired.sort_unstable_by_key(|lease| (lease.until, lease.job));
        expired.truncate(max as usize);
        let mut freed = Vec::new();
        for Lease { job, attempt, node, .. } in expired {
            let mark = self.mark_of(node)?.about(job, attempt);
            if self.apply(job, &Event::LeaseExpired { attempt, mark }, now)?.is_ok() {
                freed.push(job);
            }
        }
        Ok(freed)
    }

    /// Deletes at most `max` jobs that finished before `before`, the oldest first, and returns how many.
    pub(super) fn delete_finished(&self, before: Timestamp, max: u32) -> rusqlite::Result<u32> {
        let mut find = self.conn.prepare_cached(
            "SELECT id FROM jobs WHERE state >= 3 AND finished_at < ?1 ORDER BY finished_at, id LIMIT ?2",
        )?;
        let found = find.query_map(params![timestamp_us(before), max], |row| row.get(0))?;
        let old: Vec<i64> = found.collect::<rusqlite::Result<_>>()?;
        let Some(last) = old.iter().max() else { return Ok(0) };
        let mut write = self.conn.prepare_cached(
            "INSERT INTO last_deleted (one, id) VALUES (1, ?1) ON CONFLICT DO UPDATE SET id = max(id, excluded.id)",
        )?;
        write.execute([last])?;
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

/// Returns the columns `state` and `due_at`; `due_at` is `None`, which keeps it, for a job that doesn't wait.
fn state_columns(state: &State, now: Timestamp) -> (i16, Option<i64>) {
    let due_at = match state {
        State::Waiting { due } => Some(timestamp_us(*due)),
        _ => None,
    };
    (state_number(state, now), due_at)
}
