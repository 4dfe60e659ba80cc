//! Holds as operators set, release and list them.

use wharf_core::hold::{Hold, HoldLength, HoldScope, NewHold};
use wharf_core::ids::{Group, PluginId};
use wharf_core::time::Timestamp;
use wharf_store::StoreError;

use crate::plugin_view::PluginView;
use crate::store_health::WatchedStore;

/// A hold that was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldSet {
    /// The hold.
    pub hold: Hold,
    /// False if no node has the plugin, the task or the group: the hold waits for it, or its name is misspelt.
    pub is_known: bool,
}

/// Why a hold was not set.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The hold would have ended already.
    #[error("the hold would end at once; `until` must be later than the store's clock, and a length more than zero")]
    Ended,
    /// There are as many holds as may be.
    #[error("there are {0} holds, which is the limit; release some, or hold a whole group or plugin")]
    TooMany(u32),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Sets a hold.
///
/// # Errors
///
/// Returns `Ended` if the hold would end at once, `TooMany` if there are too many, and `Store` if the store failed.
pub(crate) async fn set(store: &WatchedStore, view: &PluginView, new: NewHold) -> Result<HoldSet, HoldError> {
    let is_over = match new.length {
        Some(HoldLength::Until(until)) => until <= view.now,
        Some(HoldLength::For(length)) => length.is_zero(),
        None => false,
    };
    if is_over {
        return Err(HoldError::Ended);
    }
    let is_known = is_known(store, view, &new.scope).await?;
    let others_max = new.others_max();
    let hold = store.call_with_timeout("setting a hold", store.set_hold(new)).await?;
    hold.map(|hold| HoldSet { hold, is_known }).ok_or(HoldError::TooMany(others_max))
}

/// Returns true if a node has what the scope names. Keys are chosen by clients, so that every key is known.
async fn is_known(store: &WatchedStore, view: &PluginView, scope: &HoldScope) -> Result<bool, StoreError> {
    let PluginView { catalog, others, now } = view;
    Ok(match scope {
        HoldScope::All | HoldScope::Key { group: None, .. } => true,
        HoldScope::Task(task) => catalog.runs().any(|run| run.name == *task) || others.runs(task, *now),
        HoldScope::Group(group) | HoldScope::Key { group: Some(group), .. } => has_group(view, group, *now),
        HoldScope::Plugin(plugin) => catalog.plugin(plugin).is_some() || is_elsewhere(store, plugin).await?,
    })
}

fn has_group(view: &PluginView, group: &Group, now: Timestamp) -> bool {
    view.catalog.runs().any(|task| task.group == *group) || view.others.has_group(group, now)
}

async fn is_elsewhere(store: &WatchedStore, plugin: &PluginId) -> Result<bool, StoreError> {
    let nodes = store.nodes().await?;
    Ok(nodes.iter().flat_map(|node| &node.plugins).any(|loaded| loaded.plugin == *plugin))
}
