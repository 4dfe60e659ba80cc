//! What becomes of a new job whose lane has no slot left for it.

use wharf_core::admission::has_room;
use wharf_core::limits::OnConflict;

/// How many holders an answer names.
pub(crate) const HOLDERS_NAMED: usize = 10;

/// The unfinished jobs of a lane, counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    pub(crate) running: u32,
    /// Of the running ones, those that were asked to end already.
    pub(crate) leaving: u32,
    /// Due or not; counting may stop at the lane's limit.
    pub(crate) waiting: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Take,
    Discard,
    /// Take it; cancel what waits in the lane; ask this many running jobs, the oldest first, to end.
    TakeInstead {
        ask: u32,
    },
}

pub(crate) fn resolve(rule: OnConflict, crowd: Crowd, per_key: Option<u32>) -> Verdict {
    let Some(limit) = per_key else { return Verdict::Take };
    if has_room(crowd.running.saturating_add(crowd.waiting), per_key) {
        return Verdict::Take;
    }
    match rule {
        OnConflict::Wait => Verdict::Take,
        OnConflict::Discard => Verdict::Discard,
        OnConflict::ReplaceWaiting => Verdict::TakeInstead { ask: 0 },
        OnConflict::CancelRunning => {
            let staying = crowd.running.saturating_sub(crowd.leaving);
            Verdict::TakeInstead { ask: (staying + 1).saturating_sub(limit).min(staying) }
        }
    }
}
