//! What happens to jobs that are there: each event by the law, in memory; `writes` carries it to the tables.

use wharf_core::change::Change;
use wharf_core::ids::JobId;
use wharf_core::job::{Entry, JobStatus, State};
use wharf_core::lifecycle::{Event, Refusal};

use super::ledger::Ledger;
use super::node_marks::Expired;
use super::ready_rows::place;
use super::rows::{READY, signed, state_number};
use super::session::SessionError;
use super::write_set::Settle;
use crate::store::Recorded;

impl Ledger<'_> {
    /// Applies one event of whoever runs or asks. A refusal leaves everything as it is.
    pub(super) async fn record(&mut self, id: JobId, event: &Event) -> Result<Result<Recorded, Refusal>, SessionError> {
        if !event.is_recordable() {
            return Ok(Err(Refusal::Stale));
        }
        let after = match self.change(id, event).await? {
            Ok(after) => after,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut children = Vec::new();
        match event {
            Event::Wrote { attempt, entries } => self.append(id, *attempt, entries),
            Event::Succeeded { children: new, changes, .. } => {
                changes.iter().for_each(|changes| self.values.change(changes));
                for child in new {
                    children.push(self.insert_child(child).await?);
                }
            }
            _ => {}
        }
        Ok(Ok(Recorded { state: after.state.name(), cancel_asked: after.cancel_asked, children }))
    }

    /// Ends a lease that has run out, unless it was prolonged since it was looked at.
    pub(super) async fn expire(&mut self, expired: Expired) -> Result<bool, SessionError> {
        let Expired { job: id, attempt, mark } = expired;
        let over =
            |standing: &JobStatus| matches!(standing.state, State::Running { lease } if lease.is_expired(self.now));
        if !self.jobs.get(&id).is_some_and(|hot| over(&hot.standing)) {
            return Ok(false);
        }
        Ok(self.change(id, &Event::LeaseExpired { attempt, mark }).await?.is_ok())
    }

    /// Where the job stands after the event; what follows for its line, its lane and what is left on it.
    pub(super) async fn change(
        &mut self,
        id: JobId,
        event: &Event,
    ) -> Result<Result<JobStatus, Refusal>, SessionError> {
        let Some(hot) = self.jobs.get(&id).cloned() else { return Ok(Err(Refusal::Unknown)) };
        let change = match Change::of(&hot.standing, event, self.now) {
            Ok(change) => change,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let after = change.status;
        let state = state_number(&after.state, self.now);
        let joins = state == READY && hot.state != READY;
        let line = if joins { Some(self.join_line(&hot.lane, hot.task, hot.priority).await?) } else { None };
        if after != hot.standing {
            if let Some(hot) = self.jobs.get_mut(&id) {
                (hot.standing, hot.state, hot.line, hot.finished_at) = (after, state, line, change.finished_at);
            }
            self.writes.changed.insert(id);
        }
        if let (READY, Some(line)) = (hot.state, hot.line) {
            let settle = Settle { lane: hot.lane.clone(), task: hot.task, is_empty: false };
            self.writes.settle.insert(line, settle);
            if !self.writes.joined.remove(&id) {
                self.writes.unqueued.extend(place(&hot).map(|place| (place, signed(id.number()))));
            }
        }
        if joins {
            self.writes.joined.insert(id);
        }
        if change.finished_at.is_some() {
            self.writes.finished.insert(id);
        }
        if change.attempt_ended {
            self.writes.released.insert(signed(id.number()));
            for line in self.lanes.get_mut(&hot.lane).into_iter().flatten() {
                line.closed_by = None;
            }
            self.writes.reopen.insert(hot.lane);
            let output = match event {
                Event::Succeeded { output, .. } => Some(output.clone()),
                _ => None,
            };
            let end = self.writes.ends.entry(id).or_default();
            end.attempt = Some((change.bill, output));
            end.report = change.report.or(end.report.take());
        } else if change.report.is_some() {
            self.writes.ends.entry(id).or_default().report = change.report;
        }
        Ok(Ok(after))
    }

    fn append(&mut self, id: JobId, attempt: u32, entries: &[Entry]) {
        let last = self.last_entries.entry(id).or_default();
        for entry in entries {
            *last += 1;
            self.writes.entries.push((id, *last, attempt, entry.clone()));
        }
    }
}
