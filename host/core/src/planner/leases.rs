//! Renews leases, and stops attempts: when their lease is no longer trusted, on request, and at the end of a drain.

use std::mem;

use super::{Action, AttemptId, AttemptState, Planner, RenewResult, STOPPING};
use crate::bounds;
use crate::ids::JobId;
use crate::lease::{LEASE_LOST, Lease};
use crate::outcome::Interruption;
use crate::time::Timestamp;

/// The report of an attempt that the store has refused.
const STALE: &str = "the job now belongs to another attempt";

impl Planner {
    /// Returns until when a lease that was requested at `sent` is trusted.
    ///
    /// The earlier time counts of the one that the node requested and the one that the store wrote: the clock may have
    /// been set in between. If the clock was set back, it is never longer from now than the length of a lease.
    pub(super) fn trusted_until(&self, lease: &Lease, sent: Timestamp, now: Timestamp) -> Timestamp {
        (sent.min(now) + self.settings.lease).min(lease.until) - self.settings.lease_margin
    }

    /// Renews the leases that are due for it, unless a renewal is in flight.
    pub(super) fn send_renewal(&mut self, now: Timestamp) {
        if self.renewal.is_some() {
            return;
        }
        // A renewal that is due before the next check is due now, so that leases are renewed by a third of their
        // length, not after it.
        let age = self.settings.lease / bounds::LEASE_RENEWALS - self.lease_check_interval();
        let due = |state: &&AttemptState| !state.lost && (now >= state.confirmed + age || now < state.confirmed);
        let leases: Vec<Lease> = self.attempts.values().filter(due).map(|state| state.lease).collect();
        if !leases.is_empty() {
            self.renewal = Some(now);
            self.actions.push(Action::Renew(leases));
        }
    }

    /// Handles the results of a renewal.
    pub(super) fn renewed(&mut self, results: &[RenewResult], now: Timestamp) {
        let Some(sent) = self.renewal.take() else { return };
        for result in results {
            match result {
                RenewResult::Renewed { lease, cancel_requested } => {
                    let attempt = AttemptId::from(lease);
                    let until = self.trusted_until(lease, sent, now);
                    let Some(state) = self.attempts.get_mut(&attempt) else {
                        continue;
                    };
                    state.lease = *lease;
                    state.confirmed = sent;
                    state.trusted_until = until;
                    if state.running && !state.stopping {
                        self.actions.push(Action::Trust { attempt, until });
                    }
                    if *cancel_requested {
                        self.ask_cancel(attempt);
                    }
                }
                RenewResult::Lost(lease) => {
                    let attempt = AttemptId::from(lease);
                    // The reason may be the attempt's own end, if that is being recorded; the result of that call
                    // decides.
                    let ending = self.record.iter().flatten().any(|(a, end)| *a == attempt && *end);
                    if !ending {
                        self.lose(attempt);
                    }
                }
            }
        }
    }

    /// Stops an attempt that the store has refused: the job is no longer this node's, and nothing of the attempt is
    /// recorded.
    pub(super) fn lose(&mut self, attempt: AttemptId) {
        let Some(state) = self.attempts.get_mut(&attempt) else {
            return;
        };
        state.lost = true;
        state.unwritten = Vec::new();
        state.end = None;
        if state.running {
            self.stop(attempt, Interruption::LeaseLost, STALE);
        } else {
            self.attempts.remove(&attempt);
            self.actions.push(Action::Dropped(attempt));
        }
    }

    /// Stops a running attempt, once.
    fn stop(&mut self, attempt: AttemptId, why: Interruption, text: &'static str) {
        if let Some(state) = self.attempts.get_mut(&attempt)
            && state.running
            && !state.stopping
        {
            state.stopping = true;
            self.actions.push(Action::Stop { attempt, why, text });
        }
    }

    /// Stops the attempts whose lease is no longer trusted, and all attempts at the end of a drain.
    pub(super) fn stop_overdue(&mut self, now: Timestamp) {
        let drained = self.drain.as_ref().is_some_and(|drain| now >= drain.until);
        if !drained && now < self.next_lease_check {
            return;
        }
        let mut overdue = Vec::new();
        for (attempt, state) in &self.attempts {
            if now >= state.trusted_until {
                overdue.push((*attempt, Interruption::LeaseLost, LEASE_LOST));
            } else if drained {
                overdue.push((*attempt, Interruption::Drain, STOPPING));
            }
        }
        for (attempt, why, text) in overdue {
            self.stop(attempt, why, text);
        }
    }

    /// Cancels the attempts of a job. If there is none, but a claim is in flight, the claim may bring one.
    pub(super) fn cancel_requested(&mut self, job: JobId) {
        let every = AttemptId { job, number: 0 }..=AttemptId { job, number: u32::MAX };
        let found: Vec<AttemptId> = self.attempts.range(every).map(|(attempt, _)| *attempt).collect();
        if let (true, Some(claim)) = (found.is_empty(), &mut self.claim) {
            claim.cancels.insert(job);
        }
        for attempt in found {
            self.ask_cancel(attempt);
        }
    }

    /// Cancels an attempt, once.
    pub(super) fn ask_cancel(&mut self, attempt: AttemptId) {
        self.cancel_parked(attempt);
        if let Some(state) = self.attempts.get_mut(&attempt)
            && state.running
            && !mem::replace(&mut state.cancel_requested, true)
        {
            self.actions.push(Action::RequestCancel(attempt));
        }
    }
}
