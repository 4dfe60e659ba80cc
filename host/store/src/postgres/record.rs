//! Events from runners and clients, and the ends of expired leases.

use wharf_core::ids::JobId;
use wharf_core::job::{Entry, JobStatus, State};
use wharf_core::lifecycle::{Event, Refusal};

use super::ledger::PostgresLedger;
use super::node_marks::ExpiredLease;
use super::session::SessionError;
use crate::store::Recorded;

impl PostgresLedger<'_> {
    /// Applies one event from a runner or a client. A refusal changes nothing.
    pub(super) async fn record(&mut self, id: JobId, event: &Event) -> Result<Result<Recorded, Refusal>, SessionError> {
        if !event.is_recordable() {
            return Ok(Err(Refusal::Stale));
        }
        let after = match self.apply(id, event).await? {
            Ok(after) => after,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut children = Vec::new();
        match event {
            Event::Wrote { attempt, entries } => self.append(id, *attempt, entries),
            Event::Succeeded { children: new, changes, .. } => {
                changes.iter().for_each(|changes| self.values.add(changes));
                for child in new {
                    children.push(self.insert_child(child).await?);
                }
            }
            _ => {}
        }
        Ok(Ok(Recorded::new(&after, children)))
    }

    /// Ends an expired lease, unless it was renewed since it was read. Returns true if it ended.
    pub(super) async fn expire(&mut self, expired: ExpiredLease) -> Result<bool, SessionError> {
        let ExpiredLease { job: id, attempt, mark } = expired;
        let is_expired =
            |status: &JobStatus| matches!(status.state, State::Running { lease } if lease.is_expired(self.now));
        if !self.jobs.get(&id).is_some_and(|job| is_expired(&job.status)) {
            return Ok(false);
        }
        Ok(self.apply(id, &Event::LeaseExpired { attempt, mark }).await?.is_ok())
    }

    fn append(&mut self, id: JobId, attempt: u32, entries: &[Entry]) {
        let last = self.last_entries.entry(id).or_default();
        for entry in entries {
            *last += 1;
            self.writes.entries.push((id, *last, attempt, entry.clone()));
        }
    }
}
