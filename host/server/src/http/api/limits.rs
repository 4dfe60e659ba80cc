//! Limit groups, and the limits that operators set.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_core::limits::Limits;
use wharf_runner::{self as runner, GroupLimits};

use super::moment::millis;

/// A limit group: the limits in force, their sources, and the number of jobs that run.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Limit {
    /// Name of the group.
    pub(crate) group: String,
    /// Tasks of loaded plugins that share the group.
    pub(crate) tasks: Vec<String>,
    /// Number of jobs with one key that may run at once, in force now; `null` means unlimited, 0 is a pause.
    pub(crate) per_key: Option<u32>,
    /// Number of jobs of the group that may run at once, in force now; `null` means unlimited, 0 is a pause.
    pub(crate) total: Option<u32>,
    /// Limits that manifests and wharf.toml declare.
    pub(crate) declared: LimitNumbers,
    /// Limits that were set for the group while hosts run.
    pub(crate) set: Option<LimitNumbers>,
    /// Limits that were set for single keys while hosts run.
    pub(crate) keys: Vec<KeyLimit>,
    /// Number of jobs of the group that run now.
    pub(crate) running: u64,
    /// The due jobs of the group that wait.
    #[serde(default)]
    pub(crate) waiting: WaitingJobs,
    /// The keys whose jobs run or wait, those with the most waiting ones first, at most 100.
    #[serde(default)]
    pub(crate) lanes: Vec<LaneUse>,
}

/// The due jobs of a limit group, or of one of its keys, that wait. They are not counted to the last one: a look at thousands is
/// bounded.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct WaitingJobs {
    /// Number of jobs.
    pub(crate) due: u64,
    /// True if not all waiting jobs were looked at, so that there may be more.
    pub(crate) more: bool,
    /// Milliseconds for which the first of them has been due; `null` if there are none.
    pub(crate) oldest_ms: Option<f64>,
}

/// The jobs of one key in a limit group that run and wait.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LaneUse {
    /// The key; `null` for the jobs that have none.
    pub(crate) key: Option<String>,
    /// Number of jobs with this key that may run at once; `null` means unlimited.
    pub(crate) per_key: Option<u32>,
    /// Number of running jobs: they hold the slots.
    pub(crate) running: u64,
    /// The due jobs that wait.
    pub(crate) waiting: WaitingJobs,
}

/// A limit that was set for one key.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct KeyLimit {
    /// The key.
    pub(crate) key: String,
    /// Number of jobs with this key that may run at once; 0 is a pause.
    pub(crate) per_key: Option<u32>,
}

/// The two numbers of a limit; `null` or absent means unlimited, 0 is a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitNumbers {
    /// Number of jobs with one key that may run at once.
    #[serde(default)]
    pub(crate) per_key: Option<u32>,
    /// Number of jobs of the group that may run at once.
    #[serde(default)]
    pub(crate) total: Option<u32>,
}

/// The query of a request that sets or removes a limit.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitQuery {
    /// A limit group: its name, or a task, as PLUGIN/TASK.
    pub(crate) group: String,
    /// A key, for a limit of this key only.
    pub(crate) key: Option<String>,
}

impl From<Limits> for LimitNumbers {
    fn from(limits: Limits) -> LimitNumbers {
        LimitNumbers { per_key: limits.per_key, total: limits.total }
    }
}

impl From<LimitNumbers> for Limits {
    fn from(numbers: LimitNumbers) -> Limits {
        Limits { per_key: numbers.per_key, total: numbers.total }
    }
}

impl From<runner::WaitingJobs> for WaitingJobs {
    fn from(of: runner::WaitingJobs) -> WaitingJobs {
        WaitingJobs { due: of.due, more: of.more, oldest_ms: of.oldest_age.map(millis) }
    }
}

impl From<&runner::LaneUse> for LaneUse {
    fn from(of: &runner::LaneUse) -> LaneUse {
        let key = of.key.as_ref().map(ToString::to_string);
        LaneUse { key, per_key: of.per_key, running: of.running, waiting: of.waiting.into() }
    }
}

impl From<&GroupLimits> for Limit {
    fn from(limit: &GroupLimits) -> Limit {
        let keys = limit.keys.iter().map(|(key, limits)| KeyLimit { key: key.to_string(), per_key: limits.per_key });
        Limit {
            group: limit.group.to_string(),
            tasks: limit.tasks.iter().map(ToString::to_string).collect(),
            per_key: limit.in_force.per_key,
            total: limit.in_force.total,
            declared: limit.declared.into(),
            set: limit.set.map(LimitNumbers::from),
            keys: keys.collect(),
            running: limit.running,
            waiting: limit.waiting.into(),
            lanes: limit.lanes.iter().map(LaneUse::from).collect(),
        }
    }
}
