//! The ticks that are due, and which of them a policy fires.

use std::collections::VecDeque;
use std::time::Duration;

use super::{MissedPolicy, Schedule};
use crate::bounds;
use crate::fingerprint;
use crate::ids::ScheduleId;
use crate::time::Timestamp;

/// Returns the distance from a schedule's nominal ticks to their moments: a part of its spread in whole seconds, which depends
/// on its ID alone.
pub fn offset(id: &ScheduleId, spread: Duration) -> Duration {
    match spread.as_secs() {
        0 => Duration::ZERO,
        seconds => Duration::from_secs(fingerprint::hash(id.as_str()) % seconds),
    }
}

/// Returns true if ticks without jobs are worth a warning, given how many of them came in a row with one outcome, the last `count`
/// included: the first, the tenth, the hundredth, and so on.
pub fn is_told(in_a_row: u64, count: u64) -> bool {
    in_a_row.checked_sub(count).is_none_or(|before| before == 0 || before.ilog10() < in_a_row.ilog10())
}

/// The ticks of a schedule that are due, as its policy divides them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueTicks {
    /// The nominal ticks to fire, oldest first.
    pub fire: Vec<Timestamp>,
    /// Number of ticks that are missed, counted up to `bounds::SCHEDULE_TICKS_COUNTED`.
    pub missed: u64,
    /// The newest tick that is missed.
    pub last_missed: Option<Timestamp>,
    /// The first nominal tick that is not due.
    pub next: Option<Timestamp>,
}

/// Divides the ticks that are due at `now`. `next` returns the first nominal tick after a moment. Returns none if the schedule
/// is not due.
pub fn due_ticks(
    schedule: &Schedule,
    now: Timestamp,
    next: &mut dyn FnMut(Timestamp) -> Option<Timestamp>,
) -> Option<DueTicks> {
    let offset = schedule.offset();
    let first = schedule.next_at.filter(|at| *at <= now)? - offset;
    let window = match schedule.spec.missed {
        MissedPolicy::None => bounds::SCHEDULE_GRACE,
        MissedPolicy::Latest | MissedPolicy::All => schedule.spec.window.max(bounds::SCHEDULE_GRACE),
    };
    let kept = match schedule.spec.missed {
        MissedPolicy::All => bounds::SCHEDULE_CATCH_UP_MAX,
        MissedPolicy::Latest | MissedPolicy::None => 1,
    };
    let is_in_window = |tick: Timestamp| now.since(tick + offset) <= window;
    let mut due = DueTicks::default();
    let mut fire: VecDeque<Timestamp> = VecDeque::new();
    let (mut tick, mut looked) = (Some(first), 0_u64);
    while let Some(at) = tick.filter(|at| *at + offset <= now) {
        looked += 1;
        if is_in_window(at) {
            fire.push_back(at);
            if fire.len() > kept {
                due.miss(fire.pop_front());
            }
        } else {
            due.miss(Some(at));
        }
        // After so many, all but the newest are passed over.
        if looked == bounds::SCHEDULE_TICKS_COUNTED {
            let newest = newest_after(at, now - offset, window, kept, next);
            tick = next(newest);
        } else {
            tick = next(at);
        }
    }
    due.next = tick;
    due.fire = fire.into();
    Some(due)
}

/// Returns a moment after `at` from which on at least `wanted` ticks are due, or all of the window are, and not many more. Times
/// of which few are within a minute are looked at over ten minutes, and so on.
fn newest_after(
    at: Timestamp,
    now: Timestamp,
    window: Duration,
    wanted: usize,
    next: &mut dyn FnMut(Timestamp) -> Option<Timestamp>,
) -> Timestamp {
    let mut span = Duration::from_secs(60);
    loop {
        let from = now - span.min(window) - Duration::from_micros(1);
        if from <= at {
            return at;
        }
        let mut found = (0, Some(from));
        while let Some(tick) = found.1.and_then(&mut *next).filter(|tick| *tick <= now && found.0 < wanted) {
            found = (found.0 + 1, Some(tick));
        }
        if found.0 >= wanted || span >= window {
            return from;
        }
        span *= 10;
    }
}

impl DueTicks {
    fn miss(&mut self, tick: Option<Timestamp>) {
        self.missed += u64::from(tick.is_some());
        self.last_missed = self.last_missed.max(tick);
    }

    /// Returns what becomes of the ticks where no host has the task: those that are to be fired wait for one. Returns none if
    /// nothing changes.
    pub fn without_host(mut self) -> Option<DueTicks> {
        if self.missed == 0 {
            return None;
        }
        self.next = self.fire.first().copied().or(self.next);
        self.fire.clear();
        Some(self)
    }
}
