//! What may be what kills hosts runs alone, so that only what does is failed, and nothing beside it.
//!
//! A job whose attempts ended with their hosts too often is claimed like any other, and held back. Its node claims no more, lets
//! what runs end, writes down that this job runs alone, and begins it; other jobs are claimed again once it has ended, or has
//! run alone for a while without harm. A node that does not become idle in time gives the job back.
//!
//! What the node spends on suspects it then spends on others: no more than half of its time goes to them.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use super::recording::release;
use super::{Action, AttemptId, Backoff, Planner};
use crate::bounds;
use crate::job::LeasedJob;
use crate::lease::{LEASE_LOST, NodeMark, StartedSuspect};
use crate::lifecycle::Event;
use crate::outcome::Bill;
use crate::time::Timestamp;

/// A node waits so long for what runs to end, and doubles it each time that this was in vain.
const IDLE_PATIENCE: Duration = Duration::from_secs(10);
const IDLE_DOUBLINGS_MAX: u32 = 8;
/// A suspect runs alone for so long at first, and four times as long for each host that has ended with it since.
const ALONE: Duration = Duration::from_secs(30);
/// Suspects follow each other for so long; then others have their turn.
const TURN: Duration = Duration::from_secs(30);
/// A suspect that was given back is not claimed sooner, here or by another node.
const GIVEN_BACK: Duration = Duration::from_secs(10);

const NOT_IDLE: &str = "several of its attempts ended with their hosts, so that it runs alone; other jobs ran too long on this \
                        host, which gave it back";
const OTHERS: &str = "several of its attempts ended with their hosts, so that it runs alone; on this host it is the turn of \
                      other jobs, so that it was given back";

#[derive(Default)]
pub(super) struct Suspects {
    /// Held back, in the order in which they were claimed.
    waiting: VecDeque<Box<LeasedJob>>,
    alone: Option<Alone>,
    /// Since when nothing is claimed for their sake.
    paused_at: Option<Timestamp>,
    /// Others have their turn from that moment on, for so long.
    rest: Option<(Timestamp, Duration)>,
    /// How often in a row the node did not become idle in time.
    in_vain: u32,
    /// One was begun since nothing is claimed.
    begun: bool,
}

/// A suspect that runs, and no other job with it.
struct Alone {
    attempt: AttemptId,
    since: Timestamp,
    length: Duration,
}

impl Alone {
    /// How it is written down before others run beside it.
    fn joined(&self) -> StartedSuspect {
        StartedSuspect { job: self.attempt.job, attempt: self.attempt.number, alone: false }
    }
}

/// What this node writes down of itself.
#[derive(Default)]
pub(super) struct Marks {
    pub(super) wanted: NodeMark,
    /// What stands there, as far as is known.
    written: NodeMark,
    /// On its way.
    writing: Option<NodeMark>,
    pub(super) backoff: Backoff,
}

impl Marks {
    fn stands(&self, begun: StartedSuspect) -> bool {
        self.written.suspect == Some(begun)
    }
}

impl Suspects {
    /// Nothing is claimed for their sake.
    pub(super) fn pause_claims(&self) -> bool {
        self.paused_at.is_some()
    }

    /// When others have had their turn.
    fn rest_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.rest.map(|(from, length)| from + length).filter(|until| now < *until)
    }

    fn patience(&self) -> Duration {
        IDLE_PATIENCE * (1 << self.in_vain.min(IDLE_DOUBLINGS_MAX))
    }

    /// A clock that was set back must not leave us waiting for moments that are far away by now.
    pub(super) fn keep_time(&mut self, now: Timestamp) {
        let moments = [
            self.paused_at.as_mut(),
            self.alone.as_mut().map(|alone| &mut alone.since),
            self.rest.as_mut().map(|(from, _)| from),
        ];
        moments.into_iter().flatten().for_each(|moment| *moment = (*moment).min(now));
    }

    pub(super) fn ended(&mut self, attempt: AttemptId) {
        self.alone.take_if(|alone| alone.attempt == attempt);
    }

    fn is_waiting(&self, attempt: AttemptId) -> bool {
        self.waiting.iter().any(|leased| AttemptId::from(&leased.lease) == attempt)
    }
}

impl Planner {
    /// Holds a claimed suspect back. Its lease is renewed like any other.
    pub(super) fn hold_back(&mut self, leased: LeasedJob, now: Timestamp) {
        self.suspects.waiting.push_back(Box::new(leased));
        self.suspects.paused_at.get_or_insert(now);
    }

    /// In how long a suspect that is not begun now may be claimed again, and why it is not.
    pub(super) fn rests(&self, now: Timestamp) -> Option<(Duration, &'static str)> {
        self.suspects.rest_until(now).map(|until| (until.since(now).min(GIVEN_BACK), OTHERS))
    }

