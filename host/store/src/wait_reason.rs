//! Why a waiting job does not run, as far as the queue itself can tell.

use wharf_core::admission::has_room;
use wharf_core::ids::JobId;
use wharf_core::job::WaitReason;
use wharf_core::limits::Limits;
use wharf_core::time::Timestamp;

use crate::conflict::HOLDERS_NAMED;

/// What holds slots: how many jobs, and the first of them by id, each since its moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holders {
    pub(crate) count: u32,
    pub(crate) first: Vec<(JobId, Timestamp)>,
}

impl FromIterator<(JobId, Timestamp)> for Holders {
    /// Of holders in ascending order of their ids.
    fn from_iter<I: IntoIterator<Item = (JobId, Timestamp)>>(all: I) -> Self {
        let mut holders = Holders::default();
        for holder in all {
            holders.count += 1;
            if holders.first.len() < HOLDERS_NAMED {
                holders.first.push(holder);
            }
        }
        holders
    }
}

/// `limits` are those of the job's own lane: its key's and its group's.
pub(crate) fn wait_reason(due: Timestamp, now: Timestamp, limits: Limits, lane: Holders, group: Holders) -> WaitReason {
    match limits {
        _ if due > now => WaitReason::NotDue { until: due },
        Limits { per_key: Some(0), .. } | Limits { total: Some(0), .. } => WaitReason::Paused,
        Limits { per_key: Some(limit), .. } if !has_room(lane.count, Some(limit)) => {
            WaitReason::LaneFull { limit, holders: lane.first }
        }
        Limits { total: Some(limit), .. } if group.count >= limit => {
            WaitReason::GroupFull { limit, holders: group.first }
        }
        _ => WaitReason::InTurn,
    }
}
