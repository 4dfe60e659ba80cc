//! What happens to existing jobs: events, renewed and expired leases, and deletion.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::params;
use wharf_core::change::Change;
use wharf_core::failure::NewFailure;
use wharf_core::fingerprint::Fingerprint;
use wharf_core::ids::JobId;
use wharf_core::job::{Entry, JobStatus, State};
use wharf_core::lease::Lease;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::outcome::Report;
use wharf_core::time::Timestamp;

use super::failure_rows;
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
        let is_due = |due: Timestamp| due <= now || stored.ready_due_at.is_some();
        if let (Event::RunRequested, State::Waiting { due }) = (event, stored.status.state)
            && is_due(due)
        {
            // It keeps its place among the jobs that are due.
            return Ok(Ok(Recorded::new(&stored.status, Vec::new())));
        }
        if let (Event::PriorityChanged { priority }, State::Waiting { .. }) = (event, stored.status.state) {
            self.change_priority(id, &stored, *priority)?;
            return Ok(Ok(Recorded::new(&stored.status, Vec::new())));
        }
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
        let mut regressed = None;
        if let Some(attempt) = &change.unsuccessful {
            let (task, key) = (self.names.task(self.conn, stored.task)?, self.lanes.lane(stored.lane).key);
            let fingerprint = change.fingerprint(&task);
            self.add_attempt(id, attempt, fingerprint, (stored.started_at, now))?;
            if let Some(failure) = NewFailure::of(id, &task, key.as_ref(), &change, now)
                && self.count_failure(&failure, now)?
            {
                regressed = Some(failure.fingerprint);
            }
            let of_job = fingerprint.filter(|_| after.state == State::Failed);
            change.report.iter().try_for_each(|report| self.write_report(id, report, of_job, change.requeued_at))?;
        } else if let Some(report) = &change.report {
            self.write_report(id, report, None, change.requeued_at)?;
        } else if let Some(retried_at) = change.retried_at {
            // Every job that can be retried has a report.
            let sql = "UPDATE reports SET fingerprint = NULL, requeued_at = ?2, retried_at = ?2 WHERE job = ?1";
            self.conn.prepare_cached(sql)?.execute([signed(id.number()), timestamp_us(retried_at)])?;
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
        Ok(Ok(Recorded { regressed, ..Recorded::new(&after, children) }))
    }

    /// Gives a waiting job another priority. It joins its line before it leaves its old place there, so that its lane keeps its turn.
    fn change_priority(&mut self, id: JobId, job: &StoredJob, priority: i32) -> rusqlite::Result<()> {
        if priority == job.priority {
            return Ok(());
        }
        let id = signed(id.number());
        if let Some(due_at) = job.ready_due_at {
            self.add_ready((job.lane, job.task, priority), due_at, id)?;
            self.remove_ready((job.lane, job.task, job.priority), due_at, id)?;
        }
        let mut write = self.conn.prepare_cached("UPDATE jobs SET priority = ?2 WHERE id = ?1")?;
        write.execute(params![id, priority])?;
        Ok(())
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
        let usage = usage_columns(self.total_usage(id, attempt, change.usage)?.as_ref());
        let inline = output.filter(|output| output.len() <= INLINE_BYTES_MAX);
        let status = [i64::from(state), attempt.into(), failures.number().into(), crashes.into()];
        let numbers = status.map(Some).into_iter().chain([started_at, finished_at]).chain(usage);
        let padding = row_padding::remaining(numbers, inline.unwrap_or_default());
        let [queue_wait_us, cpu_us, wall_us, memory_peak_bytes, in_bytes, out_bytes] = usage;
        self.statements.update_ended.prepared()?.execute(params![
            id,
            state,
            due_at,
            attempt,
            failures.number(),
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
        write.execute(params![id, state, due_at, failures.number(), crashes, change.finished_at.map(timestamp_us)])?;
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
    fn write_report(
        &self,
        id: JobId,
        report: &Report,
        fingerprint: Option<Fingerprint>,
        requeued_at: Option<Timestamp>,
    ) -> rusqlite::Result<()> {
        let mut write = self.conn.prepare_cached(
            "INSERT INTO reports (job, outcome, text, fingerprint, requeued_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET outcome = excluded.outcome, text = excluded.text, fingerprint = excluded.fingerprint,
                 requeued_at = coalesce(excluded.requeued_at, requeued_at)",
        )?;
        let fingerprint = fingerprint.map(|fingerprint| fingerprint.to_string());
        let requeued_at = requeued_at.map(timestamp_us);
        write.execute(params![signed(id.number()), report.kind.as_str(), report.text, fingerprint, requeued_at])?;
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

    /// Deletes finished jobs, each with what it has.
    pub(super) fn delete_jobs(&self, jobs: &[FinishedJob]) -> rusqlite::Result<()> {
        let Some(last) = jobs.iter().map(|job| job.id).max() else { return Ok(()) };
        let mut write = self.conn.prepare_cached(
            "INSERT INTO last_deleted (one, id) VALUES (1, ?1) ON CONFLICT DO UPDATE SET id = max(id, excluded.id)",
        )?;
        write.execute([last])?;
        for FinishedJob { id, may_have_attempts, .. } in jobs {
            self.conn.prepare_cached("DELETE FROM jobs WHERE id = ?1")?.execute([id])?;
            self.conn.prepare_cached("DELETE FROM payloads WHERE job = ?1")?.execute([id])?;
            self.conn.prepare_cached("DELETE FROM outputs WHERE job = ?1")?.execute([id])?;
            self.conn.prepare_cached("DELETE FROM reports WHERE job = ?1")?.execute([id])?;
            self.conn.prepare_cached("DELETE FROM entries WHERE job = ?1")?.execute([id])?;
            if *may_have_attempts {
                self.conn.prepare_cached("DELETE FROM attempts WHERE job = ?1")?.execute([id])?;
                failure_rows::forget_job(self.conn, *id)?;
            }
        }
        self.count_deleted_of_batches(jobs)
    }

    /// Counts the deleted jobs of each durable broadcast. A broadcast whose last job was deleted is forgotten.
    fn count_deleted_of_batches(&self, jobs: &[FinishedJob]) -> rusqlite::Result<()> {
        let mut deleted: BTreeMap<i64, i64> = BTreeMap::new();
        jobs.iter().filter_map(|job| job.batch).for_each(|batch| *deleted.entry(batch).or_default() += 1);
        for (batch, count) in deleted {
            self.conn
                .prepare_cached(
                    "INSERT INTO deleted_of_batch (batch, jobs) VALUES (?1, ?2)
                     ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs",
                )?
                .execute([batch, count])?;
            self.conn
                .prepare_cached(
                    "DELETE FROM deleted_of_batch WHERE batch = ?1
                     AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_batch WHERE jobs.batch = ?1)",
                )?
                .execute([batch])?;
        }
        Ok(())
    }
}

/// A finished job that is about to be deleted.
pub(super) struct FinishedJob {
    pub(super) id: i64,
    /// False if it succeeded at once, so that no table of unsuccessful attempts has it.
    pub(super) may_have_attempts: bool,
    /// The durable broadcast that it belongs to.
    pub(super) batch: Option<i64>,
}

/// Returns the columns `state` and `due_at`; `due_at` is `None`, which keeps it, for a job that doesn't wait.
fn state_columns(state: &State, now: Timestamp) -> (i16, Option<i64>) {
    let due_at = match state {
        State::Waiting { due } => Some(timestamp_us(*due)),
        _ => None,
    };
    (state_number(state, now), due_at)
}
