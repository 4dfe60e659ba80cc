//! What this node knows of plugins: its own catalog, and what the other nodes announced.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use wharf_core::ids::{Group, NodeId, PluginId};
use wharf_core::limits::LimitTable;
use wharf_core::node::Node;
use wharf_core::time::Timestamp;
use wharf_engine::Plugin;

use crate::catalog::Catalog;
use crate::live_settings::LiveSettings;
use crate::other_nodes::OtherNodes;

/// The catalog and the other nodes as they are now, each replaced whole when it changes.
pub(crate) struct PluginIndex {
    catalog: ArcSwap<Catalog>,
    others: ArcSwap<OtherNodes>,
}

impl PluginIndex {
    /// Returns the index of a host that has loaded nothing yet.
    pub(crate) fn new(settings: LiveSettings) -> PluginIndex {
        let catalog = ArcSwap::from_pointee(Catalog::empty(Arc::new(settings)));
        PluginIndex { catalog, others: ArcSwap::default() }
    }

    /// Returns both as they are now; `now` is the store's time, by which other nodes count as live.
    pub(crate) fn view(&self, now: Timestamp) -> PluginView {
        PluginView { catalog: self.catalog(), others: self.others(), now }
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Returns the maximum number of jobs of a plugin that wait.
    pub(crate) fn waiting_max(&self, id: &PluginId) -> u64 {
        self.catalog.load().settings().waiting_max_of(id)
    }

    /// Returns how many generations of jobs may enqueue one another until one of a plugin.
    pub(crate) fn generations_max(&self, id: &PluginId) -> u32 {
        self.catalog.load().settings().generations_max_of(id)
    }

    /// Returns a plugin, if it is loaded now.
    pub(crate) fn plugin(&self, id: &PluginId) -> Option<Arc<Plugin>> {
        self.catalog.load().plugin(id).map(|loaded| Arc::clone(&loaded.plugin))
    }

    pub(crate) fn others(&self) -> Arc<OtherNodes> {
        self.others.load_full()
    }

    pub(crate) fn set_catalog(&self, catalog: Catalog) {
        self.catalog.store(Arc::new(catalog));
    }

    /// Takes in what the nodes of the store announced; `here` is this node.
    pub(crate) fn update_others(&self, here: NodeId, nodes: Vec<Node>) {
        let next = self.others.load().next(here, nodes);
        self.others.store(Arc::new(next));
    }
}

/// A node's knowledge of plugins at one moment: its own, and those of the other nodes.
#[derive(Clone)]
pub(crate) struct PluginView {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) others: Arc<OtherNodes>,
    pub(crate) now: Timestamp,
}

/// The place where a plugin is loading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadingWhere {
    /// On this node.
    Here,
    /// On the node of this name.
    There(String),
    /// On this node, again: the last time it failed for this reason, which may pass.
    Again(String),
    /// Perhaps nowhere: this node has not scanned its plugin folder yet, or not received what the others announced.
    Unknown,
}

impl PluginView {
    /// Returns where a plugin is loading that may be loaded, or have more tasks, in a moment.
    pub(crate) fn loading(&self, plugin: &PluginId) -> Option<LoadingWhere> {
        if self.catalog.pending().contains_key(plugin) {
            return Some(LoadingWhere::Here);
        }
        if !self.catalog.is_open() || !self.others.are_known() {
            return Some(LoadingWhere::Unknown);
        }
        let node = self.others.awaited(self.now).find(|(_, awaited)| awaited.plugin == *plugin)?.0;
        Some(LoadingWhere::There(node.to_owned()))
    }

    /// Returns true if a plugin of this node has tasks in this limit group, or no other node is known.
    pub(crate) fn has_group(&self, group: &Group) -> bool {
        self.others.is_alone() || self.catalog.runs().any(|task| task.group == *group)
    }

    /// Returns the limits that are declared here, with those that only other nodes declare.
    pub(crate) fn all_limits(&self) -> Arc<LimitTable> {
        let here: BTreeSet<&Group> = self.catalog.runs().map(|task| &task.group).collect();
        let elsewhere: Vec<Group> =
            self.others.groups(self.now).filter(|group| !here.contains(group)).cloned().collect();
        self.limits(&elsewhere)
    }

    /// Returns the limits that are declared here, with those that other nodes declare of `groups_elsewhere`.
    pub(crate) fn limits(&self, groups_elsewhere: &[Group]) -> Arc<LimitTable> {
        let here = self.catalog.limits();
        if groups_elsewhere.is_empty() {
            return Arc::clone(here);
        }
        Arc::new(self.others.limits(here, &groups_elsewhere.iter().cloned().collect(), self.now))
    }
}
