//! The limits of every group as people see them: what is declared, what an operator set, what holds, who holds slots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wharf_core::ids::{Group, TaskName};
use wharf_core::key::Key;
use wharf_core::limits::{Limits, Override};
use wharf_store::{Store, StoreError};

use crate::catalog::Catalog;
use crate::request::View;
use crate::shared::Shared;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    pub group: Group,
    /// Tasks of loaded plugins that share it; empty where only an override is left.
    pub tasks: Vec<TaskName>,
    /// By manifests and settings.
    pub declared: Limits,
    /// By an operator, for the whole group.
    pub set: Option<Limits>,
    pub in_force: Limits,
    /// By an operator, for single keys.
    pub keys: Vec<(Key, Limits)>,
    /// Jobs of the group that run now, on all nodes, counted.
    pub running: u64,
}

/// Why a limit was not changed.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    #[error("there is no limit group `{group}`{}", .nearest.as_ref().map(|near| format!(": did you mean `{near}`?")).unwrap_or_default())]
    UnknownGroup { group: Group, nearest: Option<Group> },
    /// Passes: a plugin that is still being made ready may have it.
    #[error(
        "whether there is a limit group `{0}` is not known yet: plugins are still being made ready; try again in a moment"
    )]
    Loading(Group),
    #[error("a total is of a whole group: it cannot be set for one key")]
    TotalOfKey,
    #[error("neither a limit per key nor a total is given; to end an override, clear it")]
    Nothing,
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) async fn limits(store: &Arc<dyn Store>, catalog: &Catalog) -> Result<Vec<GroupLimits>, StoreError> {
    let overrides = store.overrides().await?;
    let running: BTreeMap<Group, u64> = store.stats().await?.groups.into_iter().collect();
    let table = catalog.limits().with_overrides(overrides.iter().cloned());
    let declared: BTreeMap<&Group, Limits> = catalog.limits().declared().collect();
    let mut groups: BTreeSet<&Group> = declared.keys().copied().collect();
    groups.extend(overrides.iter().map(|set| &set.group));
    groups.extend(running.keys());
    let of = |group: &Group| {
        let own = overrides.iter().filter(|set| set.group == *group);
        GroupLimits {
            group: group.clone(),
            tasks: catalog.runs().filter(|task| task.group == *group).map(|task| task.name.clone()).collect(),
            declared: declared.get(group).copied().unwrap_or_default(),
            set: own.clone().find(|set| set.key.is_none()).map(|set| set.limits),
            in_force: table.of(group),
            keys: own.filter_map(|set| Some((set.key.clone()?, set.limits))).collect(),
            running: running.get(group).copied().unwrap_or_default(),
        }
    };
    Ok(groups.into_iter().map(of).collect())
}

/// Puts an override in force.
pub(crate) async fn set(shared: &Shared, change: Override) -> Result<(), LimitError> {
    if change.limits == Limits::default() {
        return Err(LimitError::Nothing);
    }
    if change.key.is_some() && change.limits.total.is_some() {
        return Err(LimitError::TotalOfKey);
    }
    is_known(&shared.view(), &change.group)?;
    Ok(shared.ask_for_people("setting a limit", shared.store.set_override(change)).await?)
}

/// Ends an override; false if there was none.
pub(crate) async fn clear(shared: &Shared, group: Group, key: Option<Key>) -> Result<bool, LimitError> {
    let overrides = shared.store.overrides().await?;
    if overrides.iter().any(|set| set.group == group && set.key == key) {
        let ended = Override { group, key, limits: Limits::default() };
        shared.ask_for_people("clearing a limit", shared.store.set_override(ended)).await?;
        return Ok(true);
    }
    is_known(&shared.view(), &group).map(|()| false)
}

fn is_known(view: &View, group: &Group) -> Result<(), LimitError> {
    let catalog = &view.catalog;
    if catalog.runs().any(|task| task.group == *group) || view.others.has_group(group, view.now) {
        return Ok(());
    }
    // A group may be of any plugin: the operator names them.
    let awaited = !catalog.pending().is_empty() || view.others.awaited(view.now).next().is_some();
    if awaited || !catalog.is_open() || !view.others.are_heard() {
        return Err(LimitError::Loading(group.clone()));
    }
    Err(LimitError::UnknownGroup { group: group.clone(), nearest: catalog.nearest_group(group.as_str()) })
}
