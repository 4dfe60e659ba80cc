//! The running jobs, and the rows of `claims` that record them.

use std::mem;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use smallvec::SmallVec;
use wharf_core::ids::JobId;
use wharf_core::job::{JobStatus, State};
use wharf_core::lease::Lease;
use wharf_core::time::Timestamp;

use super::numbers::LaneNo;

/// A running job.
#[derive(Clone, Debug)]
pub(in crate::sqlite) struct RunningJob {
    pub(in crate::sqlite) status: JobStatus,
    pub(in crate::sqlite) lane: LaneNo,
    pub(in crate::sqlite) task: i64,
    pub(in crate::sqlite) priority: i32,
    pub(in crate::sqlite) started_at: Timestamp,
    /// The row of `claims` that records the job as running; `None` once the job's own row does.
    pub(in crate::sqlite) claim: Option<i64>,
}

impl RunningJob {
    /// Returns the job's lease; `None` if its status is not `Running`.
    pub(in crate::sqlite) fn lease(&self) -> Option<Lease> {
        match self.status.state {
            State::Running { lease } => Some(lease),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct RunningJobs {
    jobs: HashMap<JobId, Slot>,
    /// For each row of `claims` that records running jobs, the number of those jobs, which is never zero.
    claims: HashMap<i64, u32>,
}

#[derive(Debug)]
struct Slot {
    job: RunningJob,
    /// The job's index among the holders of its lane.
    index: usize,
}

impl RunningJobs {
    pub(super) fn get(&self, id: JobId) -> Option<&RunningJob> {
        self.jobs.get(&id).map(|slot| &slot.job)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (JobId, &RunningJob)> {
        self.jobs.iter().map(|(id, slot)| (*id, &slot.job))
    }

    /// Returns true if a row of `claims` records at least one running job.
    pub(super) fn needs_claim(&self, claim: i64) -> bool {
        self.claims.contains_key(&claim)
    }

    /// Adds or replaces a running job, or removes it if `job` is `None`. `holders` are the running jobs of its lane. Returns
    /// the previous one.
    pub(super) fn set(
        &mut self,
        id: JobId,
        job: Option<RunningJob>,
        holders: &mut SmallVec<[JobId; 2]>,
    ) -> Option<RunningJob> {
        if let Some(claim) = job.as_ref().and_then(|job| job.claim) {
            *self.claims.entry(claim).or_default() += 1;
        }
        let before = match job {
            Some(job) => match self.jobs.entry(id) {
                Entry::Occupied(mut slot) => Some(mem::replace(&mut slot.get_mut().job, job)),
                Entry::Vacant(free) => {
                    free.insert(Slot { job, index: holders.len() });
                    holders.push(id);
                    None
                }
            },
            None => self.jobs.remove(&id).map(|Slot { job, index }| {
                holders.swap_remove(index);
                // The last holder was moved to the index that became free.
                if let Some(moved) = holders.get(index).and_then(|id| self.jobs.get_mut(id)) {
                    moved.index = index;
                }
                job
            }),
        };
        if let Some(claim) = before.as_ref().and_then(|before| before.claim) {
            self.release_claim(claim);
        }
        before
    }

    fn release_claim(&mut self, claim: i64) {
        if let Some(jobs) = self.claims.get_mut(&claim) {
            *jobs -= 1;
            if *jobs == 0 {
                self.claims.remove(&claim);
            }
        }
    }

    /// Returns each row of `claims` that is needed, with the number of its running jobs.
    #[cfg(test)]
    pub(super) fn claims(&self) -> Vec<(i64, u32)> {
        let mut claims: Vec<(i64, u32)> = self.claims.iter().map(|(claim, jobs)| (*claim, *jobs)).collect();
        claims.sort_unstable();
        claims
    }
}
