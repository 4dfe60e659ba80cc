//! Records what attempts emit and how they end: in order, completely, and once.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::{Action, AttemptId, AttemptState, FinishedAttempt, Planner, RecordResult};
use crate::attempt::AttemptOrigin;
use crate::ids::JobId;
use crate::job::NewJob;
use crate::kv::KvChanges;
use crate::lease::Lease;
use crate::lifecycle::Event;
use crate::outcome::{Interruption, Outcome, OutcomeKind, Report, Usage};
use crate::retry::{RetryDecision, RetryPolicy};
use crate::time::Timestamp;

/// Delay before a job that could not be started is claimable again; doubled each time that happens to the same job.
const RELEASE_MIN: Duration = Duration::from_millis(500);
const RELEASE_DOUBLINGS_MAX: u32 = 7;
/// Limits of one record call, which keep its transaction short. A single event may be larger.
const RECORD_EVENTS_MAX: usize = 2000;
const RECORD_BYTES_MAX: usize = 8 << 20;

impl Planner {
    /// Puts an attempt into the queue of those with something to record, unless it is there.
    pub(super) fn queue_write(&mut self, attempt: AttemptId) {
        if let Some(state) = self.attempts.get_mut(&attempt)
            && !mem::replace(&mut state.queued, true)
        {
            self.unwritten.push_back(attempt);
        }
    }

    /// Handles the end of an attempt.
    pub(super) fn attempt_finished(&mut self, finished: FinishedAttempt) {
        let Some(state) = self.attempts.get_mut(&finished.attempt) else {
            return;
        };
        if !mem::replace(&mut state.running, false) {
            return;
        }
        self.running -= 1;
        self.poll_now |= self.claim_was_full;
        self.suspects.finished(finished.attempt);
        if state.lost {
            self.attempts.remove(&finished.attempt);
            self.actions.push(Action::Dropped(finished.attempt));
            return;
        }
        let effects = (finished.children, finished.changes);
        state.end = Some(end_event(
            state,
            finished.outcome,
            (finished.usage, finished.origin),
            effects,
            (finished.retry, finished.jitter),
        ));
        self.queue_write(finished.attempt);
    }

    /// Records what the queued attempts have, unless a record call is in flight.
    pub(super) fn send_record(&mut self, now: Timestamp) {
        if self.record.is_some() || now < self.record_backoff.until {
            return;
        }
        let mut events = Vec::new();
        let mut carried = Vec::new();
        let mut bytes = 0;
        while events.len() < RECORD_EVENTS_MAX && bytes < RECORD_BYTES_MAX {
            let Some(attempt) = self.unwritten.pop_front() else {
                break;
            };
            let Some(state) = self.attempts.get_mut(&attempt) else {
                continue;
            };
            state.queued = false;
            let entries = mem::take(&mut state.unwritten);
            let wrote = (!entries.is_empty()).then_some(Event::Wrote { attempt: attempt.number, entries });
            let end = state.end.take();
            for (event, is_end) in wrote.map(|e| (e, false)).into_iter().chain(end.map(|e| (e, true))) {
                bytes += event.bytes();
                events.push((attempt.job, event));
                carried.push((attempt, is_end));
            }
        }
        if !events.is_empty() {
            self.record = Some(carried);
            self.actions.push(Action::Record(events));
        }
    }

    /// Handles the results of a record call.
    pub(super) fn recorded(&mut self, results: &[RecordResult]) {
        let Some(carried) = self.record.take() else { return };
        self.record_backoff.succeeded();
        for ((attempt, is_end), result) in carried.into_iter().zip(results) {
            match result {
                // An end that is refused came too late, or an earlier call had recorded it and its result was lost. The
                // attempt has ended either way.
                _ if is_end => {
                    self.attempts.remove(&attempt);
                    self.poll_now = true;
                }
                RecordResult::Recorded { cancel_requested: true } => self.ask_cancel(attempt),
                RecordResult::Recorded { cancel_requested: false } => {}
                RecordResult::Refused(_) => self.lose(attempt),
            }
        }
    }

    /// Puts events that could not be recorded back, ahead of what came since.
    pub(super) fn record_failed(&mut self, events: Vec<(JobId, Event)>, now: Timestamp) {
        let Some(carried) = self.record.take() else { return };
        self.record_backoff.failed(now);
        for ((attempt, _), (_, event)) in carried.into_iter().zip(events).rev() {
            let Some(state) = self.attempts.get_mut(&attempt) else {
                continue;
            };
            if state.lost {
                continue;
            }
            match event {
                Event::Wrote { mut entries, .. } => {
                    entries.append(&mut state.unwritten);
                    state.unwritten = entries;
                }
                end => state.end = Some(end),
            }
            if !mem::replace(&mut state.queued, true) {
                self.unwritten.push_front(attempt);
            }
        }
    }
}

/// Returns the event that returns a leased job to the queue.
pub(super) fn release(lease: &Lease, text: &str, claimable_in: Duration) -> Event {
    let report = Report { kind: OutcomeKind::Interrupted, text: text.to_owned() };
    Event::Released { attempt: lease.attempt, report, claimable_in, usage: None, origin: None }
}

/// Returns the event that records the end of an attempt.
fn end_event(
    state: &AttemptState,
    outcome: Outcome,
    (usage, origin): (Usage, Option<Arc<AttemptOrigin>>),
    (children, changes): (Vec<NewJob>, Option<Arc<KvChanges>>),
    retry: (RetryPolicy, f64),
) -> Event {
    let attempt = state.lease.attempt;
    let decision = retry.0.after(&outcome, state.failures, retry.1);
    let report = |outcome: &Outcome| Report { kind: outcome.kind(), text: outcome.report().to_owned() };
    match (decision, outcome) {
        (RetryDecision::Done, Outcome::Returned(output)) => {
            Event::Succeeded { attempt, output: output.into(), children, changes, usage }
        }
        (RetryDecision::Cancelled, _) => Event::Cancelled { attempt, usage, origin },
        (RetryDecision::Release, _) if state.cancel_requested => Event::Cancelled { attempt, usage, origin },
        (RetryDecision::Release, outcome) => {
            // Attempts besides the failed ones: they were released, or ended with their host.
            let fruitless = attempt.saturating_sub(state.failures.failed() + 1).min(RELEASE_DOUBLINGS_MAX);
            let delay = match outcome {
                Outcome::Interrupted(Interruption::Host, _) => RELEASE_MIN * (1 << fruitless),
                _ => Duration::ZERO,
            };
            // An attempt that could not start used nothing.
            let usage = origin.is_some().then_some(usage);
            Event::Released { attempt, report: report(&outcome), claimable_in: delay, usage, origin }
        }
        (RetryDecision::RetryIn(delay), outcome) => {
            Event::Failed { attempt, report: report(&outcome), retry_in: Some(delay), usage, origin }
        }
        (RetryDecision::GiveUp | RetryDecision::Done, outcome) => {
            Event::Failed { attempt, report: report(&outcome), retry_in: None, usage, origin }
        }
    }
}
