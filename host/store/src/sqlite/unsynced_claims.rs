//! Jobs that only a row of `claims` records as running: how that row is written, and what readers apply to the rows of jobs.
//!
//! A short attempt ends before its job's row would have to say that the job runs. A row that is behind is recognised by its
//! attempt: it says that the job waits for the very attempt that the claim names.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use wharf_core::ids::{Group, JobId};
use wharf_core::job::{JobStatus, State};
use wharf_core::key::Lane;
use wharf_core::lease::Lease;
use wharf_core::time::Timestamp;

use super::lanes::RunningJob;
use crate::columns::signed;

/// Bytes per job in the column `claims.jobs`: the id and the attempt.
const JOB_BYTES: usize = 12;

/// Writes the column `claims.jobs`.
pub(super) fn encode_jobs<'l>(leases: impl Iterator<Item = &'l Lease>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(leases.size_hint().0 * JOB_BYTES);
    for lease in leases {
        bytes.extend_from_slice(&signed(lease.job.number()).to_le_bytes());
        bytes.extend_from_slice(&lease.attempt.to_le_bytes());
    }
    bytes
}

/// Reads the column `claims.jobs`: the number of each job and its attempt.
pub(super) fn decode_jobs(column: &[u8]) -> impl Iterator<Item = (i64, u32)> {
    column.chunks_exact(JOB_BYTES).map(|job| {
        let (mut id, mut attempt) = ([0; 8], [0; 4]);
        id.copy_from_slice(&job[..8]);
        attempt.copy_from_slice(&job[8..]);
        (i64::from_le_bytes(id), u32::from_le_bytes(attempt))
    })
}

/// A running job whose own row may not say so yet.
#[derive(Clone, Debug)]
pub(super) struct UnsyncedClaim {
    pub(super) lease: Lease,
    pub(super) started_at: Timestamp,
    pub(super) lane: Lane,
    pub(super) task: i64,
}

impl UnsyncedClaim {
    /// Returns true if a row with this status is behind the claim.
    pub(super) fn is_ahead_of(&self, row: &JobStatus) -> bool {
        matches!(row.state, State::Waiting { .. }) && row.attempt + 1 == self.lease.attempt
    }
}

/// The unsynced claims of the last commit, which the writer shares with the readers.
#[derive(Debug, Default)]
pub(super) struct UnsyncedClaims(HashMap<JobId, UnsyncedClaim>);

impl UnsyncedClaims {
    /// Updates one job; `running` is `None` if it doesn't run.
    pub(super) fn update(&mut self, id: JobId, running: Option<(&RunningJob, Lane)>) {
        match running.and_then(|(job, lane)| Some((job, lane, job.claim.and(job.lease())?))) {
            Some((job, lane, lease)) => {
                let claim = UnsyncedClaim { lease, started_at: job.started_at, lane, task: job.task };
                self.0.insert(id, claim);
            }
            None => _ = self.0.remove(&id),
        }
    }

    pub(super) fn get(&self, id: JobId) -> Option<UnsyncedClaim> {
        self.0.get(&id).cloned()
    }

    pub(super) fn of_group(&self, group: &Group) -> Vec<UnsyncedClaim> {
        self.0.values().filter(|claim| claim.lane.group == *group).cloned().collect()
    }

    pub(super) fn all(&self) -> Vec<UnsyncedClaim> {
        self.0.values().cloned().collect()
    }
}

/// Locks the claims for one lookup or the update after a commit, never across a database query.
pub(super) fn lock(claims: &Mutex<UnsyncedClaims>) -> MutexGuard<'_, UnsyncedClaims> {
    claims.lock().unwrap_or_else(PoisonError::into_inner)
}
