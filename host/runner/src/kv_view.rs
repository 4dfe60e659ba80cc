//! A plugin's values as one attempt sees them: the committed values, with the attempt's own changes on top, which commit
//! with its success.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, FutureExt};
use wharf_core::bounds;
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery, KvUsage};
use wharf_core::outcome::Outcome;
use wharf_core::shared_bytes::SharedBytes;
use wharf_engine::{KvAccess, Plugin};
use wharf_store::StoreError;

use crate::guest_store::GuestStore;
use crate::store_health::WatchedStore;
use crate::store_wait::StoreWait;

/// The values of a plugin, for one attempt.
pub(crate) struct KvView {
    store: GuestStore,
    waits: StoreWait,
    /// The quota of the plugin, in bytes of keys and values.
    bytes_max: u64,
    /// Locked for a few assignments and never across an await, by the one guest, and by its end.
    own: Mutex<Own>,
}

/// The changes of the attempt, and what it knows of the committed values.
struct Own {
    changes: KvChanges,
    /// Values that the plugin had stored when they were last read.
    usage: Option<KvUsage>,
    /// The sizes in bytes of the committed values that it changes, as far as they were read; `None` if there is no value.
    lengths: HashMap<KvKey, Option<u64>>,
}

impl Own {
    /// Returns what the plugin would store; a size that is unknown counts as the maximum.
    fn after(&self, usage: KvUsage) -> KvUsage {
        self.changes.after(usage, |key| self.lengths.get(key).copied())
    }

    /// Returns the changed keys whose committed size is unknown.
    fn unknown(&self) -> Vec<KvKey> {
        self.changes.iter().map(|(key, _)| key).filter(|key| !self.lengths.contains_key(key)).cloned().collect()
    }
}

impl KvView {
    /// Returns the view of one attempt; `None` if the plugin has no grant to store values.
    pub(crate) fn new(plugin: &Plugin, store: &GuestStore) -> Option<KvView> {
        let own = Own { changes: KvChanges::new(plugin.id.clone()), usage: None, lengths: HashMap::new() };
        let bytes_max = plugin.kv_bytes_max()?;
        Some(KvView { store: store.clone(), waits: StoreWait::default(), bytes_max, own: Mutex::new(own) })
    }

    /// Takes out what the attempt changed, once it is over.
    pub(crate) fn take_changes(&self) -> Option<Arc<KvChanges>> {
        let changes = &mut self.own().changes;
        let none = KvChanges::new(changes.plugin.clone());
        (!changes.is_empty()).then(|| Arc::new(std::mem::replace(changes, none)))
    }

    /// Returns the outcome as it counts: time that the attempt waited for a store that was away is not its own.
    pub(crate) fn judge(&self, outcome: Outcome) -> Outcome {
        self.waits.judge(outcome)
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from the store. If the store fails, the guest waits for it until the attempt is ended: it is not the guest's
    /// failure.
    async fn read<T, Q, A>(&self, query: Q) -> T
    where
        T: Send + 'static,
        Q: Fn(WatchedStore) -> A + Send + 'static,
        A: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let _waiting = self.waits.start();
        self.store.call_until_ok("reading a plugin's values", query).await
    }
}

impl KvAccess for KvView {
    fn value(&self, key: KvKey) -> BoxFuture<'_, Result<Option<Vec<u8>>, String>> {
        async move {
            let plugin = {
                let own = self.own();
                if let Some(changed) = own.changes.get(&key) {
                    return Ok(changed.map(|value| value.to_vec()));
                }
                own.changes.plugin.clone()
            };
            let query = move |store: WatchedStore| {
                let (plugin, key) = (plugin.clone(), key.clone());
                async move { store.value(plugin, key).await }
            };
            Ok(self.read(query).await)
        }
        .boxed()
    }

    /// Checks the quota against what is committed at this moment and this attempt's own changes. Attempts that run at the same
    /// time may together exceed the quota, each by what one attempt may change: the success of none is undone for it.
    fn change(&self, key: KvKey, value: Option<Vec<u8>>) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let grows = value.is_some();
            let before = {
                let mut own = self.own();
                let before = own.changes.get(&key).map(Option::<&SharedBytes>::cloned);
                own.changes.put(key.clone(), value.map(Into::into)).map_err(|exceeded| exceeded.to_string())?;
                before
            };
            if !grows || self.fits() == Some(true) {
                return Ok(());
            }
            let (plugin, unknown) = {
                let own = self.own();
                (own.changes.plugin.clone(), own.unknown())
            };
            let keys = unknown.clone();
            let query = move |store: WatchedStore| {
                let (plugin, keys) = (plugin.clone(), keys.clone());
                async move { store.usage(plugin, keys).await }
            };
            let (usage, lengths) = self.read(query).await;
            let mut own = self.own();
            own.usage = Some(usage);
            own.lengths.extend(unknown.into_iter().zip(lengths));
            drop(own);
            if self.fits() == Some(true) {
                return Ok(());
            }
            match self.quota_exceeded(&key, before.as_ref()) {
                None => Ok(()),
                Some(why) => {
                    let mut own = self.own();
                    // No more is remembered than an attempt may change, however often it tries.
                    if before.is_none() {
                        own.lengths.remove(&key);
                    }
                    own.changes.undo(key, before);
                    Err(why)
                }
            }
        }
        .boxed()
    }

    fn keys(&self, wanted: KvKeyQuery) -> BoxFuture<'_, Result<Vec<KvKey>, String>> {
        async move {
            let (plugin, max) = {
                let own = self.own();
                (own.changes.plugin.clone(), own.changes.keys_to_read(wanted.max))
            };
            let widened = KvKeyQuery { max, ..wanted.clone() };
            let query = move |store: WatchedStore| {
                let (plugin, keys) = (plugin.clone(), widened.clone());
                async move { store.value_keys(plugin, keys).await }
            };
            let committed = self.read(query).await;
            Ok(self.own().changes.over(committed, &wanted))
        }
        .boxed()
    }
}

impl KvView {
    /// Returns true if all changes are within the quota; `None` if the usage was not read yet.
    fn fits(&self) -> Option<bool> {
        let own = self.own();
        let after = own.after(own.usage?);
        Some(after.bytes <= self.bytes_max && after.values <= bounds::KV_VALUES_MAX)
    }

    /// Returns why the last change of `key` exceeds the quota; `None` if it only reduces what exceeded it before. `before` is the
    /// attempt's own change of that key before the last one.
    fn quota_exceeded(&self, key: &KvKey, before: Option<&Option<SharedBytes>>) -> Option<String> {
        let mut own = self.own();
        let usage = own.usage?;
        let now = own.changes.get(key).map(Option::<&SharedBytes>::cloned);
        let after = own.after(usage);
        own.changes.undo(key.clone(), before.cloned());
        let without = own.after(usage);
        if let Some(value) = now {
            own.changes.undo(key.clone(), Some(value));
        }
        if after.bytes <= without.bytes && after.values <= without.values {
            return None;
        }
        let plugin = &own.changes.plugin;
        Some(if after.values > bounds::KV_VALUES_MAX {
            format!("`{plugin}` stores {} values; the limit is {}", without.values, bounds::KV_VALUES_MAX)
        } else {
            format!(
                "`{plugin}` stores {} bytes and would store {}; the limit is {}: remove some, or grant more in wharf.toml with kv = \"SIZE\" under [plugins.{plugin}]",
                without.bytes, after.bytes, self.bytes_max
            )
        })
    }
}
