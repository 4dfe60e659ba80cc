//! The turns of an attempt: each a poll under its meter and its control. A guest that computes ends its turn at a tick.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use wasmtime::UpdateDeadline;
use wharf_core::outcome::Clock;

use crate::control::{Control, Ending};
use crate::ends;
use crate::watch::Watch;

/// Raised in the guest at its next tick after it was ended, so that the report can say where it was.
#[derive(Debug, thiserror::Error)]
#[error("the attempt was ended by its host")]
pub(crate) struct Stopped;

/// What happens at each tick of a guest that computes and may use `cpu` in all.
pub(crate) fn tick(control: &Control, cpu: Duration) -> wasmtime::Result<UpdateDeadline> {
    if control.meter().spent_by_now() > cpu {
        control.end(Ending::TimedOut(Clock::Cpu, cpu));
    }
    if control.ending().is_some() {
        return Err(Stopped.into());
    }
    control.gives_way(true);
    Ok(UpdateDeadline::Yield(1))
}

/// An attempt, turn by turn. `None` if it was ended while it waited.
pub(crate) struct Turns<'a, F> {
    pub(crate) inner: Pin<&'a mut F>,
    pub(crate) control: &'a Control,
    pub(crate) watch: &'a Watch<'a>,
    pub(crate) cpu: Duration,
}

impl<F: Future> Future for Turns<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let this = &mut *self;
        let began = Instant::now();
        ends::tell_old(began);
        this.control.wakes(cx.waker());
        // One that computes goes on until its tick raises `Stopped`: that tells where it was.
        if this.control.ending().is_some() && !this.control.gave_way() {
            return Poll::Ready(None);
        }
        this.control.gives_way(false);
        this.control.sets_waits(false);
        let meter = this.control.meter();
        meter.begin_turn(began);
        let polled = this.inner.as_mut().poll(cx);
        meter.end_turn(Instant::now());
        match polled {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => {
                this.control.sets_waits(!this.control.gave_way());
                this.watch.begin();
                // Many short turns may never meet a tick.
                if meter.spent() > this.cpu {
                    this.control.end(Ending::TimedOut(Clock::Cpu, this.cpu));
                }
                if this.control.ending().is_some() && !this.control.gave_way() {
                    return Poll::Ready(None);
                }
                Poll::Pending
            }
        }
    }
}
