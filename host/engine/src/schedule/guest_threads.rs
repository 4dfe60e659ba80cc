//! The threads that run guests. Attempts that compute for long do so on threads of their own, which give way to all others:
//! what is short never waits behind them, and they have whatever is left of the machine.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::schedule::attempt_handle::AttemptHandle;
use crate::schedule::completion_batch;
use crate::schedule::epoch_ticker::Ticker;

/// Files that guests read and write are read and written on threads of these.
const FILE_THREADS_MAX: usize = 32;

pub(crate) struct Threads {
    count: usize,
    ticker: Arc<Ticker>,
    /// Taken out when dropped, and only then.
    ordinary: Option<Runtime>,
    /// Made for the first attempt that computes for long; `None` where no more threads can be had.
    yielding: OnceLock<Option<Runtime>>,
}

impl Threads {
    /// # Errors
    /// When threads cannot be had.
    pub(crate) fn start(count: usize, ticker: &Arc<Ticker>) -> io::Result<Threads> {
        let ordinary = runtime("wharf-guest", count, ticker, || {})?;
        Ok(Threads { count, ticker: Arc::clone(ticker), ordinary: Some(ordinary), yielding: OnceLock::new() })
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.ordinary.as_ref().expect("taken only when dropped").spawn(future)
    }

    fn yielding(&self) -> Option<&Runtime> {
        let make = || {
            let made = runtime("wharf-computing", self.count, &self.ticker, give_way);
            made.inspect_err(|error| tracing::warn!("attempts that compute for long stay among the others: {error}"))
                .ok()
        };
        self.yielding.get_or_init(make).as_ref()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for runtime in self.ordinary.take().into_iter().chain(self.yielding.take().flatten()) {
            runtime.shutdown_background();
        }
    }
}

fn runtime(
    name: &str,
    threads: usize,
    ticker: &Ticker,
    begin: impl Fn() + Send + Sync + 'static,
) -> io::Result<Runtime> {
    let (awake, rests) = (ticker.when_awake(), ticker.when_asleep());
    Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(FILE_THREADS_MAX)
        .thread_name(name)
        // A guest's turn may last a whole tick: after two of them those are looked at that were woken from elsewhere.
        // Nothing else comes: timers and sockets are at home, and a thread without them sleeps and wakes at less cost.
        .global_queue_interval(2)
        .on_thread_start(move || {
            begin();
            awake();
        })
        .on_thread_unpark(ticker.when_awake())
        .on_thread_park(move || {
            completion_batch::tell();
            rests();
        })
        .on_thread_stop(ticker.when_asleep())
        .build()
}

/// Where others want the processor too, the calling thread has about a tenth of what they have. Elsewhere than on Linux this
/// would be so for the whole process.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(10) {
        tracing::warn!("a thread for attempts that compute for long has the same priority as others: {error}");
    }
}

/// An attempt on the ordinary threads, until it ends or computes for long.
pub(crate) struct AmongOthers<'t, F> {
    pub(crate) threads: &'t Threads,
    /// `None` once it has moved.
    pub(crate) attempt: Option<Pin<Box<F>>>,
    pub(crate) control: AttemptHandle,
}

impl<F: Future<Output = ()> + Send + 'static> Future for AmongOthers<'_, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(attempt) = &mut this.attempt else { return Poll::Ready(()) };
        if attempt.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if this.control.gave_way()
            && this.control.meter().is_long()
            && let Some(yielding) = this.threads.yielding()
            && let Some(attempt) = this.attempt.take()
        {
            drop(yielding.spawn(attempt));
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
