//! Why a waiting job does not run at this moment: what the queue knows, completed by what this host knows.

use std::collections::HashMap;

use wharf_core::budget::MemoryUse;
use wharf_core::ids::{PluginId, TaskName};
use wharf_core::job::WaitReason;
use wharf_core::room::TaskCost;
use wharf_engine::{Budget, Plugin};
use wharf_store::JobSnapshot;

use crate::catalog::runs;
use crate::plugin_view::PluginView;

/// A job, and why it waits.
#[derive(Clone, Debug)]
pub struct JobView {
    /// The job as the store has it.
    pub seen: JobSnapshot,
    /// Why it does not run at this moment; only for a waiting job.
    pub waiting: Option<JobWaitReason>,
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
        /// Why its file on this node was refused, if there is one.
        refused: Option<String>,
    },
    /// The plugin is loaded, but in a version that does not have this task, and no other node runs it.
    TaskAbsent {
        /// The task.
        task: TaskName,
    },
    /// An attempt of its task needs more memory than one can have on any node that runs the task.
    TooLarge {
        /// The memory that the task may use, in bytes.
        needs: u64,
        /// The most that a node can give to one attempt, in bytes.
        most: u64,
    },
    /// This node's budget of memory has no room for it at this moment.
    NoMemory,
    /// This host is stopping; its jobs wait for another one.
    Draining,
}

/// The state of this node at this moment.
pub(crate) struct HereNow<'a> {
    pub(crate) draining: bool,
    pub(crate) budget: &'a Budget,
    /// The cost of an attempt of each task, as the last claim was told.
    pub(crate) costs: &'a HashMap<TaskName, TaskCost>,
}

/// Returns true if the budget has no room for an attempt of the job as it starts.
fn has_no_memory(seen: &JobSnapshot, plugin: &Plugin, here: &HereNow) -> bool {
    let at_start = TaskCost { sandboxes: plugin.sandboxes, bytes: plugin.start_bytes };
    let cost = here.costs.get(&seen.job.task).copied().unwrap_or(at_start).with_payload(seen.job.payload.len() as u64);
    cost.bytes.min(here.budget.most(MemoryUse::Attempts)) > here.budget.free(MemoryUse::Attempts)
}

/// Returns the memory that the task may use, and the most that one attempt can have here, if that is less.
fn too_large_here(task: &TaskName, view: &PluginView) -> Option<(u64, u64)> {
    let plugin = &view.catalog.plugin(&task.plugin())?.plugin;
    let (needs, most) = (runs(plugin).find(|run| run.name == *task)?.memory_bytes, plugin.memory_most());
    (needs > most).then_some((needs, most))
}

/// Returns why a waiting job does not run; `why` is the reason that the queue gives.
pub(crate) fn why_waiting(seen: &JobSnapshot, why: WaitReason, view: &PluginView, here: &HereNow) -> JobWaitReason {
    let (task, catalog, draining) = (&seen.job.task, &view.catalog, here.draining);
    let plugin = task.plugin();
    let is_here = catalog.runs().any(|run| run.name == *task);
    let too_large_here = too_large_here(task, view);
    if (!is_here || too_large_here.is_some()) && view.others.runs(task, view.now) {
        return match (view.others.too_small_for(task, view.now), too_large_here) {
            (Some((needs, most)), None) => JobWaitReason::TooLarge { needs, most },
            (Some((there, most_there)), Some((here, most))) => {
                JobWaitReason::TooLarge { needs: there.min(here), most: most_there.max(most) }
            }
            (None, _) => JobWaitReason::Queue(why),
        };
    }
    if let Some((needs, most)) = too_large_here {
        return JobWaitReason::TooLarge { needs, most };
    }
    match catalog.plugin(&plugin) {
        _ if !is_here && view.loading(&plugin).is_some() => JobWaitReason::PluginLoading { plugin },
        None => {
            let refused = catalog.refusal(&plugin).map(|refused| refused.why.first_line());
            JobWaitReason::PluginAbsent { plugin, refused }
        }
        Some(_) if !is_here => JobWaitReason::TaskAbsent { task: task.clone() },
        Some(_) if draining && why == WaitReason::InTurn => JobWaitReason::Draining,
        Some(loaded) if why == WaitReason::InTurn && has_no_memory(seen, &loaded.plugin, here) => {
            JobWaitReason::NoMemory
        }
        Some(_) => JobWaitReason::Queue(why),
    }
}
