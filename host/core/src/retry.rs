//! Whether a job is tried again after an attempt failed, and when.

use std::time::Duration;

use crate::outcome::{Failure, Outcome};

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
pub enum RetryDecision {
    Done,
    /// So long from the moment when the store takes this in.
    Again(Duration),
    /// The attempts are used up, or the plugin said never again.
    Over,
    /// Cancelled on request.
    Cancelled,
    /// Through no fault of its own: at once, at no cost.
    Release,
}

impl RetryPolicy {
    /// What follows `outcome`, where `failures` attempts had failed before it.
    /// `jitter` in 0..1 draws the jitter, so that jobs that failed together do not come back together.
    pub fn after(&self, outcome: &Outcome, failures: u32, jitter: f64) -> RetryDecision {
        match outcome {
            Outcome::Returned(_) => RetryDecision::Done,
            Outcome::Cancelled => RetryDecision::Cancelled,
            Outcome::Interrupted(..) => RetryDecision::Release,
            Outcome::Failed(Failure::Discard(_)) => RetryDecision::Over,
            _ if failures.saturating_add(1) >= self.attempts => RetryDecision::Over,
            Outcome::Failed(Failure::RetryAfter(_, delay)) => RetryDecision::Again(*delay),
            _ => RetryDecision::Again(self.delay(failures, jitter)),
        }
    }

    /// Doubles from the lower bound to the upper; drawn from the upper half of that, never below the lower bound.
    fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let doubled = self.backoff_min.saturating_mul(1u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX));
        let top = doubled.min(self.backoff_max);
        top.div_f64(2.0).saturating_add(top.div_f64(2.0).mul_f64(jitter.clamp(0.0, 1.0))).max(self.backoff_min.min(top))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Interruption;

    const POLICY: RetryPolicy =
        RetryPolicy { attempts: 4, backoff_min: Duration::from_secs(1), backoff_max: Duration::from_secs(6) };

    fn failure() -> Outcome {
        Outcome::Failed(Failure::Retry(String::new()))
    }

    #[test]
    fn every_outcome_has_one_verdict() {
        let again = RetryDecision::Again(Duration::from_secs(1));
        for (outcome, verdict) in [
            (Outcome::Returned(vec![]), RetryDecision::Done),
            (Outcome::Cancelled, RetryDecision::Cancelled),
            (Outcome::Interrupted(Interruption::Drain, String::new()), RetryDecision::Release),
            (Outcome::Failed(Failure::Discard(String::new())), RetryDecision::Over),
            (failure(), again),
            (Outcome::Trapped(String::new()), again),
            (Outcome::OutOfMemory { limit_bytes: 1, report: String::new() }, again),
            (Outcome::OutputBound(String::new()), again),
        ] {
            assert_eq!(POLICY.after(&outcome, 0, 0.0), verdict, "{outcome:?}");
        }
    }

    #[test]
    fn attempts_are_used_up() {
        assert!(matches!(POLICY.after(&failure(), 2, 0.0), RetryDecision::Again(_)));
        assert_eq!(POLICY.after(&failure(), 3, 0.0), RetryDecision::Over);
        assert_eq!(POLICY.after(&failure(), u32::MAX, 0.0), RetryDecision::Over);
        let later = Outcome::Failed(Failure::RetryAfter(String::new(), Duration::from_secs(9)));
        assert_eq!(POLICY.after(&later, 3, 0.0), RetryDecision::Over);
        assert_eq!(POLICY.after(&later, 2, 0.5), RetryDecision::Again(Duration::from_secs(9)));
        let interrupted = Outcome::Interrupted(Interruption::LeaseLost, String::new());
        assert_eq!(POLICY.after(&interrupted, 9, 0.0), RetryDecision::Release, "no fault of the job's");
    }

    #[test]
    fn the_delay_doubles_between_its_bounds() {
        let delays = |jitter: f64| [0, 1, 2, 3, 40].map(|failures| POLICY.delay(failures, jitter).as_millis());
        assert_eq!(delays(1.0), [1000, 2000, 4000, 6000, 6000]);
        assert_eq!(delays(0.0), [1000, 1000, 2000, 3000, 3000]);
        assert_eq!(delays(0.5), [1000, 1500, 3000, 4500, 4500]);
    }
}
