//! Schedules: a map, and the files of nodes.

use std::collections::BTreeMap;

use wharf_core::bounds;
use wharf_core::ids::{NodeId, ScheduleId};
use wharf_core::schedule::Schedule;
use wharf_core::time::Timestamp;

use crate::store::{ScheduleWrite, ScheduleWritten};

/// The schedules of a store.
#[derive(Default)]
pub(super) struct ScheduleMap {
    pub(super) schedules: BTreeMap<ScheduleId, Schedule>,
    pub(super) files: BTreeMap<NodeId, BTreeMap<ScheduleId, u64>>,
}

impl ScheduleMap {
    /// Returns the schedules whose next moments match, in their order.
    pub(super) fn in_order(&self, matches: impl Fn(Timestamp) -> bool) -> Vec<&Schedule> {
        let is_wanted = |schedule: &&Schedule| schedule.next_at.is_some_and(&matches);
        let mut found: Vec<&Schedule> = self.schedules.values().filter(is_wanted).collect();
        found.sort_by_key(|schedule| (schedule.next_at, schedule.id.clone()));
        found
    }

    /// Returns the moment of the first schedule that is not due.
    pub(super) fn next_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.schedules.values().filter_map(|schedule| schedule.next_at).filter(|at| *at > now).min()
    }

    /// Writes a schedule that has the version that was expected.
    pub(super) fn write(&mut self, write: &ScheduleWrite) -> ScheduleWritten {
        if self.schedules.get(&write.id).map(|schedule| schedule.version) != write.expected {
            return ScheduleWritten::Stale;
        }
        if write.expected.is_none() && self.schedules.len() >= bounds::SCHEDULES_MAX as usize {
            return ScheduleWritten::TooMany;
        }
        match &write.schedule {
            Some(schedule) => _ = self.schedules.insert(write.id.clone(), schedule.clone()),
            None => _ = self.schedules.remove(&write.id),
        }
        ScheduleWritten::Written
    }
}
