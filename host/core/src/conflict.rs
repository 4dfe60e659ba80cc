//! Decides what happens to a new job whose lane has no free slot.

use std::time::Duration;

use crate::admission::has_free_slot;
use crate::job::{Due, NewJob};
use crate::limits::OnConflict;

/// Counts of a lane's unfinished jobs.
#[derive(Clone, Copy, Debug)]
pub struct LaneCounts {
    /// Running jobs, including those of `leaving`.
    pub running: u32,
    /// Running jobs that are being cancelled already.
    pub leaving: u32,
    /// Waiting jobs, due or not. A store may stop counting at the lane's limit.
    pub waiting: u32,
}

/// The decision about a new job, given the other jobs of its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictDecision {
    /// Enqueue it.
    Enqueue,
    /// Do not enqueue it.
    Discard,
    /// Cancel all waiting jobs of the lane, then enqueue it.
    Replace {
        /// Number of running jobs of the lane to cancel as well, oldest first. Those that are already being cancelled
        /// are skipped.
        cancel_running: u32,
    },
}

/// Applies the rule `on_conflict` to a new job of a lane with these `counts`. `per_key` is the lane's limit, `None` is
/// no limit.
///
/// There is a conflict if the lane's running and waiting jobs together reach the limit.
pub fn resolve(on_conflict: OnConflict, counts: LaneCounts, per_key: Option<u32>) -> ConflictDecision {
    let Some(limit) = per_key else { return ConflictDecision::Enqueue };
    if has_free_slot(counts.running.saturating_add(counts.waiting), per_key) {
        return ConflictDecision::Enqueue;
    }
    match on_conflict {
        OnConflict::Wait => ConflictDecision::Enqueue,
        OnConflict::Discard => ConflictDecision::Discard,
        OnConflict::ReplaceWaiting => ConflictDecision::Replace { cancel_running: 0 },
        OnConflict::CancelRunning => {
            let staying = counts.running.saturating_sub(counts.leaving);
            ConflictDecision::Replace { cancel_running: (staying + 1).saturating_sub(limit).min(staying) }
        }
    }
}

/// Returns the job to write under the id of `new` if that one is not enqueued, so that a reader of the id finds a
/// cancelled job with the reason. The placeholder has no token and occupies no place in a line.
pub fn placeholder(new: &NewJob) -> NewJob {
    let due = Some(Due::In(Duration::from_secs(1)));
    NewJob { token: None, due, on_conflict: OnConflict::Wait, ..new.clone() }
}
