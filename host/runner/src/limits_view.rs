//! The limits of every group as operators see them: what is declared, what is overridden, what is in force, what runs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wharf_core::author::Author;
use wharf_core::backlog::{Backlog, GroupBacklog, LaneBacklog};
use wharf_core::bounds;
use wharf_core::ids::{Group, TaskName};
use wharf_core::key::{Key, Lane};
use wharf_core::limits::{Limits, Override};
use wharf_store::StoreError;

use crate::catalog::Catalog;
use crate::plugin_view::{PluginIndex, PluginView};
use crate::store_health::WatchedStore;

/// The limits of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    /// The limit group.
    pub group: Group,
    /// The tasks of loaded plugins that share it; empty if only an override is left.
    pub tasks: Vec<TaskName>,
    /// The limits that manifests and settings declare.
    pub declared: Limits,
    /// The override of an operator for the whole group.
    pub set: Option<Limits>,
    /// The limits in force, with the override.
    pub in_force: Limits,
    /// The overrides of an operator for single keys.
    pub keys: Vec<(Key, Limits)>,
    /// Number of jobs of the group that run now, on all nodes.
    pub running: u64,
    /// The due jobs of the group that wait.
    pub waiting: WaitingJobs,
    /// The keys whose jobs run or wait, those with the most waiting ones first, at most `bounds::LANES_SHOWN`.
    pub lanes: Vec<LaneUse>,
}

/// The due jobs of a group or of a lane that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitingJobs {
    /// Number of jobs that were looked at.
    pub due: u64,
    /// True if not all waiting jobs were looked at, so that there may be more.
    pub more: bool,
    /// For how long the first of them has been due.
    pub oldest_age: Option<Duration>,
}

/// The jobs of one lane that run and wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneUse {
    /// The key; `None` for the jobs that have none.
    pub key: Option<Key>,
    /// The number of jobs with this key that may run at once; `None` means unlimited.
    pub per_key: Option<u32>,
    /// Number of running jobs: they hold the slots of the lane.
    pub running: u64,
    /// The due jobs that wait.
    pub waiting: WaitingJobs,
}

/// Why a limit was not changed.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// No plugin of any node has the group.
    #[error("unknown limit group `{group}`{}", .nearest.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    UnknownGroup {
        /// The group of the request.
        group: Group,
        /// The known group with the most similar name.
        nearest: Option<Group>,
    },
    /// Transient: a plugin that is still loading may have the group.
    #[error("unknown limit group `{0}`, but plugins are still loading; try again in a moment")]
    Loading(Group),
    /// The override sets a total for one key.
    #[error("a total applies to a whole group; it cannot be set for one key")]
    TotalOfKey,
    /// The override sets no limit.
    #[error("expected a limit per key or a total; to end an override, clear it")]
    Nothing,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns the limits of every group that is declared, overridden, or has jobs in the backlog that run or are due.
///
/// # Errors
///
/// Returns the store's error.
pub(crate) async fn limits(
    store: &WatchedStore,
    catalog: &Catalog,
    backlog: &Backlog,
) -> Result<Vec<GroupLimits>, StoreError> {
    let overrides = store.overrides().await?;
    let (now, more) = (store.now(), backlog.has_more());
    let table = catalog.limits().with_overrides(overrides.iter().cloned());
    let declared: BTreeMap<&Group, Limits> = catalog.limits().declared().collect();
    let mut groups: BTreeSet<&Group> = declared.keys().copied().collect();
    groups.extend(overrides.iter().map(|set| &set.group));
    groups.extend(backlog.groups.keys());
    let waiting =
        |of: &LaneBacklog| WaitingJobs { due: of.due, more, oldest_age: of.oldest_due.map(|at| now.since(at)) };
    let lanes = |group: &Group, of: &GroupBacklog| {
        let mut lanes: Vec<(&Option<Key>, &LaneBacklog)> = of.lanes.iter().collect();
        // The sort is stable: lanes that are as busy stay in the order of their keys.
        lanes.sort_by_key(|(_, of)| Reverse((of.due, of.running)));
        lanes.truncate(bounds::LANES_SHOWN);
        let lane_use = |(key, of): (&Option<Key>, &LaneBacklog)| LaneUse {
            per_key: key.as_ref().and_then(|_| table.per_key(&Lane { group: group.clone(), key: key.clone() })),
            key: key.clone(),
            running: of.running,
            waiting: waiting(of),
        };
        lanes.into_iter().map(lane_use).collect()
    };
    let of = |group: &Group| {
        let own = overrides.iter().filter(|set| set.group == *group);
        GroupLimits {
            group: group.clone(),
            tasks: catalog.runs().filter(|task| task.group == *group).map(|task| task.name.clone()).collect(),
            declared: declared.get(group).copied().unwrap_or_default(),
            set: own.clone().find(|set| set.key.is_none()).map(|set| set.limits),
            in_force: table.of(group),
            keys: own.filter_map(|set| Some((set.key.clone()?, set.limits))).collect(),
            running: backlog.groups.get(group).map(|of| of.all.running).unwrap_or_default(),
            waiting: waiting(&backlog.groups.get(group).map(|of| of.all).unwrap_or_default()),
            lanes: backlog.groups.get(group).map(|of| lanes(group, of)).unwrap_or_default(),
        }
    };
    Ok(groups.into_iter().map(of).collect())
}

/// Puts an override in force.
///
/// # Errors
///
/// Returns `Nothing` or `TotalOfKey` if the override is invalid, `UnknownGroup` or `Loading` if the group is not known, and
/// `Store` if the store failed.
pub(crate) async fn set(
    store: &WatchedStore,
    plugins: &PluginIndex,
    change: Override,
    by: Author,
) -> Result<(), LimitError> {
    if change.limits == Limits::default() {
        return Err(LimitError::Nothing);
    }
    if change.key.is_some() && change.limits.total.is_some() {
        return Err(LimitError::TotalOfKey);
    }
    check_known(&plugins.view(store.now()), &change.group)?;
    Ok(store.call_with_timeout("setting a limit", store.set_override(change, by)).await?)
}

/// Ends an override; returns false if there was none.
///
/// # Errors
///
/// Returns `UnknownGroup` or `Loading` if there was none and the group is not known, and `Store` if the store failed.
pub(crate) async fn clear(
    store: &WatchedStore,
    plugins: &PluginIndex,
    (group, key): (Group, Option<Key>),
    by: Author,
) -> Result<bool, LimitError> {
    let overrides = store.overrides().await?;
    if overrides.iter().any(|set| set.group == group && set.key == key) {
        let ended = Override { group, key, limits: Limits::default() };
        store.call_with_timeout("clearing a limit", store.set_override(ended, by)).await?;
        return Ok(true);
    }
    check_known(&plugins.view(store.now()), &group).map(|()| false)
}

fn check_known(view: &PluginView, group: &Group) -> Result<(), LimitError> {
    let catalog = &view.catalog;
    if catalog.runs().any(|task| task.group == *group) || view.others.has_group(group, view.now) {
        return Ok(());
    }
    // The group may belong to any of the plugins: operators name groups as they like.
    let awaited = !catalog.pending().is_empty() || view.others.awaited(view.now).next().is_some();
    if awaited || !catalog.is_open() || !view.others.are_known() {
        return Err(LimitError::Loading(group.clone()));
    }
    Err(LimitError::UnknownGroup { group: group.clone(), nearest: catalog.nearest_group(group.as_str()) })
}
