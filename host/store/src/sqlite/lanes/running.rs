//! The jobs that run, and the rows of `claims` that say so.

use std::mem;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use smallvec::SmallVec;
use wharf_core::ids::JobId;
use wharf_core::job::{JobStatus, State};
use wharf_core::lease::Lease;
use wharf_core::time::Timestamp;

use super::LaneNo;

/// A job that runs.
#[derive(Clone, Debug)]
pub(in crate::sqlite) struct Hot {
    pub(in crate::sqlite) standing: JobStatus,
    pub(in crate::sqlite) lane: LaneNo,
    pub(in crate::sqlite) task: i64,
    pub(in crate::sqlite) priority: i32,
    pub(in crate::sqlite) started_at: Timestamp,
    /// The row of `claims` that says so; `None` once the job's own row does.
    pub(in crate::sqlite) claim: Option<i64>,
}

impl Hot {
    pub(in crate::sqlite) fn lease(&self) -> Option<Lease> {
        match self.standing.state {
            State::Running { lease } => Some(lease),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Running {
    jobs: HashMap<JobId, Runner>,
    /// How many jobs each row of `claims` speaks for; none that speaks for nobody.
    claims: HashMap<i64, u32>,
}

#[derive(Debug)]
struct Runner {
    hot: Hot,
    /// Where it stands among those of its lane.
    place: usize,
}

impl Running {
    pub(super) fn get(&self, id: JobId) -> Option<&Hot> {
        self.jobs.get(&id).map(|runner| &runner.hot)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (JobId, &Hot)> {
        self.jobs.iter().map(|(id, runner)| (*id, &runner.hot))
    }

    pub(super) fn speaks_for_somebody(&self, claim: i64) -> bool {
        self.claims.contains_key(&claim)
    }

    /// The job runs and stands like this, or it runs no more; `holders` are the jobs that run in its lane.
    /// Answers how it stood before.
    pub(super) fn set(&mut self, id: JobId, hot: Option<Hot>, holders: &mut SmallVec<[JobId; 2]>) -> Option<Hot> {
        if let Some(claim) = hot.as_ref().and_then(|hot| hot.claim) {
            *self.claims.entry(claim).or_default() += 1;
        }
        let before = match hot {
            Some(hot) => match self.jobs.entry(id) {
                Entry::Occupied(mut runner) => Some(mem::replace(&mut runner.get_mut().hot, hot)),
                Entry::Vacant(free) => {
                    free.insert(Runner { hot, place: holders.len() });
                    holders.push(id);
                    None
                }
            },
            None => self.jobs.remove(&id).map(|Runner { hot, place }| {
                holders.swap_remove(place);
                // The one that stood last stands here now.
                if let Some(moved) = holders.get(place).and_then(|id| self.jobs.get_mut(id)) {
                    moved.place = place;
                }
                hot
            }),
        };
        if let Some(claim) = before.as_ref().and_then(|before| before.claim) {
            self.one_less(claim);
        }
        before
    }

    fn one_less(&mut self, claim: i64) {
        if let Some(jobs) = self.claims.get_mut(&claim) {
            *jobs -= 1;
            if *jobs == 0 {
                self.claims.remove(&claim);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn claims(&self) -> Vec<(i64, u32)> {
        let mut claims: Vec<(i64, u32)> = self.claims.iter().map(|(claim, jobs)| (*claim, *jobs)).collect();
        claims.sort_unstable();
        claims
    }
}
