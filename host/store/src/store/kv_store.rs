//! The kv values of plugins, as they are read. They are written with the end of the attempt that changes them.

use async_trait::async_trait;
use wharf_core::ids::PluginId;
use wharf_core::kv::{KvKey, KvKeyQuery, KvUsage};

use super::error::StoreError;

/// The kv values of a store. [`Queue::record`](super::Queue::record) and
/// [`Queue::insert_with_changes`](super::Queue::insert_with_changes) change them.
#[async_trait]
pub trait KvStore: Send + Sync {
    /// Returns a plugin's kv value.
    async fn value(&self, plugin: PluginId, key: KvKey) -> Result<Option<Vec<u8>>, StoreError>;

    /// Returns the keys of a plugin's kv values that match the query, in ascending order.
    async fn value_keys(&self, plugin: PluginId, wanted: KvKeyQuery) -> Result<Vec<KvKey>, StoreError>;

    /// Returns how much a plugin stores in kv, and the sizes in bytes of the values of these keys, in the order of
    /// `of`.
    async fn usage(&self, plugin: PluginId, of: Vec<KvKey>) -> Result<(KvUsage, Vec<Option<u64>>), StoreError>;
}
