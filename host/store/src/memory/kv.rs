//! What plugins keep: a map, and no count of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use wharf_core::ids::PluginId;
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery, KvUsage};

#[derive(Default)]
pub(super) struct Values(BTreeMap<PluginId, BTreeMap<KvKey, Arc<[u8]>>>);

impl Values {
    pub(super) fn change(&mut self, changes: &KvChanges) {
        let values = self.0.entry(changes.plugin.clone()).or_default();
        for (key, value) in changes.iter() {
            match value {
                Some(value) => _ = values.insert(key.clone(), value.clone()),
                None => _ = values.remove(key),
            }
        }
    }

    fn of(&self, plugin: &PluginId) -> impl Iterator<Item = (&KvKey, &Arc<[u8]>)> {
        self.0.get(plugin).into_iter().flatten()
    }

    pub(super) fn value(&self, plugin: &PluginId, key: &KvKey) -> Option<Vec<u8>> {
        self.0.get(plugin)?.get(key).map(|value| value.to_vec())
    }

    pub(super) fn keys(&self, plugin: &PluginId, wanted: &KvKeyQuery) -> Vec<KvKey> {
        let keys = self.of(plugin).map(|(key, _)| key).filter(|key| wanted.has(key));
        keys.take(wanted.max as usize).cloned().collect()
    }

    pub(super) fn usage(&self, plugin: &PluginId, of: &[KvKey]) -> (KvUsage, Vec<Option<u64>>) {
        let mut usage = KvUsage::default();
        for (key, value) in self.of(plugin) {
            usage.values += 1;
            usage.bytes += (key.as_str().len() + value.len()) as u64;
        }
        (usage, of.iter().map(|key| self.value(plugin, key).map(|value| value.len() as u64)).collect())
    }
}
