//! The world: one store, a few nodes, people who ask for things, and the order in which it all happens.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wharf_core::hold::HoldTable;
use wharf_core::ids::{Group, NodeId, TaskName};
use wharf_core::lifecycle::Event;
use wharf_core::limits::{LimitTable, Limits, Override};
use wharf_core::planner::{Input, RecordResult, RenewResult};
use wharf_core::room::{Room, TaskCost};
use wharf_store::{Claim, Clock, HoldStore as _, Inserted, MemoryStore, NodeRegistry as _, Queue as _, Renewed};

use crate::checkers::Checkers;
use crate::faults::{Fault, Faults, Odds};
use crate::ground::{Call, Ground, Hands, Happening, at_once};
use crate::node::{ForNode, Node};

pub(crate) const LEASE: Duration = Duration::from_secs(30);
pub(crate) const MARGIN: Duration = Duration::from_secs(3);
pub(crate) const NODES: usize = 3;
/// Trouble and people keep at it this long; then both rest, and all must come to its end.
const UNREST: Duration = Duration::from_secs(150);
/// Beyond what any lease, retry or clock that was set back can delay.
const TIMEOUT: Duration = Duration::from_secs(3600);
/// The task whose attempts kill their nodes.
pub(crate) const KILLS: &str = "d/kills";
const START: Duration = Duration::from_secs(1_700_000_000);

/// What a history was like.
pub(crate) struct Summary {
    pub(crate) faults: Faults,
    jobs: usize,
    took: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} jobs over {:?}: {}", self.jobs, self.took, self.faults)
    }
}

pub(crate) struct World {
    pub(crate) ground: Ground,
    pub(crate) nodes: Vec<Node>,
    pub(crate) declared: Arc<LimitTable>,
    pub(crate) tasks: Arc<[(TaskName, Group)]>,
    nodes_made: u64,
}

fn task(name: &str) -> TaskName {
    name.parse().expect("a task")
}

impl World {
    pub(crate) fn new(seed: u64, loud: bool) -> World {
        World::with(seed, loud, Odds::draw)
    }

