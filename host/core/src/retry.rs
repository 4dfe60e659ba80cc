//! Whether a job is tried again after an attempt failed, and when.

use std::time::Duration;

use crate::outcome::{Failure, Outcome};
use crate::time::Timestamp;

/// A task's retry policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many attempts may fail in all, the first one counted.
    pub attempts: u32,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
}

/// What becomes of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Done,
    Again(Timestamp),
    /// The attempts are used up, or the plugin said never again.
    Over,
    /// Cancelled on request.
    Cancelled,
    /// Through no fault of its own: at once, at no cost.
    Release,
}

impl RetryPolicy {
    /// What follows `outcome`, where `failures` attempts had failed before it.
    /// `dice` in 0..1 draws the jitter, so that jobs that failed together do not come back together.
    pub fn after(&self, outcome: &Outcome, failures: u32, dice: f64, now: Timestamp) -> Verdict {
        match outcome {
            Outcome::Returned(_) => Verdict::Done,
            Outcome::Cancelled => Verdict::Cancelled,
            Outcome::Interrupted(..) => Verdict::Release,
            Outcome::Failed(Failure::Discard(_)) => Verdict::Over,
            _ if failures.saturating_add(1) >= self.attempts => Verdict::Over,
            Outcome::Failed(Failure::RetryAfter(_, delay)) => Verdict::Again(now + *delay),
            _ => Verdict::Again(now + self.delay(failures, dice)),
        }
    }

    /// Doubles from the lower bound to the upper; drawn from the upper half of that, never below the lower bound.
    fn delay(&self, failures: u32, dice: f64) -> Duration {
        let doubled = self
            .backoff_min
            .saturating_mul(1u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX));
        let top = doubled.min(self.backoff_max);
        top.div_f64(2.0)
            .saturating_add(top.div_f64(2.0).mul_f64(dice.clamp(0.0, 1.0)))
            .max(self.backoff_min.min(top))
    }
}
