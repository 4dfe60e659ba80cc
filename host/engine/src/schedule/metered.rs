//! The turns of an attempt: each a poll under its meter and its control. A guest that computes ends its turn at a tick.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use wasmtime::UpdateDeadline;
use wharf_core::outcome::TimeoutKind;

use crate::schedule::attempt_handle::{AttemptHandle, Ending};
use crate::schedule::completion_batch;
use crate::schedule::watchdog::Watch;

/// Raised in the guest at its next tick after it was ended, so that the report can say where it was.
#[derive(Debug, thiserror::Error)]
#[error("the attempt was ended by its host")]
pub(crate) struct Stopped;

/// What happens at each tick of a guest that computes and may use `cpu` in all.
pub(crate) fn tick(control: &AttemptHandle, cpu: Duration) -> wasmtime::Result<UpdateDeadline> {
    if control.meter().spent_by_now() > cpu {
        control.end(Ending::TimedOut(TimeoutKind::Cpu, cpu));
    }
    if control.ending().is_some() {
        return Err(Stopped.into());
    }
    control.gives_way(true);
    Ok(UpdateDeadline::Yield(1))
}

/// Wakes an attempt, and notes that from now on it waits for a processor alone. Only for one that computes for long: to
/// others it would cost more than it says.
struct Woken {
    control: AttemptHandle,
    task: Waker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.control.is_woken();
        self.task.wake_by_ref();
    }
}

/// An attempt, turn by turn. `None` if it was ended while it waited.
pub(crate) struct Turns<'a, F> {
    pub(crate) inner: Pin<&'a mut F>,
    pub(crate) control: &'a AttemptHandle,
    pub(crate) watch: &'a Watch<'a>,
    pub(crate) cpu: Duration,
}

impl<F: Future> Future for Turns<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        // Not by the waker below, which holds the control: each would keep the other for ever.
        self.control.wakes(cx.waker());
        if !self.control.meter().is_long() {
            return self.turn(cx);
        }
        let woken = Waker::from(Arc::new(Woken { control: self.control.clone(), task: cx.waker().clone() }));
        self.turn(&mut Context::from_waker(&woken))
    }
}

impl<F: Future> Turns<'_, F> {
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let began = Instant::now();
        completion_batch::tell_old(began);
        // One that computes goes on until its tick raises `Stopped`: that tells where it was.
        if self.control.ending().is_some() && !self.control.gave_way() {
            return Poll::Ready(None);
        }
        self.control.gives_way(false);
        self.control.has_its_turn();
        let meter = self.control.meter();
        meter.begin_turn(began);
        let polled = self.inner.as_mut().poll(cx);
        meter.end_turn(Instant::now());
        match polled {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => {
                if !self.control.gave_way() {
                    self.control.begins_to_wait();
                }
                self.watch.begin();
                // Many short turns may never meet a tick.
                if meter.spent() > self.cpu {
                    self.control.end(Ending::TimedOut(TimeoutKind::Cpu, self.cpu));
                }
                if self.control.ending().is_some() && !self.control.gave_way() {
                    return Poll::Ready(None);
                }
                Poll::Pending
            }
        }
    }
}
