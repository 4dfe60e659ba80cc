//! Measures CPU time: the processor time of the polls of an attempt. Waiting for the host is not counted, nor is
//! waiting for a processor: a busy machine does not make an attempt look greedy.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Guest time after which an attempt counts as long-running: many times what a short one takes in all.
const LONG_RUNNING: Duration = Duration::from_millis(5);

/// The processor time and the received bytes of one attempt. Only the thread that runs it writes its time.
#[derive(Default)]
pub(crate) struct CpuMeter {
    spent_ns: AtomicU64,
    /// Processor time of the thread at the start of the poll, in nanoseconds.
    poll_started_ns: AtomicU64,
    received_bytes: AtomicU64,
    /// Whatever time it has taken, it is about to compute for long without a tick.
    is_about_to: AtomicBool,
}

impl CpuMeter {
    /// Starts counting; called at the start of each poll.
    pub(crate) fn start_poll(&self, now: Instant) {
        self.poll_started_ns.store(thread_ns_estimate(now), Relaxed);
    }

    /// Adds the CPU time since [`CpuMeter::start_poll`].
    pub(crate) fn end_poll(&self, now: Instant) {
        let spent = thread_ns_estimate(now).saturating_sub(self.poll_started_ns.load(Relaxed));
        self.spent_ns.fetch_add(spent, Relaxed);
    }

    /// Returns the CPU time so far. To be called between polls.
    pub(crate) fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent_ns.load(Relaxed))
    }

    /// Returns true if the attempt is long-running. To be called between polls.
    pub(crate) fn is_long_running(&self) -> bool {
        self.spent() >= LONG_RUNNING || self.is_about_to.load(Relaxed)
    }

    /// Makes the attempt count as long-running from now on.
    pub(crate) fn expect_long(&self) {
        self.is_about_to.store(true, Relaxed);
    }

    /// Returns the CPU time so far, within a poll and on its thread.
    pub(crate) fn spent_by_now(&self) -> Duration {
        let turn = thread_ns().saturating_sub(self.poll_started_ns.load(Relaxed));
        Duration::from_nanos(self.spent_ns.load(Relaxed) + turn)
    }

    /// Counts bytes that came in from outside.
    pub(crate) fn receive(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Relaxed);
    }

    /// Returns the number of bytes that came in from outside.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Relaxed)
    }
}

/// Returns the processor time of this thread in nanoseconds.
fn thread_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    // Neither part is negative.
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// In so short a time a thread is not preempted for longer, so that wall time is as good as the thread's own clock,
/// whose reading costs a short attempt more than its limits do.
const ESTIMATE_MAX: Duration = Duration::from_micros(50);
/// After so long the thread's own clock is read in any case.
const READ_INTERVAL: Duration = Duration::from_millis(1);

/// The last known value of this thread's clock.
#[derive(Clone, Copy)]
struct ThreadClock {
    thread_ns: u64,
    at: Instant,
    read_at: Instant,
}

thread_local! {
    static LAST_CLOCK: Cell<Option<ThreadClock>> = const { Cell::new(None) };
}

fn thread_ns_estimate(now: Instant) -> u64 {
    let known = LAST_CLOCK.get().filter(|known| now - known.at < ESTIMATE_MAX && now - known.read_at < READ_INTERVAL);
    let (thread_ns, read_at) = match known {
        // Less than `ESTIMATE_MAX`, which fits.
        Some(known) => (known.thread_ns + (now - known.at).as_nanos() as u64, known.read_at),
        None => (thread_ns(), now),
    };
    LAST_CLOCK.set(Some(ThreadClock { thread_ns, at: now, read_at }));
    thread_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_to_compute_for_long_counts_at_once() {
        let meter = CpuMeter::default();
        assert!(!meter.is_long_running());
        meter.expect_long();
        assert!(meter.is_long_running());
    }

    #[test]
    fn time_away_from_the_processor_is_not_counted_and_time_on_it_is() {
        let meter = CpuMeter::default();
        let turn = |work: &dyn Fn()| {
            let before = meter.spent();
            meter.start_poll(Instant::now());
            work();
            meter.end_poll(Instant::now());
            meter.spent() - before
        };
        assert!(turn(&|| std::thread::sleep(Duration::from_millis(30))) < Duration::from_millis(10));
        let busy = |length: Duration| {
            let started_at = thread_ns();
            while Duration::from_nanos(thread_ns() - started_at) < length {}
        };
        // A poll that starts shortly after another one does so by wall time, which runs ahead if the thread was
        // preempted.
        assert!(turn(&|| busy(Duration::from_millis(30))) >= Duration::from_millis(30) - READ_INTERVAL);
        // Many short polls add up to their sum.
        let (before, started_at) = (meter.spent(), thread_ns());
        for _ in 0..2000 {
            turn(&|| busy(Duration::from_micros(5)));
        }
        let (counted, used) = (meter.spent() - before, Duration::from_nanos(thread_ns() - started_at));
        assert!(counted <= used * 2 + 5 * READ_INTERVAL && counted >= used / 2, "{counted:?} of {used:?}");
    }
}
