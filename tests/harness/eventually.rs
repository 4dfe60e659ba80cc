//! Waiting for what must become true, without guessing how long it takes.

use std::time::{Duration, Instant};

/// Looks until `look` finds something, at most a minute: then says `what` did not happen.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(Duration::from_secs(60), what, look)
}

/// The same, for what may take longer.
#[track_caller]
pub(crate) fn eventually_within<T>(max: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < max, "within {max:?} it did not happen that {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
