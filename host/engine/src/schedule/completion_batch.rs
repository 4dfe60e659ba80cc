//! Ends of attempts, on their way to those who wait for them. Telling an end wakes another thread, which costs about a
//! fifth of a short attempt: ends that come close after one another on one thread are told together.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// An end waits for others at most this long, and one turn of a guest.
const HELD_MAX: Duration = Duration::from_micros(500);
const TOGETHER_MAX: usize = 32;

type End = Box<dyn FnOnce()>;

/// The ends that wait on this thread.
#[derive(Default)]
struct Held {
    ends: Vec<End>,
    since: Option<Instant>,
}

thread_local! {
    static HELD: RefCell<Held> = RefCell::default();
}

/// Tells an end with the next ones, or before this thread goes to sleep.
pub(crate) fn hold(end: impl FnOnce() + 'static) {
    let is_full = HELD.with_borrow_mut(|held| {
        held.ends.push(Box::new(end));
        held.since.get_or_insert_with(Instant::now);
        held.ends.len() == TOGETHER_MAX
    });
    if is_full {
        tell();
    }
}

/// What has waited long enough is told. Called before each turn of a guest.
pub(crate) fn tell_old(now: Instant) {
    if HELD.with_borrow(|held| held.since.is_some_and(|since| now.saturating_duration_since(since) >= HELD_MAX)) {
        tell();
    }
}

/// Everything that waits is told. Called before a thread goes to sleep.
pub(crate) fn tell() {
    drop(HELD.take());
}

impl Drop for Held {
    fn drop(&mut self) {
        for end in self.ends.drain(..) {
            // It is the next one's thread too.
            if catch_unwind(AssertUnwindSafe(end)).is_err() {
                tracing::error!(
                    "the host failed on the end of an attempt; this is a bug of the host, please report it"
                );
            }
        }
    }
}
