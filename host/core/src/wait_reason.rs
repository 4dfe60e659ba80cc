//! Determines why a waiting job does not run, as far as the queue itself can know.

use crate::admission::has_free_slot;
use crate::bounds;
use crate::ids::JobId;
use crate::job::WaitReason;
use crate::limits::Limits;
use crate::time::Timestamp;

/// The running jobs that hold the slots of a lane or of a group.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    /// Number of slot holders.
    pub count: u32,
    /// The first `bounds::HOLDERS_NAMED` of them by id, each with the time when its attempt started.
    pub first: Vec<(JobId, Timestamp)>,
}

impl FromIterator<(JobId, Timestamp)> for Holders {
    /// Counts all holders and keeps the first ones. The iterator must yield them in ascending order of their ids.
    fn from_iter<I: IntoIterator<Item = (JobId, Timestamp)>>(all: I) -> Self {
        let mut holders = Holders::default();
        for holder in all {
            holders.count += 1;
            if holders.first.len() < bounds::HOLDERS_NAMED {
                holders.first.push(holder);
            }
        }
        holders
    }
}

/// Returns why a job that waits until `due` does not run at `now`.
/// `limits` are those of the job's lane: `per_key` of its key and `total` of its group.
pub fn wait_reason(due: Timestamp, now: Timestamp, limits: Limits, lane: Holders, group: Holders) -> WaitReason {
    match limits {
        _ if due > now => WaitReason::NotDue { until: due },
        Limits { per_key: Some(0), .. } | Limits { total: Some(0), .. } => WaitReason::Paused,
        Limits { per_key: Some(limit), .. } if !has_free_slot(lane.count, Some(limit)) => {
            WaitReason::LaneFull { limit, holders: lane.first }
        }
        Limits { total: Some(limit), .. } if group.count >= limit => {
            WaitReason::GroupFull { limit, holders: group.first }
        }
        _ => WaitReason::InTurn,
    }
}
