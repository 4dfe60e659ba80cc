//! A plugin that is compiled, linked and ready to be called.

use std::fmt;
use std::sync::Arc;

use wharf_core::budget::attempt_memory_max;
use wharf_core::ids::PluginId;

use crate::compile::linked::Linked;
use crate::sandbox::plugin_env::PluginEnv;
use crate::spec::grants::PluginSettings;
use crate::spec::manifest::Manifest;
use crate::spec::problem::Problem;
use crate::spec::sources::ManifestSources;

/// A loaded plugin. It never changes: a plugin that is replaced becomes another one. Attempts share it by `Arc`, and
/// the last one frees it.
pub struct Plugin {
    /// The plugin's id: the name of its file without `.wasm`.
    pub id: PluginId,
    /// SHA-256 of the component, in hex; of the component and its `NAME.toml` if there is one.
    pub digest: String,
    /// Size of the component in bytes.
    pub bytes: u64,
    /// The manifest, with the operator's settings applied.
    pub manifest: Manifest,
    /// Notes on what the manifest asks for and does not have, with what to do.
    pub notes: Vec<Problem>,
    /// True if the component needs component-model concurrency.
    pub is_async: bool,
    /// The interfaces that it imports, with their versions.
    pub imports: Vec<String>,
    /// Number of ordinary sandboxes that one of this plugin counts as.
    pub sandboxes: u32,
    /// Bytes that are reserved for one of its sandboxes at its start.
    pub start_bytes: u64,
    /// Bytes of the memory with which one of its sandboxes begins that are not reserved: it is not likely to write to them.
    pub first_pages: u64,
    /// The parts of its manifest, from which the plugin is made again when its settings change.
    pub(crate) sources: Arc<ManifestSources>,
    pub(crate) env: Arc<PluginEnv>,
    /// Shared by all plugins that have the same bytes.
    pub(crate) linked: Arc<Linked>,
}

impl Plugin {
    /// Returns the most memory that one attempt can have on this host, in bytes. A task that may use more runs on no such host.
    pub fn memory_most(&self) -> u64 {
        attempt_memory_max(self.env.budget.total())
    }

    /// Returns the number of sandboxes that run the plugin now, of jobs and of live broadcasts.
    pub fn live_sandboxes(&self) -> u64 {
        PluginEnv::live_sandboxes(&self.env)
    }

    /// Logs what its manifest asks for and does not have.
    pub fn log_notes(&self) {
        self.notes
            .iter()
            .for_each(|note| tracing::warn!(plugin = %self.id, "{}", note.to_string().replace('\n', "; ")));
    }

    /// Returns how many bytes of keys and values the plugin may store; `None` if it has no grant for any.
    pub fn kv_bytes_max(&self) -> Option<u64> {
        self.env.settings.kv_bytes_max()
    }

    /// Returns the keys of its settings of which `new` grants less.
    pub fn lost_with(&self, new: &PluginSettings) -> Vec<&'static str> {
        self.env.settings.lost_with(new)
    }

    /// Ends every attempt of this plugin as interrupted by its host: at its next host call, at its next tick if it computes, or
    /// at its end. No other attempt of it begins. `why` is recorded as the reason.
    pub fn revoke(&self, why: String) {
        self.env.revoke(why);
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("id", &self.id).field("digest", &self.digest).finish_non_exhaustive()
    }
}
