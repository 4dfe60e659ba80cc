//! Applies an event to a job in memory, by the rules of its lifecycle. The write set carries the changes to the tables.

use wharf_core::change::Change;
use wharf_core::ids::JobId;
use wharf_core::job::JobStatus;
use wharf_core::lifecycle::{Event, Refusal};

use super::ledger::PostgresLedger;
use super::session::SessionError;
use super::write_set::ShrunkLine;
use crate::columns::{READY, signed, state_number};

impl PostgresLedger<'_> {
    /// Applies one event to a job, with its effects on the job's line, its lane and its results. Returns the new status.
    pub(super) async fn apply(&mut self, id: JobId, event: &Event) -> Result<Result<JobStatus, Refusal>, SessionError> {
        let Some(before) = self.jobs.get(&id).cloned() else { return Ok(Err(Refusal::Unknown)) };
        let change = match Change::of(&before.status, event, self.now) {
            Ok(change) => change,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let after = change.status;
        self.waiting.add(before.task, change.added_waiting(&before.status));
        let state = state_number(&after.state, self.now);
        let becomes_ready = state == READY && before.state != READY;
        let line =
            if becomes_ready { Some(self.join_line(&before.lane, before.task, before.priority).await?) } else { None };
        if after != before.status {
            if let Some(job) = self.jobs.get_mut(&id) {
                (job.status, job.state, job.line, job.finished_at) = (after, state, line, change.finished_at);
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
        Ok(Ok(after))
    }
}
