//! Holding on to leases, and ending attempts: when trust runs out, on request, at the end of a drain.

use std::mem;

use super::{Action, AttemptId, DRAINED, Held, Planner, RenewResult};
use crate::bounds;
use crate::ids::JobId;
use crate::lease::{LEASE_LOST, Lease};
use crate::outcome::Interruption;
use crate::time::Timestamp;

const STALE: &str = "the job is with another attempt by now";

impl Planner {
    /// Whichever is sooner counts, what we asked for or what the store wrote down: the clock may have been set in between.
    /// And never longer from now than a lease is, by a clock that was set back since.
    pub(super) fn trust(&self, lease: &Lease, sent: Timestamp, now: Timestamp) -> Timestamp {
        (sent.min(now) + self.settings.lease).min(lease.until) - self.settings.lease_margin
    }

    pub(super) fn send_renewal(&mut self, now: Timestamp) {
        if self.renewal.is_some() {
            return;
        }
        // Due before the next beat is due now: renewals come at a third of the lease, not after it.
        let age = self.settings.lease / bounds::LEASE_RENEWALS - self.beat();
        let due = |held: &&Held| !held.lost && (now >= held.confirmed + age || now < held.confirmed);
        let leases: Vec<Lease> = self.held.values().filter(due).map(|held| held.lease).collect();
        if !leases.is_empty() {
            self.renewal = Some(now);
            self.actions.push(Action::Renew(leases));
        }
    }

    pub(super) fn renewed(&mut self, confirmations: &[RenewResult], now: Timestamp) {
        let Some(sent) = self.renewal.take() else { return };
        for confirmation in confirmations {
            match confirmation {
                RenewResult::Held { lease, cancel_asked } => {
                    let attempt = AttemptId::from(lease);
                    let until = self.trust(lease, sent, now);
                    let Some(held) = self.held.get_mut(&attempt) else {
                        continue;
                    };
                    held.lease = *lease;
                    held.confirmed = sent;
                    held.trusted_until = until;
                    if held.running && !held.stopping {
                        self.actions.push(Action::Trust { attempt, until });
                    }
                    if *cancel_asked {
                        self.ask_cancel(attempt);
                    }
                }
                RenewResult::Lost(lease) => {
                    let attempt = AttemptId::from(lease);
                    // An end that is on its way may be the very reason; its own answer will tell.
                    let ending = self.record.iter().flatten().any(|(a, end)| *a == attempt && *end);
                    if !ending {
                        self.lose(attempt);
                    }
                }
            }
        }
    }

    /// The store has said that the attempt is not ours any more: it stops, and nothing of it is written.
    pub(super) fn lose(&mut self, attempt: AttemptId) {
        let Some(held) = self.held.get_mut(&attempt) else {
            return;
        };
        held.lost = true;
        held.unwritten = Vec::new();
        held.end = None;
        if held.running {
            self.stop(attempt, Interruption::LeaseLost, STALE);
        } else {
            self.held.remove(&attempt);
            self.actions.push(Action::Dropped(attempt));
        }
    }

    fn stop(&mut self, attempt: AttemptId, why: Interruption, text: &'static str) {
        if let Some(held) = self.held.get_mut(&attempt)
            && held.running
            && !held.stopping
        {
            held.stopping = true;
            self.actions.push(Action::Stop { attempt, why, text });
        }
    }

    pub(super) fn stop_overdue(&mut self, now: Timestamp) {
        let drained = self.drain.as_ref().is_some_and(|drain| now >= drain.until);
        if !drained && now < self.next_beat {
            return;
        }
        let mut overdue = Vec::new();
        for (attempt, held) in self.held.iter().filter(|(_, held)| held.running && !held.stopping) {
            if now >= held.trusted_until {
                overdue.push((*attempt, Interruption::LeaseLost, LEASE_LOST));
            } else if drained {
                overdue.push((*attempt, Interruption::Drain, DRAINED));
            }
        }
        for (attempt, why, text) in overdue {
            self.stop(attempt, why, text);
        }
    }

    pub(super) fn cancel_asked(&mut self, job: JobId) {
        let every = AttemptId { job, number: 0 }..=AttemptId { job, number: u32::MAX };
        let here: Vec<AttemptId> = self.held.range(every).map(|(attempt, _)| *attempt).collect();
        if let (true, Some(claim)) = (here.is_empty(), &mut self.claim) {
            claim.cancels.insert(job);
        }
        for attempt in here {
            self.ask_cancel(attempt);
        }
    }

    pub(super) fn ask_cancel(&mut self, attempt: AttemptId) {
        self.cancel_held_back(attempt);
        if let Some(held) = self.held.get_mut(&attempt)
            && held.running
            && !mem::replace(&mut held.cancel_asked, true)
        {
            self.actions.push(Action::AskCancel(attempt));
        }
    }
}
