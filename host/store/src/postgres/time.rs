//! The database's clock, as far as it can be known without asking: what its answers demand, and the time that passed since.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use wharf_core::time::Timestamp;

use crate::clock::Clock;

/// Microseconds since 1970 by the database's clock.
pub(super) const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// Which clock tells the time of a store.
#[derive(Clone)]
pub(super) enum Time {
    Database(Arc<Mutex<Option<Known>>>),
    /// One that tests move by hand.
    Given(Arc<dyn Clock>),
}

/// That the database's clock stood so at a moment of the machine's own, which nobody sets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Known {
    stamp: Timestamp,
    at: Instant,
}

impl Known {
    fn at(&self, moment: Instant) -> Timestamp {
        self.stamp + moment.saturating_duration_since(self.at)
    }

    /// What is known after an answer. Its stamp was read off at some moment from when it was asked for until it was heard, which
    /// may be long: the host was stopped, or the way was. So the clock stands no earlier than that when the answer is heard, and
    /// stood no later when it was asked for; it is moved no more than these two demand. Only a clock that was set back, and
    /// never an answer that is late, moves it back.
    fn after(self, stamp: Timestamp, asked: Instant, heard: Instant) -> Known {
        if asked < self.at {
            // It may be from before what is known by now.
            self
        } else if stamp > self.at(heard) {
            Known { stamp, at: heard }
        } else if stamp < self.at(asked) {
            Known { stamp, at: asked }
        } else {
            self
        }
    }
}

impl Time {
    pub(super) fn database() -> Time {
        Time::Database(Arc::default())
    }

    pub(super) fn now(&self) -> Timestamp {
        match self {
            Time::Database(known) => known
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .map_or(Timestamp::ZERO, |known| known.at(Instant::now())),
            Time::Given(clock) => clock.now(),
        }
    }

    /// Takes in what the database said to a question that was `asked` then, and answers with the moment that counts.
    pub(super) fn heard(&self, stamp: Timestamp, asked: Instant) -> Timestamp {
        match self {
            Time::Database(known) => {
                let (mut known, heard) = (known.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
                let first = Known { stamp, at: heard };
                *known = Some(known.map_or(first, |known| known.after(stamp, asked, heard)));
                stamp
            }
            Time::Given(clock) => clock.now(),
        }
    }

    /// The moment to hand to a statement; `None` is its own.
    pub(super) fn given(&self) -> Option<i64> {
        match self {
            Time::Database(_) => None,
            Time::Given(clock) => Some(super::rows::micros(clock.now())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_late_answer_moves_the_clock_nowhere() {
        let (start, stamp) = (Instant::now(), Timestamp::from_millis(1_700_000_000_000));
        let known = Known { stamp, at: start };
        // Asked a second later, read off at once, and heard after a minute.
        let late = known.after(stamp + SECOND, start + SECOND, start + 61 * SECOND);
        assert_eq!(late, known);
        assert_eq!(late.at(start + 61 * SECOND), stamp + 61 * SECOND);
    }

    #[test]
    fn a_clock_that_was_set_is_followed() {
        let (start, stamp) = (Instant::now(), Timestamp::from_millis(1_700_000_000_000));
        let known = Known { stamp, at: start };
        let asked = start + SECOND;
        for set in [Duration::from_millis(20), 3600 * SECOND] {
            let back = known.after(stamp + SECOND - set, asked, asked);
            assert_eq!(back.at(asked), stamp + SECOND - set, "back by {set:?}");
            let forward = known.after(stamp + SECOND + set, asked, asked);
            assert_eq!(forward.at(asked), stamp + SECOND + set, "forward by {set:?}");
        }
        // Heard late: how far it was set is known no better than how long that took.
        let back = known.after(stamp - 3600 * SECOND, asked, asked + 10 * SECOND);
        assert_eq!(back.at(asked), stamp - 3600 * SECOND);
        // What was asked for before that says nothing of it, whichever way it was set.
        assert_eq!(back.after(stamp + SECOND, start, asked + 11 * SECOND), back);
    }
}
