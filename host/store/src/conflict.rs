//! What becomes of a new job whose lane has no slot left for it, or whose token is known.

use std::time::Duration;

use wharf_core::admission::has_room;
use wharf_core::ids::JobId;
use wharf_core::job::{Due, NewJob, NotEnqueued};
use wharf_core::limits::OnConflict;

use crate::store::Inserted;

/// How many holders an answer names.
pub(crate) const HOLDERS_NAMED: usize = 10;

/// The unfinished jobs of a lane, counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneCounts {
    pub(crate) running: u32,
    /// Of the running ones, those that were asked to end already.
    pub(crate) leaving: u32,
    /// Due or not; counting may stop at the lane's limit.
    pub(crate) waiting: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConflictDecision {
    Take,
    Discard,
    /// Take it; cancel what waits in the lane; ask this many running jobs, the oldest first, to end.
    TakeInstead {
        ask: u32,
    },
}

pub(crate) fn resolve(rule: OnConflict, crowd: LaneCounts, per_key: Option<u32>) -> ConflictDecision {
    let Some(limit) = per_key else { return ConflictDecision::Take };
    if has_room(crowd.running.saturating_add(crowd.waiting), per_key) {
        return ConflictDecision::Take;
    }
    match rule {
        OnConflict::Wait => ConflictDecision::Take,
        OnConflict::Discard => ConflictDecision::Discard,
        OnConflict::ReplaceWaiting => ConflictDecision::TakeInstead { ask: 0 },
        OnConflict::CancelRunning => {
            let staying = crowd.running.saturating_sub(crowd.leaving);
            ConflictDecision::TakeInstead { ask: (staying + 1).saturating_sub(limit).min(staying) }
        }
    }
}

/// Why nothing stands under the id of a job that was to be added; `None` where something does.
pub(crate) fn not_taken(id: JobId, inserted: &Inserted) -> Option<NotEnqueued> {
    match inserted {
        Inserted::Duplicate { id: known } if *known != id => Some(NotEnqueued::Known(*known)),
        Inserted::Discarded { holders } => Some(NotEnqueued::LaneFull(holders.clone())),
        Inserted::Added { .. } | Inserted::Duplicate { .. } => None,
    }
}

/// What is put under the id of a job that was not taken, for the event that says so: it takes no token and no place in a line.
pub(crate) fn in_its_place(new: &NewJob) -> NewJob {
    let due = Some(Due::In(Duration::from_secs(1)));
    NewJob { token: None, due, on_conflict: OnConflict::Wait, ..new.clone() }
}
