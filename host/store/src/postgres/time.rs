//! The database's clock, as far as it is known without a query: the readings in its responses, and the time since then.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use wharf_core::time::Timestamp;

use crate::clock::Clock;

/// An SQL expression for the database's clock, in microseconds since 1970.
pub(super) const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// The clock of a store.
#[derive(Clone)]
pub(super) enum Time {
    /// The database's, with its last reading.
    Database(Arc<Mutex<Option<ClockReading>>>),
    /// A clock that tests set by hand.
    Manual(Arc<dyn Clock>),
}

/// A reading of the database's clock, at a moment of the machine's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ClockReading {
    database: Timestamp,
    local: Instant,
}

impl ClockReading {
    /// Returns the database's time at a local moment.
    fn at(&self, local: Instant) -> Timestamp {
        self.database + local.saturating_duration_since(self.local)
    }

    /// Returns the best reading after a response. The database read its clock at some moment between the request and the
    /// response, which may be far apart: the host or the network was paused. So the clock is not earlier than `database` when
    /// the response is received, and was not later when the request was sent; the reading moves no more than these two
    /// require. Only a clock that was set back moves it back, and never a late response.
    fn after(self, database: Timestamp, sent: Instant, received: Instant) -> ClockReading {
        if sent < self.local {
            // The response may be older than the current reading.
            self
        } else if database > self.at(received) {
            ClockReading { database, local: received }
        } else if database < self.at(sent) {
            ClockReading { database, local: sent }
        } else {
            self
        }
    }
}

impl Time {
    pub(super) fn database() -> Time {
        Time::Database(Arc::default())
    }

    /// Returns the current time without a query.
    pub(super) fn now(&self) -> Timestamp {
        match self {
            Time::Database(reading) => reading
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .map_or(Timestamp::ZERO, |reading| reading.at(Instant::now())),
            Time::Manual(clock) => clock.now(),
        }
    }

    /// Records the database's time from the response to a request that was `sent` then. Returns the store's time.
    pub(super) fn observe(&self, database: Timestamp, sent: Instant) -> Timestamp {
        match self {
            Time::Database(reading) => {
                let (mut reading, received) = (reading.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
                let first = ClockReading { database, local: received };
                *reading = Some(reading.map_or(first, |reading| reading.after(database, sent, received)));
                database
            }
            Time::Manual(clock) => clock.now(),
        }
    }

    /// Returns the time to pass to a statement, in microseconds; `None` if the statement reads its own clock.
    pub(super) fn manual_micros(&self) -> Option<i64> {
        match self {
            Time::Database(_) => None,
            Time::Manual(clock) => Some(crate::columns::timestamp_us(clock.now())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_late_response_does_not_move_the_clock() {
        let (start, database) = (Instant::now(), Timestamp::from_millis(1_700_000_000_000));
        let reading = ClockReading { database, local: start };
        // Sent a second later, read at once, and received after a minute.
        let late = reading.after(database + SECOND, start + SECOND, start + 61 * SECOND);
        assert_eq!(late, reading);
        assert_eq!(late.at(start + 61 * SECOND), database + 61 * SECOND);
    }

    #[test]
    fn a_clock_that_was_set_is_followed() {
        let (start, database) = (Instant::now(), Timestamp::from_millis(1_700_000_000_000));
        let reading = ClockReading { database, local: start };
        let sent = start + SECOND;
        for set in [Duration::from_millis(20), 3600 * SECOND] {
            let back = reading.after(database + SECOND - set, sent, sent);
            assert_eq!(back.at(sent), database + SECOND - set, "back by {set:?}");
            let forward = reading.after(database + SECOND + set, sent, sent);
            assert_eq!(forward.at(sent), database + SECOND + set, "forward by {set:?}");
        }
        // Received late: the amount by which it was set is only known as well as the length of the request.
        let back = reading.after(database - 3600 * SECOND, sent, sent + 10 * SECOND);
        assert_eq!(back.at(sent), database - 3600 * SECOND);
        // An older request reports nothing about that, whichever way the clock was set.
        assert_eq!(back.after(database + SECOND, start, sent + 11 * SECOND), back);
    }
}
