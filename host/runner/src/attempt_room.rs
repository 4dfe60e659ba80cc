//! The room for attempts: what is free, what those have that run, and what those have that overtook a job for which there was
//! none.
//!
//! Only the loop takes sandboxes, and only for what a claim has brought. So a sandbox that a claim is told to be free is free
//! when its jobs start: no job is claimed that then waits for one. The bytes of all attempts are reserved and given back once a
//! turn, in one go.

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;

use tokio::sync::watch;
use wharf_core::budget::MemoryUse;
use wharf_core::ids::TaskName;
use wharf_core::job::LeasedJob;
use wharf_core::planner::AttemptId;
use wharf_core::room::{Room, TaskCost};
use wharf_engine::{Budget, Engine, Permit, PermitPool, Plugin, Reservation};

use crate::catalog::Catalog;
use crate::task_memory::{TaskCosts, TaskMemory};

/// The room for attempts of one host.
pub(crate) struct AttemptRoom {
    engine: Arc<Engine>,
    memory: TaskMemory,
    /// The costs by which the last claim chose its jobs. Meanwhile more may have been learned.
    offered: TaskCosts,
    /// Receives these costs, for those who say why a job waits.
    to_costs: watch::Sender<TaskCosts>,
    /// The attempts of the last claim that overtook a job. Empty once they have started.
    overtakers: HashSet<AttemptId>,
    /// The room of running attempts that overtook one.
    overtaking: TaskCost,
    /// The bytes of attempts that this turn reserved and gave back.
    attempts: Change,
    /// The unreserved first pages of attempts that began and ended.
    first_pages: Change,
    /// The bytes of ended attempts that are not written yet: what this turn took and gave back.
    unwritten: Change,
    /// The room of what ended attempts leave, until it is counted as unwritten.
    kept: Vec<Reservation>,
    /// The last claim left jobs behind for which there was no room.
    is_short: bool,
}

/// The room of one attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// The room that it takes, with its payload.
    cost: TaskCost,
    payload_bytes: u64,
    /// Bytes of the memory with which it begins that are not reserved.
    first_pages: u64,
    /// It overtook a job that did not fit.
    overtook: bool,
    /// The bytes that it left to be written.
    unwritten: u64,
}

impl Taken {
    /// Returns the bytes that it may have, with its first pages.
    pub(crate) fn most(&self) -> u64 {
        self.cost.bytes + self.first_pages
    }
}

/// A change of the bytes of one use.
#[derive(Default)]
struct Change {
    taken: u64,
    given_back: u64,
}

impl AttemptRoom {
    pub(crate) fn new(engine: Arc<Engine>, to_costs: watch::Sender<TaskCosts>) -> AttemptRoom {
        AttemptRoom {
            engine,
            memory: TaskMemory::default(),
            offered: Arc::default(),
            to_costs,
            overtakers: HashSet::new(),
            overtaking: TaskCost::NOTHING,
            attempts: Change::default(),
            first_pages: Change::default(),
            unwritten: Change::default(),
            kept: Vec::new(),
            is_short: false,
        }
    }

    fn budget(&self) -> &Budget {
        self.engine.budget()
    }

    /// Returns the room of this moment.
    pub(crate) fn now(&mut self) -> Room {
        self.settle();
        let total = TaskCost {
            sandboxes: self.engine.capacity_of(PermitPool::Jobs),
            bytes: self.budget().most(MemoryUse::Attempts),
        };
        let free = TaskCost {
            sandboxes: self.engine.free_of(PermitPool::Jobs),
            bytes: self.budget().free(MemoryUse::Attempts),
        };
        Room { total, free, overtaking: self.overtaking }
    }

    /// Returns what an attempt of each claimable task takes, without its payload, for a claim. What the claim brings takes just
    /// that when it starts: by what was learned since, it might be more than there is room for.
    pub(crate) fn offer(&mut self, catalog: &Catalog) -> TaskCosts {
        let costs = self.memory.costs(catalog);
        if !Arc::ptr_eq(&costs, &self.offered) {
            self.to_costs.send_replace(Arc::clone(&costs));
            self.offered = costs;
        }
        Arc::clone(&self.offered)
    }

