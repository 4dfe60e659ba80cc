//! Claims jobs while the node has free slots, and starts the claimed jobs.

use std::collections::BTreeSet;
use std::time::Duration;

use super::recording::release;
use super::{Action, AttemptId, AttemptState, InFlightClaim, POLL, Planner};
use crate::job::LeasedJob;
use crate::lease::{LEASE_LOST, is_suspect};
use crate::time::Timestamp;

/// Delay before the next claim after one that leased nothing although jobs were due.
const FRUITLESS: Duration = Duration::from_millis(1);

impl Planner {
    /// Returns how many more attempts may start.
    fn free_slots(&self) -> u32 {
        // Ended attempts that cannot be recorded yet need no sandbox, but their number must not grow without limit
        // either.
        let known = u32::try_from(self.attempts.len()).unwrap_or(u32::MAX);
        let capacity = self.settings.capacity;
        capacity.saturating_sub(self.running).min(capacity.saturating_mul(2).saturating_sub(known))
    }

    pub(super) fn may_claim(&self) -> bool {
        self.any_task
            && !self.is_draining()
            && self.claim.is_none()
            && !self.suspects.pause_claims()
            && self.free_slots() > 0
    }

    pub(super) fn send_claim(&mut self, now: Timestamp) {
        if self.may_claim() && now >= self.claim_backoff.until && (self.poll_now || now >= self.next_poll_at) {
            let requested = self.free_slots();
            self.poll_now = false;
            self.claim = Some(InFlightClaim { sent: now, requested, cancels: BTreeSet::new() });
            self.actions.push(Action::Claim { free: requested });
        }
    }

    pub(super) fn claimed(
        &mut self,
        leased: Vec<LeasedJob>,
        wake_at: Option<Timestamp>,
        short_of_room: bool,
        now: Timestamp,
    ) {
        let Some(claim) = self.claim.take() else { return };
        self.claim_backoff.succeeded();
        self.claim_was_full = short_of_room || leased.len() >= claim.requested as usize;
        let earliest = if leased.is_empty() { now + FRUITLESS } else { now };
        self.next_poll_at = wake_at.map_or(now + POLL, |at| at.max(earliest).min(now + POLL));
        for job in leased {
            self.take_in(job, &claim, now);
        }
    }

    /// Starts, parks or releases a claimed job.
    fn take_in(&mut self, leased: LeasedJob, claim: &InFlightClaim, now: Timestamp) {
        let lease = leased.lease;
        let attempt = AttemptId::from(&lease);
        let trusted_until = self.trusted_until(&lease, claim.sent, now);
        let is_suspect = is_suspect(leased.crashes);
        let refusal = if let Some(text) = self.starts_none() {
            Some((Duration::ZERO, text))
        } else if trusted_until <= now {
            Some((Duration::ZERO, LEASE_LOST))
        } else if is_suspect {
            self.rest_after_suspects(now)
        } else {
            None
        };
        let starts = refusal.is_none() && !is_suspect;
        let state = AttemptState {
            lease,
            failures: leased.failures,
            confirmed: claim.sent,
            trusted_until,
            running: starts,
            stopping: false,
            lost: false,
            cancel_requested: false,
            unwritten: Vec::new(),
            end: refusal.map(|(claimable_in, text)| release(&lease, text, claimable_in)),
            queued: false,
        };
        self.attempts.insert(attempt, state);
        if refusal.is_some() {
            return self.queue_write(attempt);
        }
        if starts {
            self.running += 1;
            self.actions.push(Action::Start { leased: Box::new(leased), trusted_until });
        } else {
            self.park(leased, now);
        }
        if claim.cancels.contains(&attempt.job) {
            self.ask_cancel(attempt);
        }
    }
}
