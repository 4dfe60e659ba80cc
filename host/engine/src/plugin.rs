//! A plugin that is compiled, linked and ready to be called.

use std::fmt;
use std::sync::Arc;

use wharf_core::ids::PluginId;

use crate::compile::linked::Linked;
use crate::sandbox::plugin_env::Premises;
use crate::spec::manifest::Manifest;

/// Never changes; a plugin that is replaced is another one. Attempts hold it by `Arc`, and the last one frees it.
pub struct Plugin {
    pub id: PluginId,
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// The size of the component.
    pub bytes: u64,
    pub manifest: Manifest,
    /// Needs component-model concurrency.
    pub is_async: bool,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// See [`crate::wasmtime_config::weight`].
    pub(crate) weight: u32,
    pub(crate) premises: Arc<Premises>,
    /// Shared by all plugins of these bytes.
    pub(crate) linked: Arc<Linked>,
}

impl Plugin {
    /// How many bytes it may keep in the store; `None` where that is not granted.
    pub fn kv_bytes_max(&self) -> Option<u64> {
        self.premises.settings.kv_bytes_max()
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("id", &self.id).field("digest", &self.digest).finish_non_exhaustive()
    }
}
