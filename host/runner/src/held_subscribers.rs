//! The holds on subscribers of live broadcasts, which take no jobs from the queue.
//!
//! A broadcast needs no store, so that the holds are read once a second at most, while there are broadcasts. If the store does
//! not answer in time, what is known has to do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use wharf_core::hold::{HoldScope, HoldTable};
use wharf_store::StoreError;

use crate::plugin_view::PluginIndex;
use crate::store_health::WatchedStore;

/// Holds that are older than this are read again.
const AGE_MAX: Duration = Duration::from_secs(1);
/// Time for which a broadcast waits for the store at most.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// The holds on the subscribers of this node, as far as they are known.
pub(crate) struct HeldSubscribers {
    store: WatchedStore,
    plugins: Arc<PluginIndex>,
    holds: ArcSwap<HoldTable>,
    /// When the last read began; `None` if it has to be repeated. Locked for one assignment.
    read_at: Mutex<Option<Instant>>,
    /// Held by the one who reads.
    reading: tokio::sync::Mutex<()>,
}

impl HeldSubscribers {
    pub(crate) fn new(store: WatchedStore, plugins: Arc<PluginIndex>) -> HeldSubscribers {
        let (holds, read_at, reading) = Default::default();
        HeldSubscribers { store, plugins, holds, read_at, reading }
    }

    /// Returns the holds, after `timeout` or a second at the latest.
    pub(crate) async fn holds(&self, timeout: Duration) -> Arc<HoldTable> {
        if !self.is_fresh() && tokio::time::timeout(timeout.min(READ_TIMEOUT), self.refresh()).await.is_err() {
            self.set_read_at(Some(Instant::now()));
        }
        self.holds.load_full()
    }

    /// Has the holds read again: this node has changed one.
    pub(crate) fn forget(&self) {
        self.set_read_at(None);
    }

    async fn refresh(&self) {
        let _reading = self.reading.lock().await;
        if self.is_fresh() {
            return;
        }
        let began = Instant::now();
        // Other calls report that the store fails.
        if let Ok(holds) = self.read().await {
            self.holds.store(Arc::new(holds));
        }
        self.set_read_at(Some(began));
    }

    async fn read(&self) -> Result<HoldTable, StoreError> {
        // Most stores have no hold.
        if self.store.holds(None, 1).await?.holds.is_empty() {
            return Ok(HoldTable::default());
        }
        let catalog = self.plugins.catalog();
        let receives = catalog.plugins().values().filter_map(|loaded| loaded.plugin.manifest.receive.as_ref());
        let tasks: Vec<_> = receives.map(|receive| (receive.task.name.clone(), receive.task.group.clone())).collect();
        let scopes = HoldScope::of_tasks(&tasks).into_iter().collect();
        Ok(self.store.holds_of(scopes).await?.into_iter().collect())
    }

    fn is_fresh(&self) -> bool {
        let read_at = *self.read_at.lock().unwrap_or_else(PoisonError::into_inner);
        read_at.is_some_and(|at| at.elapsed() <= AGE_MAX)
    }

    fn set_read_at(&self, at: Option<Instant>) {
        *self.read_at.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}
