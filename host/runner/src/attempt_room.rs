//! The room for attempts: what is free, and what those have that overtook a job for which there was none.
//!
//! Only the loop takes of this room, and only for what a claim has brought. So what a claim is told to be free is free
//! when its jobs start: no job is claimed that then waits for a sandbox.

use std::collections::HashSet;
use std::sync::Arc;

use wharf_core::job::LeasedJob;
use wharf_core::planner::AttemptId;
use wharf_core::room::{Room, TaskCost};
use wharf_engine::{Engine, Permit, PermitPool, Plugin};

/// The room for attempts of one host.
pub(crate) struct AttemptRoom {
    engine: Arc<Engine>,
    /// The attempts of the last claim that overtook a job. Empty once they have started.
    overtakers: HashSet<AttemptId>,
    /// The room of running attempts that overtook one.
    overtaking: TaskCost,
}

impl AttemptRoom {
    pub(crate) fn new(engine: Arc<Engine>) -> AttemptRoom {
        AttemptRoom { engine, overtakers: HashSet::new(), overtaking: TaskCost::NOTHING }
    }

    /// Returns the room of this moment.
    pub(crate) fn now(&self) -> Room {
        // Attempts' memory is bounded one by one, and in all it has no bound.
        let of = |sandboxes| TaskCost { sandboxes, bytes: u64::MAX };
        let (total, free) = (self.engine.capacity_of(PermitPool::Jobs), self.engine.free_of(PermitPool::Jobs));
        Room { total: of(total), free: of(free), overtaking: self.overtaking }
    }

    /// Takes in the result of a claim: the last `overtook` of its jobs overtook one that did not fit.
    pub(crate) fn claimed(&mut self, leased: &[LeasedJob], overtook: u32) {
        let overtakers = leased.iter().rev().take(overtook as usize);
        self.overtakers = overtakers.map(|leased| AttemptId::from(&leased.lease)).collect();
    }

    /// Counts an attempt that starts. Returns what it has of what overtaking ones have: nothing, if it overtook no job.
    pub(crate) fn starts(&mut self, attempt: AttemptId, cost: impl FnOnce() -> TaskCost) -> TaskCost {
        if !self.overtakers.contains(&attempt) {
            return TaskCost::NOTHING;
        }
        let cost = self.now().bounded(cost());
        self.overtaking = self.overtaking.plus(cost);
        cost
    }

    /// Returns the permit of an attempt that starts; `None` if its plugin was replaced since the claim by one that
    /// takes more than there is.
    pub(crate) fn permit(&self, plugin: &Plugin) -> Option<Permit> {
        self.engine.try_admit(PermitPool::Jobs, plugin)
    }

    /// Ends a turn of the loop: all that the last claim brought has started.
    pub(crate) fn all_started(&mut self) {
        self.overtakers.clear();
    }

    /// Counts an attempt that has ended; `overtaking` is what `starts` returned for it.
    pub(crate) fn ended(&mut self, overtaking: TaskCost) {
        self.overtaking = self.overtaking.minus(overtaking);
    }
}