    /// Takes in the result of a claim: the last `overtook` of its jobs overtook one that did not fit.
    pub(crate) fn claimed(&mut self, leased: &[LeasedJob], overtook: u32, short_of_room: bool) {
        let overtakers = leased.iter().rev().take(overtook as usize);
        self.overtakers = overtakers.map(|leased| AttemptId::from(&leased.lease)).collect();
        self.is_short = short_of_room;
        if short_of_room {
            self.budget().watch();
        }
    }

    /// Returns true if the last claim left jobs behind for which there was no room.
    pub(crate) fn is_short(&self) -> bool {
        self.is_short
    }

    /// Counts an attempt that starts, and returns what it takes. `first_pages` are those of its plugin.
    pub(crate) fn starts(&mut self, leased: &LeasedJob, first_pages: u64) -> Taken {
        let overtook = self.overtakers.contains(&AttemptId::from(&leased.lease));
        let payload_bytes = leased.payload.len() as u64;
        let cost = self.offered.get(&leased.task).copied().unwrap_or(TaskCost::ORDINARY);
        let cost = cost.with_payload(payload_bytes);
        let cost = TaskCost { bytes: cost.bytes.min(self.budget().most(MemoryUse::Attempts)), ..cost };
        if overtook {
            self.overtaking = self.overtaking.plus(cost);
        }
        self.attempts.taken += cost.bytes;
        self.first_pages.taken += first_pages;
        Taken { cost, payload_bytes, first_pages, overtook, unwritten: 0 }
    }

    /// Returns the permit of an attempt that starts; `None` if its plugin was replaced since the claim by one that
    /// takes more than there is.
    pub(crate) fn permit(&self, plugin: &Plugin, taken: Taken) -> Option<Permit> {
        Some(self.engine.try_admit(PermitPool::Jobs, plugin)?.with_reserved(taken.cost.bytes, taken.first_pages))
    }

    /// Ends a turn of the loop: all that the last claim brought has started.
    pub(crate) fn all_started(&mut self) {
        self.overtakers.clear();
        self.settle();
    }

    /// Counts an attempt that has ended. `held_bytes` is what it held at most, and `unwritten` what it leaves to be written.
    pub(crate) fn ended(&mut self, task: &TaskName, taken: &mut Taken, held_bytes: u64, unwritten: u64) {
        // One that never ran says nothing.
        if held_bytes > 0 {
            self.memory.ended(task, held_bytes.saturating_sub(taken.payload_bytes));
        }
        self.left(taken);
        taken.unwritten = unwritten;
        self.unwritten.taken += unwritten;
    }

    /// Keeps room until the changes of this turn are carried over to the budget.
    pub(crate) fn keep_until_settled(&mut self, room: Option<Reservation>) {
        self.kept.extend(room);
    }

    /// Counts out an attempt that never ended here.
    pub(crate) fn left(&mut self, taken: &Taken) {
        if taken.overtook {
            self.overtaking = self.overtaking.minus(taken.cost);
        }
        self.attempts.given_back += taken.cost.bytes;
        self.first_pages.given_back += taken.first_pages;
    }

    /// Notes that an attempt of this task is released since sandboxes have written to their first pages: for a while these are
    /// reserved for its task.
    pub(crate) fn reserve_first_pages(&mut self, task: &TaskName, taken: &Taken) {
        self.memory.ended(task, taken.most() - taken.payload_bytes);
    }

    /// Counts out what an attempt left, which is written or dropped now.
    pub(crate) fn written(&mut self, taken: &Taken) {
        self.unwritten.given_back += taken.unwritten;
    }

    /// Carries the changes of this turn over to the budget.
    fn settle(&mut self) {
        let changes = [(MemoryUse::Attempts, &mut self.attempts), (MemoryUse::Unwritten, &mut self.unwritten)];
        let (mut taken, mut given_back) = (Vec::new(), Vec::new());
        for (of, change) in changes {
            let Change { taken: plus, given_back: minus } = mem::take(change);
            match plus.cmp(&minus) {
                std::cmp::Ordering::Greater => taken.push((of, plus - minus)),
                std::cmp::Ordering::Less => given_back.push((of, minus - plus)),
                std::cmp::Ordering::Equal => {}
            }
        }
        let first_pages = mem::take(&mut self.first_pages);
        let first_pages = (first_pages.taken, first_pages.given_back);
        if !taken.is_empty() || !given_back.is_empty() || first_pages.0 != first_pages.1 {
            self.engine.budget().exchange(&given_back, &taken, first_pages);
        }
        self.kept.clear();
    }
}
