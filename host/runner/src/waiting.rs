//! Why a waiting job does not run at this moment: what the queue can tell, completed by what this host knows.

use wharf_core::ids::{PluginId, TaskName};
use wharf_core::job::Why;
use wharf_store::Seen;

use crate::request::View;

#[derive(Clone, Debug)]
pub struct JobView {
    pub seen: Seen,
    /// Only of a waiting job.
    pub waiting: Option<WhyWaiting>,
}

/// Why a waiting job does not run at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyWaiting {
    /// As far as the queue can tell.
    Queue(Why),
    /// Its plugin is still being made ready, and no node runs it.
    PluginLoading { plugin: PluginId },
    /// No plugin of that name is loaded on any node; if its file here was refused, why.
    PluginAbsent { plugin: PluginId, refused: Option<String> },
    /// The plugin is loaded, but in a version that does not have this task, and no other node runs it.
    TaskAbsent { task: TaskName },
    /// This host is stopping; its jobs wait for the next.
    Draining,
}

pub(crate) fn why_waiting(seen: &Seen, why: Why, view: &View, draining: bool) -> WhyWaiting {
    let (task, catalog) = (&seen.job.task, &view.catalog);
    let plugin = task.plugin();
    let is_here = catalog.runs().any(|run| run.name == *task);
    if !is_here && view.others.runs(task, view.now) {
        return WhyWaiting::Queue(why);
    }
    match catalog.plugin(&plugin) {
        _ if !is_here && view.making(&plugin).is_some() => WhyWaiting::PluginLoading { plugin },
        None => {
            let refused = catalog.refusal(&plugin).map(|refused| refused.why.first_line());
            WhyWaiting::PluginAbsent { plugin, refused }
        }
        Some(_) if !is_here => WhyWaiting::TaskAbsent { task: task.clone() },
        Some(_) if draining && why == Why::InTurn => WhyWaiting::Draining,
        Some(_) => WhyWaiting::Queue(why),
    }
}
