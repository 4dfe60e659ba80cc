//! Completions of attempts on their way to the callers. Reporting one wakes another thread, which costs about a fifth
//! of a short attempt: completions that follow one another closely on one thread are reported together.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// A completion is delayed by at most this long, plus one poll of a guest.
const DELAY_MAX: Duration = Duration::from_micros(500);
const BATCH_MAX: usize = 32;

type Completion = Box<dyn FnOnce()>;

/// The completions that are pending on this thread.
#[derive(Default)]
struct Batch {
    completions: Vec<Completion>,
    since: Option<Instant>,
}

thread_local! {
    static BATCH: RefCell<Batch> = RefCell::default();
}

/// Reports a completion together with the next ones, or before this thread parks.
pub(crate) fn push(completion: impl FnOnce() + 'static) {
    let is_full = BATCH.with_borrow_mut(|batch| {
        batch.completions.push(Box::new(completion));
        batch.since.get_or_insert_with(Instant::now);
        batch.completions.len() == BATCH_MAX
    });
    if is_full {
        flush();
    }
}

/// Flushes the pending completions if the oldest has waited long enough. Called before each poll of a guest.
pub(crate) fn flush_due(now: Instant) {
    if BATCH.with_borrow(|batch| batch.since.is_some_and(|since| now.saturating_duration_since(since) >= DELAY_MAX)) {
        flush();
    }
}

/// Flushes all pending completions. Called before a guest thread parks.
pub(crate) fn flush() {
    drop(BATCH.take());
}

impl Drop for Batch {
    fn drop(&mut self) {
        for completion in self.completions.drain(..) {
            // A panic must not take the other completions of this thread with it.
            if catch_unwind(AssertUnwindSafe(completion)).is_err() {
                tracing::error!(
                    "the host panicked while it recorded the end of an attempt; this is a bug of the host, please report it"
                );
            }
        }
    }
}
