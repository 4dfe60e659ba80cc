//! How long an attempt waits for the store. If the store is away, a timeout of the attempt is not its own fault.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wharf_core::outcome::{Interruption, Outcome, TimeoutKind};

/// A store that works takes no longer than this, however busy it is.
const RESPONSE_MAX: Duration = Duration::from_secs(1);

/// The waits of one attempt for the store.
#[derive(Default)]
pub(crate) struct StoreWait {
    was_away: AtomicBool,
    /// Locked for a few assignments, never across an await.
    pending: Mutex<Pending>,
}

/// The waits that are not over: how many, and since when there is at least one.
#[derive(Default)]
struct Pending {
    count: u32,
    since: Option<Instant>,
}

impl StoreWait {
    /// Starts a wait for the store, which ends when the returned guard is dropped.
    pub(crate) fn start(&self) -> WaitGuard<'_> {
        let mut pending = self.pending();
        pending.count += 1;
        pending.since.get_or_insert_with(Instant::now);
        WaitGuard(self)
    }

    /// The store has failed with what the attempt wrote.
    pub(crate) fn failed(&self) {
        self.was_away.store(true, Ordering::Relaxed);
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, pending: &Pending) {
        if pending.since.is_some_and(|since| since.elapsed() >= RESPONSE_MAX) {
            self.failed();
        }
    }

    fn was_away(&self) -> bool {
        self.check(&self.pending());
        self.was_away.load(Ordering::Relaxed)
    }

    /// Returns the outcome as it counts: an attempt that ran out of time while the store was away was interrupted.
    pub(crate) fn judge(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::TimedOut { clock: TimeoutKind::Wall | TimeoutKind::Stall, limit, .. } if self.was_away() => {
                let why = format!(
                    "its timeout of {limit:?} was over after it had waited for the store, which was away or slow; this does \
                     not count against the job"
                );
                Outcome::Interrupted(Interruption::Host, why)
            }
            other => other,
        }
    }
}

/// A wait for the store, until this is dropped.
pub(crate) struct WaitGuard<'w>(&'w StoreWait);

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        let mut pending = self.0.pending();
        self.0.check(&pending);
        pending.count -= 1;
        if pending.count == 0 {
            pending.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed_out(clock: TimeoutKind) -> Outcome {
        Outcome::TimedOut { clock, limit: Duration::from_secs(9), report: String::new() }
    }

    #[test]
    fn only_a_store_that_was_away_excuses_and_only_what_clocks_say_that_run_meanwhile() {
        let wait = StoreWait::default();
        drop(wait.start());
        assert_eq!(wait.judge(timed_out(TimeoutKind::Wall)), timed_out(TimeoutKind::Wall), "the store responded");
        wait.failed();
        for clock in [TimeoutKind::Wall, TimeoutKind::Stall] {
            let Outcome::Interrupted(Interruption::Host, why) = wait.judge(timed_out(clock)) else {
                panic!("{clock:?}")
            };
            assert!(why.contains("9s") && why.contains("store"), "{why}");
        }
        assert_eq!(wait.judge(timed_out(TimeoutKind::Cpu)), timed_out(TimeoutKind::Cpu));
        assert_eq!(wait.judge(Outcome::Trapped("why".into())), Outcome::Trapped("why".into()));
    }
}
