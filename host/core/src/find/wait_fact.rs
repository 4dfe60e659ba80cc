//! What decided why jobs waited when a bulk operation began, in parts that a store keeps with the operation.

use super::wait_kind::WaitView;
use crate::hold::{Hold, HoldReason, HoldScope};
use crate::key::Lane;
use crate::limits::{Limits, Override};
use crate::time::Timestamp;

/// A part of a [`WaitView`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitFact {
    /// All parts were kept: there may be none, and damage must not look like that.
    Whole,
    /// The jobs of this scope were held.
    Held(HoldScope),
    /// These limits were in force, whether declared or set by an operator.
    Limited(Override),
    /// So many jobs of a lane ran.
    Running {
        /// The lane.
        lane: Lane,
        /// Number of its running jobs.
        jobs: u32,
    },
}

impl WaitView {
    /// Returns the limits, and the running jobs of the groups that have any. [`WaitView::add`] makes a view of them that tells the same.
    pub fn limits_and_running(&self) -> Vec<WaitFact> {
        let overrides: Vec<Override> = self.limits.overrides().collect();
        let groups = self.limits.declared().map(|(group, _)| group).chain(overrides.iter().map(|one| &one.group));
        let mut groups: Vec<_> = groups.collect();
        groups.sort_unstable();
        groups.dedup();
        let of_group = |group| Override { group: Clone::clone(group), key: None, limits: self.limits.of(group) };
        let of_groups = groups.iter().map(|group| of_group(*group)).filter(|one| one.limits != Limits::default());
        let of_keys = overrides.iter().filter(|one| one.key.is_some()).cloned();
        let mut facts: Vec<WaitFact> = of_groups.chain(of_keys).map(WaitFact::Limited).collect();
        let lanes = self.lanes.iter().filter(|(lane, _)| groups.binary_search(&&lane.group).is_ok());
        facts.extend(lanes.map(|(lane, jobs)| WaitFact::Running { lane: lane.clone(), jobs: *jobs }));
        facts
    }

    /// Adds a part. A hold that was in force is in force in this view.
    pub fn add(&mut self, fact: WaitFact) {
        match fact {
            WaitFact::Whole => {}
            WaitFact::Held(scope) => {
                let (reason, since) = (HoldReason::default(), Timestamp::ZERO);
                self.holds.set(Hold { scope, until: None, reason, by: None, since });
            }
            WaitFact::Limited(limits) => self.limits.set(limits),
            WaitFact::Running { lane, jobs } => self.add_running(&lane, jobs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find::WaitKind;
    use crate::limits::LimitTable;

    fn lane(group: &str, key: Option<&str>) -> Lane {
        Lane { group: group.parse().unwrap(), key: key.map(|key| key.parse().unwrap()) }
    }

    #[test]
    fn a_view_of_the_parts_tells_why_jobs_wait_as_the_whole_does() {
        let limits = |per_key, total| Limits { per_key, total };
        let mut table = LimitTable::default();
        table.declare("declared".parse().unwrap(), limits(Some(2), Some(3)));
        table.declare("paused".parse().unwrap(), limits(Some(0), None));
        let set = |group: &str, key: Option<&str>, limits| {
            let Lane { group, key } = lane(group, key);
            Override { group, key, limits }
        };
        table.set(set("paused", Some("a"), limits(Some(1), None)));
        table.set(set("declared", None, limits(None, Some(4))));
        table.set(set("of-a-key", Some("a"), limits(Some(1), None)));
        let mut whole = WaitView { limits: table, ..WaitView::default() };
        let running = [
            ("declared", None, 2),
            ("declared", Some("a"), 1),
            ("declared", Some("b"), 1),
            ("of-a-key", Some("a"), 1),
            ("of-a-key", Some("b"), 9),
            ("unlimited", Some("a"), 9),
        ];
        running.iter().for_each(|(group, key, jobs)| whole.add_running(&lane(group, *key), *jobs));
        let mut view = WaitView::default();
        whole.limits_and_running().into_iter().for_each(|fact| view.add(fact));
        let task = "a/b".parse().unwrap();
        let mut kinds = Vec::new();
        for group in ["declared", "paused", "of-a-key", "unlimited", "unknown"] {
            for key in [None, Some("a"), Some("b"), Some("c")] {
                let kind = whole.kind_of_due(&task, &lane(group, key));
                assert_eq!(view.kind_of_due(&task, &lane(group, key)), kind, "{group} {key:?}");
                kinds.push(kind);
            }
        }
        let blocked = kinds.iter().filter(|kind| **kind == WaitKind::Blocked).count();
        assert_eq!(blocked, 4 + 3 + 1, "the whole group, all but one key, and one key");
        assert!(!view.lanes.contains_key(&lane("unlimited", Some("a"))), "nothing asks for it");

        view.add(WaitFact::Held(HoldScope::Plugin("a".parse().unwrap())));
        assert_eq!(view.kind_of_due(&task, &lane("unlimited", None)), WaitKind::Held);
    }
}
