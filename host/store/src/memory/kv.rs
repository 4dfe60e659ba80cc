//! The values of plugins: a map. Their usage is counted on request.

use std::collections::BTreeMap;

use wharf_core::ids::PluginId;
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery, KvUsage};
use wharf_core::shared_bytes::SharedBytes;

#[derive(Default)]
pub(super) struct KvMap(BTreeMap<PluginId, BTreeMap<KvKey, SharedBytes>>);

impl KvMap {
    /// Applies changes to a plugin's values.
    pub(super) fn change(&mut self, changes: &KvChanges) {
        let values = self.0.entry(changes.plugin.clone()).or_default();
        for (key, value) in changes.iter() {
            match value {
                Some(value) => _ = values.insert(key.clone(), value.clone()),
                None => _ = values.remove(key),
            }
        }
    }

    fn values_of(&self, plugin: &PluginId) -> impl Iterator<Item = (&KvKey, &SharedBytes)> {
        self.0.get(plugin).into_iter().flatten()
    }

    pub(super) fn value(&self, plugin: &PluginId, key: &KvKey) -> Option<Vec<u8>> {
        self.0.get(plugin)?.get(key).map(|value| value.to_vec())
    }

    pub(super) fn keys(&self, plugin: &PluginId, query: &KvKeyQuery) -> Vec<KvKey> {
        let keys = self.values_of(plugin).map(|(key, _)| key).filter(|key| query.has(key));
        keys.take(query.max as usize).cloned().collect()
    }

    /// Returns how much a plugin has in all, and the size in bytes of the value under each of `keys`.
    pub(super) fn usage(&self, plugin: &PluginId, keys: &[KvKey]) -> (KvUsage, Vec<Option<u64>>) {
        let mut usage = KvUsage::default();
        for (key, value) in self.values_of(plugin) {
            usage.values += 1;
            usage.bytes += (key.as_str().len() + value.len()) as u64;
        }
        (usage, keys.iter().map(|key| self.value(plugin, key).map(|value| value.len() as u64)).collect())
    }
}
