//! The database's clock, as far as it can be known without asking: its last answer, and the time that passed since.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wharf_core::time::Timestamp;

use crate::clock::Clock;

/// Microseconds since 1970 by the database's clock.
pub(super) const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// A step back of this much is no slow answer: the clock was set, or another server took over.
const STEP: Duration = Duration::from_secs(1);

/// Which clock tells the time of a store.
#[derive(Clone)]
pub(super) enum Time {
    Database(Arc<Mutex<Option<Known>>>),
    /// One that tests move by hand.
    Given(Arc<dyn Clock>),
}

#[derive(Clone, Copy)]
pub(super) struct Known {
    stamp: Timestamp,
    at: Instant,
}

impl Known {
    fn now(&self) -> Timestamp {
        self.stamp + self.at.elapsed()
    }
}

impl Time {
    pub(super) fn database() -> Time {
        Time::Database(Arc::default())
    }

    /// Answers of the database take a while, so this is never ahead of its clock: who trusts it stops too soon, never too late.
    pub(super) fn now(&self) -> Timestamp {
        match self {
            Time::Database(known) => {
                known.lock().unwrap_or_else(PoisonError::into_inner).map_or(Timestamp::ZERO, |known| known.now())
            }
            Time::Given(clock) => clock.now(),
        }
    }

    /// Takes in what the database said, and answers with the moment that counts.
    pub(super) fn heard(&self, stamp: Timestamp) -> Timestamp {
        match self {
            Time::Database(known) => {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                let set_back = |known: &Known| known.now().since(stamp) > STEP;
                if known.is_none_or(|known| stamp > known.now() || set_back(&known)) {
                    *known = Some(Known { stamp, at: Instant::now() });
                }
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
