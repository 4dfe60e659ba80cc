//! Jobs that run by a row of `claims` alone: how that is written, and what readers lay over the rows that they read.
//!
//! A short attempt ends before its job's row would have to say that it runs. A row that is behind is told by its attempt:
//! it is ready for the very one that the claim names.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use wharf_core::ids::{Group, JobId};
use wharf_core::job::{JobStatus, State};
use wharf_core::key::Lane;
use wharf_core::lease::Lease;
use wharf_core::time::Timestamp;

use super::lanes::Hot;
use super::rows::signed;

const JOB_BYTES: usize = 12;

/// The column `jobs`.
pub(super) fn column<'l>(leases: impl Iterator<Item = &'l Lease>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(leases.size_hint().0 * JOB_BYTES);
    for lease in leases {
        bytes.extend_from_slice(&signed(lease.job.number()).to_le_bytes());
        bytes.extend_from_slice(&lease.attempt.to_le_bytes());
    }
    bytes
}

/// The jobs in that column, each with its attempt.
pub(super) fn jobs(column: &[u8]) -> impl Iterator<Item = (i64, u32)> {
    column.chunks_exact(JOB_BYTES).map(|job| {
        let (mut id, mut attempt) = ([0; 8], [0; 4]);
        id.copy_from_slice(&job[..8]);
        attempt.copy_from_slice(&job[8..]);
        (i64::from_le_bytes(id), u32::from_le_bytes(attempt))
    })
}

/// What a job's row does not say yet.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    pub(super) lease: Lease,
    pub(super) started_at: Timestamp,
    pub(super) lane: Lane,
    pub(super) task: i64,
}

impl Claimed {
    /// Whether a row that stands like this is behind.
    pub(super) fn is_ahead_of(&self, row: &JobStatus) -> bool {
        matches!(row.state, State::Waiting { .. }) && row.attempt + 1 == self.lease.attempt
    }
}

/// As of the last commit.
#[derive(Debug, Default)]
pub(super) struct Unwritten(HashMap<JobId, Claimed>);

impl Unwritten {
    /// How the job stands now, if it runs.
    pub(super) fn show(&mut self, id: JobId, running: Option<(&Hot, Lane)>) {
        match running.and_then(|(hot, lane)| Some((hot, lane, hot.claim.and(hot.lease())?))) {
            Some((hot, lane, lease)) => {
                let claimed = Claimed { lease, started_at: hot.started_at, lane, task: hot.task };
                self.0.insert(id, claimed);
            }
            None => _ = self.0.remove(&id),
        }
    }

    pub(super) fn get(&self, id: JobId) -> Option<Claimed> {
        self.0.get(&id).cloned()
    }

    pub(super) fn of_group(&self, group: &Group) -> Vec<Claimed> {
        self.0.values().filter(|claimed| claimed.lane.group == *group).cloned().collect()
    }

    pub(super) fn all(&self) -> Vec<Claimed> {
        self.0.values().cloned().collect()
    }
}

/// Locked for a look or a commit's news, never across a question to the database.
pub(super) fn look(unwritten: &Mutex<Unwritten>) -> MutexGuard<'_, Unwritten> {
    unwritten.lock().unwrap_or_else(PoisonError::into_inner)
}
