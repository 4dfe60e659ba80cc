//! What waits and runs, by task, as far as a store looked at it: no number here costs a look at every waiting job.

use std::collections::BTreeMap;

use crate::find::{WaitKind, WaitView};
use crate::ids::{Group, TaskName};
use crate::key::{Key, Lane};
use crate::time::Timestamp;

/// The waiting and the running jobs, by task and by lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// The tasks that have waiting or running jobs.
    pub tasks: BTreeMap<TaskName, TaskBacklog>,
    /// The limit groups that have running jobs, or due ones that were looked at.
    pub groups: BTreeMap<Group, GroupBacklog>,
}

/// The due and the running jobs of one limit group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupBacklog {
    /// All jobs of the group.
    pub all: LaneBacklog,
    /// The jobs of each key; those without a key under `None`.
    pub lanes: BTreeMap<Option<Key>, LaneBacklog>,
}

/// The due and the running jobs of a limit group or of one of its lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneBacklog {
    /// Number of running jobs: they hold the slots.
    pub running: u64,
    /// Number of due jobs that were looked at.
    pub due: u64,
    /// The moment from which the first of them is due.
    pub oldest_due: Option<Timestamp>,
}

impl LaneBacklog {
    fn add_due(&mut self, jobs: u64, oldest: Timestamp) {
        self.due += jobs;
        self.oldest_due = Some(earlier(self.oldest_due, oldest));
    }
}

fn earlier(known: Option<Timestamp>, other: Timestamp) -> Timestamp {
    known.map_or(other, |known| known.min(other))
}

/// The waiting and the running jobs of one task. The numbers of all waiting and all running jobs are exact. The other numbers are
/// of the waiting jobs that a store looked at, so that each is a lower bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskBacklog {
    /// Number of waiting jobs.
    pub waiting: u64,
    /// Number of running jobs.
    pub running: u64,
    /// Number of waiting jobs of each kind that were looked at.
    pub kinds: BTreeMap<WaitKind, u64>,
    /// The moment from which the job is due that has been ready longest.
    pub oldest_ready: Option<Timestamp>,
    /// The moment from which the job is due that a limit has kept waiting longest. A limit of zero is a pause, and does not count.
    pub oldest_blocked: Option<Timestamp>,
    /// The moment from which the waiting job is due that has been due longest, whatever keeps it waiting.
    pub oldest_due: Option<Timestamp>,
}

impl Backlog {
    /// Returns the backlog of the running jobs that `view` has, by lane.
    pub fn of_running(view: &WaitView) -> Backlog {
        let mut backlog = Backlog::default();
        for (lane, running) in &view.lanes {
            let group = backlog.groups.entry(lane.group.clone()).or_default();
            group.all.running += u64::from(*running);
            group.lanes.entry(lane.key.clone()).or_default().running += u64::from(*running);
        }
        backlog
    }

    /// Adds jobs of a task and a lane that are due. `oldest` is the moment from which the first of them is due. Returns why they wait, if
    /// an age is shown of such jobs.
    pub fn add_due(
        &mut self,
        view: &WaitView,
        (task, lane): (&TaskName, &Lane),
        jobs: u64,
        oldest: Timestamp,
    ) -> Option<WaitKind> {
        let kind = view.kind_of_due(task, lane);
        let of_task = self.task(task);
        *of_task.kinds.entry(kind).or_default() += jobs;
        of_task.oldest_due = Some(earlier(of_task.oldest_due, oldest));
        let is_aged = match kind {
            WaitKind::Ready => {
                of_task.oldest_ready = Some(earlier(of_task.oldest_ready, oldest));
                true
            }
            WaitKind::Blocked if !view.limits.is_paused(lane) => {
                of_task.oldest_blocked = Some(earlier(of_task.oldest_blocked, oldest));
                true
            }
            WaitKind::Blocked | WaitKind::Held | WaitKind::Delayed | WaitKind::Retrying => false,
        };
        let of_group = self.groups.entry(lane.group.clone()).or_default();
        of_group.all.add_due(jobs, oldest);
        of_group.lanes.entry(lane.key.clone()).or_default().add_due(jobs, oldest);
        is_aged.then_some(kind)
    }

