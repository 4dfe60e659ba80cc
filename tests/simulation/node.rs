//! A node: the real planner, and an engine that is played. The engine does what the real one does at the moments that count:
//! it ends an attempt by itself when its trust is over, however long its node sleeps, and lets nothing out of it after that.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use wharf_core::ids::NodeId;
use wharf_core::job::{Entry, LeasedJob, NewJob};
use wharf_core::lease::is_suspect;
use wharf_core::outcome::{Interruption, Outcome, Usage};
use wharf_core::planner::{Action, AttemptId, FinishedAttempt, Input, Planner, PlannerSettings};
use wharf_core::retry::RetryPolicy;

use crate::faults::Fault;
use crate::ground::{Call, Ground, Happening};
use crate::people::new_job;
use crate::script::Script;
use crate::world::{KILLS, LEASE, MARGIN};

const CANCEL_GRACE: Duration = Duration::from_secs(5);
const RETRY: RetryPolicy =
    RetryPolicy { attempts: 4, backoff_min: Duration::from_millis(200), backoff_max: Duration::from_secs(10) };

#[derive(Clone, Debug)]
pub(crate) enum ForNode {
    Hear(Input),
    Wake {
        number: u64,
    },
    Resume,
    Chunk {
        attempt: AttemptId,
        number: u32,
    },
    /// The attempt ends with this, unless it ended before.
    End {
        attempt: AttemptId,
        outcome: Outcome,
    },
    /// Looked at again: its trust may have been prolonged.
    TrustOver(AttemptId),
}

/// An attempt in the engine: it may act until it ends, and not beyond its trust.
pub(crate) struct Acting {
    pub(crate) leased: LeasedJob,
    script: Script,
    /// By the machine's clock.
    pub(crate) trusted_until: Duration,
    cancel_requested: bool,
    children: Vec<NewJob>,
}

pub(crate) struct Node {
    pub(crate) place: usize,
    pub(crate) life: u64,
    id: NodeId,
    planner: Planner,
    pub(crate) acting: BTreeMap<AttemptId, Acting>,
    /// What came while it slept, or waits for the next turn.
    inbox: Vec<Input>,
    sleeps_until: Option<Duration>,
    wake_number: u64,
    stopped: bool,
}

impl Node {
    pub(crate) fn new(place: usize, life: u64, id: NodeId, capacity: u32) -> Node {
        let settings = PlannerSettings { capacity, lease: LEASE, lease_margin: MARGIN };
        Node {
            place,
            life,
            id,
            planner: Planner::new(settings),
            acting: BTreeMap::new(),
            inbox: Vec::new(),
            sleeps_until: None,
            wake_number: 0,
            stopped: false,
        }
    }

    pub(crate) fn start(&mut self, ground: &mut Ground) {
        ground.send_to_node(self, Duration::ZERO, ForNode::Hear(Input::CatalogChanged { any_task: true }));
    }

    /// True also if it was asked to drain while it slept, and does not know yet.
    pub(crate) fn is_draining(&self) -> bool {
        self.planner.is_draining() || self.inbox.iter().any(|input| matches!(input, Input::Drain { .. }))
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.stopped && self.acting.is_empty() && self.planner.running() == 0
    }

    /// Its loop does not turn for a while; its guests go on.
    pub(crate) fn pause(&mut self, long: Duration, ground: &mut Ground) {
        let until = ground.elapsed() + long;
        self.sleeps_until = Some(self.sleeps_until.map_or(until, |at| at.max(until)));
        ground.send_to_node(self, long, ForNode::Resume);
    }

    pub(crate) fn resume(&mut self, ground: &mut Ground) {
        self.sleeps_until = None;
        ground.send_to_node(self, Duration::ZERO, ForNode::Resume);
    }

    /// True when it says that its drain is over.
    pub(crate) fn take(&mut self, what: ForNode, ground: &mut Ground) -> bool {
        match what {
            ForNode::Hear(input) => {
                self.inbox.push(input);
                // Often more comes before the loop turns.
                if ground.rng.u32(0..3) == 0 {
                    self.wake_number += 1;
                    let number = self.wake_number;
                    ground.send_to_node(self, Duration::from_micros(150), ForNode::Wake { number });
                    return false;
                }
                self.turn(ground)
            }
            ForNode::Wake { number } if number == self.wake_number => self.turn(ground),
            ForNode::Wake { .. } => false,
            ForNode::Resume => {
                if self.sleeps_until.is_some_and(|at| at <= ground.elapsed()) {
                    self.sleeps_until = None;
                }
                self.turn(ground)
            }
            ForNode::Chunk { attempt, number } => {
                if self.acting.contains_key(&attempt) {
                    let entry = Entry::Chunk(number.to_be_bytes().into());
                    ground.checkers.emitted(attempt, number);
                    self.tell_itself(Input::Wrote { attempt, entry }, ground);
                }
                false
            }
            ForNode::End { attempt, outcome } => {
                self.end(attempt, outcome, ground);
                false
            }
            ForNode::TrustOver(attempt) => {
                if let Some(acting) = self.acting.get(&attempt) {
                    if acting.trusted_until <= ground.elapsed() {
                        ground.faults.note(Fault::TrustEnded);
                        self.end(
                            attempt,
                            Outcome::Interrupted(Interruption::LeaseLost, "trust is over".into()),
                            ground,
                        );
                    } else {
                        let rest = acting.trusted_until - ground.elapsed();
                        ground.send_to_node(self, rest, ForNode::TrustOver(attempt));
                    }
                }
                false
            }
        }
    }

