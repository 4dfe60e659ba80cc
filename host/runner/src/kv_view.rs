//! What an attempt reads and changes of what its plugin keeps: the committed values, with its own changes on top, which
//! go with its success.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio_util::task::AbortOnDropHandle;
use wharf_core::bounds;
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery, KvUsage};
use wharf_core::outcome::Outcome;
use wharf_engine::{KvAccess, Plugin};
use wharf_store::{Store, StoreError};

use crate::shared::Shared;
use crate::store_wait::StoreWait;

/// Between two tries of a question that the store failed; doubled from the first to the second.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

pub(crate) struct KvView {
    shared: Shared,
    waits: StoreWait,
    /// Of keys and values, in all that the plugin keeps.
    bytes_max: u64,
    /// Locked for a few assignments and never across an await, by the one guest, and by its end.
    own: Mutex<Own>,
}

struct Own {
    changes: KvChanges,
    /// What the plugin kept when it was last asked for.
    usage: Option<KvUsage>,
    /// How long the committed values are that it changes, as far as that was read; `None` where there is none.
    lengths: HashMap<KvKey, Option<u64>>,
}

impl Own {
    /// What the plugin would keep; where a length is not known, the most that it can be.
    fn after(&self, usage: KvUsage) -> KvUsage {
        self.changes.after(usage, |key| self.lengths.get(key).copied())
    }

    fn unknown(&self) -> Vec<KvKey> {
        self.changes.iter().map(|(key, _)| key).filter(|key| !self.lengths.contains_key(key)).cloned().collect()
    }
}

impl KvView {
    /// For one attempt of a plugin; `None` where it may keep nothing.
    pub(crate) fn of(plugin: &Plugin, shared: &Shared) -> Option<KvView> {
        let own = Own { changes: KvChanges::new(plugin.id.clone()), usage: None, lengths: HashMap::new() };
        let bytes_max = plugin.kv_bytes_max()?;
        Some(KvView { shared: shared.clone(), waits: StoreWait::default(), bytes_max, own: Mutex::new(own) })
    }

    /// What the attempt changed, once it is over.
    pub(crate) fn changes(&self) -> Option<Arc<KvChanges>> {
        let changes = &mut self.own().changes;
        let none = KvChanges::new(changes.plugin.clone());
        (!changes.is_empty()).then(|| Arc::new(std::mem::replace(changes, none)))
    }

    /// How the attempt ended, if time that it waited for the store is none of its own.
    pub(crate) fn judge(&self, outcome: Outcome) -> Outcome {
        self.waits.judge(outcome)
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the store on the host's own runtime, where there are timers; few guests at once, so that people are answered, too.
    /// Where the store fails the guest waits for it, until the attempt is ended: it is not the guest's failure.
    async fn ask<T, Q, A>(&self, question: Q) -> T
    where
        T: Send + 'static,
        Q: Fn(Arc<dyn Store>) -> A + Send + 'static,
        A: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let shared = self.shared.clone();
        let asked = async move {
            let mut pause = RETRY_MIN;
            loop {
                let place = shared.reads.acquire().await;
                let asked = shared.ask("reading what a plugin keeps", question(Arc::clone(&shared.store)));
                // What failed was told.
                if let Ok(answer) = asked.await {
                    return answer;
                }
                drop(place);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        };
        let _waiting = self.waits.begin();
        // Whoever is stopped waits for no answer.
        match AbortOnDropHandle::new(self.shared.tasks.spawn_on(asked, &self.shared.home)).await {
            Ok(answer) => answer,
            // The host is ending, and the attempt with it.
            Err(_) => pending().await,
        }
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
            let question = move |store: Arc<dyn Store>| {
                let (plugin, key) = (plugin.clone(), key.clone());
                async move { store.value(plugin, key).await }
            };
            Ok(self.ask(question).await)
        }
        .boxed()
    }

    /// Judged by what is committed when it is asked, and by this attempt's own changes: attempts that run at the same time may
    /// together go past what is granted, each by what one attempt may change. The success of none is undone for it.
    fn change(&self, key: KvKey, value: Option<Vec<u8>>) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let grows = value.is_some();
            let before = {
                let mut own = self.own();
                let before = own.changes.get(&key).map(Option::<&Arc<[u8]>>::cloned);
                own.changes.put(key.clone(), value.map(Into::into)).map_err(|full| full.to_string())?;
                before
            };
            if !grows || self.fits() == Some(true) {
                return Ok(());
            }
            let (plugin, unknown) = {
                let own = self.own();
                (own.changes.plugin.clone(), own.unknown())
            };
            let of = unknown.clone();
            let question = move |store: Arc<dyn Store>| {
                let (plugin, of) = (plugin.clone(), of.clone());
                async move { store.usage(plugin, of).await }
            };
            let (usage, lengths) = self.ask(question).await;
            let mut own = self.own();
            own.usage = Some(usage);
            own.lengths.extend(unknown.into_iter().zip(lengths));
            drop(own);
            if self.fits() == Some(true) {
                return Ok(());
            }
            match self.full(&key, before.as_ref()) {
                None => Ok(()),
                Some(why) => {
                    let mut own = self.own();
                    // No more is remembered than an attempt may change, however often it asks.
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
            let look = KvKeyQuery { max, ..wanted.clone() };
            let question = move |store: Arc<dyn Store>| {
                let (plugin, look) = (plugin.clone(), look.clone());
                async move { store.value_keys(plugin, look).await }
            };
            let committed = self.ask(question).await;
            Ok(self.own().changes.over(committed, &wanted))
        }
        .boxed()
    }
}

impl KvView {
    /// Whether all changes find room, as far as is known.
    fn fits(&self) -> Option<bool> {
        let own = self.own();
        let after = own.after(own.usage?);
        Some(after.bytes <= self.bytes_max && after.values <= bounds::KV_VALUES_MAX)
    }

    /// Why the last change of `key` finds no room; `None` where it only makes less of what was too much before.
    fn full(&self, key: &KvKey, before: Option<&Option<Arc<[u8]>>>) -> Option<String> {
        let mut own = self.own();
        let usage = own.usage?;
        let now = own.changes.get(key).map(Option::<&Arc<[u8]>>::cloned);
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
            format!("`{plugin}` keeps {} values; {} is the most", without.values, bounds::KV_VALUES_MAX)
        } else {
            format!(
                "`{plugin}` keeps {} bytes and would keep {}; {} is the most: remove some, or grant more in wharf.toml with kv = \"SIZE\" under [plugins.{plugin}]",
                without.bytes, after.bytes, self.bytes_max
            )
        })
    }
}
