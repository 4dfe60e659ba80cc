//! Runs suspects alone: a job that may be what kills hosts runs without other jobs, so that only a job that does kill
//! hosts is failed.
//!
//! A job of which too many attempts ended with their hosts is claimed like any other, and then parked. Its node stops
//! claiming, waits until its running attempts have ended, stores a node mark that says that this job runs alone, and
//! starts it. The node claims other jobs again once the suspect has ended, or has run alone for a while without killing
//! the host. A node that does not become idle in time releases the job.
//!
//! After the time it spends on suspects, a node spends as much time on other jobs: suspects get at most half of its
//! time.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use super::recording::release;
use super::{Action, AttemptId, Backoff, Planner};
use crate::bounds;
use crate::job::LeasedJob;
use crate::lease::{LEASE_LOST, NodeMark, StartedSuspect};
use crate::lifecycle::Event;
use crate::outcome::Usage;
use crate::time::Timestamp;

/// Time for which a node waits to become idle; doubled each time that it did not.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_DOUBLINGS_MAX: u32 = 8;
/// Time for which a suspect runs alone: this long at first, and four times as long for each further host that ended with it.
const ALONE: Duration = Duration::from_secs(30);
/// Time for which suspects may run one after the other before other jobs have their turn.
const TURN: Duration = Duration::from_secs(30);
/// Delay before a released suspect is claimable again, by this node or another.
const RELEASE_DELAY: Duration = Duration::from_secs(10);

/// The report of a suspect that is released because the node did not become idle.
const NOT_IDLE: &str = "several attempts of this job ended with their hosts, so it must run alone; \
                        other jobs ran too long on this host, so it was released";
/// The report of a suspect that is released because other jobs have their turn.
const OTHERS: &str = "several attempts of this job ended with their hosts, so it must run alone; \
                      on this host it is the turn of other jobs, so it was released";

/// The suspects of a node.
#[derive(Default)]
pub(super) struct Suspects {
    /// Suspects that were claimed and have not started, in the order of their claims.
    parked: VecDeque<Box<LeasedJob>>,
    alone: Option<Alone>,
    /// Since when the node does not claim, because of suspects.
    paused_at: Option<Timestamp>,
    /// The last turn of other jobs: its start and its length.
    rest: Option<(Timestamp, Duration)>,
    /// Number of times in a row that the node did not become idle in time.
    fruitless_waits: u32,
    /// True if a suspect was started in this pause.
    started: bool,
}

/// A suspect that is running alone.
struct Alone {
    attempt: AttemptId,
    since: Timestamp,
    length: Duration,
}

impl Alone {
    /// Returns the record for the node mark before other jobs run beside the suspect.
    fn joined(&self) -> StartedSuspect {
        StartedSuspect { job: self.attempt.job, attempt: self.attempt.number, alone: false }
    }
}

/// The node mark: what this node records about itself.
#[derive(Default)]
pub(super) struct Marks {
    pub(super) wanted: NodeMark,
    /// The mark that is stored, as far as is known.
    written: NodeMark,
    /// The mark that is being stored.
    writing: Option<NodeMark>,
    pub(super) backoff: Backoff,
}

impl Marks {
    /// Returns true if the stored mark names this suspect.
    fn is_written(&self, started: StartedSuspect) -> bool {
        self.written.suspect == Some(started)
    }
}

impl Suspects {
    /// Returns true if the node does not claim, because of suspects.
    pub(super) fn pause_claims(&self) -> bool {
        self.paused_at.is_some()
    }

