//! Guest time, exactly: the processor's time that turns of an attempt take. What it waits for the host is not counted,
//! nor what its thread waits for the processor: a busy machine makes no attempt look greedy.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// After so much guest time an attempt computes for long: many times what a short one takes in all.
const LONG: Duration = Duration::from_millis(5);

/// What one attempt has used. Only the thread that runs it writes its time.
#[derive(Default)]
pub(crate) struct Meter {
    spent_ns: AtomicU64,
    /// By the clock of the thread that runs it.
    turn_began_ns: AtomicU64,
    received_bytes: AtomicU64,
}

impl Meter {
    pub(crate) fn begin_turn(&self, now: Instant) {
        self.turn_began_ns.store(thread_ns_near(now), Relaxed);
    }

    pub(crate) fn end_turn(&self, now: Instant) {
        let spent = thread_ns_near(now).saturating_sub(self.turn_began_ns.load(Relaxed));
        self.spent_ns.fetch_add(spent, Relaxed);
    }

    /// Between turns.
    pub(crate) fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent_ns.load(Relaxed))
    }

    /// Between turns.
    pub(crate) fn is_long(&self) -> bool {
        self.spent() >= LONG
    }

    /// Within a turn, on its thread.
    pub(crate) fn spent_by_now(&self) -> Duration {
        let turn = thread_ns().saturating_sub(self.turn_began_ns.load(Relaxed));
        Duration::from_nanos(self.spent_ns.load(Relaxed) + turn)
    }

    /// So much came in from outside.
    pub(crate) fn receive(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Relaxed)
    }
}

/// How long this thread has had a processor.
fn thread_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    // Neither part is negative.
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// In so short a time no thread is away for longer, so that the wall's clock is as good as its own, whose reading costs
/// a short attempt more than its bounds do.
const NEAR: Duration = Duration::from_micros(50);
/// After so long its own is read all the same.
const READ_EVERY: Duration = Duration::from_millis(1);

/// What is known of a thread's clock.
#[derive(Clone, Copy)]
struct Known {
    thread_ns: u64,
    at: Instant,
    read_at: Instant,
}

thread_local! {
    static KNOWN: Cell<Option<Known>> = const { Cell::new(None) };
}

fn thread_ns_near(now: Instant) -> u64 {
    let known = KNOWN.get().filter(|known| now - known.at < NEAR && now - known.read_at < READ_EVERY);
    let (thread_ns, read_at) = match known {
        // Less than `NEAR`, which fits.
        Some(known) => (known.thread_ns + (now - known.at).as_nanos() as u64, known.read_at),
        None => (thread_ns(), now),
    };
    KNOWN.set(Some(Known { thread_ns, at: now, read_at }));
    thread_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_away_from_the_processor_is_not_counted_and_time_on_it_is() {
        let meter = Meter::default();
        let turn = |work: &dyn Fn()| {
            let before = meter.spent();
            meter.begin_turn(Instant::now());
            work();
            meter.end_turn(Instant::now());
            meter.spent() - before
        };
        assert!(turn(&|| std::thread::sleep(Duration::from_millis(30))) < Duration::from_millis(10));
        let busy = |length: Duration| {
            let began = thread_ns();
            while Duration::from_nanos(thread_ns() - began) < length {}
        };
        // A turn that begins close after another does so by the wall's clock, which runs ahead where the thread was away.
        assert!(turn(&|| busy(Duration::from_millis(30))) >= Duration::from_millis(30) - READ_EVERY);
        // Many short turns are as long as they are in all.
        let (before, began) = (meter.spent(), thread_ns());
        for _ in 0..2000 {
            turn(&|| busy(Duration::from_micros(5)));
        }
        let (counted, used) = (meter.spent() - before, Duration::from_nanos(thread_ns() - began));
        assert!(counted <= used * 2 + 5 * READ_EVERY && counted >= used / 2, "{counted:?} of {used:?}");
    }
}
