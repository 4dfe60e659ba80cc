//! Why a waiting job does not run at this moment: what the queue can tell, completed by what this host knows.

use wharf_core::ids::{PluginId, TaskName};
use wharf_core::job::Why;
use wharf_store::Seen;

use crate::catalog::Catalog;

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
    /// No plugin of that name is loaded here; if its file was refused, why.
    PluginAbsent { plugin: PluginId, refused: Option<String> },
    /// The plugin is loaded, but in a version that does not have this task.
    TaskAbsent { task: TaskName },
    /// This host is stopping; its jobs wait for the next.
    Draining,
}

pub(crate) fn why_waiting(seen: &Seen, why: Why, catalog: &Catalog, draining: bool) -> WhyWaiting {
    let task = &seen.job.task;
    let plugin = task.plugin();
    match catalog.plugin(&plugin) {
        None => {
            let refused = catalog.refusal(&plugin).map(|refused| refused.why.first_line());
            WhyWaiting::PluginAbsent { plugin, refused }
        }
        Some(_) if !catalog.runs().any(|run| run.name == *task) => WhyWaiting::TaskAbsent { task: task.clone() },
        Some(_) if draining && why == Why::InTurn => WhyWaiting::Draining,
        Some(_) => WhyWaiting::Queue(why),
    }
}
