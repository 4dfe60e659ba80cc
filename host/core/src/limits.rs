//! Concurrency limits: how many jobs of one key (a tenant), and of one group, may run at once.

use std::collections::BTreeMap;

use crate::ids::Group;
use crate::key::{Key, Lane};

/// The limits of a group. `None` is no limit; zero pauses the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Number of jobs of one key that may run at once.
    pub per_key: Option<u32>,
    /// Number of jobs of the group that may run at once.
    pub total: Option<u32>,
}

impl Limits {
    /// Returns limits that satisfy both: the lower of each two numbers.
    pub fn and(self, other: Limits) -> Limits {
        fn lower(a: Option<u32>, b: Option<u32>) -> Option<u32> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        Limits { per_key: lower(self.per_key, other.per_key), total: lower(self.total, other.total) }
    }

    /// Returns the numbers of `other`, and those of `self` where `other` has none.
    pub fn or_else(self, other: Limits) -> Limits {
        Limits { per_key: other.per_key.or(self.per_key), total: other.total.or(self.total) }
    }
}

/// A task's rule for a new job whose lane has no free slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnConflict {
    /// The new job waits.
    #[default]
    Wait,
    /// The new job is not enqueued.
    Discard,
    /// Waiting jobs of the lane are cancelled; the new job waits in their place.
    ReplaceWaiting,
    /// Waiting jobs of the lane are cancelled, and as many running jobs as necessary are asked to cancel to free a
    /// slot.
    CancelRunning,
}

/// A limit that an operator sets while hosts are running. It is kept in the store and applies to all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The group whose limits are overridden.
    pub group: Group,
    /// If present, the override applies only to this key. The total of a group cannot be overridden for one key.
    pub key: Option<Key>,
    /// The limits; `None` in one of them does not override that one.
    pub limits: Limits,
}

/// All limits in force: those declared in manifests and settings, and the overrides on top of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitTable {
    declared: BTreeMap<Group, Limits>,
    /// Overrides by group, then by key; key `None` is the whole group.
    overrides: BTreeMap<Group, BTreeMap<Option<Key>, Limits>>,
}

impl LimitTable {
    /// Declares a group's limits. If tasks that share a group declare different numbers, the lower ones apply.
    pub fn declare(&mut self, group: Group, limits: Limits) {
        let entry = self.declared.entry(group).or_default();
        *entry = entry.and(limits);
    }

    /// Sets an override. It replaces an earlier one for the same group and key.
    pub fn set(&mut self, override_: Override) {
        self.overrides.entry(override_.group).or_default().insert(override_.key, override_.limits);
    }

    /// Removes an override. Returns false if there was none.
    pub fn clear(&mut self, group: &Group, key: Option<&Key>) -> bool {
        let Some(of_group) = self.overrides.get_mut(group) else { return false };
        let removed = of_group.remove(&key.cloned()).is_some();
        if of_group.is_empty() {
            self.overrides.remove(group);
        }
        removed
    }

    /// Returns this table with `overrides` in place of its own.
    pub fn with_overrides(&self, overrides: impl IntoIterator<Item = Override>) -> LimitTable {
        let mut table = LimitTable { declared: self.declared.clone(), overrides: BTreeMap::new() };
        overrides.into_iter().for_each(|o| table.set(o));
        table
    }

