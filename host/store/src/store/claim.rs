//! Claims: how a node takes jobs to run.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use wharf_core::admission::ClaimBudget;
use wharf_core::hold::HoldTable;
use wharf_core::ids::{Group, NodeId, TaskName};
use wharf_core::job::LeasedJob;
use wharf_core::limits::LimitTable;
use wharf_core::room::{Room, TaskCost};
use wharf_core::time::Timestamp;

/// A claim: a node's request for jobs.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The node that claims.
    pub node: NodeId,
    /// The tasks that the node can run, each with its group.
    pub tasks: Arc<[(TaskName, Group)]>,
    /// The limits declared in manifests and settings. The store applies its overrides to them.
    pub declared: Arc<LimitTable>,
    /// Number of jobs to lease at most.
    pub free: u32,
    /// The node's room for attempts.
    pub room: Room,
    /// The costs of tasks; a task that is not listed costs [`TaskCost::ORDINARY`].
    pub costs: Arc<HashMap<TaskName, TaskCost>>,
    /// Caps below `free` for single tasks.
    pub task_quotas: Vec<(TaskName, u32)>,
    /// Length of the leases.
    pub lease: Duration,
}

impl Claim {
    pub(crate) fn offer(&self) -> ClaimBudget<'_> {
        ClaimBudget {
            tasks: &self.tasks,
            free: self.free,
            room: self.room,
            costs: &self.costs,
            task_quotas: &self.task_quotas,
        }
    }

    /// Returns the claim without the tasks that are held.
    pub(crate) fn without_held_tasks(&self, holds: &HoldTable, now: Timestamp) -> Cow<'_, Claim> {
        match holds.open_tasks(&self.tasks, now) {
            None => Cow::Borrowed(self),
            Some(open) => Cow::Owned(Claim { tasks: open.into(), ..self.clone() }),
        }
    }
}

/// Returns when a claim is due again: when the next job is due or the next hold ends.
pub(crate) fn wake_at(next_due: Option<Timestamp>, next_end: Option<Timestamp>) -> Option<Timestamp> {
    next_due.into_iter().chain(next_end).min()
}

/// The result of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The jobs that were leased.
    pub leased: Vec<LeasedJob>,
    /// When the next delayed job becomes due or the next hold ends, or now if jobs are due that this claim did not take.
    pub wake_at: Option<Timestamp>,
    /// True if a quota of `Claim::task_quotas` is used up: there may be more jobs of that task.
    pub quota_reached: bool,
    /// True if the room did not suffice: there may be more jobs once an attempt ends.
    pub short_of_room: bool,
    /// Number of leased jobs, the last ones, that overtook a job that did not fit.
    pub overtook: u32,
}
