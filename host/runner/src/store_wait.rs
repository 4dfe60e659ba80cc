//! How long an attempt waits for the store: where that is away, what the attempt's clocks say is not its own doing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wharf_core::outcome::{Interruption, Outcome, TimeoutKind};

/// A store that answers takes no longer, however busy it is.
const USUAL: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct StoreWait {
    was_away: AtomicBool,
    /// Locked for a few assignments, never across an await.
    now: Mutex<Now>,
}

/// The waits that are not over: how many, and since when there is one.
#[derive(Default)]
struct Now {
    count: u32,
    since: Option<Instant>,
}

impl StoreWait {
    /// The attempt waits for the store until what this answers is dropped.
    pub(crate) fn begin(&self) -> Waiting<'_> {
        let mut now = self.now();
        now.count += 1;
        now.since.get_or_insert_with(Instant::now);
        Waiting(self)
    }

    /// The store has failed with what the attempt wrote.
    pub(crate) fn failed(&self) {
        self.was_away.store(true, Ordering::Relaxed);
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, now: &Now) {
        if now.since.is_some_and(|since| since.elapsed() >= USUAL) {
            self.failed();
        }
    }

    fn was_away(&self) -> bool {
        self.look(&self.now());
        self.was_away.load(Ordering::Relaxed)
    }

    /// How the attempt is to be judged: time that it waited for a store that was away is none that it used up.
    pub(crate) fn judge(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::TimedOut { clock: TimeoutKind::Wall | TimeoutKind::Stall, limit, .. } if self.was_away() => {
                let why = format!(
                    "its time ({limit:?}) was over after it had waited for the store, which was away or slow; that does not \
                     count against the job"
                );
                Outcome::Interrupted(Interruption::Host, why)
            }
            other => other,
        }
    }
}

pub(crate) struct Waiting<'w>(&'w StoreWait);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut now = self.0.now();
        self.0.look(&now);
        now.count -= 1;
        if now.count == 0 {
            now.since = None;
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
        drop(wait.begin());
        assert_eq!(wait.judge(timed_out(TimeoutKind::Wall)), timed_out(TimeoutKind::Wall), "it was answered");
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
