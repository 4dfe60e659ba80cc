//! A plugin that is compiled, linked and ready to be called.

use std::fmt;
use std::sync::Arc;

use wharf_core::ids::PluginId;

use crate::compile::linked::Linked;
use crate::sandbox::plugin_env::PluginEnv;
use crate::spec::manifest::Manifest;

/// A loaded plugin. It never changes: a plugin that is replaced becomes another one. Attempts share it by `Arc`, and
/// the last one frees it.
pub struct Plugin {
    /// The plugin's id: the name of its file without `.wasm`.
    pub id: PluginId,
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// Size of the component in bytes.
    pub bytes: u64,
    /// The manifest, with the operator's settings applied.
    pub manifest: Manifest,
    /// True if the component needs component-model concurrency.
    pub is_async: bool,
    /// The interfaces that it imports, with their versions.
    pub imports: Vec<String>,
    /// Number of ordinary sandboxes that one of this plugin counts as.
    pub sandboxes: u32,
    /// Bytes that one of its sandboxes takes at its start.
    pub start_bytes: u64,
    pub(crate) env: Arc<PluginEnv>,
    /// Shared by all plugins that have the same bytes.
    pub(crate) linked: Arc<Linked>,
}

impl Plugin {
    /// Returns how many bytes of keys and values the plugin may store; `None` if it has no grant for any.
    pub fn kv_bytes_max(&self) -> Option<u64> {
        self.env.settings.kv_bytes_max()
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("id", &self.id).field("digest", &self.digest).finish_non_exhaustive()
    }
}