    /// Returns when the turn of other jobs ends, if it has not ended.
    fn rest_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.rest.map(|(from, length)| from + length).filter(|until| now < *until)
    }

    /// Returns how long to wait for the node to become idle.
    fn idle_timeout(&self) -> Duration {
        IDLE_TIMEOUT * (1 << self.fruitless_waits.min(IDLE_DOUBLINGS_MAX))
    }

    /// Limits all times after the clock was set back; they would be far in the future.
    pub(super) fn clamp_times(&mut self, now: Timestamp) {
        let times = [
            self.paused_at.as_mut(),
            self.alone.as_mut().map(|alone| &mut alone.since),
            self.rest.as_mut().map(|(from, _)| from),
        ];
        times.into_iter().flatten().for_each(|time| *time = (*time).min(now));
    }

    /// Notes the end of an attempt, if it is the suspect that runs alone.
    pub(super) fn finished(&mut self, attempt: AttemptId) {
        self.alone.take_if(|alone| alone.attempt == attempt);
    }

    fn is_parked(&self, attempt: AttemptId) -> bool {
        self.parked.iter().any(|leased| AttemptId::from(&leased.lease) == attempt)
    }
}

impl Planner {
    /// Parks a claimed suspect until it can run alone. Its lease is renewed like any other.
    pub(super) fn park(&mut self, leased: LeasedJob, now: Timestamp) {
        self.suspects.parked.push_back(Box::new(leased));
        self.suspects.paused_at.get_or_insert(now);
    }

    /// During the turn of other jobs, returns the delay before a suspect may be claimed again, and the report for it.
    pub(super) fn rest_after_suspects(&self, now: Timestamp) -> Option<(Duration, &'static str)> {
        self.suspects.rest_until(now).map(|until| (until.since(now).min(RELEASE_DELAY), OTHERS))
    }

    /// Starts or releases parked suspects, and ends the pause of claims.
    pub(super) fn drive_suspects(&mut self, now: Timestamp) {
        let Some(paused_at) = self.suspects.paused_at else { return };
        self.drop_lost_suspects(now);
        if let Some(text) = self.starts_none() {
            self.release_suspects(text, Duration::ZERO);
        }
        if let Some(alone) = &self.suspects.alone {
            if now < alone.since + alone.length {
                return;
            }
            // This must be stored before other jobs start: after that, a crash may be theirs.
            let joined = alone.joined();
            self.marks.wanted.suspect = Some(joined);
            if !self.marks.is_written(joined) {
                return;
            }
            self.suspects.alone = None;
            self.release_suspects(OTHERS, RELEASE_DELAY);
        }
        if self.suspects.started && now >= paused_at + TURN {
            self.release_suspects(OTHERS, RELEASE_DELAY);
        }
        match self.suspects.parked.front() {
            None => self.end_pause(paused_at, now),
            // All other attempts are recorded: unrecorded ends would look like attempts that ended with this node.
            Some(next) if self.attempts.len() == self.suspects.parked.len() => {
                let started = StartedSuspect { job: next.lease.job, attempt: next.lease.attempt, alone: true };
                self.marks.wanted.suspect = Some(started);
                if self.marks.is_written(started) {
                    return self.start_alone(now);
                }
                self.check_idle_timeout(paused_at, now);
            }
            Some(_) => self.check_idle_timeout(paused_at, now),
        }
    }

    fn start_alone(&mut self, now: Timestamp) {
        let Some(leased) = self.suspects.parked.pop_front() else { return };
        let attempt = AttemptId::from(&leased.lease);
        let Some(state) = self.attempts.get_mut(&attempt) else { return };
        state.running = true;
        self.running += 1;
        let more = leased.crashes.saturating_sub(bounds::SUSPECT_CRASHES);
        let length = ALONE.saturating_mul(4_u32.saturating_pow(more)).min(bounds::TIMEOUT_MAX);
        self.suspects.alone = Some(Alone { attempt, since: now, length });
        (self.suspects.started, self.suspects.fruitless_waits) = (true, 0);
        self.actions.push(Action::Start { leased, trusted_until: state.trusted_until });
    }

