//! Why a waiting job does not run at this moment: what the queue knows, completed by what all live nodes announced.

use std::collections::HashMap;

use wharf_core::budget::MemoryUse;
use wharf_core::ids::{PluginId, TaskName};
use wharf_core::job::{Job, WaitReason};
use wharf_core::placement::{NodeFacts, NodeReadiness};
use wharf_core::room::TaskCost;
use wharf_engine::{Budget, Plugin};
use wharf_store::JobSnapshot;

use crate::catalog::runs;
use crate::other_nodes::nearer;
use crate::plugin_view::PluginView;

/// A job, and why it waits.
#[derive(Clone, Debug)]
pub struct JobView {
    /// The job as the store has it.
    pub seen: JobSnapshot,
    /// Why it does not run at this moment; only for a waiting job.
    pub waiting: Option<JobWaitReason>,
    /// The live nodes, the readiest first; only for a waiting job.
    pub nodes: Vec<NodeForTask>,
}

/// A live node, and its readiness to run the jobs of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeForTask {
    /// The node's name.
    pub name: String,
    /// Its readiness, as it announced itself up to three seconds ago.
    pub readiness: NodeReadiness,
}

/// Why a waiting job does not run at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobWaitReason {
    /// The reason that the queue gives.
    Queue(WaitReason),
    /// Its plugin is still loading, and no node runs it.
    PluginLoading {
        /// The plugin.
        plugin: PluginId,
    },
    /// Its plugin is not loaded on any node.
    PluginAbsent {
        /// The plugin.
        plugin: PluginId,
        /// Why its file on the node that was asked was refused, if there is one.
        refused: Option<String>,
    },
    /// Nodes have the plugin, but in versions that do not have this task.
    TaskAbsent {
        /// The task.
        task: TaskName,
    },
    /// An attempt of its task needs more memory than one can have on any node that runs the task.
    TooLarge {
        /// The memory that the task may use, in bytes, on the node that comes nearest to running it.
        needs: u64,
        /// The most that this node can give to one attempt, in bytes.
        most: u64,
    },
    /// The budget of memory of the node that was asked has no room for it at this moment, and no other node runs its task.
    NoMemory,
    /// Every node that runs the task is stopping or drained; its jobs wait for another one.
    Draining,
}

/// The node that was asked, as it is at this moment.
pub(crate) struct ThisNode<'n> {
    pub(crate) name: &'n str,
    pub(crate) draining: bool,
    pub(crate) running: u32,
    pub(crate) capacity: u32,
    pub(crate) budget: &'n Budget,
    /// The cost of an attempt of each task, as the last claim was told.
    pub(crate) costs: &'n HashMap<TaskName, TaskCost>,
}

impl ThisNode<'_> {
    /// Returns true if the budget has room for an attempt of the job as it starts.
    fn has_memory(&self, job: &Job, plugin: &Plugin) -> bool {
        let at_start = TaskCost { sandboxes: plugin.sandboxes, bytes: plugin.start_bytes };
        let cost = self.costs.get(&job.task).copied().unwrap_or(at_start).with_payload(job.payload.len() as u64);
        cost.bytes.min(self.budget.most(MemoryUse::Attempts)) <= self.budget.free(MemoryUse::Attempts)
    }
}

/// Returns the memory that the task may use, and the most that one attempt can have on the node that was asked, if that is less.
fn too_large_here(task: &TaskName, view: &PluginView) -> Option<(u64, u64)> {
    let plugin = &view.catalog.plugin(&task.plugin())?.plugin;
    let (needs, most) = (runs(plugin).find(|run| run.name == *task)?.memory_bytes, plugin.memory_most());
    (needs > most).then_some((needs, most))
}

/// Returns all live nodes with their readiness to run a job, the readiest first. Other nodes do not announce how much of their
/// budget of memory is free.
pub(crate) fn nodes_for(job: &Job, view: &PluginView, here: &ThisNode<'_>) -> Vec<NodeForTask> {
    let (task, plugin, catalog) = (&job.task, job.task.plugin(), &view.catalog);
    let facts = NodeFacts {
        has_plugin: catalog.plugin(&plugin).is_some(),
        runs_task: catalog.runs().any(|run| run.name == *task),
        is_loading: catalog.pending().contains_key(&plugin) || !catalog.is_open(),
        draining: here.draining,
        running: here.running,
        capacity: here.capacity,
        is_too_large: too_large_here(task, view).is_some(),
        has_memory: catalog.plugin(&plugin).is_none_or(|loaded| here.has_memory(job, &loaded.plugin)),
    };
    let mut nodes = vec![NodeForTask { name: here.name.to_owned(), readiness: NodeReadiness::of(facts) }];
    let others = view.others.facts(task, view.now);
    nodes
        .extend(others.map(|(name, facts)| NodeForTask { name: name.to_owned(), readiness: NodeReadiness::of(facts) }));
    nodes.sort_by(|a, b| b.readiness.cmp(&a.readiness).then_with(|| a.name.cmp(&b.name)));
    nodes
}

/// Returns why a waiting job does not run; `why` is the reason that the queue gives, `nodes` are all live nodes, the readiest
/// first.
pub(crate) fn why_waiting(
    seen: &JobSnapshot,
    why: WaitReason,
    view: &PluginView,
    nodes: &[NodeForTask],
) -> JobWaitReason {
    let task = &seen.job.task;
    let plugin = task.plugin();
    match nodes.first().map_or(NodeReadiness::PluginAbsent, |readiest| readiest.readiness) {
        NodeReadiness::Ready | NodeReadiness::Full => JobWaitReason::Queue(why),
        NodeReadiness::NoMemory if why == WaitReason::InTurn => JobWaitReason::NoMemory,
        NodeReadiness::NoMemory => JobWaitReason::Queue(why),
        NodeReadiness::Draining if why == WaitReason::InTurn => JobWaitReason::Draining,
        NodeReadiness::Draining => JobWaitReason::Queue(why),
        NodeReadiness::Loading => JobWaitReason::PluginLoading { plugin },
        NodeReadiness::TooLarge => {
            let found = [too_large_here(task, view), view.others.too_small_for(task, view.now)].into_iter().flatten();
            let nearest = found.reduce(nearer);
            nearest.map_or(JobWaitReason::Queue(why), |(needs, most)| JobWaitReason::TooLarge { needs, most })
        }
        // This node has not heard yet what the others have.
        _ if view.loading(&plugin).is_some() => JobWaitReason::PluginLoading { plugin },
        NodeReadiness::TaskAbsent => JobWaitReason::TaskAbsent { task: task.clone() },
        NodeReadiness::PluginAbsent => {
            let refused = view.catalog.refusal(&plugin).map(|refused| refused.why.first_line());
            JobWaitReason::PluginAbsent { plugin, refused }
        }
    }
}
