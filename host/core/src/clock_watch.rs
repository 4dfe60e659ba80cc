//! Whether to believe the clock before something is deleted for its age: a clock that is ahead makes everything look old.

use std::time::Duration;

use crate::bounds;
use crate::time::Timestamp;

/// Compares the clock with the time that passes, from one look to the next.
#[derive(Clone, Debug, Default)]
pub struct ClockWatch {
    /// The clock at the last look, and the time that had passed since the start.
    last: Option<(Timestamp, Duration)>,
    /// When the clock came to be doubted, by the time that had passed since the start.
    doubted_at: Option<Duration>,
}

/// Why a clock is doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockDoubt {
    /// At the start every job was older than what is kept: nothing ran for long, or the clock is ahead.
    AllIsOld,
    /// The clock went ahead of the time that passed by this much: somebody set it, or the machine slept.
    WentAhead(Duration),
}

impl ClockWatch {
    /// Looks at the clock. `passed` is the time since the start, by a clock that nobody sets; `is_all_old` is true if even the newest job is
    /// older than what is kept. Returns the reason if the clock comes to be doubted by this look.
    pub fn look(&mut self, now: Timestamp, passed: Duration, is_all_old: bool) -> Option<ClockDoubt> {
        let doubt = match self.last.replace((now, passed)) {
            None => is_all_old.then_some(ClockDoubt::AllIsOld),
            Some((before, at)) => {
                let expected = before + passed.saturating_sub(at);
                let (ahead, back) = (now.since(expected), expected.since(now));
                if ahead > bounds::CLOCK_STEP_MAX {
                    Some(ClockDoubt::WentAhead(ahead))
                } else if back > bounds::CLOCK_STEP_MAX {
                    // It was set right, unless everything is old by it, too.
                    self.doubted_at = None;
                    is_all_old.then_some(ClockDoubt::AllIsOld)
                } else {
                    None
                }
            }
        };
        if doubt.is_some() {
            self.doubted_at = Some(passed);
        } else if self.doubted_at.is_some_and(|at| passed.saturating_sub(at) >= bounds::CLOCK_DOUBTED) {
            self.doubted_at = None;
        }
        doubt
    }

    /// Returns true while the clock is doubted: for a time after the last reason to doubt it.
    pub fn is_doubted(&self) -> bool {
        self.doubted_at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const DAY: Duration = Duration::from_secs(24 * 3600);
    const START: Timestamp = Timestamp::from_millis(2_000_000_000_000);

    #[test]
    fn a_clock_by_which_all_is_old_is_believed_after_a_time() {
        let mut watch = ClockWatch::default();
        assert_eq!(watch.look(START, Duration::ZERO, true), Some(ClockDoubt::AllIsOld));
        for minutes in (5..60).step_by(5) {
            let passed = minutes * MINUTE;
            assert_eq!((watch.look(START + passed, passed, true), watch.is_doubted()), (None, true), "{minutes}");
        }
        let passed = bounds::CLOCK_DOUBTED;
        assert_eq!((watch.look(START + passed, passed, true), watch.is_doubted()), (None, false));
        assert_eq!(ClockWatch::default().look(START, Duration::ZERO, false), None);
    }

    #[test]
    fn a_clock_that_goes_ahead_is_doubted_and_believed_once_it_is_set_right() {
        let mut watch = ClockWatch::default();
        assert_eq!(watch.look(START, Duration::ZERO, false), None);
        // A step such as those that keep clocks right is none.
        let small = START + 5 * MINUTE + bounds::CLOCK_STEP_MAX;
        assert_eq!((watch.look(small, 5 * MINUTE, false), watch.is_doubted()), (None, false));
        let wrong = small + 5 * MINUTE + 400 * DAY;
        assert_eq!(watch.look(wrong, 10 * MINUTE, false), Some(ClockDoubt::WentAhead(400 * DAY)));
        assert!(watch.is_doubted());
        // New jobs carry the wrong time, and prove nothing.
        assert_eq!((watch.look(wrong + 5 * MINUTE, 15 * MINUTE, false), watch.is_doubted()), (None, true));
        assert_eq!((watch.look(small + 15 * MINUTE, 20 * MINUTE, false), watch.is_doubted()), (None, false));
    }

    #[test]
    fn the_last_reason_to_doubt_counts() {
        let mut watch = ClockWatch::default();
        watch.look(START, Duration::ZERO, true);
        watch.look(START + DAY, 50 * MINUTE, false);
        assert_eq!((watch.look(START + DAY + 20 * MINUTE, 70 * MINUTE, false), watch.is_doubted()), (None, true));
        let later = 50 * MINUTE + bounds::CLOCK_DOUBTED;
        watch.look(START + DAY + bounds::CLOCK_DOUBTED, later, false);
        assert!(!watch.is_doubted());
    }
}
