//! The store as the parts of a host call it: each call is watched, and listeners are notified when the store fails, hangs
//! or recovers.

use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::FutureExt;
use wharf_store::{Store, StoreError};

use crate::notice::{Listener, Notice};

/// A call that takes longer than this is reported while it is still pending.
const OVERDUE_AFTER: Duration = Duration::from_secs(10);

/// An operation that failed counts as recovered after this long without another failure, provided that others succeed.
const RECOVERED_AFTER: Duration = Duration::from_secs(5);

/// A call of the store that failed.
struct StoreFailure {
    doing: &'static str,
    why: String,
    at: Instant,
}

/// A handle to the store that watches how its calls go. Clones share what they have seen.
///
/// It dereferences to the store. Calls made directly are not watched: those are reads whose caller reports the error itself.
#[derive(Clone)]
pub(crate) struct WatchedStore {
    store: Arc<dyn Store>,
    health: Arc<StoreHealth>,
    write_timeout: Duration,
}

/// Results of the calls so far.
struct StoreHealth {
    /// The last failure; empty once the store has recovered from it.
    failure: ArcSwapOption<StoreFailure>,
    /// Calls that are pending for longer than `OVERDUE_AFTER`. Locked for one look-up, never across an await.
    overdue: Mutex<Vec<&'static str>>,
    listener: Listener,
}

impl Deref for WatchedStore {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

impl WatchedStore {
    /// Watches `store`. `write_timeout` bounds the calls made by [`WatchedStore::call_with_timeout`].
    pub(crate) fn new(store: Arc<dyn Store>, write_timeout: Duration, listener: Listener) -> WatchedStore {
        let health = StoreHealth { failure: ArcSwapOption::empty(), overdue: Mutex::default(), listener };
        WatchedStore { store, health: Arc::new(health), write_timeout }
    }

    /// Awaits a call of the store; `doing` names it in notices. Listeners are notified when the store goes from working to
    /// failing and back, and when this call hangs.
    ///
    /// # Errors
    ///
    /// Returns the store's error, or [`StoreError::Broken`] if the store panicked.
    pub(crate) async fn call<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.watch_pending(doing, call, |_| true).await
    }

    /// Awaits a call that is about one thing that may be damaged, such as the next step of one bulk operation: like
    /// [`WatchedStore::call`], but an error says nothing about the store. The caller tells it.
    ///
    /// # Errors
    ///
    /// Returns the store's error, or [`StoreError::Broken`] if the store panicked.
    pub(crate) async fn call_of_one<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.watch_pending(doing, call, |_| false).await
    }

    async fn watch_pending<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
        counts: fn(&StoreError) -> bool,
    ) -> Result<T, StoreError> {
        let watched = async {
            let mut call = std::pin::pin!(call);
            if let Ok(result) = tokio::time::timeout(OVERDUE_AFTER, &mut call).await {
                return result;
            }
            let _until_it_returns = OverdueCall::new(&self.health, doing);
            call.await
        };
        self.watch(doing, watched, counts).await
    }

    /// Awaits a call that is expected to take long, such as upkeep: like [`WatchedStore::call`], but a call that hangs is not
    /// reported.
    ///
    /// # Errors
    ///
    /// Returns the store's error, or [`StoreError::Broken`] if the store panicked: the caller gets a result even then.
    pub(crate) async fn call_slow<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.watch(doing, call, |_| true).await
    }

    /// Awaits a call. An error that `counts` is a failure of the store.
    async fn watch<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
        counts: fn(&StoreError) -> bool,
    ) -> Result<T, StoreError> {
        let result = AssertUnwindSafe(call).catch_unwind().await;
        let result = result.unwrap_or_else(|_| Err(StoreError::Broken(format!("it panicked while {doing}"))));
        match &result {
            Ok(_) => self.health.succeeded(doing),
            Err(error) if counts(error) => self.health.failed(doing, error.to_string()),
            Err(_) => {}
        }
        result
    }

    /// Awaits a write that a client waits for: like [`WatchedStore::call`], but gives up after the write timeout. A request
    /// that the store refuses for its values says nothing about the store: else anybody could make this host not ready.
    ///
    /// # Errors
    ///
    /// Returns the store's error, or [`StoreError::Unknown`] after the timeout: the write may or may not have happened.
    pub(crate) async fn call_with_timeout<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let in_time = async {
            let no_response = |_| StoreError::Unknown(format!("no response within {:?}", self.write_timeout));
            tokio::time::timeout(self.write_timeout, call).await.map_err(no_response)?
        };
        self.watch_pending(doing, in_time, |error| !matches!(error, StoreError::Refused(_))).await
    }

    /// Describes what is wrong with the store: its last failure, if it has not recovered since, or the call that hangs.
    pub(crate) fn failure(&self) -> Option<String> {
        let failure = self.health.failure.load().as_ref().map(|failure| failure.why.clone());
        failure.or_else(|| self.health.hanging().map(hangs))
    }
}

impl StoreHealth {
    fn succeeded(&self, doing: &str) {
        if self.recovers_by(doing) && self.failure.swap(None).is_some() {
            self.listener.notify(&Notice::StoreRecovered);
        }
    }

    /// Returns true if the success of `doing` ends the last failure. Other calls that succeed in between do not end one that
    /// fails or hangs again and again.
    fn recovers_by(&self, doing: &str) -> bool {
        let failure = self.failure.load();
        failure.as_ref().is_some_and(|failure| failure.doing == doing || failure.at.elapsed() >= RECOVERED_AFTER)
            && self.hanging().is_none()
    }

    fn failed(&self, doing: &'static str, why: String) {
        let failure = StoreFailure { doing, why: why.clone(), at: Instant::now() };
        if self.failure.swap(Some(Arc::new(failure))).is_none_or(|before| before.why != why) {
            self.listener.notify(&Notice::StoreFailed { doing, why });
        }
    }

    fn hanging(&self) -> Option<&'static str> {
        self.lock_overdue().first().copied()
    }

    fn lock_overdue(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.overdue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hangs(doing: &str) -> String {
    format!("no response for {OVERDUE_AFTER:?} while {doing}")
}

/// A call that hangs, registered until this is dropped.
struct OverdueCall<'h> {
    health: &'h StoreHealth,
    doing: &'static str,
}

impl OverdueCall<'_> {
    fn new<'h>(health: &'h StoreHealth, doing: &'static str) -> OverdueCall<'h> {
        health.lock_overdue().push(doing);
        health.failed(doing, hangs(doing));
        OverdueCall { health, doing }
    }
}

impl Drop for OverdueCall<'_> {
    fn drop(&mut self) {
        let mut overdue = self.health.lock_overdue();
        if let Some(index) = overdue.iter().position(|doing| *doing == self.doing) {
            overdue.swap_remove(index);
        }
    }
}
