//! The summary of all nodes: what waits and runs, how fast it goes, and who uses the machines.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use wharf_core::activity::{Activity, TaskActivity};
use wharf_core::backlog::TaskBacklog;
use wharf_core::bounds;
use wharf_core::hold::{HoldScope, HoldTable};
use wharf_core::ids::{NodeId, TaskName};
use wharf_core::key::Key;
use wharf_core::limits::LimitTable;
use wharf_core::node::Node;
use wharf_core::top_keys::KeyWeight;
use wharf_store::StoreError;

use crate::other_nodes::LOST_AFTER;
use crate::store_health::WatchedStore;

/// A summary of what happens on all nodes.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Number of live nodes.
    pub nodes: usize,
    /// The time that the activity of all nodes covers, at most an hour; `None` if a node does not announce its activity.
    pub covers: Option<Duration>,
    /// For how long the waiting job has been due that has been due longest.
    pub oldest_due_age: Option<Duration>,
    /// The tasks, those that used the most processor time first.
    pub tasks: Vec<TaskSummary>,
    /// The keys that used the most processor time in the last half hour to hour, in microseconds.
    pub keys: Vec<(Key, KeyWeight)>,
}

/// The summary of one task.
#[derive(Clone, Debug)]
pub struct TaskSummary {
    /// The task.
    pub task: TaskName,
    /// Its waiting and its running jobs.
    pub backlog: TaskBacklog,
    /// For how long the job has been due that has been ready longest.
    pub oldest_ready_age: Option<Duration>,
    /// True if a hold is on all jobs of the task.
    pub is_held: bool,
    /// The attempts that ended; `None` if a node does not announce its activity.
    pub activity: Option<TaskActivity>,
}

/// Sums up what all live nodes announced, with `own`, the activity of this node.
///
/// # Errors
///
/// Returns the store's error.
pub(crate) async fn summary(
    store: &WatchedStore,
    (here, own): (NodeId, &Activity),
    declared: Arc<LimitTable>,
) -> Result<Summary, StoreError> {
    let backlog = store.backlog(declared, bounds::FIND_TIME).await?;
    let (nodes, activities, now) = (store.nodes().await?, store.activities().await?, store.now());
    let activities: HashMap<NodeId, Arc<Activity>> = activities.into_iter().collect();
    let is_live = |node: &&Node| node.id != here && node.seen + LOST_AFTER >= now && node.seen <= now + LOST_AFTER;
    let others: Vec<&Node> = nodes.iter().filter(is_live).collect();
    let announced = others.iter().map(|node| activities.get(&node.id).map(|activity| &**activity));
    let activity = Activity::sum([Some(own)].into_iter().chain(announced));

    let mut counts: BTreeMap<TaskName, TaskBacklog> = backlog.tasks;
    for task in activity.iter().flat_map(|activity| activity.tasks.keys()) {
        counts.entry(task.clone()).or_default();
    }
    let held = held_tasks(store, counts.keys()).await?;
    let mut tasks: Vec<TaskSummary> = counts
        .into_iter()
        .map(|(task, backlog)| TaskSummary {
            oldest_ready_age: backlog.oldest_ready.map(|at| now.since(at)),
            backlog,
            is_held: held.contains(&task),
            activity: activity.as_ref().map(|all| all.tasks.get(&task).cloned().unwrap_or_default()),
            task,
        })
        .collect();
    let oldest_due = tasks.iter().filter_map(|of| of.backlog.oldest_due).min();
    let oldest_due_age = oldest_due.map(|at| now.since(at));
    let cpu = |of: &TaskSummary| of.activity.as_ref().map(|activity| activity.hour.cpu);
    // The sort is stable: tasks that used as much stay in the order of their names.
    tasks.sort_by_key(|of| std::cmp::Reverse(cpu(of)));
    Ok(Summary {
        nodes: others.len() + 1,
        covers: activity.as_ref().map(|activity| activity.covers),
        oldest_due_age,
        tasks,
        keys: activity.map(|activity| activity.keys.sorted()).unwrap_or_default(),
    })
}

/// Returns those of these tasks of which all jobs are held.
async fn held_tasks<'t>(
    store: &WatchedStore,
    tasks: impl Iterator<Item = &'t TaskName> + Clone,
) -> Result<BTreeSet<TaskName>, StoreError> {
    let scopes_of = |task: &TaskName| [HoldScope::All, HoldScope::Plugin(task.plugin()), HoldScope::Task(task.clone())];
    let scopes: BTreeSet<HoldScope> = tasks.clone().flat_map(scopes_of).collect();
    let holds: HoldTable = store.holds_of(scopes.into_iter().collect()).await?.into_iter().collect();
    let is_held = |task: &&TaskName| scopes_of(task).iter().any(|scope| holds.get(scope).is_some());
    Ok(tasks.filter(is_held).cloned().collect())
}
