//! The store as guests reach it: on the host's runtime, which has timers, and a bounded number of calls at once.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use wharf_core::bounds;
use wharf_engine::Budget;
use wharf_store::StoreError;

use crate::check_threads::CheckThreads;
use crate::store_health::WatchedStore;

/// The pauses between two tries of a call that fails: the first one, and the longest. Each is twice the one before.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// A handle by which guests call the store. The permits are few, so that clients of the host get their responses, too.
#[derive(Clone)]
pub(crate) struct GuestStore {
    store: WatchedStore,
    permits: Arc<Semaphore>,
    checks: CheckThreads,
    budget: Budget,
    tasks: TaskTracker,
    /// The runtime of the host, on which the calls run. Guest threads have no timers.
    host_runtime: Handle,
}

impl GuestStore {
    /// Must be called on the runtime of the host. `tasks` tracks the pending calls.
    pub(crate) fn new(store: WatchedStore, budget: Budget, tasks: TaskTracker) -> GuestStore {
        let permits = Arc::new(Semaphore::new(bounds::KV_READS_AT_ONCE));
        GuestStore { store, permits, checks: CheckThreads::new(), budget, tasks, host_runtime: Handle::current() }
    }

    /// The store itself, for what needs no round trip: its clock and its job IDs.
    pub(crate) fn store(&self) -> &WatchedStore {
        &self.store
    }

    /// Makes one call. The call ends early if the guest that waits for it is stopped.
    ///
    /// # Errors
    ///
    /// Returns the store's error as a text for the guest, or one that reports a bug of the host if the call panicked.
    pub(crate) async fn call<T, Q, A>(&self, doing: &'static str, query: Q) -> Result<T, String>
    where
        T: Send + 'static,
        Q: FnOnce(WatchedStore) -> A + Send + 'static,
        A: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (store, permits) = (self.store.clone(), Arc::clone(&self.permits));
        let call = async move {
            let _permit = permits.acquire().await;
            store.call(doing, query(store.clone())).await
        };
        match AbortOnDropHandle::new(self.tasks.spawn_on(call, &self.host_runtime)).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("the host failed on this call; this is a bug of the host".to_owned()),
        }
    }

    /// Returns the host's budget of memory.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Runs work that takes long off the threads that run guests. It does not begin if the guest that waits for it is stopped.
    ///
    /// # Errors
    ///
    /// Returns a text for the guest that reports a bug of the host if the work panicked.
    pub(crate) async fn run_apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let checks = self.checks.clone();
        let run = async move { checks.run(work).await };
        let result = AbortOnDropHandle::new(self.tasks.spawn_on(run, &self.host_runtime)).await;
        result.map_err(|_| "the host failed on this call; this is a bug of the host".to_owned())
    }

    /// Makes a call again and again until the store returns: a store that fails is not the guest's failure. Ends early if the
    /// guest that waits for it is stopped.
    pub(crate) async fn call_until_ok<T, Q, A>(&self, doing: &'static str, query: Q) -> T
    where
        T: Send + 'static,
        Q: Fn(WatchedStore) -> A + Send + 'static,
        A: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (store, permits) = (self.store.clone(), Arc::clone(&self.permits));
        let call = async move {
            let mut pause = RETRY_MIN;
            loop {
                let permit = permits.acquire().await;
                // The failure was reported by the call.
                if let Ok(value) = store.call(doing, query(store.clone())).await {
                    return value;
                }
                drop(permit);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        };
        match AbortOnDropHandle::new(self.tasks.spawn_on(call, &self.host_runtime)).await {
            Ok(value) => value,
            // The host is stopping, and the attempt with it.
            Err(_) => pending().await,
        }
    }
}
