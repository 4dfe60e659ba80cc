//! The tasks that `/metrics` has shown: a series that is there once stays, with zero, since rules on one that vanishes never
//! end.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use wharf_core::backlog::Backlog;
use wharf_core::ids::TaskName;

/// Number of tasks that are remembered.
const TASKS_MAX: usize = 2000;

/// The tasks that were shown since the host started.
#[derive(Debug, Default)]
pub(crate) struct KnownTasks {
    /// Locked for a few insertions, never across an await.
    tasks: Mutex<BTreeSet<TaskName>>,
}

impl KnownTasks {
    /// Adds the tasks that were shown before, with nothing that waits or runs.
    pub(super) fn complete(&self, backlog: &mut Backlog) {
        let mut known = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for task in backlog.tasks.keys() {
            if known.len() >= TASKS_MAX {
                break;
            }
            if !known.contains(task) {
                known.insert(task.clone());
            }
        }
        known.iter().for_each(|task| _ = backlog.task(task));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_was_shown_stays_with_nothing_in_it() {
        let (known, task) = (KnownTasks::default(), "words/count".parse::<TaskName>().unwrap());
        let mut first = Backlog::default();
        first.task(&task).waiting = 3;
        known.complete(&mut first);
        assert_eq!(first.tasks[&task].waiting, 3);
        let mut later = Backlog::default();
        known.complete(&mut later);
        assert_eq!(later.tasks[&task], Default::default());
    }
}
