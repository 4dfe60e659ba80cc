//! Timestamps. The core never reads a clock: its callers pass the time in.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch, the earliest timestamp.
    pub const ZERO: Timestamp = Timestamp(0);

    /// Creates a timestamp from microseconds since the Unix epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Timestamp(micros)
    }

    /// Creates a timestamp from milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Timestamp(millis.saturating_mul(1000))
    }

    /// Returns the microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Returns the whole milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1000
    }

    /// Returns the time from `earlier` to this timestamp, or zero if `earlier` is not earlier.
    pub const fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, length: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(u64::try_from(length.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;
    fn sub(self, length: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(u64::try_from(length.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Returns a length of time with the largest unit that divides it, precise to the microsecond: "500ms", "90s", "1h", "7d".
pub fn length_text(length: Duration) -> String {
    const UNITS_IN_MICROS: [(&str, u128); 5] =
        [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1000)];
    let micros = length.as_micros();
    match UNITS_IN_MICROS.into_iter().find(|(_, unit)| micros >= *unit && micros.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", micros / unit),
        None if micros == 0 => "0s".to_owned(),
        None => format!("{micros}us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_keeps_microseconds_and_gives_whole_milliseconds() {
        let time = Timestamp::from_micros(1_700_000_000_123_456);
        assert_eq!((time.as_micros(), time.as_millis()), (1_700_000_000_123_456, 1_700_000_000_123));
        assert_eq!(Timestamp::from_millis(7), Timestamp::from_micros(7_000));
    }

    #[test]
    fn times_stop_at_their_ends_instead_of_wrapping() {
        let (first, last) = (Timestamp::ZERO, Timestamp::from_micros(u64::MAX));
        let second = Duration::from_secs(1);
        assert_eq!((last + second, Timestamp::from_millis(u64::MAX), first + Duration::MAX), (last, last, last));
        assert_eq!((first - second, last - Duration::MAX), (first, first));
        assert_eq!((first.since(last), (first + second).since(first)), (Duration::ZERO, second));
        assert_eq!(first + second - second / 4, Timestamp::from_millis(750));
    }
}
