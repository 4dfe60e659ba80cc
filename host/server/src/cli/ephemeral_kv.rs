//! The key-value store of `wharf call`: empty when the call starts, gone when it ends.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use wharf_core::ids::PluginId;
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery};
use wharf_engine::KvAccess;

/// The changes of the only attempt, on top of an empty store and within the bounds of an attempt.
pub(super) struct EphemeralKv(Mutex<KvChanges>);

impl EphemeralKv {
    pub(super) fn of(plugin: PluginId) -> EphemeralKv {
        EphemeralKv(Mutex::new(KvChanges::new(plugin)))
    }

    /// Locks the changes, for one call of the only guest.
    fn changes(&self) -> MutexGuard<'_, KvChanges> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KvAccess for EphemeralKv {
    fn value(&self, key: KvKey) -> BoxFuture<'_, Result<Option<Vec<u8>>, String>> {
        let found = self.changes().get(&key).flatten().map(|value| value.to_vec());
        ready(Ok(found)).boxed()
    }

    fn change(&self, key: KvKey, value: Option<Vec<u8>>) -> BoxFuture<'_, Result<(), String>> {
        ready(self.changes().put(key, value.map(Into::into)).map_err(|full| full.to_string())).boxed()
    }

    fn keys(&self, wanted: KvKeyQuery) -> BoxFuture<'_, Result<Vec<KvKey>, String>> {
        ready(Ok(self.changes().over(Vec::new(), &wanted))).boxed()
    }
}
