//! The ground that everything happens on: the clock, the store, the dice, and what is still to come.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wharf_core::ids::{Group, JobId, NodeId, TaskName};
use wharf_core::lease::{Lease, NodeMark};
use wharf_core::lifecycle::Event;
use wharf_core::planner::AttemptId;
use wharf_core::room::Room;
use wharf_core::time::Timestamp;
use wharf_store::{Claim, Clock, MemoryStore, Queue as _};

use crate::checkers::Checkers;
use crate::faults::{Faults, Odds};
use crate::node::{ForNode, Node};

/// The store's clock: the machine's time, and how far it was set off.
pub(crate) struct Hands(pub(crate) AtomicU64);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// Returns a claim of `free` jobs of one task at the most, by a node with room for all.
pub(crate) fn claim_of(task: &TaskName, free: u32, lease: Duration) -> Claim {
    Claim {
        node: NodeId(1),
        tasks: [(task.clone(), Group::from(task))].into(),
        declared: Arc::default(),
        free,
        room: Room::UNLIMITED,
        costs: Arc::default(),
        task_quotas: Vec::new(),
        lease,
    }
}

/// A call on its way to the store.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Record(Vec<(JobId, Event)>),
    Claim { node: NodeId, free: u32 },
    Renew(Vec<Lease>),
    Mark { node: NodeId, mark: NodeMark },
}

#[derive(Debug)]
pub(crate) enum Happening {
    /// To one life of a node: what was meant for an earlier one is nobody's.
    Node {
        node: usize,
        life: u64,
        what: ForNode,
    },
    Call {
        node: usize,
        life: u64,
        call: Call,
    },
    /// The attempt kills its node, if it acts by then.
    Kills {
        node: usize,
        life: u64,
        attempt: AttemptId,
    },
    StoreFailure,
    People,
    Upkeep,
}

/// What everyone in the world may touch.
pub(crate) struct Ground {
    pub(crate) rng: fastrand::Rng,
    pub(crate) odds: Odds,
    pub(crate) faults: Faults,
    pub(crate) checkers: Checkers,
    pub(crate) store: MemoryStore,
    pub(crate) calm: bool,
    pub(crate) hands: Arc<Hands>,
    /// Microseconds since the beginning by the machine's own clock, which nobody can set.
    pub(crate) elapsed: u64,
    pub(crate) happenings: BTreeMap<(u64, u64), Happening>,
    pub(crate) sequence: u64,
    pub(crate) loud: bool,
}

impl Ground {
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_micros(self.elapsed)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.store.now()
    }

    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.loud {
            println!("{:>12.6} {}", self.elapsed().as_secs_f64(), what());
        }
    }

    pub(crate) fn between(&mut self, least: Duration, max: Duration) -> Duration {
        Duration::from_micros(self.rng.u64(least.as_micros() as u64..=max.as_micros() as u64))
    }

    pub(crate) fn in_thousand(&mut self, odds: u32) -> bool {
        self.rng.u32(0..1000) < odds
    }

    pub(crate) fn after(&mut self, delay: Duration, happening: Happening) {
        self.sequence += 1;
        self.happenings.insert((self.elapsed + delay.as_micros() as u64, self.sequence), happening);
    }

    pub(crate) fn send_to_node(&mut self, node: &Node, delay: Duration, what: ForNode) {
        self.after(delay, Happening::Node { node: node.place, life: node.life, what });
    }

    pub(crate) fn send_to_store(&mut self, node: &Node, call: Call) {
        // Now and then a store is very slow.
        let max = if self.rng.u32(0..200) == 0 && !self.calm { 5_000_000 } else { 3000 };
        let delay = Duration::from_micros(self.rng.u64(50..max));
        self.after(delay, Happening::Call { node: node.place, life: node.life, call });
    }
}

/// Store calls of the memory store never wait: one poll is all they need.
pub(crate) fn at_once<T>(call: impl Future<Output = T>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the memory store waited"),
    }
}
