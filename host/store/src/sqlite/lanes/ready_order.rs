//! The lines of open lanes, in the order in which they are served.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::chunked_list::Turns;
use super::slab::LaneNo;

/// Of each task and priority, who stands there, by turn.
#[derive(Debug, Default)]
pub(super) struct Ring(BTreeMap<(i64, Reverse<i32>), Turns>);

impl Ring {
    pub(super) fn insert(&mut self, task: i64, top: i32, turn: u64, no: LaneNo) {
        self.0.entry((task, Reverse(top))).or_default().insert((turn, no));
    }

    pub(super) fn remove(&mut self, task: i64, top: i32, turn: u64, no: LaneNo) {
        let place = (task, Reverse(top));
        if let Some(turns) = self.0.get_mut(&place) {
            turns.remove((turn, no));
            if turns.is_empty() {
                self.0.remove(&place);
            }
        }
    }

    pub(super) fn of_task(&self, task: i64) -> impl Iterator<Item = LaneNo> {
        let places = (task, Reverse(i32::MAX))..=(task, Reverse(i32::MIN));
        self.0.range(places).flat_map(|(_, turns)| turns.iter().map(|(_, no)| no))
    }

    /// Where a lane stands, for tests: task, priority and turn of each of its lines.
    #[cfg(test)]
    pub(super) fn of_lane(&self, no: LaneNo) -> Vec<(i64, i32, u64)> {
        let all =
            self.0.iter().flat_map(|((task, top), turns)| turns.iter().map(|(turn, no)| (*task, top.0, turn, no)));
        all.filter(|line| line.3 == no).map(|(task, top, turn, _)| (task, top, turn)).collect()
    }
}