    /// Adds a job of a task that is not due.
    pub fn add_delayed(&mut self, task: &TaskName, attempt: u32) {
        let kind = WaitKind::of_delayed(attempt);
        *self.task(task).kinds.entry(kind).or_default() += 1;
    }

    /// Returns true if not all waiting jobs were looked at.
    pub fn has_more(&self) -> bool {
        self.tasks.values().any(TaskBacklog::has_more)
    }

    /// Returns the part of a task.
    pub fn task(&mut self, task: &TaskName) -> &mut TaskBacklog {
        self.tasks.entry(task.clone()).or_default()
    }
}

impl TaskBacklog {
    /// Returns the number of waiting jobs of a kind that were looked at.
    pub fn count(&self, kind: WaitKind) -> u64 {
        self.kinds.get(&kind).copied().unwrap_or_default()
    }

    /// Returns the moment from which the job is due that has been due longest and that no operator keeps waiting.
    pub fn oldest_unpaused(&self) -> Option<Timestamp> {
        self.oldest_ready.into_iter().chain(self.oldest_blocked).min()
    }

    /// Returns true if not all waiting jobs were looked at, so that there may be more of each kind.
    pub fn has_more(&self) -> bool {
        self.kinds.values().sum::<u64>() < self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hold::{Hold, HoldScope};
    use crate::limits::{LimitTable, Limits};

    const NOW: Timestamp = Timestamp::from_millis(9_000);

    #[test]
    fn due_jobs_wait_as_their_lane_does() {
        let (task, other): (TaskName, TaskName) = ("words/count".parse().unwrap(), "words/list".parse().unwrap());
        let lane = |key: &str| Lane { group: Group::from(&task), key: Some(key.parse().unwrap()) };
        let mut limits = LimitTable::default();
        limits.declare(Group::from(&task), Limits { per_key: Some(1), total: None });
        let mut view = WaitView { limits, now: NOW, ..WaitView::default() };
        view.add_running(&lane("full"), 1);
        let scope: HoldScope = "key:held".parse().unwrap();
        view.holds.set(Hold { scope, until: None, reason: "".parse().unwrap(), by: None, since: NOW });
        let mut backlog = Backlog::of_running(&view);
        let at = Timestamp::from_millis;
        for (key, jobs, oldest) in [("free", 3, 70), ("free", 1, 80), ("full", 10, 50), ("held", 4, 40)] {
            backlog.add_due(&view, (&task, &lane(key)), jobs, at(oldest));
        }
        backlog.add_delayed(&task, 0);
        backlog.add_delayed(&task, 2);
        backlog.task(&other).waiting = 7;
        backlog.task(&task).waiting = 20;
        let of = &backlog.tasks[&task];
        assert_eq!(WaitKind::ALL.map(|kind| of.count(kind)), [4, 1, 1, 10, 4]);
        assert_eq!((of.oldest_ready, of.oldest_due, of.has_more()), (Some(at(70)), Some(at(40)), false));
        assert_eq!((of.oldest_blocked, of.oldest_unpaused()), (Some(at(50)), Some(at(50))), "not what is held");
        assert!(backlog.tasks[&other].has_more() && backlog.has_more(), "nobody looked at them");
        let group = &backlog.groups[&Group::from(&task)];
        assert_eq!(group.all, LaneBacklog { running: 1, due: 18, oldest_due: Some(at(40)) });
        let full: Key = "full".parse().unwrap();
        assert_eq!(group.lanes[&Some(full)], LaneBacklog { running: 1, due: 10, oldest_due: Some(at(50)) });

        let mut paused = Backlog::default();
        view.limits.declare(Group::from(&task), Limits { per_key: Some(0), total: None });
        paused.add_due(&view, (&task, &lane("free")), 1, at(10));
        let of = &paused.tasks[&task];
        assert_eq!((of.count(WaitKind::Blocked), of.oldest_unpaused(), of.oldest_due), (1, None, Some(at(10))));
    }
}
