//! What goes wrong, how often, and that each kind of it did.

use std::collections::BTreeMap;
use std::fmt;

/// Kinds of trouble and of ordinary events that a run must have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    Crash,
    Drain,
    Pause,
    ClockForward,
    ClockBack,
    NudgeLost,
    NudgeDoubled,
    StoreRefuses,
    /// The store did it, and the answer was lost.
    AnswerLost,
    StaleEnd,
    LeaseExpired,
    TrustEnded,
    Cancel,
    CancelIgnored,
    Retry,
    LimitChanged,
    /// Jobs were held until somebody released them.
    Held,
    HeldForATime,
    Released,
    AttemptFailed,
    Child,
    /// An attempt killed its node.
    Killed,
    /// A job ran alone, since it may be what kills nodes.
    Suspect,
    /// That went on for so long that others joined it.
    Joined,
    /// A claim left jobs behind for which a node had no room.
    ShortOfRoom,
    /// A job started before one that did not fit.
    Overtook,
}

impl Fault {
    pub(crate) const ALL: [Fault; 26] = [
        Fault::Crash,
        Fault::Drain,
        Fault::Pause,
        Fault::ClockForward,
        Fault::ClockBack,
        Fault::NudgeLost,
        Fault::NudgeDoubled,
        Fault::StoreRefuses,
        Fault::AnswerLost,
        Fault::StaleEnd,
        Fault::LeaseExpired,
        Fault::TrustEnded,
        Fault::Cancel,
        Fault::CancelIgnored,
        Fault::Retry,
        Fault::LimitChanged,
        Fault::Held,
        Fault::HeldForATime,
        Fault::Released,
        Fault::AttemptFailed,
        Fault::Child,
        Fault::Killed,
        Fault::Suspect,
        Fault::Joined,
        Fault::ShortOfRoom,
        Fault::Overtook,
    ];
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    counts: BTreeMap<Fault, u64>,
    pub(crate) attempts: u64,
    pub(crate) steps: u64,
}

impl Faults {
    pub(crate) fn note(&mut self, fault: Fault) {
        *self.counts.entry(fault).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Faults) {
        for (fault, count) in &other.counts {
            *self.counts.entry(*fault).or_default() += count;
        }
        self.attempts += other.attempts;
        self.steps += other.steps;
    }

    pub(crate) fn seen(&self, fault: Fault) -> u64 {
        self.counts.get(&fault).copied().unwrap_or_default()
    }

    pub(crate) fn never(&self) -> Vec<Fault> {
        Fault::ALL.into_iter().filter(|fault| !self.counts.contains_key(fault)).collect()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} steps, {} attempts", self.steps, self.attempts)?;
        self.counts.iter().try_for_each(|(fault, count)| write!(f, ", {fault:?} {count}"))
    }
}

/// How likely each kind of trouble is in one history, in thousandths. Some histories are calm in some respect,
/// so that one kind of trouble does not hide what another does.
#[derive(Clone, Debug)]
pub(crate) struct Odds {
    pub(crate) nudge_lost: u32,
    pub(crate) nudge_doubled: u32,
    pub(crate) store_refuses: u32,
    pub(crate) answer_lost: u32,
    pub(crate) attempt_fails: u32,
    /// Jobs whose attempts kill their nodes.
    pub(crate) kills: u32,
    /// Attempts take so long that few end before their node is killed.
    pub(crate) all_last: bool,
    /// Nodes crash, drain and pause, and the clock leaps.
    pub(crate) trouble: bool,
    /// The clock may leap by more than the lease margin: then only the fencing holds, not the trust.
    pub(crate) wild_clock: bool,
}

impl Odds {
    pub(crate) fn draw(rng: &mut fastrand::Rng) -> Odds {
        let mut one = |max: u32| if rng.bool() { rng.u32(0..=max) } else { 0 };
        Odds {
            nudge_lost: one(900),
            nudge_doubled: one(200),
            store_refuses: one(150),
            answer_lost: one(80),
            attempt_fails: one(300),
            kills: one(60),
            all_last: false,
            trouble: true,
            wild_clock: rng.u32(0..5) == 0,
        }
    }

    /// Nothing goes wrong any more.
    pub(crate) fn none() -> Odds {
        Odds {
            nudge_lost: 0,
            nudge_doubled: 0,
            store_refuses: 0,
            answer_lost: 0,
            attempt_fails: 0,
            kills: 0,
            all_last: false,
            trouble: false,
            wild_clock: false,
        }
    }

    /// Nothing kills a node but attempts.
    pub(crate) fn only_killers() -> Odds {
        Odds { kills: 80, all_last: true, ..Odds::none() }
    }
}
