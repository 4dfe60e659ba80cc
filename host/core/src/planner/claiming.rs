//! Asking for jobs when slots are free, and taking in what is given.

use std::collections::BTreeSet;
use std::time::Duration;

use super::recording::release;
use super::{Action, AttemptId, DRAINED, Held, InFlightClaim, POLL, Planner};
use crate::job::LeasedJob;
use crate::lease::{LEASE_LOST, is_suspect};
use crate::time::Timestamp;

/// A claim that took nothing though jobs are due is repeated no sooner than this.
const FRUITLESS: Duration = Duration::from_millis(1);

impl Planner {
    fn free(&self) -> u32 {
        // Ends that can't be recorded hold no sandbox, but they must not pile up either.
        let held = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        let capacity = self.settings.capacity;
        capacity.saturating_sub(self.running).min(capacity.saturating_mul(2).saturating_sub(held))
    }

    pub(super) fn may_claim(&self) -> bool {
        self.any_task
            && self.drain.is_none()
            && self.claim.is_none()
            && !self.suspects.pause_claims()
            && self.free() > 0
    }

    pub(super) fn send_claim(&mut self, now: Timestamp) {
        if self.may_claim() && now >= self.claim_backoff.until && (self.look || now >= self.look_at) {
            let asked = self.free();
            self.look = false;
            self.claim = Some(InFlightClaim { sent: now, asked, cancels: BTreeSet::new() });
            self.actions.push(Action::Claim { free: asked });
        }
    }

    pub(super) fn claimed(&mut self, leased: Vec<LeasedJob>, wake_at: Option<Timestamp>, now: Timestamp) {
        let Some(claim) = self.claim.take() else { return };
        self.claim_backoff.worked();
        self.claim_was_full = leased.len() >= claim.asked as usize;
        let earliest = if leased.is_empty() { now + FRUITLESS } else { now };
        self.look_at = wake_at.map_or(now + POLL, |at| at.max(earliest).min(now + POLL));
        self.next_beat = self.next_beat.min(now + self.beat());
        for job in leased {
            self.take(job, &claim, now);
        }
    }

    fn take(&mut self, leased: LeasedJob, claim: &InFlightClaim, now: Timestamp) {
        let lease = leased.lease;
        let attempt = AttemptId::from(&lease);
        let trusted_until = self.trust(&lease, claim.sent, now);
        let is_suspect = is_suspect(leased.crashes);
        let refusal = if self.drain.is_some() {
            Some((Duration::ZERO, DRAINED))
        } else if trusted_until <= now {
            Some((Duration::ZERO, LEASE_LOST))
        } else if is_suspect {
            self.rests(now)
        } else {
            None
        };
        let begins = refusal.is_none() && !is_suspect;
        let held = Held {
            lease,
            failures: leased.failures,
            confirmed: claim.sent,
            trusted_until,
            running: begins,
            stopping: false,
            lost: false,
            cancel_asked: false,
            unwritten: Vec::new(),
            end: refusal.map(|(claimable_in, text)| release(&lease, text, claimable_in)),
            queued: false,
        };
        self.held.insert(attempt, held);
        if refusal.is_some() {
            return self.queue(attempt);
        }
        if begins {
            self.running += 1;
            self.actions.push(Action::Start { leased: Box::new(leased), trusted_until });
        } else {
            self.hold_back(leased, now);
        }
        if claim.cancels.contains(&attempt.job) {
            self.ask_cancel(attempt);
        }
    }
}