    pub(crate) fn with(seed: u64, loud: bool, odds: impl FnOnce(&mut fastrand::Rng) -> Odds) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let odds = odds(&mut rng);
        let hands = Arc::new(Hands(AtomicU64::new(START.as_micros() as u64)));
        let store = MemoryStore::open(Arc::clone(&hands) as Arc<dyn Clock>);
        let pair: Group = "pair".parse().expect("a group");
        let tasks = [
            (task("a/one"), pair.clone()),
            (task("a/two"), pair.clone()),
            (task("b/keyed"), Group::from(&task("b/keyed"))),
            (task("c/free"), Group::from(&task("c/free"))),
            (task(KILLS), Group::from(&task(KILLS))),
        ];
        let mut declared = LimitTable::default();
        declared.declare(pair, Limits { per_key: Some(2), total: Some(5) });
        declared.declare(Group::from(&task("b/keyed")), Limits { per_key: Some(1), total: None });
        declared.declare(Group::from(&task("c/free")), Limits::default());
        let checkers = Checkers::new(&odds);
        let ground = Ground {
            rng,
            odds,
            faults: Faults::default(),
            checkers,
            store,
            calm: false,
            hands,
            elapsed: 0,
            happenings: BTreeMap::new(),
            sequence: 0,
            loud,
        };
        let mut world =
            World { ground, nodes: Vec::new(), declared: Arc::new(declared), tasks: tasks.into(), nodes_made: 0 };
        world.ground.tell(|| format!("seed {seed}: {:?}", world.ground.odds));
        for place in 0..NODES {
            let node = world.make_node(place, 0);
            world.nodes.push(node);
        }
        world
    }

    pub(crate) fn play(mut self) -> Summary {
        for place in 0..NODES {
            self.nodes[place].start(&mut self.ground);
        }
        self.ground.after(Duration::ZERO, Happening::People);
        if self.ground.odds.trouble {
            self.ground.after(Duration::from_secs(1), Happening::StoreFailure);
        }
        self.ground.after(Duration::from_secs(5), Happening::Upkeep);
        while let Some(((at, _), happening)) = self.ground.happenings.pop_first() {
            self.advance(at);
            self.happen(happening);
            self.ground.faults.steps += 1;
            self.ground.checkers.look(&self.nodes, self.ground.elapsed());
            if !self.ground.calm && self.ground.elapsed() > UNREST {
                self.rest();
            }
            if self.ground.calm && self.ground.checkers.all_over() {
                break;
            }
            let stuck = self.ground.checkers.unfinished();
            assert!(self.ground.elapsed() < UNREST + TIMEOUT, "stuck, long after all trouble ended: {stuck:?}");
        }
        self.drain_all();
        self.ground.checkers.look_at_the_end(&self.ground.store);
        let Ground { mut faults, checkers, elapsed, .. } = self.ground;
        faults.attempts = checkers.attempts();
        Summary { faults, jobs: checkers.jobs(), took: Duration::from_micros(elapsed) }
    }

    fn advance(&mut self, at: u64) {
        let passed = at - self.ground.elapsed;
        self.ground.elapsed = at;
        self.ground.hands.0.fetch_add(passed, Ordering::SeqCst);
    }

    fn make_node(&mut self, place: usize, life: u64) -> Node {
        self.nodes_made += 1;
        let capacity = self.ground.rng.u32(1..8);
        Node::new(place, life, NodeId(self.nodes_made), capacity)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Node { node, life, what } => {
                if self.nodes[node].life != life {
                    return;
                }
                let stopped = self.nodes[node].take(what, &mut self.ground);
                if stopped && !self.ground.calm {
                    self.replace(node);
                }
            }
            Happening::Call { node, life, call } => self.call(node, life, call),
            Happening::Kills { node, life, attempt } => {
                if self.nodes[node].life == life && self.nodes[node].acting.contains_key(&attempt) {
                    self.ground.faults.note(Fault::Killed);
                    self.ground.tell(|| format!("node {node} is killed by {attempt:?}"));
                    self.replace(node);
                }
            }
            Happening::StoreFailure => self.trouble(),
            Happening::People => self.people(),
            Happening::Upkeep => self.upkeep(),
        }
    }

    /// A new node in the place of one that is gone.
    fn replace(&mut self, place: usize) {
        let life = self.nodes[place].life + 1;
        self.nodes[place] = self.make_node(place, life);
        // Hosts are not back at once.
        let away = self.ground.between(Duration::from_millis(100), Duration::from_secs(20));
        self.nodes[place].pause(away, &mut self.ground);
        self.nodes[place].start(&mut self.ground);
    }

    // The store.

    fn call(&mut self, node: usize, life: u64, call: Call) {
        let refuses = self.ground.in_thousand(self.ground.odds.store_refuses);
        let loses_answer = self.ground.in_thousand(self.ground.odds.answer_lost);
        let answer = if refuses {
            self.ground.faults.note(Fault::StoreRefuses);
            failed(call)
        } else {
            let kept = call.clone();
            let answer = self.carry_out(call);
            if loses_answer {
                self.ground.faults.note(Fault::AnswerLost);
                failed(kept)
            } else {
                answer
            }
        };
        let delay = self.ground.between(Duration::from_micros(20), Duration::from_millis(2));
        self.ground.after(delay, Happening::Node { node, life, what: ForNode::Hear(answer) });
    }

    fn carry_out(&mut self, call: Call) -> Input {
        let ground = &mut self.ground;
        match call {
            Call::Claim { node, free } => {
                let room = room(ground);
                let task_cost = |(task, _): &(TaskName, Group)| {
                    let cost = TaskCost { sandboxes: ground.rng.u32(..5), bytes: ground.rng.u64(..60) };
                    (ground.rng.u32(..3) == 0).then(|| (task.clone(), cost))
                };
                let costs = self.tasks.iter().filter_map(task_cost).collect();
                let claim = Claim {
                    node,
                    tasks: Arc::clone(&self.tasks),
                    declared: Arc::clone(&self.declared),
                    free,
                    room,
                    costs: Arc::new(costs),
                    task_quotas: Vec::new(),
                    lease: LEASE,
                };
                let claimed = at_once(ground.store.claim(claim)).expect("memory never fails");
                ground.tell(|| {
                    format!(
                        "{node} claims {free}: {:?}",
                        claimed.leased.iter().map(|l| (l.lease.job, l.lease.attempt)).collect::<Vec<_>>()
                    )
                });
                if claimed.short_of_room {
                    ground.faults.note(Fault::ShortOfRoom);
                }
                if claimed.overtook > 0 {
                    ground.faults.note(Fault::Overtook);
                }
                let table =
                    self.declared.with_overrides(at_once(ground.store.overrides()).expect("memory never fails"));
                claimed.leased.iter().for_each(|leased| ground.checkers.claimed(leased, &table));
                let holds: HoldTable =
                    at_once(ground.store.holds(None, 1000)).expect("memory never fails").holds.into_iter().collect();
                for leased in &claimed.leased {
                    let hold = holds.on_job(&leased.task, &leased.lane, ground.now());
                    assert_eq!(hold, None, "{leased:?} was claimed while it was held");
                }
                if !claimed.leased.is_empty() {
                    self.nudge();
                }
                Input::Claimed {
                    leased: claimed.leased,
                    wake_at: claimed.wake_at,
                    short_of_room: claimed.short_of_room,
                }
            }
            Call::Record(events) => {
                let results = at_once(ground.store.record(Arc::new(events.clone()))).expect("memory never fails");
                for ((job, event), result) in events.iter().zip(&results) {
                    ground.tell(|| format!("record {job} {event:?}: {result:?}"));
                    if result.is_err() && !matches!(event, Event::Wrote { .. }) {
                        ground.faults.note(Fault::StaleEnd);
                    }
                    ground.checkers.recorded(*job, event, result);
                    for child in result.iter().flat_map(|recorded| &recorded.children) {
                        if let Inserted::Added { replaced, .. } = child {
                            replaced.iter().for_each(|job| ground.checkers.changed(*job, &ground.store));
                        }
                    }
                }
                self.nudge();
                let answer = |result: &Result<wharf_store::Recorded, _>| match result {
                    Ok(recorded) => RecordResult::Recorded { cancel_requested: recorded.cancel_requested },
                    Err(refusal) => RecordResult::Refused(*refusal),
                };
                Input::Recorded(results.iter().map(answer).collect())
            }
            Call::Mark { node, mark } => {
                at_once(ground.store.set_node_mark(node, mark)).expect("memory never fails");
                ground.tell(|| format!("{node} writes down {mark:?}"));
                if mark.suspect.is_some_and(|begun| !begun.alone) {
                    ground.faults.note(Fault::Joined);
                }
                ground.checkers.marked(node, mark);
                Input::Marked
            }
            Call::Renew(leases) => {
                let renewed = at_once(ground.store.renew(leases, LEASE)).expect("memory never fails");
                ground.tell(|| format!("renew {renewed:?}"));
                let confirmation = |renewed: &Renewed| match *renewed {
                    Renewed::Renewed(lease) => RenewResult::Renewed { lease, cancel_requested: false },
                    Renewed::RenewedCancelRequested(lease) => RenewResult::Renewed { lease, cancel_requested: true },
                    Renewed::Lost(lease) => RenewResult::Lost(lease),
                };
                Input::Renewed(renewed.iter().map(confirmation).collect())
            }
        }
    }

    /// The store nudges everyone; what of that arrives is another matter.
    pub(crate) fn nudge(&mut self) {
        for place in 0..self.nodes.len() {
            let times = if self.ground.in_thousand(self.ground.odds.nudge_lost) {
                self.ground.faults.note(Fault::NudgeLost);
                0
            } else if self.ground.in_thousand(self.ground.odds.nudge_doubled) {
                self.ground.faults.note(Fault::NudgeDoubled);
                2
            } else {
                1
            };
            for _ in 0..times {
                let delay = self.ground.between(Duration::ZERO, Duration::from_millis(20));
                self.ground.send_to_node(&self.nodes[place], delay, ForNode::Hear(Input::Nudged));
            }
        }
    }

    fn upkeep(&mut self) {
        let freed = at_once(self.ground.store.reclaim(100)).expect("memory never fails");
        for job in &freed {
            self.ground.faults.note(Fault::LeaseExpired);
            self.ground.tell(|| format!("reclaimed {job}"));
            self.ground.checkers.changed(*job, &self.ground.store);
        }
        if !freed.is_empty() {
            self.nudge();
        }
        self.ground.after(Duration::from_secs(7), Happening::Upkeep);
    }

    // Trouble.

    fn trouble(&mut self) {
        if self.ground.calm {
            return;
        }
        let place = self.ground.rng.usize(0..NODES);
        match self.ground.rng.u32(0..6) {
            0 => {
                self.ground.faults.note(Fault::Crash);
                self.ground.tell(|| format!("node {place} crashes"));
                self.replace(place);
            }
            1 => {
                self.ground.faults.note(Fault::Drain);
                let patience = self.ground.between(Duration::ZERO, Duration::from_secs(20));
                let until = self.ground.now() + patience;
                self.ground.send_to_node(&self.nodes[place], Duration::ZERO, ForNode::Hear(Input::Drain { until }));
            }
            2 | 3 => {
                self.ground.faults.note(Fault::Pause);
                let long = self.ground.between(Duration::from_millis(10), Duration::from_secs(90));
                self.ground.tell(|| format!("node {place} pauses for {long:?}"));
                self.nodes[place].pause(long, &mut self.ground);
            }
            4 => {
                self.ground.faults.note(Fault::ClockForward);
                // What a lease margin is for; more of it is for wild histories.
                let max =
                    if self.ground.odds.wild_clock { Duration::from_secs(300) } else { Duration::from_millis(300) };
                let by = self.ground.between(Duration::ZERO, max);
                self.ground.tell(|| format!("the clock leaps forward by {by:?}"));
                self.ground.hands.0.fetch_add(by.as_micros() as u64, Ordering::SeqCst);
            }
            _ => {
                self.ground.faults.note(Fault::ClockBack);
                let by = self.ground.between(Duration::ZERO, Duration::from_secs(120));
                self.ground.tell(|| format!("the clock is set back by {by:?}"));
                self.ground.hands.0.fetch_sub(by.as_micros() as u64, Ordering::SeqCst);
            }
        }
        let next = self.ground.between(Duration::from_secs(1), Duration::from_secs(15));
        self.ground.after(next, Happening::StoreFailure);
    }

    /// Trouble and people rest; what they left is mended.
    fn rest(&mut self) {
        self.ground.tell(|| "trouble and people rest".to_owned());
        self.ground.calm = true;
        self.ground.odds = Odds::none();
        for set in at_once(self.ground.store.overrides()).expect("memory never fails") {
            at_once(self.ground.store.set_override(Override { limits: Limits::default(), ..set }))
                .expect("memory never fails");
        }
        self.release_all();
        for place in 0..NODES {
            self.nodes[place].resume(&mut self.ground);
            if self.nodes[place].is_draining() {
                self.replace(place);
                self.nodes[place].resume(&mut self.ground);
            }
        }
    }

    fn drain_all(&mut self) {
        let until = self.ground.now() + Duration::from_secs(1);
        for place in 0..NODES {
            self.ground.send_to_node(&self.nodes[place], Duration::ZERO, ForNode::Hear(Input::Drain { until }));
        }
        let by = self.ground.elapsed() + LEASE;
        while self.nodes.iter().any(|node| !node.has_stopped()) {
            let ((at, _), happening) = self.ground.happenings.pop_first().expect("upkeep goes on for ever");
            self.advance(at);
            self.happen(happening);
            assert!(self.ground.elapsed() < by, "a drain with nothing to do does not end");
        }
    }
}

/// Returns the room of a node that claims: sometimes little of it, unless trouble rests or was never meant.
fn room(ground: &mut Ground) -> Room {
    if ground.calm || !ground.odds.trouble || ground.rng.bool() {
        return Room::UNLIMITED;
    }
    let mut some =
        |sandboxes, bytes| TaskCost { sandboxes: ground.rng.u32(..=sandboxes), bytes: ground.rng.u64(..=bytes) };
    let (free, overtaking) = (some(5, 100), some(2, 50));
    Room { total: TaskCost { sandboxes: 6, bytes: 120 }, free, overtaking }
}

/// What a node hears of a call that failed, or seemed to.
fn failed(call: Call) -> Input {
    match call {
        Call::Record(events) => Input::RecordFailed(events),
        Call::Claim { .. } => Input::ClaimFailed,
        Call::Renew(_) => Input::RenewFailed,
        Call::Mark { .. } => Input::MarkFailed,
    }
}
