//! Why requests to enqueue jobs are rejected, and the texts that say so.

use wharf_core::ids::{ParseIdError, PluginId, TaskName};
use wharf_core::key::Key;
use wharf_core::schedule::TOKEN_PREFIX;
use wharf_engine::PayloadError;

use crate::plugin_view::LoadingWhere;

/// Why one request is rejected. Each variant calls for another correction by the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// The task name does not parse.
    #[error("task: {0}")]
    BadTask(ParseIdError),
    /// No node has the task.
    #[error("task: {}", unknown(.task, .nearest.as_ref(), .refused.as_deref()))]
    UnknownTask {
        /// The task of the request.
        task: TaskName,
        /// The known task with the most similar name.
        nearest: Option<TaskName>,
        /// Why the file of the plugin was refused, if there is one and nothing of the plugin is loaded.
        refused: Option<String>,
    },
    /// Transient: this node has just started, or the plugin is still loading.
    #[error("task: {}", describe_loading(.task, .at))]
    Loading {
        /// The task of the request.
        task: TaskName,
        /// The place where its plugin is loading.
        at: LoadingWhere,
    },
    /// Transient if the plugin comes to this node as well; otherwise the request must go to one of the other nodes.
    #[error(
        "task: `{task}` is loaded only on other hosts, and this one cannot check its jobs; send the request to {}, or try again when plugin `{}` is loaded here",
        .nodes.join(" or "), .task.plugin()
    )]
    Elsewhere {
        /// The task of the request.
        task: TaskName,
        /// The names of the nodes that have it.
        nodes: Vec<String>,
    },
    /// The task is the `receive` of a subscriber.
    #[error("task: only durable broadcasts enqueue jobs of `{0}`; broadcast to a topic of this subscriber instead")]
    OfBroadcasts(TaskName),
    /// The payload does not suit the task.
    #[error("payload: {0}")]
    PayloadError(PayloadError),
    /// The payload is too large.
    #[error("payload is {bytes} bytes; the limit is {max}")]
    PayloadTooLarge {
        /// The size in bytes.
        bytes: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// The key does not parse.
    #[error("key: {0}")]
    ParseKeyError(ParseIdError),
    /// The token does not parse.
    #[error("token: {0}")]
    BadToken(ParseIdError),
    /// The token is one of those that only schedules give to jobs.
    #[error("token: expected one that does not begin with `{}`: only schedules have such tokens", TOKEN_PREFIX)]
    TokenOfSchedules,
    /// The client may enqueue jobs of one key only, and this is not it.
    #[error("key: this client may enqueue jobs of key `{only}` only, and {place} names `{named}`")]
    KeyForbidden {
        /// The only key that the client may use.
        only: Key,
        /// The part of the request that names another one.
        place: &'static str,
        /// The other key.
        named: Key,
    },
    /// Both `delay` and `at` are set.
    #[error("delay: expected either `delay` or `at`, got both")]
    DelayAndAt,
}

impl BadRequest {
    /// Returns true if the same request may be accepted later, unchanged.
    pub fn is_passing(&self) -> bool {
        matches!(self, BadRequest::Loading { .. } | BadRequest::Elsewhere { .. })
    }
}

/// Why none of the requests was accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueRejection {
    /// Requests are invalid: each problem with the index of its request, from 0. There may be more than are listed.
    #[error("{}", each(.0))]
    Requests(Vec<(usize, BadRequest)>),
    /// There are too many jobs in one request.
    #[error("the request has {jobs} jobs; the limit is {max}: send them in parts")]
    TooMany {
        /// Number of jobs in the request.
        jobs: usize,
        /// The limit.
        max: usize,
    },
    /// Checking the payloads of one request against their tasks' schemas could take too long.
    #[error(
        "checking the payloads of the request against their tasks' schemas may take more than {max} steps, which is the \
         limit: send them in parts"
    )]
    TooManyChecks {
        /// The limit.
        max: u64,
    },
    /// The payloads of one request together are too large.
    #[error("the payloads of the request are {bytes} bytes; the limit is {max}: send them in parts")]
    TooLarge {
        /// Their size in bytes.
        bytes: u64,
        /// The limit in bytes.
        max: u64,
    },
}