    fn check_idle_timeout(&mut self, paused_at: Timestamp, now: Timestamp) {
        // Once a suspect has run alone the node was idle, and the turn of suspects is bounded by `TURN`.
        if !self.suspects.started && now >= paused_at + self.suspects.idle_timeout() {
            self.suspects.fruitless_waits = self.suspects.fruitless_waits.saturating_add(1);
            self.release_suspects(NOT_IDLE, RELEASE_DELAY);
            self.end_pause(paused_at, now);
        }
    }

    fn end_pause(&mut self, paused_at: Timestamp, now: Timestamp) {
        self.suspects.paused_at = None;
        self.suspects.started = false;
        self.suspects.rest = Some((now, now.since(paused_at)));
        self.poll_now = true;
    }

    /// Drops parked suspects whose lease is lost, and releases those whose lease is no longer trusted: this node must
    /// not start them.
    fn drop_lost_suspects(&mut self, now: Timestamp) {
        let waiting = mem::take(&mut self.suspects.parked);
        for leased in waiting {
            let attempt = AttemptId::from(&leased.lease);
            match self.attempts.get(&attempt) {
                Some(state) if state.end.is_some() => {}
                Some(state) if state.trusted_until <= now => self.release_one(attempt, LEASE_LOST, Duration::ZERO),
                Some(_) => self.suspects.parked.push_back(leased),
                None => {}
            }
        }
    }

    fn release_suspects(&mut self, why: &'static str, claimable_in: Duration) {
        for leased in mem::take(&mut self.suspects.parked) {
            self.release_one(AttemptId::from(&leased.lease), why, claimable_in);
        }
    }

    /// Returns a job to the queue at no cost to it.
    fn release_one(&mut self, attempt: AttemptId, why: &'static str, claimable_in: Duration) {
        if let Some(state) = self.attempts.get_mut(&attempt) {
            state.end = Some(release(&state.lease, why, claimable_in));
            self.queue_write(attempt);
        }
    }

    /// Cancels a parked suspect at once: it has not started, so it needs no grace period.
    pub(super) fn cancel_parked(&mut self, attempt: AttemptId) {
        if self.suspects.is_parked(attempt)
            && let Some(state) = self.attempts.get_mut(&attempt)
        {
            state.end = Some(Event::Cancelled { attempt: attempt.number, usage: Usage::default(), origin: None });
            self.queue_write(attempt);
        }
    }

    /// Returns when to handle suspects next, if no input comes before.
    pub(super) fn suspects_wake_at(&self) -> Option<Timestamp> {
        let paused_at = self.suspects.paused_at?;
        if let Some(alone) = &self.suspects.alone {
            // After its time alone, the next turn starts when the mark is stored, or when it can be stored again.
            return (self.marks.wanted.suspect != Some(alone.joined())).then_some(alone.since + alone.length);
        }
        Some(paused_at + if self.suspects.started { TURN } else { self.suspects.idle_timeout() })
    }

    // The node mark.

    /// Returns when to store the node mark next, if it differs from the stored one and none is being stored.
    pub(super) fn mark_wakes_at(&self) -> Option<Timestamp> {
        let marks = &self.marks;
        (marks.writing.is_none() && marks.wanted != marks.written).then_some(marks.backoff.until)
    }

    /// Stores the node mark if it has changed, unless one is being stored.
    pub(super) fn send_mark(&mut self, now: Timestamp) {
        let marks = &mut self.marks;
        if marks.writing.is_none() && marks.wanted != marks.written && now >= marks.backoff.until {
            marks.writing = Some(marks.wanted);
            self.actions.push(Action::Mark(marks.wanted));
        }
    }

    /// Handles a node mark that was stored.
    pub(super) fn marked(&mut self) {
        if let Some(mark) = self.marks.writing.take() {
            self.marks.written = mark;
            self.marks.backoff.succeeded();
        }
    }

    /// Handles a node mark that could not be stored.
    pub(super) fn mark_failed(&mut self, now: Timestamp) {
        if self.marks.writing.take().is_some() {
            self.marks.backoff.failed(now);
        }
    }
}
