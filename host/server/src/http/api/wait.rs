//! The reason why a job waits.

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_core::ids::JobId;
use wharf_core::job::WaitReason;
use wharf_core::placement::NodeReadiness;
use wharf_core::time::Timestamp;
use wharf_runner::{JobView, JobWaitReason, NodeForTask};

use super::holds::Hold;
use super::moment::Moment;
use super::values::{HostReadiness, WaitReasonName};

/// Number of hosts that a reason names.
const HOSTS_NAMED: usize = 10;

/// Reason why a job waits, with its details.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Wait {
    /// The reason, for programs.
    pub(crate) reason: WaitReasonName,
    /// The reason in words, with its details.
    pub(crate) message: String,
    /// The job waits at least until this moment; present with `not-due`, and with `held` if the hold ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Moment>,
    /// The limit that is reached; present with `lane-full` and `group-full`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u32>,
    /// The running jobs that hold the slots of the limit, the first ten; present with `lane-full` and `group-full`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) holders: Vec<Holder>,
    /// The hold on the job that lasts longest; present with `held`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hold: Option<Hold>,
    /// The live hosts, the readiest to run the task first, at most ten; absent with the reasons that do not depend on hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) hosts: Vec<WaitingFor>,
}

/// A host, as it announced itself up to three seconds ago.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct WaitingFor {
    /// Name of the host.
    pub(crate) name: String,
    /// Its readiness to run the task.
    pub(crate) readiness: HostReadiness,
}

/// A running job that holds a slot of a limit.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Holder {
    /// ID of the job.
    pub(crate) id: String,
    /// When it took the slot.
    pub(crate) since: Moment,
}

impl Wait {
    fn new(reason: WaitReasonName, message: impl Into<String>) -> Wait {
        Wait {
            reason,
            message: message.into(),
            until: None,
            limit: None,
            holders: Vec::new(),
            hold: None,
            hosts: Vec::new(),
        }
    }

    fn full(reason: WaitReasonName, what: &str, limit: u32, holders: &[(JobId, Timestamp)]) -> Wait {
        let ids: Vec<String> = holders.iter().map(|(id, _)| id.to_string()).collect();
        // A client that is bound to a key is not told who holds the slots of a group.
        let names = if ids.is_empty() { String::new() } else { format!(": {}", ids.join(", ")) };
        let message = format!("{what} has its limit of {limit} running{names}");
        let holders = holders.iter().map(|(id, since)| Holder { id: id.to_string(), since: Moment(*since) }).collect();
        Wait { limit: Some(limit), holders, ..Wait::new(reason, message) }
    }
}

impl Wait {
    /// Returns why a job waits; `None` for a job that does not wait.
    pub(crate) fn of(view: &JobView) -> Option<Wait> {
        let reason = view.waiting.as_ref()?;
        let mut wait = Wait::from(reason);
        if matches!(reason, JobWaitReason::Queue(WaitReason::InTurn)) && !view.nodes.is_empty() {
            let count = |readiness| view.nodes.iter().filter(|node| node.readiness == readiness).count();
            if let (0, full @ 1..) = (count(NodeReadiness::Ready), count(NodeReadiness::Full)) {
                let hosts = if full == 1 { "the host that runs" } else { "each host that runs" };
                wait.message = format!("{hosts} its task has as many attempts as it may have; it starts when one ends");
            }
        }
        if !matches!(reason, JobWaitReason::Queue(why) if *why != WaitReason::InTurn) {
            let host = |node: &NodeForTask| WaitingFor { name: node.name.clone(), readiness: node.readiness.into() };
            wait.hosts = view.nodes.iter().take(HOSTS_NAMED).map(host).collect();
        }
        Some(wait)
    }
}

impl From<&JobWaitReason> for Wait {
    fn from(reason: &JobWaitReason) -> Wait {
        match reason {
            JobWaitReason::Queue(reason) => reason.into(),
            JobWaitReason::PluginLoading { plugin } => {
                Wait::new(WaitReasonName::PluginLoading, format!("plugin `{plugin}` is still loading"))
            }
            JobWaitReason::PluginAbsent { plugin, refused: Some(problem) } => {
                Wait::new(WaitReasonName::PluginAbsent, format!("could not load plugin `{plugin}`: {problem}"))
            }
            JobWaitReason::PluginAbsent { plugin, refused: None } => Wait::new(
                WaitReasonName::PluginAbsent,
                format!("`{plugin}.wasm` is not in the plugin folder, and no other host has it"),
            ),
            JobWaitReason::TaskAbsent { task } => Wait::new(
                WaitReasonName::TaskAbsent,
                format!("no host has plugin `{}` with the task `{}`", task.plugin(), task.task()),
            ),
            JobWaitReason::TooLarge { needs, most } => Wait::new(
                WaitReasonName::TooLarge,
                format!(
                    "its task may use {} of memory, and no host that runs it can give more than {} to one attempt; raise \
                     `memory.budget` of a host, or lower the task's memory in wharf.toml",
                    ByteSize(*needs).display().iec(),
                    ByteSize(*most).display().iec()
                ),
            ),
            JobWaitReason::NoMemory => Wait::new(
                WaitReasonName::NoMemory,
                "this host's budget of memory (`memory.budget`) is full; it starts when others end",
            ),
            JobWaitReason::Draining => Wait::new(
                WaitReasonName::Draining,
                "every host that has its task is stopping or draining; it runs once one of them is resumed or restarted, or another host \
                 has the task",
            ),
        }
    }
}

impl From<&WaitReason> for Wait {
    fn from(reason: &WaitReason) -> Wait {
        match reason {
            WaitReason::NotDue { until } => {
                let until = Moment(*until);
                let message = format!("it is not due before {:.0}", until.date());
                Wait { until: Some(until), ..Wait::new(WaitReasonName::NotDue, message) }
            }
            WaitReason::Held(hold) => Wait {
                until: hold.until.map(Moment),
                hold: Some(hold.as_ref().into()),
                ..Wait::new(WaitReasonName::Held, Hold::from(hold.as_ref()).text())
            },
            WaitReason::LaneFull { limit, holders } => Wait::full(WaitReasonName::LaneFull, "its key", *limit, holders),
            WaitReason::GroupFull { limit, holders } => {
                Wait::full(WaitReasonName::GroupFull, "its limit group", *limit, holders)
            }
            WaitReason::Paused => Wait::new(
                WaitReasonName::Paused,
                "its limit is 0, which pauses it; `wharf limit set` or `wharf limit clear` ends that",
            ),
            WaitReason::InTurn => Wait::new(
                WaitReasonName::InTurn,
                "other jobs are before it, every sandbox is busy, or its task already uses all processors",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_lane_names_the_jobs_that_fill_it() {
        let id: JobId = "0000000000001".parse().unwrap();
        let wait = Wait::from(&WaitReason::LaneFull { limit: 1, holders: vec![(id, Timestamp::ZERO)] });
        assert_eq!((wait.reason, wait.limit), (WaitReasonName::LaneFull, Some(1)));
        assert_eq!(wait.message, "its key has its limit of 1 running: 0000000000001");
    }
}