impl EnqueueRejection {
    /// Keeps the first problems; a transient one is left out rather than one that is not.
    pub(crate) fn of(mut problems: Vec<(usize, BadRequest)>) -> EnqueueRejection {
        problems.sort_by_key(|(index, problem)| (problem.is_passing(), *index));
        problems.truncate(PROBLEMS_MAX);
        // Those of one request stay in their order.
        problems.sort_by_key(|(index, _)| *index);
        EnqueueRejection::Requests(problems)
    }

    /// Returns true if the same requests may be accepted later, unchanged.
    pub fn is_passing(&self) -> bool {
        matches!(self, EnqueueRejection::Requests(problems) if problems.iter().all(|(_, problem)| problem.is_passing()))
    }

    /// Returns the plugins that are still loading, if nothing else is wrong with the requests.
    pub fn plugins_loading(&self) -> Option<Vec<PluginId>> {
        let EnqueueRejection::Requests(problems) = self else { return None };
        let plugin = |(_, problem): &(usize, BadRequest)| match problem {
            BadRequest::Loading { task, .. } => Some(task.plugin()),
            _ => None,
        };
        let mut plugins = problems.iter().map(plugin).collect::<Option<Vec<_>>>()?;
        plugins.sort_unstable();
        plugins.dedup();
        Some(plugins)
    }
}

fn describe_loading(task: &TaskName, at: &LoadingWhere) -> String {
    let loading = |host: &str| format!("plugin `{}` is still loading on {host}; try again in a moment", task.plugin());
    match at {
        LoadingWhere::Here => loading("this host"),
        LoadingWhere::There(node) => loading(node),
        LoadingWhere::Again(why) => format!(
            "plugin `{}` could not be loaded: {why}; this host tries again by itself: try again later",
            task.plugin()
        ),
        LoadingWhere::Unknown => {
            format!("`{task}` is not known yet, since this host has just started; try again in a moment")
        }
    }
}

fn unknown(task: &TaskName, nearest: Option<&TaskName>, refused: Option<&str>) -> String {
    match (refused, nearest) {
        (Some(why), _) => format!("unknown task `{task}`; plugin `{}` could not be loaded: {why}", task.plugin()),
        (None, Some(near)) => format!("unknown task `{task}`; did you mean `{near}`?"),
        (None, None) => {
            format!("unknown task `{task}`; no plugin has it: is `{}.wasm` in the plugin folder?", task.plugin())
        }
    }
}

fn each(problems: &[(usize, BadRequest)]) -> String {
    let one = |(index, problem): &(usize, BadRequest)| match problems {
        [_] if *index == 0 => problem.to_string(),
        _ => format!("job {index}: {problem}"),
    };
    problems.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// The maximum number of problems that are reported for one batch.
pub(crate) const PROBLEMS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permanent_problem_is_reported_among_many_transient_ones() {
        let transient = || BadRequest::Loading { task: "words/count".parse().unwrap(), at: LoadingWhere::Here };
        let permanent = BadRequest::PayloadTooLarge { bytes: 2, max: 1 };
        let mut problems: Vec<_> = (0..2 * PROBLEMS_MAX).map(|index| (index, transient())).collect();
        assert!(EnqueueRejection::of(problems.clone()).plugins_loading().is_some());
        problems.push((2 * PROBLEMS_MAX, permanent.clone()));
        let rejected = EnqueueRejection::of(problems);
        assert!(!rejected.is_passing() && rejected.plugins_loading().is_none());
        let EnqueueRejection::Requests(kept) = rejected else { panic!("problems are reported") };
        assert_eq!((kept.len(), kept.last()), (PROBLEMS_MAX, Some(&(2 * PROBLEMS_MAX, permanent))));
    }
}
