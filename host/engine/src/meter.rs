//! Guest time, exactly: the processor's time that polls of an attempt take. What it waits for the host is not counted,
//! nor what its thread waits for the processor: a busy machine makes no attempt look greedy.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::UpdateDeadline;
use wharf_core::outcome::Clock;

use crate::control::{Control, Ending};
use crate::ends;
use crate::watch::Watch;

/// Raised in the guest at its next tick after it was ended, so that the report can say where it was.
#[derive(Debug, thiserror::Error)]
#[error("the attempt was ended by its host")]
pub(crate) struct Stopped;

/// The guest time of one attempt. Only the thread that polls it writes.
pub(crate) struct Meter {
    spent_ns: AtomicU64,
    /// By the clock of the thread that polls.
    poll_began_ns: AtomicU64,
    /// The last poll ended since the guest's tick was over, not since it waits.
    yielded: AtomicBool,
    allowed: Duration,
}

impl Meter {
    pub(crate) fn new(allowed: Duration) -> Arc<Meter> {
        Arc::new(Meter {
            spent_ns: AtomicU64::new(0),
            poll_began_ns: AtomicU64::new(0),
            yielded: AtomicBool::new(false),
            allowed,
        })
    }

    /// Between polls.
    pub(crate) fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent_ns.load(Relaxed))
    }

    /// What happens at each tick of a guest that computes.
    pub(crate) fn tick(&self, control: &Control) -> wasmtime::Result<UpdateDeadline> {
        let now = thread_ns();
        let spent =
            Duration::from_nanos(self.spent_ns.load(Relaxed) + now.saturating_sub(self.poll_began_ns.load(Relaxed)));
        if spent > self.allowed {
            control.end(Ending::TimedOut(Clock::Cpu, self.allowed));
        }
        if control.ending().is_some() {
            return Err(Stopped.into());
        }
        self.yielded.store(true, Relaxed);
        Ok(UpdateDeadline::Yield(1))
    }
}

/// How long this thread has had a processor.
fn thread_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    // Neither part is negative.
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Polls an attempt under its meter and its control. `None` if the attempt was ended while it waited.
pub(crate) struct Metered<'a, F> {
    pub(crate) inner: Pin<Box<F>>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) control: Control,
    pub(crate) watch: &'a Watch,
}

impl<F: Future> Future for Metered<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let this = &mut *self;
        ends::tell_old();
        this.control.wakes(cx.waker());
        // One that computes goes on until its tick raises `Stopped`: that tells where it was.
        if this.control.ending().is_some() && !this.meter.yielded.load(Relaxed) {
            return Poll::Ready(None);
        }
        this.meter.yielded.store(false, Relaxed);
        let began = thread_ns();
        this.meter.poll_began_ns.store(began, Relaxed);
        let polled = this.inner.as_mut().poll(cx);
        let spent = thread_ns().saturating_sub(began);
        this.meter.spent_ns.fetch_add(spent, Relaxed);
        match polled {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => {
                this.watch.begin();
                // Many short polls may never meet a tick.
                if this.meter.spent() > this.meter.allowed {
                    this.control.end(Ending::TimedOut(Clock::Cpu, this.meter.allowed));
                }
                if this.control.ending().is_some() && !this.meter.yielded.load(Relaxed) {
                    return Poll::Ready(None);
                }
                Poll::Pending
            }
        }
    }
}
