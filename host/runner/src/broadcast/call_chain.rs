//! Who called whom: broadcasts within broadcasts, and what keeps them from going round in circles.

use std::sync::Arc;

use wharf_core::ids::PluginId;

/// What led to a broadcast: none for one that people ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallChain {
    /// Broadcasts above the next one.
    pub(crate) depth: u32,
    /// Plugins whose attempts wait for it.
    plugins: Arc<[PluginId]>,
}

impl CallChain {
    /// A job's attempt, which no broadcast led to.
    pub(crate) fn of_job(plugin: PluginId) -> CallChain {
        CallChain { depth: 0, plugins: [plugin].into() }
    }

    /// A subscriber that is called by a broadcast with this chain.
    pub(crate) fn then(&self, plugin: PluginId) -> CallChain {
        let plugins = self.plugins.iter().cloned().chain([plugin]).collect();
        CallChain { depth: self.depth + 1, plugins }
    }

    /// What another node said of it.
    pub(crate) fn of_letter(depth: u32, plugins: Vec<PluginId>) -> CallChain {
        CallChain { depth, plugins: plugins.into() }
    }

    pub(crate) fn plugins(&self) -> &[PluginId] {
        &self.plugins
    }

    pub(crate) fn has(&self, plugin: &PluginId) -> bool {
        self.plugins.contains(plugin)
    }
}
