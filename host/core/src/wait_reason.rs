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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hold::{HoldReason, HoldScope, NewHold};

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn holders(count: u64) -> Holders {
        (1..=count).map(|number| (JobId::from_number(number).unwrap(), NOW)).collect()
    }

    fn why(per_key: Option<u32>, total: Option<u32>, lane: u64, group: u64) -> WaitReason {
        wait_reason(NOW, NOW, Limits { per_key, total }, holders(lane), holders(group))
    }

    #[test]
    fn all_holders_are_counted_and_the_first_are_named() {
        let max = bounds::HOLDERS_NAMED as u64;
        for (count, named) in [(0, 0), (max - 1, max - 1), (max, max), (max + 5, max)] {
            let holders = holders(count);
            assert_eq!((u64::from(holders.count), holders.first.len() as u64), (count, named));
            assert!(holders.first.iter().map(|(id, _)| id.number()).eq(1..=named));
        }
    }

    #[test]
    fn a_job_that_is_not_due_waits_for_its_time_whatever_its_limits_are() {
        let paused = Limits { per_key: Some(0), total: Some(0) };
        let later = Timestamp::from_millis(1_001);
        let reason = wait_reason(later, NOW, paused, holders(0), holders(0));
        assert_eq!(reason, WaitReason::NotDue { until: later });
        assert_eq!(wait_reason(NOW, NOW, paused, holders(0), holders(0)), WaitReason::Paused, "it is due now");
    }

    #[test]
    fn a_limit_of_zero_is_a_pause_and_not_a_full_lane_or_group() {
        assert_eq!(why(Some(0), None, 2, 2), WaitReason::Paused);
        assert_eq!(why(None, Some(0), 2, 2), WaitReason::Paused);
        assert_eq!(why(Some(1), Some(0), 1, 1), WaitReason::Paused);
    }

    #[test]
    fn a_full_lane_is_named_before_a_full_group_each_with_its_holders() {
        assert_eq!(why(Some(2), Some(3), 2, 3), WaitReason::LaneFull { limit: 2, holders: holders(2).first });
        assert_eq!(why(Some(2), Some(3), 1, 3), WaitReason::GroupFull { limit: 3, holders: holders(3).first });
        assert_eq!(why(None, Some(3), 9, 4), WaitReason::GroupFull { limit: 3, holders: holders(4).first });
    }

    #[test]
    fn a_due_job_with_free_slots_is_in_turn() {
        assert_eq!(why(Some(2), Some(3), 1, 2), WaitReason::InTurn);
        assert_eq!(why(None, None, 99, 99), WaitReason::InTurn);
    }

    #[test]
    fn a_hold_is_named_before_every_limit_and_after_the_time_of_a_job() {
        let hold = NewHold { scope: HoldScope::All, length: None, reason: HoldReason::default(), by: None }.set_at(NOW);
        let held = WaitReason::Held(Box::new(hold.clone()));
        for reason in
            [why(Some(0), None, 0, 0), why(Some(1), None, 1, 1), why(None, Some(1), 0, 1), why(None, None, 0, 0)]
        {
            assert_eq!(reason.clone().or_held(None), reason);
            assert_eq!(reason.or_held(Some(&hold)), held);
        }
        let not_due = WaitReason::NotDue { until: NOW };
        assert_eq!(not_due.clone().or_held(Some(&hold)), not_due);
    }
}
