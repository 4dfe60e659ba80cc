//! Applies an event to a job in memory, by the rules of its lifecycle. The write set carries the changes to the tables.

use wharf_core::change::Change;
use wharf_core::failure::NewFailure;
use wharf_core::ids::{JobId, TaskName};
use wharf_core::job::{JobStatus, State};
use wharf_core::key::Key;
use wharf_core::lifecycle::{Event, Refusal};

use super::job_row::JobRow;
use super::ledger::PostgresLedger;
use super::session::SessionError;
use super::write_set::ShrunkLine;
use crate::columns::{READY, key, parse, signed, state_number};

impl PostgresLedger<'_> {
    /// Applies one event to a job, with its effects on the job's line, its lane and its results. Returns the new status.
    pub(super) async fn apply(&mut self, id: JobId, event: &Event) -> Result<Result<JobStatus, Refusal>, SessionError> {
        let Some(before) = self.jobs.get(&id).cloned() else { return Ok(Err(Refusal::Unknown)) };
        if let (Event::RunRequested, State::Waiting { due }) = (event, before.status.state)
            && (before.state == READY || due <= self.now)
        {
            // It keeps its place among the jobs that are due.
            return Ok(Ok(before.status));
        }
        if let (Event::PriorityChanged { priority }, State::Waiting { .. }) = (event, before.status.state) {
            self.change_priority(id, &before, *priority);
            return Ok(Ok(before.status));
        }
        let change = match Change::of(&before.status, event, self.now) {
            Ok(change) => change,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let after = change.status;
        let mut fingerprint = None;
        if change.unsuccessful.is_some() {
            // In a box, since few events are such: the future of every event would have room for it.
            let (task, key) = Box::pin(self.task_and_key(&before)).await?;
            fingerprint = change.fingerprint(&task);
            if let Some(failure) = NewFailure::of(id, &task, key.as_ref(), &change, self.now) {
                self.failures.add(failure);
            }
        }
        self.waiting.add(before.task, change.added_waiting(&before.status));
        let state = state_number(&after.state, self.now);
        let becomes_ready = state == READY && before.state != READY;
        let line =
            if becomes_ready { Some(self.join_line(&before.lane, before.task, before.priority).await?) } else { None };
        if after != before.status {
            if let Some(job) = self.jobs.get_mut(&id) {
                (job.status, job.state, job.line, job.finished_at) = (after, state, line, change.finished_at);
                job.fingerprint = fingerprint.filter(|_| after.state == State::Failed);
                job.requeued_at = change.requeued_at.or(job.requeued_at);
                job.retried_at = change.retried_at.or(job.retried_at);
            }
            self.writes.changed.insert(id);
        }
        if let (READY, Some(line)) = (before.state, before.line) {
            let shrunk = ShrunkLine { lane: before.lane.clone(), task: before.task, is_empty: false };
            self.writes.shrunk_lines.insert(line, shrunk);
            if !self.writes.joined.remove(&id) {
                let position = before.ready_position();
                self.writes.unready.extend(position.map(|position| (position, signed(id.number()))));
            }
        }
        if becomes_ready {
            self.writes.joined.insert(id);
        }
        if change.finished_at.is_some() {
            self.writes.finished.insert(id);
        }
        if change.attempt_ended {
            self.writes.released.insert(signed(id.number()));
            for line in self.lanes.get_mut(&before.lane).into_iter().flatten() {
                line.closed_by_limit = None;
            }
            self.writes.reopened.insert(before.lane);
            let output = match event {
                Event::Succeeded { output, .. } => Some(output.clone()),
                _ => None,
            };
            let end = self.writes.ends.entry(id).or_default();
            end.attempt = Some((change.usage, output));
            end.report = change.report.or(end.report.take());
        } else if change.report.is_some() {
            self.writes.ends.entry(id).or_default().report = change.report;
        }
        self.writes.attempts.extend(change.unsuccessful.map(|attempt| (id, attempt, fingerprint)));
        Ok(Ok(after))
    }

    /// Gives a waiting job another priority. A ready one stays in its line, whose top priority is computed again.
    fn change_priority(&mut self, id: JobId, before: &JobRow, priority: i32) {
        if priority == before.priority {
            return;
        }
        if let (READY, Some(line)) = (before.state, before.line) {
            let shrunk = ShrunkLine { lane: before.lane.clone(), task: before.task, is_empty: false };
            self.writes.shrunk_lines.insert(line, shrunk);
            if self.writes.joined.insert(id) {
                let position = before.ready_position();
                self.writes.unready.extend(position.map(|position| (position, signed(id.number()))));
            }
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.priority = priority;
        }
        self.writes.priorities.insert(id, priority);
    }

    /// Returns the task and the key of a job.
    async fn task_and_key(&mut self, job: &JobRow) -> Result<(TaskName, Option<Key>), SessionError> {
        self.names.load(self.session, &[job.task]).await?;
        Ok((parse("task", self.names.text(job.task)?)?, key(&job.lane.key)?))
    }
}
