//! Why a waiting job does not run at this moment: what the queue knows, completed by what all live nodes announced.

use wharf_core::ids::{PluginId, TaskName};
use wharf_core::job::WaitReason;
use wharf_core::placement::{NodeFacts, NodeReadiness};
use wharf_store::JobSnapshot;

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
    /// Every node that runs the task is stopping; its jobs wait for another one.
    Draining,
}

/// The node that was asked, as it is at this moment.
pub(crate) struct ThisNode<'n> {
    pub(crate) name: &'n str,
    pub(crate) draining: bool,
    pub(crate) running: u32,
    pub(crate) capacity: u32,
}

/// Returns all live nodes with their readiness to run a task, the readiest first.
pub(crate) fn nodes_for(task: &TaskName, view: &PluginView, here: &ThisNode<'_>) -> Vec<NodeForTask> {
    let (plugin, catalog) = (task.plugin(), &view.catalog);
    let facts = NodeFacts {
        has_plugin: catalog.plugin(&plugin).is_some(),
        runs_task: catalog.runs().any(|run| run.name == *task),
        is_loading: catalog.pending().contains_key(&plugin) || !catalog.is_open(),
        draining: here.draining,
        running: here.running,
        capacity: here.capacity,
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
        NodeReadiness::Draining if why == WaitReason::InTurn => JobWaitReason::Draining,
        NodeReadiness::Draining => JobWaitReason::Queue(why),
        NodeReadiness::Loading => JobWaitReason::PluginLoading { plugin },
        // This node has not heard yet what the others have.
        _ if view.loading(&plugin).is_some() => JobWaitReason::PluginLoading { plugin },
        NodeReadiness::TaskAbsent => JobWaitReason::TaskAbsent { task: task.clone() },
        NodeReadiness::PluginAbsent => {
            let refused = view.catalog.refusal(&plugin).map(|refused| refused.why.first_line());
            JobWaitReason::PluginAbsent { plugin, refused }
        }
    }
}
