//! The summary of what happens on all hosts.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_core::activity::{EndedAttempts, MINUTE};
use wharf_core::backlog::TaskBacklog;
use wharf_core::bounds;
use wharf_core::find::WaitKind;
use wharf_core::histogram::Histogram;
use wharf_runner as runner;

use super::moment::millis;

/// A summary of all hosts: jobs that wait and run, attempts that ended, and who uses the machines.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Summary {
    /// Number of live hosts.
    pub(crate) hosts: u64,
    /// Seconds that the numbers of the last hour cover on all hosts: fewer than 3600 after a host has started, and what ran on
    /// hosts that are gone is in none of them. `null` if a host does not tell its numbers.
    pub(crate) covers_s: Option<u64>,
    /// Milliseconds for which the waiting job has been due that has been due longest, held or not; `null` if none waits.
    pub(crate) oldest_due_ms: Option<f64>,
    /// Tasks, those that used the most processor time in the last hour first.
    pub(crate) tasks: Vec<TaskSummary>,
    /// True if there are more tasks than are listed.
    pub(crate) more: bool,
    /// Keys that used the most processor time in the last half hour to hour, the first one the most; present with `keys`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keys: Option<Vec<KeySummary>>,
}

/// The summary of one task.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct TaskSummary {
    /// Task, as PLUGIN/TASK.
    pub(crate) task: String,
    /// Number of waiting jobs, due or not.
    pub(crate) waiting: u64,
    /// Why they wait.
    pub(crate) waits: WaitCounts,
    /// Milliseconds for which the job has been due that has been ready longest; `null` if none is ready.
    pub(crate) oldest_ready_ms: Option<f64>,
    /// Number of running jobs.
    pub(crate) running: u64,
    /// True if a hold is on all jobs of the task.
    pub(crate) held: bool,
    /// Number of attempts that began in the last minute, or up to five seconds less; `null` if a host has run for less than a minute.
    #[serde(default)]
    pub(crate) started: Option<u64>,
    /// Attempts that ended in the last minute, or up to five seconds less; `null` if a host has run for less than a minute.
    pub(crate) minute: Option<EndedCounts>,
    /// Attempts that ended in the last hour, or up to five minutes less; `null` if a host has run for less than a minute.
    pub(crate) hour: Option<EndedCounts>,
    /// Times for which the jobs of the last hour waited, from when they were due; `null` if it is not known or there are none.
    pub(crate) wait: Option<Quantiles>,
    /// Times for which the attempts of the last hour ran; `null` if it is not known or there are none.
    pub(crate) run: Option<Quantiles>,
}

/// Waiting jobs by why they wait. They are not counted to the last one: a summary looks at some thousands.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct WaitCounts {
    /// Number of jobs that could start: they wait for their turn, for room on a host, or for their plugin.
    pub(crate) ready: u64,
    /// Number of jobs that a limit keeps waiting.
    pub(crate) blocked: u64,
    /// Number of jobs that a hold keeps waiting.
    pub(crate) held: u64,
    /// Number of jobs that are not due and have not been attempted.
    pub(crate) delayed: u64,
    /// Number of jobs that wait for their next attempt.
    pub(crate) retrying: u64,
    /// True if not all waiting jobs were looked at, so that there may be more of each kind.
    pub(crate) more: bool,
}

/// Attempts that ended in a window of time.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct EndedCounts {
    /// Number of attempts that ended.
    pub(crate) ended: u64,
    /// Number of attempts among them that failed.
    pub(crate) failed: u64,
    /// Processor time of the guests, in milliseconds.
    pub(crate) cpu_ms: f64,
    /// Greatest peak of memory of one attempt, in bytes.
    pub(crate) memory_peak_bytes: u64,
}

/// Quantiles of lengths of time, each within an eighth of the true one.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Quantiles {
    /// Half of them are no longer than this, in milliseconds.
    pub(crate) p50_ms: f64,
    /// Ninety-nine of a hundred are no longer than this, in milliseconds.
    pub(crate) p99_ms: f64,
}

/// A key, and the processor time of its guests.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct KeySummary {
    /// Key of the jobs.
    pub(crate) key: String,
    /// Processor time in milliseconds: at least the true one.
    pub(crate) cpu_ms: f64,
    /// At most so many milliseconds of it belong to other keys.
    pub(crate) error_ms: f64,
}

/// The query of a summary.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SummaryQuery {
    /// Number of keys to list, from 1 to 100; no keys by default.
    pub(crate) keys: Option<u32>,
}

impl Summary {
    /// Returns the document of a summary, with at most `keys` keys.
    pub(crate) fn new(summary: runner::Summary, keys: Option<u32>) -> Summary {
        let runner::Summary { nodes, covers, oldest_due_age, mut tasks, keys: top } = summary;
        let is_known = covers.is_some_and(|covers| covers >= MINUTE);
        let more = tasks.len() > bounds::PAGE_MAX as usize;
        tasks.truncate(bounds::PAGE_MAX as usize);
        let micros = |micros: u64| millis(Duration::from_micros(micros));
        let key = |(key, of): &(_, wharf_core::top_keys::KeyWeight)| -> KeySummary {
            let key: &wharf_core::key::Key = key;
            KeySummary { key: key.to_string(), cpu_ms: micros(of.weight), error_ms: micros(of.error) }
        };
        Summary {
            hosts: nodes as u64,
            covers_s: covers.map(|covers| covers.as_secs()),
            oldest_due_ms: oldest_due_age.map(millis),
            tasks: tasks.into_iter().map(|task| TaskSummary::new(task, is_known)).collect(),
            more,
            keys: keys.map(|max| top.iter().take(max as usize).map(key).collect()),
        }
    }
}

impl TaskSummary {
    fn new(of: runner::TaskSummary, is_known: bool) -> TaskSummary {
        let activity = of.activity.filter(|_| is_known);
        TaskSummary {
            task: of.task.to_string(),
            waiting: of.backlog.waiting,
            waits: WaitCounts::from(&of.backlog),
            oldest_ready_ms: of.oldest_ready_age.map(millis),
            running: of.backlog.running,
            held: of.is_held,
            started: activity.as_ref().map(|activity| activity.started),
            minute: activity.as_ref().map(|activity| EndedCounts::from(&activity.minute)),
            hour: activity.as_ref().map(|activity| EndedCounts::from(&activity.hour)),
            wait: activity.as_ref().and_then(|activity| Quantiles::of(&activity.wait)),
            run: activity.as_ref().and_then(|activity| Quantiles::of(&activity.run)),
        }
    }
}

impl From<&TaskBacklog> for WaitCounts {
    fn from(of: &TaskBacklog) -> WaitCounts {
        WaitCounts {
            ready: of.count(WaitKind::Ready),
            blocked: of.count(WaitKind::Blocked),
            held: of.count(WaitKind::Held),
            delayed: of.count(WaitKind::Delayed),
            retrying: of.count(WaitKind::Retrying),
            more: of.has_more(),
        }
    }
}

impl From<&EndedAttempts> for EndedCounts {
    fn from(of: &EndedAttempts) -> EndedCounts {
        let EndedAttempts { ended, failed, cpu, memory_peak_bytes } = *of;
        EndedCounts { ended, failed, cpu_ms: millis(cpu), memory_peak_bytes }
    }
}

impl Quantiles {
    fn of(lengths: &Histogram) -> Option<Quantiles> {
        Some(Quantiles { p50_ms: millis(lengths.quantile(0.5)?), p99_ms: millis(lengths.quantile(0.99)?) })
    }
}