    fn turn(&mut self, ground: &mut Ground) -> bool {
        if self.stopped || self.sleeps_until.is_some_and(|at| at > ground.elapsed()) {
            return false;
        }
        let now = ground.now();
        for input in mem::take(&mut self.inbox) {
            self.planner.on(input, now);
        }
        for action in self.planner.decide(now) {
            self.act(action, ground);
        }
        self.wake_number += 1;
        if let Some(at) = self.planner.wake_at() {
            let number = self.wake_number;
            ground.send_to_node(self, at.since(now), ForNode::Wake { number });
        }
        self.stopped
    }

    fn act(&mut self, action: Action, ground: &mut Ground) {
        match action {
            Action::Record(events) => ground.send_to_store(self, Call::Record(events)),
            Action::Claim { free } => ground.send_to_store(self, Call::Claim { node: self.id, free }),
            Action::Renew(leases) => ground.send_to_store(self, Call::Renew(leases)),
            Action::Mark(mark) => ground.send_to_store(self, Call::Mark { node: self.id, mark }),
            Action::Start { leased, trusted_until } => {
                let trusted_until = ground.elapsed() + trusted_until.since(ground.now());
                self.start_attempt(*leased, trusted_until, ground);
            }
            Action::Trust { attempt, until } => {
                let until = ground.elapsed() + until.since(ground.now());
                if let Some(acting) = self.acting.get_mut(&attempt) {
                    acting.trusted_until = until;
                    ground.checkers.trusted();
                    // It may be sooner than before, if the clock was set.
                    ground.send_to_node(self, until.saturating_sub(ground.elapsed()), ForNode::TrustOver(attempt));
                }
            }
            Action::RequestCancel(attempt) => self.ask_cancel(attempt, ground),
            Action::Stop { attempt, why, text } => {
                ground.tell(|| format!("{} stops {attempt:?}: {text}", self.id));
                self.end(attempt, Outcome::Interrupted(why, text.to_owned()), ground);
            }
            Action::Dropped(attempt) => {
                assert!(!self.acting.contains_key(&attempt), "an attempt that acts was dropped")
            }
            Action::Stopped => {
                assert!(self.acting.is_empty(), "a drain is over while attempts run");
                self.stopped = true;
            }
        }
    }

    fn start_attempt(&mut self, leased: LeasedJob, trusted_until: Duration, ground: &mut Ground) {
        let attempt = AttemptId::from(&leased.lease);
        let script = Script::draw(&mut ground.rng, &ground.odds, !ground.calm);
        ground.tell(|| format!("{} starts {attempt:?} in {:?}: {script:?}", self.id, leased.lane));
        for number in 0..script.chunks {
            let at = script.takes / (script.chunks + 1) * (number + 1);
            ground.send_to_node(self, at, ForNode::Chunk { attempt, number });
        }
        if leased.task.as_str() == KILLS {
            // Some do it late.
            let max = if ground.rng.u32(0..8) == 0 { Duration::from_secs(100) } else { Duration::from_secs(3) };
            let after = ground.between(Duration::from_millis(1), max);
            ground.after(after, Happening::Kills { node: self.place, life: self.life, attempt });
        } else {
            ground.send_to_node(self, script.takes, ForNode::End { attempt, outcome: script.outcome.clone() });
        }
        ground.send_to_node(self, trusted_until.saturating_sub(ground.elapsed()), ForNode::TrustOver(attempt));
        let tasks = [(leased.task.clone(), leased.lane.group.clone())];
        let children = (0..script.children).map(|_| new_job(ground, &tasks)).collect();
        let beside: Vec<AttemptId> = self.acting.keys().copied().collect();
        if is_suspect(leased.crashes) {
            ground.faults.note(Fault::Suspect);
        }
        ground.checkers.started(&leased, &beside);
        let acting = Acting { leased, script, trusted_until, cancel_requested: false, children };
        let before = self.acting.insert(attempt, acting);
        assert!(before.is_none(), "{attempt:?} was started twice");
    }

    fn ask_cancel(&mut self, attempt: AttemptId, ground: &mut Ground) {
        let Some(acting) = self.acting.get_mut(&attempt) else { return };
        assert!(!mem::replace(&mut acting.cancel_requested, true), "asked to cancel twice");
        if acting.script.heeds_cancel.is_none() {
            ground.faults.note(Fault::CancelIgnored);
        }
        let ends_in = acting.script.heeds_cancel.unwrap_or(CANCEL_GRACE);
        ground.send_to_node(self, ends_in, ForNode::End { attempt, outcome: Outcome::Cancelled });
    }

    fn end(&mut self, attempt: AttemptId, outcome: Outcome, ground: &mut Ground) {
        let Some(acting) = self.acting.remove(&attempt) else { return };
        if !matches!(outcome, Outcome::Returned(_) | Outcome::Cancelled | Outcome::Interrupted(..)) {
            ground.faults.note(Fault::AttemptFailed);
        }
        if matches!(outcome, Outcome::Returned(_)) && !acting.children.is_empty() {
            ground.faults.note(Fault::Child);
        }
        let jitter = ground.rng.f64();
        let ended = FinishedAttempt {
            attempt,
            outcome,
            usage: Usage::default(),
            children: acting.children,
            changes: None,
            retry: RETRY,
            jitter,
        };
        self.tell_itself(Input::FinishedAttempt(Box::new(ended)), ground);
    }

    fn tell_itself(&mut self, input: Input, ground: &mut Ground) {
        // In order, as one channel carries all that attempts say.
        self.inbox.push(input);
        self.wake_number += 1;
        let number = self.wake_number;
        ground.send_to_node(self, Duration::from_micros(20), ForNode::Wake { number });
    }
}