    pub(super) fn see_to_suspects(&mut self, now: Timestamp) {
        let Some(paused_at) = self.suspects.paused_at else { return };
        self.forget_the_lost(now);
        if self.drain.is_some() {
            self.give_back_suspects(super::DRAINED, Duration::ZERO);
        }
        if let Some(alone) = &self.suspects.alone {
            if now < alone.since + alone.length {
                return;
            }
            // Before others come: what they do is not this one's doing.
            let joined = alone.joined();
            self.marks.wanted.suspect = Some(joined);
            if !self.marks.stands(joined) {
                return;
            }
            self.suspects.alone = None;
            self.give_back_suspects(OTHERS, GIVEN_BACK);
        }
        if self.suspects.begun && now >= paused_at + TURN {
            self.give_back_suspects(OTHERS, GIVEN_BACK);
        }
        match self.suspects.waiting.front() {
            None => self.end_pause(paused_at, now),
            // Ends that are not recorded yet would be taken for attempts that ended with this node.
            Some(next) if self.held.len() == self.suspects.waiting.len() => {
                let begun = StartedSuspect { job: next.lease.job, attempt: next.lease.attempt, alone: true };
                self.marks.wanted.suspect = Some(begun);
                if self.marks.stands(begun) {
                    return self.begin_alone(now);
                }
                self.mind_patience(paused_at, now);
            }
            Some(_) => self.mind_patience(paused_at, now),
        }
    }

    fn begin_alone(&mut self, now: Timestamp) {
        let Some(leased) = self.suspects.waiting.pop_front() else { return };
        let attempt = AttemptId::from(&leased.lease);
        let Some(held) = self.held.get_mut(&attempt) else { return };
        held.running = true;
        self.running += 1;
        let more = leased.crashes.saturating_sub(bounds::SUSPECT_CRASHES);
        let length = ALONE.saturating_mul(4_u32.saturating_pow(more)).min(bounds::TIMEOUT_MAX);
        self.suspects.alone = Some(Alone { attempt, since: now, length });
        (self.suspects.begun, self.suspects.in_vain) = (true, 0);
        self.actions.push(Action::Start { leased, trusted_until: held.trusted_until });
    }

    fn mind_patience(&mut self, paused_at: Timestamp, now: Timestamp) {
        if now >= paused_at + self.suspects.patience() {
            self.suspects.in_vain = self.suspects.in_vain.saturating_add(1);
            self.give_back_suspects(NOT_IDLE, GIVEN_BACK);
            self.end_pause(paused_at, now);
        }
    }

    fn end_pause(&mut self, paused_at: Timestamp, now: Timestamp) {
        self.suspects.paused_at = None;
        self.suspects.begun = false;
        self.suspects.rest = Some((now, now.since(paused_at)));
        self.look = true;
    }

    /// Those whose leases are not held any more are nobody's to begin.
    fn forget_the_lost(&mut self, now: Timestamp) {
        let waiting = mem::take(&mut self.suspects.waiting);
        for leased in waiting {
            let attempt = AttemptId::from(&leased.lease);
            match self.held.get(&attempt) {
                Some(held) if held.end.is_some() => {}
                Some(held) if held.trusted_until <= now => self.give_back_one(attempt, LEASE_LOST, Duration::ZERO),
                Some(_) => self.suspects.waiting.push_back(leased),
                None => {}
            }
        }
    }

    fn give_back_suspects(&mut self, why: &'static str, claimable_in: Duration) {
        for leased in mem::take(&mut self.suspects.waiting) {
            self.give_back_one(AttemptId::from(&leased.lease), why, claimable_in);
        }
    }

    /// At no cost to the job.
    fn give_back_one(&mut self, attempt: AttemptId, why: &'static str, claimable_in: Duration) {
        if let Some(held) = self.held.get_mut(&attempt) {
            held.end = Some(release(&held.lease, why, claimable_in));
            self.queue(attempt);
        }
    }

    /// A suspect that is held back needs no grace to end: it has not begun.
    pub(super) fn cancel_held_back(&mut self, attempt: AttemptId) {
        if self.suspects.is_waiting(attempt)
            && let Some(held) = self.held.get_mut(&attempt)
        {
            held.end = Some(Event::Cancelled { attempt: attempt.number, bill: Bill::default() });
            self.queue(attempt);
        }
    }

    /// When something is to be done for suspects, if nothing happens before.
    pub(super) fn suspects_wake_at(&self) -> Option<Timestamp> {
        let paused_at = self.suspects.paused_at?;
        if let Some(alone) = &self.suspects.alone {
            // Past its time alone, what wakes is that it stands written, or can be written again.
            return (self.marks.wanted.suspect != Some(alone.joined())).then_some(alone.since + alone.length);
        }
        let patience = paused_at + self.suspects.patience();
        let turn = self.suspects.begun.then_some(paused_at + TURN);
        Some(turn.map_or(patience, |turn| turn.min(patience)))
    }

    // What the node writes down.

    pub(super) fn mark_wakes_at(&self) -> Option<Timestamp> {
        let marks = &self.marks;
        (marks.writing.is_none() && marks.wanted != marks.written).then_some(marks.backoff.until)
    }

    pub(super) fn send_mark(&mut self, now: Timestamp) {
        let marks = &mut self.marks;
        if marks.writing.is_none() && marks.wanted != marks.written && now >= marks.backoff.until {
            marks.writing = Some(marks.wanted);
            self.actions.push(Action::Mark(marks.wanted));
        }
    }

    pub(super) fn marked(&mut self) {
        if let Some(mark) = self.marks.writing.take() {
            self.marks.written = mark;
            self.marks.backoff.worked();
        }
    }

    pub(super) fn mark_failed(&mut self, now: Timestamp) {
        if self.marks.writing.take().is_some() {
            self.marks.backoff.failed(now);
        }
    }
}
