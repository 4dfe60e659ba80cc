//! The kinds of waiting, by which operators tell waiting jobs apart.

use std::collections::HashMap;

use crate::admission::has_free_slot;
use crate::hold::HoldTable;
use crate::ids::{Group, TaskName};
use crate::job::Job;
use crate::key::Lane;
use crate::limits::LimitTable;
use crate::time::Timestamp;

/// Why a job waits, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitKind {
    /// The job could start: it waits for its turn, for a node that has room, or for its plugin.
    Ready,
    /// The job is not due, and no attempt has started.
    Delayed,
    /// The job is not due, and waits for its next attempt.
    Retrying,
    /// A limit keeps the job waiting.
    Blocked,
    /// An operator's hold keeps the job waiting.
    Held,
}

impl WaitKind {
    /// All kinds.
    pub const ALL: [WaitKind; 5] =
        [WaitKind::Ready, WaitKind::Delayed, WaitKind::Retrying, WaitKind::Blocked, WaitKind::Held];

    /// Returns why a job waits that is not due.
    pub const fn of_delayed(attempt: u32) -> WaitKind {
        if attempt > 0 { WaitKind::Retrying } else { WaitKind::Delayed }
    }

    /// Returns the name used in filters.
    pub const fn as_str(self) -> &'static str {
        match self {
            WaitKind::Ready => "ready",
            WaitKind::Delayed => "delayed",
            WaitKind::Retrying => "retrying",
            WaitKind::Blocked => "blocked",
            WaitKind::Held => "held",
        }
    }
}

/// All that decides why waiting jobs wait, at one moment of a store.
#[derive(Clone, Debug, Default)]
pub struct WaitView {
    /// The limits in force.
    pub limits: LimitTable,
    /// The holds.
    pub holds: HoldTable,
    /// Number of running jobs of each lane that has any.
    pub lanes: HashMap<Lane, u32>,
    /// Number of running jobs of each limit group that has any.
    pub groups: HashMap<Group, u32>,
    /// The moment by the store's clock.
    pub now: Timestamp,
}

impl WaitView {
    /// Counts a running job of this lane.
    pub fn add_running(&mut self, lane: &Lane, jobs: u32) {
        *self.lanes.entry(lane.clone()).or_default() += jobs;
        *self.groups.entry(lane.group.clone()).or_default() += jobs;
    }

    /// Returns why a waiting job waits. `is_due` is false if the job may not start yet, as far as its store has noticed.
    pub fn kind(&self, job: &Job, is_due: bool) -> WaitKind {
        if is_due { self.kind_of_due(&job.task, &job.lane) } else { WaitKind::of_delayed(job.status.attempt) }
    }

    /// Returns why the waiting jobs of a task and a lane wait that are due.
    pub fn kind_of_due(&self, task: &TaskName, lane: &Lane) -> WaitKind {
        if self.holds.on_job(task, lane, self.now).is_some() {
            return WaitKind::Held;
        }
        let has_slot = |running: Option<&u32>, limit| has_free_slot(running.copied().unwrap_or_default(), limit);
        let is_free = has_slot(self.lanes.get(lane), self.limits.per_key(lane))
            && has_slot(self.groups.get(&lane.group), self.limits.of(&lane.group).total);
        if is_free { WaitKind::Ready } else { WaitKind::Blocked }
    }
}
