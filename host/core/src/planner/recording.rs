//! Writing down what attempts wrote and how they ended: in order, all of it, and once.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::{Action, AttemptId, FinishedAttempt, Held, Planner, RecordResult};
use crate::ids::JobId;
use crate::job::{Entry, NewJob};
use crate::kv::KvChanges;
use crate::lease::Lease;
use crate::lifecycle::Event;
use crate::outcome::{Bill, Interruption, Outcome, OutcomeKind, Report};
use crate::retry::{RetryDecision, RetryPolicy};
use crate::time::Timestamp;

/// A job that could not be started waits this long, doubled each time that it happens to the same job.
const RELEASE_MIN: Duration = Duration::from_millis(500);
const RELEASE_DOUBLINGS_MAX: u32 = 7;
/// One record call takes no more than this, so that its transaction stays short. A single event may be larger.
const RECORD_EVENTS_MAX: usize = 2000;
const RECORD_BYTES_MAX: usize = 8 << 20;

impl Planner {
    pub(super) fn queue(&mut self, attempt: AttemptId) {
        if let Some(held) = self.held.get_mut(&attempt)
            && !mem::replace(&mut held.queued, true)
        {
            self.unwritten.push_back(attempt);
        }
    }

    pub(super) fn ended(&mut self, ended: FinishedAttempt) {
        let Some(held) = self.held.get_mut(&ended.attempt) else {
            return;
        };
        if !mem::replace(&mut held.running, false) {
            return;
        }
        self.running -= 1;
        self.look |= self.claim_was_full;
        self.suspects.ended(ended.attempt);
        if held.lost {
            self.held.remove(&ended.attempt);
            self.actions.push(Action::Dropped(ended.attempt));
            return;
        }
        let effects = (ended.children, ended.changes);
        held.end = Some(end_event(held, ended.outcome, ended.bill, effects, (ended.retry, ended.jitter)));
        self.queue(ended.attempt);
    }

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
            let Some(held) = self.held.get_mut(&attempt) else {
                continue;
            };
            held.queued = false;
            let entries = mem::take(&mut held.unwritten);
            let wrote = (!entries.is_empty()).then_some(Event::Wrote { attempt: attempt.number, entries });
            let end = held.end.take();
            for (event, is_end) in wrote.map(|e| (e, false)).into_iter().chain(end.map(|e| (e, true))) {
                bytes += weight(&event);
                events.push((attempt.job, event));
                carried.push((attempt, is_end));
            }
        }
        if !events.is_empty() {
            self.record = Some(carried);
            self.actions.push(Action::Record(events));
        }
    }

    pub(super) fn recorded(&mut self, answers: &[RecordResult]) {
        let Some(carried) = self.record.take() else { return };
        self.record_backoff.worked();
        for ((attempt, is_end), answer) in carried.into_iter().zip(answers) {
            match answer {
                // An end that is refused was recorded before by a call whose answer was lost, or came too late. Both are over.
                _ if is_end => {
                    self.held.remove(&attempt);
                    self.look = true;
                }
                RecordResult::Stands { cancel_asked: true } => self.ask_cancel(attempt),
                RecordResult::Stands { cancel_asked: false } => {}
                RecordResult::Refused(_) => self.lose(attempt),
            }
        }
    }

    /// Puts back what could not be written, before what came since.
    pub(super) fn give_back(&mut self, events: Vec<(JobId, Event)>, now: Timestamp) {
        let Some(carried) = self.record.take() else { return };
        self.record_backoff.failed(now);
        for ((attempt, is_end), (_, event)) in carried.into_iter().zip(events).rev() {
            let Some(held) = self.held.get_mut(&attempt) else {
                continue;
            };
            if held.lost {
                continue;
            }
            match event {
                Event::Wrote { mut entries, .. } => {
                    entries.append(&mut held.unwritten);
                    held.unwritten = entries;
                }
                end if is_end => held.end = Some(end),
                _ => {}
            }
            if !mem::replace(&mut held.queued, true) {
                self.unwritten.push_front(attempt);
            }
        }
    }
}

pub(super) fn release(lease: &Lease, text: &str, claimable_in: Duration) -> Event {
    let report = Report { kind: OutcomeKind::Interrupted, text: text.to_owned() };
    Event::Released { attempt: lease.attempt, report, claimable_in }
}

fn end_event(
    held: &Held,
    outcome: Outcome,
    bill: Bill,
    (children, changes): (Vec<NewJob>, Option<Arc<KvChanges>>),
    retry: (RetryPolicy, f64),
) -> Event {
    let attempt = held.lease.attempt;
    let verdict = retry.0.after(&outcome, held.failures, retry.1);
    let report = |outcome: &Outcome| Report { kind: outcome.kind(), text: outcome.report().to_owned() };
    match (verdict, outcome) {
        (RetryDecision::Done, Outcome::Returned(output)) => {
            Event::Succeeded { attempt, output: output.into(), children, changes, bill }
        }
        (RetryDecision::Cancelled, _) => Event::Cancelled { attempt, bill },
        (RetryDecision::Release, _) if held.cancel_asked => Event::Cancelled { attempt, bill },
        (RetryDecision::Release, outcome) => {
            let text = outcome.report().to_owned();
            // Attempts that were begun beyond those that failed: given back, or ended with their host.
            let vain = attempt.saturating_sub(held.failures + 1).min(RELEASE_DOUBLINGS_MAX);
            let delay = match outcome {
                Outcome::Interrupted(Interruption::Host, _) => RELEASE_MIN * (1 << vain),
                _ => Duration::ZERO,
            };
            release(&held.lease, &text, delay)
        }
        (RetryDecision::Again(delay), outcome) => {
            Event::Failed { attempt, report: report(&outcome), retry_in: Some(delay), bill }
        }
        (RetryDecision::Over | RetryDecision::Done, outcome) => {
            Event::Failed { attempt, report: report(&outcome), retry_in: None, bill }
        }
    }
}

/// About how many bytes an event writes.
fn weight(event: &Event) -> usize {
    match event {
        Event::Wrote { entries, .. } => entries.iter().map(entry_bytes).sum(),
        Event::Succeeded { output, children, changes, .. } => {
            let changed = changes.as_ref().map_or(0, |changes| changes.bytes() as usize);
            output.len() + children.iter().map(|job| job.payload.len()).sum::<usize>() + changed
        }
        Event::Failed { report, .. } | Event::Released { report, .. } => report.text.len(),
        _ => 0,
    }
}

/// What an entry weighs while it waits to be written.
pub fn entry_bytes(entry: &Entry) -> usize {
    match entry {
        Entry::Chunk(bytes) => bytes.len(),
        Entry::Log { line, .. } => line.len(),
        Entry::LogDropped { .. } => 0,
        Entry::Progress { note, .. } => note.len(),
    }
}