    /// Returns the overrides, by group and key.
    pub fn overrides(&self) -> impl Iterator<Item = Override> + '_ {
        self.overrides.iter().flat_map(|(group, of_group)| {
            let override_of = |(key, limits): (&Option<Key>, &Limits)| Override {
                group: group.clone(),
                key: key.clone(),
                limits: *limits,
            };
            of_group.iter().map(override_of)
        })
    }

    /// Returns the declared limits by group, without overrides.
    pub fn declared(&self) -> impl Iterator<Item = (&Group, Limits)> + '_ {
        self.declared.iter().map(|(group, limits)| (group, *limits))
    }

    /// Returns the limits of a group, with the override for the whole group.
    pub fn of(&self, group: &Group) -> Limits {
        let declared = self.declared.get(group).copied().unwrap_or_default();
        match self.overrides.get(group).and_then(|of_group| of_group.get(&None)) {
            Some(set) => declared.or_else(*set),
            None => declared,
        }
    }

    /// Returns true if a limit of zero pauses `lane`.
    pub fn is_paused(&self, lane: &Lane) -> bool {
        self.per_key(lane) == Some(0) || self.of(&lane.group).total == Some(0)
    }

    /// Returns how many jobs of `lane` may run at once.
    pub fn per_key(&self, lane: &Lane) -> Option<u32> {
        let own = self.overrides.get(&lane.group).and_then(|of_group| of_group.get(&lane.key));
        own.and_then(|limits| limits.per_key).or_else(|| self.of(&lane.group).per_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(per_key: Option<u32>, total: Option<u32>) -> Limits {
        Limits { per_key, total }
    }

    fn group() -> Group {
        "g".parse().unwrap()
    }

    fn lane(key: Option<&str>) -> Lane {
        Lane { group: group(), key: key.map(|key| key.parse().unwrap()) }
    }

    fn override_(key: Option<&str>, limits: Limits) -> Override {
        Override { group: group(), key: lane(key).key, limits }
    }

    #[test]
    fn tasks_of_a_group_share_the_lower_numbers() {
        let mut table = LimitTable::default();
        assert_eq!(table.of(&group()), limits(None, None));
        table.declare(group(), limits(Some(3), None));
        table.declare(group(), limits(Some(5), Some(9)));
        assert_eq!(table.of(&group()), limits(Some(3), Some(9)));
    }

    #[test]
    fn an_override_wins_number_by_number() {
        let mut table = LimitTable::default();
        table.declare(group(), limits(Some(3), Some(9)));
        table.set(override_(None, limits(Some(7), None)));
        assert_eq!(table.of(&group()), limits(Some(7), Some(9)), "also upwards, and only where it has a number");
        table.set(override_(Some("a"), limits(Some(1), None)));
        let of = |table: &LimitTable, key| table.per_key(&lane(key));
        assert_eq!((of(&table, Some("a")), of(&table, Some("b")), of(&table, None)), (Some(1), Some(7), Some(7)));
        assert!(table.clear(&group(), None) && !table.clear(&group(), None));
        assert_eq!((of(&table, Some("a")), of(&table, Some("b"))), (Some(1), Some(3)));
    }

    #[test]
    fn overrides_of_a_store_take_the_place_of_a_tables_own() {
        let mut table = LimitTable::default();
        table.declare(group(), limits(Some(3), None));
        table.set(override_(None, limits(Some(0), None)));
        let other = table.with_overrides([override_(Some("a"), limits(Some(5), None))]);
        assert_eq!((other.per_key(&lane(Some("a"))), other.per_key(&lane(None))), (Some(5), Some(3)));
        assert_eq!(other.overrides().count(), 1);
    }

    #[test]
    fn both_limits_are_satisfied_by_the_lower_number() {
        let [a, b] = [limits(Some(2), None), limits(Some(5), Some(7))];
        assert_eq!((a.and(b), b.and(a)), (limits(Some(2), Some(7)), limits(Some(2), Some(7))));
        assert_eq!(limits(None, Some(0)).and(b), limits(Some(5), Some(0)), "zero pauses and is not the absence of one");
    }

    #[test]
    fn declared_limits_and_overrides_can_be_listed_apart() {
        let mut table = LimitTable::default();
        table.declare(group(), limits(Some(3), None));
        let set = [override_(None, limits(None, Some(0))), override_(Some("a"), limits(Some(5), None))];
        set.iter().rev().for_each(|set| table.set(set.clone()));
        assert_eq!(table.declared().collect::<Vec<_>>(), [(&group(), limits(Some(3), None))]);
        assert_eq!(table.overrides().collect::<Vec<_>>(), set, "the whole group comes before its keys");
        assert!(table.clear(&group(), Some(&"a".parse().unwrap())));
        assert_eq!(table.overrides().collect::<Vec<_>>(), set[..1]);
    }
}
