//! How many jobs of each task wait, due or not: counted by the writer as they come and go, so that nobody reads them to know.
//!
//! It follows from the tables, is read from them when the file is opened, and is taken back with a transaction that is undone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The counts of what is committed, by the number of the task. Locked for a few assignments, never across an await.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedCounts(Arc<Mutex<BTreeMap<i64, u64>>>);

impl SharedCounts {
    /// Returns the tasks that have waiting jobs, with their counts.
    pub(super) fn all(&self) -> Vec<(i64, u64)> {
        self.lock().iter().map(|(task, count)| (*task, *count)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i64, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The counts, and how this transaction changes them.
#[derive(Debug, Default)]
pub(super) struct WaitingCounts {
    committed: SharedCounts,
    /// Jobs of one task often follow one another: each entry is such a run.
    changes: Vec<(i64, i64)>,
}

/// Capacity, in changes, that is kept from one transaction to the next.
const CAPACITY_KEPT: usize = 64;

impl WaitingCounts {
    /// Returns the counts for other threads.
    pub(super) fn shared(&self) -> SharedCounts {
        self.committed.clone()
    }

    /// Adds to the number of waiting jobs of a task.
    pub(super) fn add(&mut self, task: i64, change: i64) {
        match self.changes.last_mut() {
            _ if change == 0 => {}
            Some((last, sum)) if *last == task => *sum += change,
            _ => self.changes.push((task, change)),
        }
    }

    pub(super) fn commit(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        let mut counts = self.committed.lock();
        // First what is added, so that no count falls below zero on the way.
        for adds in [true, false] {
            for (task, change) in self.changes.iter().filter(|(_, change)| (*change > 0) == adds) {
                let count = counts.entry(*task).or_default();
                *count = count.saturating_add_signed(*change);
            }
        }
        for (task, _) in self.changes.drain(..) {
            if counts.get(&task) == Some(&0) {
                counts.remove(&task);
            }
        }
        self.changes.shrink_to(CAPACITY_KEPT);
    }

    pub(super) fn roll_back(&mut self) {
        self.changes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_change_with_the_commit_and_not_without() {
        let mut waiting = WaitingCounts::default();
        let shared = waiting.shared();
        [(1, 1), (1, 1), (2, 5), (1, -1), (3, 0)].into_iter().for_each(|(task, change)| waiting.add(task, change));
        assert_eq!(shared.all(), []);
        waiting.commit();
        assert_eq!(shared.all(), [(1, 1), (2, 5)]);
        waiting.add(2, -3);
        waiting.roll_back();
        waiting.add(1, -1);
        waiting.add(2, 1);
        waiting.commit();
        assert_eq!(shared.all(), [(2, 6)]);
    }
}
