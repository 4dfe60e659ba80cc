//! The threads that run guests. Attempts that compute for long run on threads of their own with a low priority: short
//! attempts never wait behind them, and they get whatever is left of the machine.

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

/// Maximum number of threads that read and write files for guests.
const FILE_THREADS_MAX: usize = 32;

/// The runtimes that run guests.
pub(crate) struct GuestThreads {
    count: usize,
    ticker: Arc<Ticker>,
    /// Taken when dropped, and only then.
    ordinary: Option<Runtime>,
    /// Made for the first attempt that computes for long; `None` if no more threads can be started.
    background: OnceLock<Option<Runtime>>,
}

impl GuestThreads {
    /// Starts the ordinary threads.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub(crate) fn start(count: usize, ticker: &Arc<Ticker>) -> io::Result<GuestThreads> {
        let ordinary = runtime("wharf-guest", count, ticker, || {})?;
        Ok(GuestThreads { count, ticker: Arc::clone(ticker), ordinary: Some(ordinary), background: OnceLock::new() })
    }

    /// Returns the number of ordinary threads.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Runs a future on the ordinary threads.
    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.ordinary.as_ref().expect("taken only when dropped").spawn(future)
    }

    /// Returns the runtime of low priority, which is started at the first call.
    fn background(&self) -> Option<&Runtime> {
        let make = || {
            let made = runtime("wharf-computing", self.count, &self.ticker, lower_priority);
            made.inspect_err(|error| tracing::warn!("attempts that compute for long share threads with the others: could not start more threads: {error}"))
                .ok()
        };
        self.background.get_or_init(make).as_ref()
    }
}

impl Drop for GuestThreads {
    fn drop(&mut self) {
        for runtime in self.ordinary.take().into_iter().chain(self.background.take().flatten()) {
            runtime.shutdown_background();
        }
    }
}

fn runtime(
    name: &str,
    threads: usize,
    ticker: &Ticker,
    on_start: impl Fn() + Send + Sync + 'static,
) -> io::Result<Runtime> {
    let (awake, rests) = (ticker.on_thread_awake(), ticker.on_thread_asleep());
    Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(FILE_THREADS_MAX)
        .thread_name(name)
        // A guest's poll may last a whole tick: after two of them the tasks that were woken from elsewhere are polled.
        // Nothing else arrives: timers and sockets are on the host's runtime, and a thread without them parks and wakes
        // at less cost.
        .global_queue_interval(2)
        .on_thread_start(move || {
            on_start();
            awake();
        })
        .on_thread_unpark(ticker.on_thread_awake())
        .on_thread_park(move || {
            completion_batch::flush();
            rests();
        })
        .on_thread_stop(ticker.on_thread_asleep())
        .build()
}

/// Lowers the calling thread's priority: where others want the processor too, it gets about a tenth of their share. On
/// systems other than Linux this would affect the whole process.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(10) {
        tracing::warn!("could not lower the priority of a thread for attempts that compute for long: {error}");
    }
}

/// Polls an attempt on the ordinary threads, until it ends or has computed for long and moves to the background
/// threads.
pub(crate) struct OrdinaryAttempt<'t, F> {
    pub(crate) threads: &'t GuestThreads,
    /// `None` once the attempt has moved.
    pub(crate) attempt: Option<Pin<Box<F>>>,
    pub(crate) handle: AttemptHandle,
}

impl<F: Future<Output = ()> + Send + 'static> Future for OrdinaryAttempt<'_, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(attempt) = &mut this.attempt else { return Poll::Ready(()) };
        if attempt.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if this.handle.has_yielded()
            && this.handle.meter().is_long_running()
            && let Some(background) = this.threads.background()
            && let Some(attempt) = this.attempt.take()
        {
            drop(background.spawn(attempt));
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
