//! Which plugins this process has announced to its store, so that a registration writes only what is new.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use wharf_core::ids::PluginId;
use wharf_core::node::{LoadedPlugin, Node};

/// The plugins, with their digests, whose first sight is stored. The lock is held for one look-up, never across an await.
#[derive(Debug, Default)]
pub(crate) struct AnnouncedPlugins(Mutex<HashSet<(PluginId, String)>>);

/// A digest of a plugin, with the version from its manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PluginDigest {
    pub(crate) plugin: PluginId,
    pub(crate) digest: String,
    pub(crate) version: String,
}

impl From<&LoadedPlugin> for PluginDigest {
    fn from(loaded: &LoadedPlugin) -> PluginDigest {
        PluginDigest {
            plugin: loaded.plugin.clone(),
            digest: loaded.digest.clone(),
            version: wharf_core::attempt::short_version(&loaded.version),
        }
    }
}

impl AnnouncedPlugins {
    /// Returns the plugins of a node that this process has not announced yet.
    pub(crate) fn new_of(&self, node: &Node) -> Vec<PluginDigest> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |loaded: &&LoadedPlugin| !known.contains(&(loaded.plugin.clone(), loaded.digest.clone()));
        let mut new: Vec<PluginDigest> = node.plugins.iter().filter(is_new).map(PluginDigest::from).collect();
        new.sort();
        new
    }

    /// Notes that these are stored, and forgets those that the node no longer has.
    pub(crate) fn stored(&self, node: &Node) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = node.plugins.iter().map(|loaded| (loaded.plugin.clone(), loaded.digest.clone())).collect();
    }
}
