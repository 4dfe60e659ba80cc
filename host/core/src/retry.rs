//! Decides whether a job is retried after an attempt ended, and when.

use std::time::Duration;

use crate::bounds;
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

/// Number of attempts of a job that failed, and of those that may fail if an operator granted it attempts: then the task's policy only
/// says how long they wait for each other.
///
/// Both are one number, so that they are one column of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureCount(u32);

impl FailureCount {
    /// No attempt failed, and the task's policy holds.
    pub const NONE: FailureCount = FailureCount(0);
    /// Width of the lower part of the number, which counts failed attempts.
    const FAILED_BITS: u32 = 15;
    const FAILED_MAX: u32 = (1 << FailureCount::FAILED_BITS) - 1;

    /// Returns the count of a job that an operator grants this many attempts.
    pub const fn granted(attempts: u32) -> FailureCount {
        let attempts = if attempts > bounds::RETRY_ATTEMPTS_MAX { bounds::RETRY_ATTEMPTS_MAX } else { attempts };
        FailureCount((if attempts == 0 { 1 } else { attempts }) << FailureCount::FAILED_BITS)
    }

    /// Converts a column to the count.
    pub const fn from_number(number: u32) -> FailureCount {
        FailureCount(number)
    }

    /// Returns the count as one number for a column. It fits 31 bits.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Returns how many attempts failed, since the job was enqueued or an operator granted it attempts.
    pub const fn failed(self) -> u32 {
        self.0 & FailureCount::FAILED_MAX
    }

    /// Returns the count after one attempt more failed.
    #[must_use]
    pub const fn plus_one(self) -> FailureCount {
        if self.failed() == FailureCount::FAILED_MAX { self } else { FailureCount(self.0 + 1) }
    }

    /// Returns how many attempts may fail in all where a task's policy allows `attempts`.
    const fn allowed(self, attempts: u32) -> u32 {
        match self.0 >> FailureCount::FAILED_BITS {
            0 => attempts,
            granted => granted,
        }
    }
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
    /// Returns what follows from `outcome` for a job whose earlier attempts are counted in `failures`.
    ///
    /// `jitter` is a random number from 0 to 1. It spreads the delay, so that jobs that failed together are not retried
    /// together.
    pub fn after(&self, outcome: &Outcome, failures: FailureCount, jitter: f64) -> RetryDecision {
        match outcome {
            Outcome::Returned(_) => RetryDecision::Done,
            Outcome::Cancelled => RetryDecision::Cancelled,
            Outcome::Interrupted(..) => RetryDecision::Release,
            Outcome::Failed(Failure::Discard(_)) => RetryDecision::GiveUp,
            _ if failures.failed() + 1 >= failures.allowed(self.attempts) => RetryDecision::GiveUp,
            Outcome::Failed(Failure::RetryAfter(_, delay)) => RetryDecision::RetryIn(*delay),
            _ => RetryDecision::RetryIn(self.delay(failures.failed(), jitter)),
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
            assert_eq!(POLICY.after(&outcome, FailureCount::NONE, 0.0), verdict, "{outcome:?}");
        }
    }

    #[test]
    fn attempts_are_used_up() {
        let failed = |times: usize| (0..times).fold(FailureCount::NONE, |count, _| count.plus_one());
        assert!(matches!(POLICY.after(&failure(), failed(2), 0.0), RetryDecision::RetryIn(_)));
        assert_eq!(POLICY.after(&failure(), failed(3), 0.0), RetryDecision::GiveUp);
        assert_eq!(POLICY.after(&failure(), failed(100_000), 0.0), RetryDecision::GiveUp);
        let later = Outcome::Failed(Failure::RetryAfter(String::new(), Duration::from_secs(9)));
        assert_eq!(POLICY.after(&later, failed(3), 0.0), RetryDecision::GiveUp);
        assert_eq!(POLICY.after(&later, failed(2), 0.5), RetryDecision::RetryIn(Duration::from_secs(9)));
        let interrupted = Outcome::Interrupted(Interruption::LeaseLost, String::new());
        assert_eq!(POLICY.after(&interrupted, failed(9), 0.0), RetryDecision::Release, "no fault of the job's");
    }

    #[test]
    fn an_operator_grants_attempts_in_place_of_those_of_the_policy() {
        let (mut count, mut tries) = (FailureCount::granted(6), 1);
        while let RetryDecision::RetryIn(_) = POLICY.after(&failure(), count, 0.0) {
            (count, tries) = (count.plus_one(), tries + 1);
            assert_eq!((FailureCount::from_number(count.number()), count.failed()), (count, tries - 1));
        }
        assert_eq!(tries, 6);
        assert_eq!(POLICY.after(&failure(), FailureCount::granted(1), 0.0), RetryDecision::GiveUp);
        assert_eq!(FailureCount::granted(0), FailureCount::granted(1));
        assert_eq!(FailureCount::granted(u32::MAX), FailureCount::granted(bounds::RETRY_ATTEMPTS_MAX));
        assert!(i32::try_from(FailureCount::granted(u32::MAX).number()).is_ok(), "it is a column of PostgreSQL");
    }

    #[test]
    fn the_delay_doubles_between_its_bounds() {
        let delays = |jitter: f64| [0, 1, 2, 3, 40].map(|failures| POLICY.delay(failures, jitter).as_millis());
        assert_eq!(delays(1.0), [1000, 2000, 4000, 6000, 6000]);
        assert_eq!(delays(0.0), [1000, 1000, 2000, 3000, 3000]);
        assert_eq!(delays(0.5), [1000, 1500, 3000, 4500, 4500]);
    }
}
