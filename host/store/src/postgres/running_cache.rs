//! A cache of the jobs that this writer claimed, so that their ends are written without reading them first.
//!
//! Other hosts may have changed them since then: an end is only written if the job is still in its attempt. If one is not, the
//! transaction is rolled back, its jobs are dropped from the cache, and it starts again by reading them.

use std::collections::HashMap;

use wharf_core::ids::JobId;
use wharf_core::lifecycle::Event;

use super::job_row::JobRow;

/// The maximum number of jobs. Jobs that other hosts took over never leave the cache: if it is full, it is emptied.
const JOBS_MAX: usize = 1 << 15;

#[derive(Default)]
pub(super) struct RunningCache(HashMap<JobId, JobRow>);

impl RunningCache {
    /// Adds jobs as a claim left them.
    pub(super) fn add(&mut self, claimed: Vec<(JobId, JobRow)>) {
        if self.0.len() + claimed.len() > JOBS_MAX {
            self.0.clear();
        }
        self.0.extend(claimed);
    }

    /// Returns the job, if `event` is the successful end of the attempt that is cached.
    pub(super) fn find(&self, id: JobId, event: &Event) -> Option<&JobRow> {
        match event {
            Event::Succeeded { attempt, .. } => self.0.get(&id).filter(|job| job.status.attempt == *attempt),
            _ => None,
        }
    }

    /// Removes a job and returns it.
    pub(super) fn take(&mut self, id: JobId) -> Option<JobRow> {
        self.0.remove(&id)
    }
}
