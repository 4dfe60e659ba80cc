//! Jobs as they are read: one, a page of a list, or counts.

use std::collections::BTreeMap;

use wharf_core::ids::{Group, JobId, PluginId, TaskName};
use wharf_core::job::{Job, StateName, Token, WaitReason};
use wharf_core::key::Key;

/// A job with the data that is derived when it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSnapshot {
    /// The job.
    pub job: Job,
    /// Why it does not run, if it waits.
    pub why: Option<WaitReason>,
    /// The number of the last entry in its log.
    pub entries: u64,
}

/// A filter for a list of jobs. A job must match all filters that are present.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Only jobs in this state.
    pub state: Option<StateName>,
    /// Only jobs of this task.
    pub task: Option<TaskName>,
    /// Only jobs with this key.
    pub key: Option<Key>,
    /// Only jobs with this idempotency token: at most one of each task and key.
    pub token: Option<Token>,
    /// Only jobs of this durable broadcast.
    pub batch: Option<JobId>,
    /// Only jobs with a lower ID, such as the last one of the previous page.
    pub before: Option<JobId>,
    /// The length of the page, from 1 to `bounds::PAGE_MAX`.
    pub max: u32,
}

/// A page of a list of jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobPage {
    /// The jobs, newest first.
    pub jobs: Vec<Job>,
    /// True if older jobs match, too.
    pub more: bool,
}

/// Returns the counts of plugins, as sums over their tasks.
pub(crate) fn by_plugin(tasks: impl IntoIterator<Item = (TaskName, u64)>) -> BTreeMap<PluginId, u64> {
    let mut plugins = BTreeMap::new();
    for (task, count) in tasks.into_iter().filter(|(_, count)| *count > 0) {
        *plugins.entry(task.plugin()).or_default() += count;
    }
    plugins
}

/// Counts of the jobs in the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Each task with its number of waiting jobs (due or not) and its number of running jobs.
    pub tasks: Vec<(TaskName, u64, u64)>,
    /// Each group with its number of running jobs.
    pub groups: Vec<(Group, u64)>,
}
