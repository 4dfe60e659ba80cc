//! Why a waiting job does not run at this moment: what the queue can tell, completed by what this host knows.

use wharf_core::ids::{PluginId, TaskName};
use wharf_core::job::WaitReason;
use wharf_store::JobSnapshot;

use crate::request::View;

#[derive(Clone, Debug)]
pub struct JobView {
    pub seen: JobSnapshot,
    /// Only of a waiting job.
    pub waiting: Option<JobWaitReason>,
}

/// Why a waiting job does not run at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobWaitReason {
    /// As far as the queue can tell.
    Queue(WaitReason),
    /// Its plugin is still being made ready, and no node runs it.
    PluginLoading { plugin: PluginId },
    /// No plugin of that name is loaded on any node; if its file here was refused, why.
    PluginAbsent { plugin: PluginId, refused: Option<String> },
    /// The plugin is loaded, but in a version that does not have this task, and no other node runs it.
    TaskAbsent { task: TaskName },
    /// This host is stopping; its jobs wait for the next.
    Draining,
}

pub(crate) fn why_waiting(seen: &JobSnapshot, why: WaitReason, view: &View, draining: bool) -> JobWaitReason {
    let (task, catalog) = (&seen.job.task, &view.catalog);
    let plugin = task.plugin();
    let is_here = catalog.runs().any(|run| run.name == *task);
    if !is_here && view.others.runs(task, view.now) {
        return JobWaitReason::Queue(why);
    }
    match catalog.plugin(&plugin) {
        _ if !is_here && view.making(&plugin).is_some() => JobWaitReason::PluginLoading { plugin },
        None => {
            let refused = catalog.refusal(&plugin).map(|refused| refused.why.first_line());
            JobWaitReason::PluginAbsent { plugin, refused }
        }
        Some(_) if !is_here => JobWaitReason::TaskAbsent { task: task.clone() },
        Some(_) if draining && why == WaitReason::InTurn => JobWaitReason::Draining,
        Some(_) => JobWaitReason::Queue(why),
    }
}
