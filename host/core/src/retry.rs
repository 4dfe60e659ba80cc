//! Decides whether a job is retried after an attempt ended, and when.

use std::time::Duration;

use crate::outcome::{Failure, Outcome};

/// A task's retry policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Number of attempts that may fail in all, including the first.
    pub attempts: u32,
    /// The delay before the first retry; later delays double.
    pub backoff_min: Duration,
    /// The upper limit of a delay.
    pub backoff_max: Duration,
}

/// The consequence of an attempt's outcome for its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// The job succeeded.
    Done,
    /// Retry after this delay, counted from when the store records the failure.
    RetryIn(Duration),
    /// Fail the job: its attempts are used up, or the plugin asked for no retry.
    GiveUp,
    /// The job was cancelled on request.
    Cancelled,
    /// Return the job to the queue at once. The attempt was interrupted through no fault of the job and does not count.
    Release,
}

impl RetryPolicy {
    /// Returns what follows from `outcome` for a job with `failures` earlier failed attempts.
    ///
    /// `jitter` is a random number from 0 to 1. It spreads the delay, so that jobs that failed together are not retried
    /// together.
    pub fn after(&self, outcome: &Outcome, failures: u32, jitter: f64) -> RetryDecision {
        match outcome {
            Outcome::Returned(_) => RetryDecision::Done,
            Outcome::Cancelled => RetryDecision::Cancelled,
            Outcome::Interrupted(..) => RetryDecision::Release,
            Outcome::Failed(Failure::Discard(_)) => RetryDecision::GiveUp,
            _ if failures.saturating_add(1) >= self.attempts => RetryDecision::GiveUp,
            Outcome::Failed(Failure::RetryAfter(_, delay)) => RetryDecision::RetryIn(*delay),
            _ => RetryDecision::RetryIn(self.delay(failures, jitter)),
        }
    }

    /// Returns the delay before the next attempt. Its upper end doubles from `backoff_min` to `backoff_max`; the delay
    /// is chosen from the upper half below that end, and is never shorter than `backoff_min`.
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
        let again = RetryDecision::RetryIn(Duration::from_secs(1));
        for (outcome, verdict) in [
            (Outcome::Returned(vec![]), RetryDecision::Done),
            (Outcome::Cancelled, RetryDecision::Cancelled),
            (Outcome::Interrupted(Interruption::Drain, String::new()), RetryDecision::Release),
            (Outcome::Failed(Failure::Discard(String::new())), RetryDecision::GiveUp),
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
        assert!(matches!(POLICY.after(&failure(), 2, 0.0), RetryDecision::RetryIn(_)));
        assert_eq!(POLICY.after(&failure(), 3, 0.0), RetryDecision::GiveUp);
        assert_eq!(POLICY.after(&failure(), u32::MAX, 0.0), RetryDecision::GiveUp);
        let later = Outcome::Failed(Failure::RetryAfter(String::new(), Duration::from_secs(9)));
        assert_eq!(POLICY.after(&later, 3, 0.0), RetryDecision::GiveUp);
        assert_eq!(POLICY.after(&later, 2, 0.5), RetryDecision::RetryIn(Duration::from_secs(9)));
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
