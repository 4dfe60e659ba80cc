//! Threads for checks of payloads that take long: few at a time, so that those who wait for them take turns.
//!
//! Clients and guests have a set each: however many checks guests ask for, a client waits for those of other clients only.
//! Both sets at work take as many threads as there are processors, which the system shares out among them and all else.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

/// A handle to one set of threads. Clones share the same bound.
#[derive(Clone)]
pub(crate) struct CheckThreads(Arc<Semaphore>);

impl CheckThreads {
    /// Half as many at a time as there are processors.
    pub(crate) fn new() -> CheckThreads {
        let processors = available_parallelism().map_or(1, NonZeroUsize::get);
        CheckThreads(Arc::new(Semaphore::new(processors.div_ceil(2))))
    }

    /// Runs `work` when its turn comes. Must be called on the runtime of the host. Work that has begun ends, even if
    /// nobody waits for it any more, and keeps its place until then.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        // It is never closed.
        let permit = Arc::clone(&self.0).acquire_owned().await.ok();
        let work = move || {
            let _until_it_ends = permit;
            work()
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}
