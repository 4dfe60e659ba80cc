//! Running: how the jobs stand that this writer claimed, so that their ends are not read before they are written.
//!
//! Others may have changed them since: an end is written only where the job is still with its attempt. Where one is not, the
//! transaction is undone, nothing is remembered of its jobs, and it begins anew by reading them.

use std::collections::HashMap;

use wharf_core::ids::JobId;
use wharf_core::lifecycle::Event;

use super::ledger::JobRow;

/// Jobs that are lost to others are never heard of again: when there are so many, all is forgotten.
const REMEMBERED_MAX: usize = 1 << 15;

#[derive(Default)]
pub(super) struct Running(HashMap<JobId, JobRow>);

impl Running {
    pub(super) fn keep(&mut self, claimed: Vec<(JobId, JobRow)>) {
        if self.0.len() + claimed.len() > REMEMBERED_MAX {
            self.0.clear();
        }
        self.0.extend(claimed);
    }

    /// The job, if this event is the ordinary end of the attempt that is remembered.
    pub(super) fn find(&self, id: JobId, event: &Event) -> Option<&JobRow> {
        match event {
            Event::Succeeded { attempt, .. } => self.0.get(&id).filter(|hot| hot.standing.attempt == *attempt),
            _ => None,
        }
    }

    pub(super) fn take(&mut self, id: JobId) -> Option<JobRow> {
        self.0.remove(&id)
    }
}
