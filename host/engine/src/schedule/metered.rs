//! Polls an attempt under its CPU meter and its handle. The poll of a guest that computes ends at a tick.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use wasmtime::UpdateDeadline;
use wharf_core::outcome::TimeoutKind;

use crate::schedule::attempt_handle::{AttemptHandle, EndReason};
use crate::schedule::completion_batch;
use crate::schedule::watchdog::Watchdog;

/// The error that ends a guest at its next tick after it was ended, so that the report can show where it was.
#[derive(Debug, thiserror::Error)]
#[error("the attempt was ended by its host")]
pub(crate) struct Stopped;

/// Called at each tick of a guest that computes: ends an attempt that has used more than `cpu`, and else lets it yield.
pub(crate) fn tick(handle: &AttemptHandle, cpu: Duration) -> wasmtime::Result<UpdateDeadline> {
    if handle.meter().spent_by_now() > cpu {
        handle.end(EndReason::TimedOut(TimeoutKind::Cpu, cpu));
    }
    if handle.end_reason().is_some() {
        return Err(Stopped.into());
    }
    handle.set_yielded(true);
    Ok(UpdateDeadline::Yield(1))
}

/// Wakes an attempt, and notes that from now on it waits only for a processor. Used only for one that computes for
/// long: for others it would cost more than it is worth.
struct WakeNote {
    handle: AttemptHandle,
    task: Waker,
}

impl Wake for WakeNote {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.handle.set_woken();
        self.task.wake_by_ref();
    }
}

/// A future that polls an attempt and meters each poll. Its output is `None` if the attempt was ended while it waited.
pub(crate) struct Metered<'a, F> {
    pub(crate) inner: Pin<&'a mut F>,
    pub(crate) handle: &'a AttemptHandle,
    pub(crate) watchdog: &'a Watchdog<'a>,
    pub(crate) cpu: Duration,
}

impl<F: Future> Future for Metered<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        // Not with the waker below, which has a clone of the handle: each would keep the other alive.
        self.handle.set_guest_waker(cx.waker());
        if !self.handle.meter().is_long_running() {
            return self.metered_poll(cx);
        }
        let woken = Waker::from(Arc::new(WakeNote { handle: self.handle.clone(), task: cx.waker().clone() }));
        self.metered_poll(&mut Context::from_waker(&woken))
    }
}

impl<F: Future> Metered<'_, F> {
    fn metered_poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let started_at = Instant::now();
        completion_batch::flush_due(started_at);
        // One that computes goes on until its tick raises `Stopped`, which shows where it was.
        if self.handle.end_reason().is_some() && !self.handle.has_yielded() {
            return Poll::Ready(None);
        }
        self.handle.set_yielded(false);
        self.handle.set_running();
        let meter = self.handle.meter();
        meter.start_poll(started_at);
        let polled = self.inner.as_mut().poll(cx);
        meter.end_poll(Instant::now());
        match polled {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => {
                if !self.handle.has_yielded() {
                    self.handle.set_waiting();
                }
                self.watchdog.start();
                // Many short polls may never meet a tick.
                if meter.spent() > self.cpu {
                    self.handle.end(EndReason::TimedOut(TimeoutKind::Cpu, self.cpu));
                }
                if self.handle.end_reason().is_some() && !self.handle.has_yielded() {
                    return Poll::Ready(None);
                }
                Poll::Pending
            }
        }
    }
}
