//! The chain of calls that leads to a broadcast, which keeps broadcasts within broadcasts from going round in circles.

use std::sync::Arc;

use wharf_core::ids::{JobId, PluginId};
use wharf_core::job::Lineage;

/// The calls that led to a broadcast: empty for one that a client starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallChain {
    /// Number of broadcasts that lie above the next one.
    pub(crate) depth: u32,
    /// The plugins whose attempts wait for it.
    plugins: Arc<[PluginId]>,
    /// The job at the top of the chain as the parent, with its generation; none for the broadcast of a client.
    pub(crate) top: Lineage,
}

impl CallChain {
    /// Returns the chain of a job's attempt, to which no broadcast led.
    pub(crate) fn of_job(plugin: PluginId, job: JobId, generation: u32) -> CallChain {
        CallChain { depth: 0, plugins: [plugin].into(), top: Lineage { parent: Some(job), generation } }
    }

    /// Returns the chain of a subscriber that a broadcast with this chain calls.
    pub(crate) fn then(&self, plugin: PluginId) -> CallChain {
        let plugins = self.plugins.iter().cloned().chain([plugin]).collect();
        CallChain { depth: self.depth + 1, plugins, top: self.top }
    }

    /// Returns the chain that another node sent.
    pub(crate) fn from_message(depth: u32, plugins: Vec<PluginId>) -> CallChain {
        CallChain { depth, plugins: plugins.into(), top: Lineage::default() }
    }

    pub(crate) fn plugins(&self) -> &[PluginId] {
        &self.plugins
    }

    pub(crate) fn contains(&self, plugin: &PluginId) -> bool {
        self.plugins.contains(plugin)
    }
}
