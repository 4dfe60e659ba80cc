//! The lines of open lanes, in the order in which they are served.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::chunked_list::ChunkedList;
use super::numbers::LaneNo;

/// For each task and top priority, the lanes of the lines that have them, by turn.
#[derive(Debug, Default)]
pub(super) struct ReadyOrder(BTreeMap<(i64, Reverse<i32>), ChunkedList>);

impl ReadyOrder {
    pub(super) fn insert(&mut self, task: i64, top: i32, turn: u64, no: LaneNo) {
        self.0.entry((task, Reverse(top))).or_default().insert((turn, no));
    }

    pub(super) fn remove(&mut self, task: i64, top: i32, turn: u64, no: LaneNo) {
        let list = (task, Reverse(top));
        if let Some(turns) = self.0.get_mut(&list) {
            turns.remove((turn, no));
            if turns.is_empty() {
                self.0.remove(&list);
            }
        }
    }

    /// Returns the lanes of a task's lines in the order in which they are served.
    pub(super) fn of_task(&self, task: i64) -> impl Iterator<Item = LaneNo> {
        let priorities = (task, Reverse(i32::MAX))..=(task, Reverse(i32::MIN));
        self.0.range(priorities).flat_map(|(_, turns)| turns.iter().map(|(_, no)| no))
    }

    /// Returns the task, the top priority and the turn of each of a lane's lines.
    #[cfg(test)]
    pub(super) fn of_lane(&self, no: LaneNo) -> Vec<(i64, i32, u64)> {
        let all =
            self.0.iter().flat_map(|((task, top), turns)| turns.iter().map(|(turn, no)| (*task, top.0, turn, no)));
        all.filter(|line| line.3 == no).map(|(task, top, turn, _)| (task, top, turn)).collect()
    }
}
