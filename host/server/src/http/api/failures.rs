//! Failure groups: the jobs that failed with one fingerprint.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_core::bounds::FAILURE_KEYS_MAX;
use wharf_core::failure;

use super::moment::Moment;
use super::values::{FailureState, Outcome};

/// A failure group: the jobs that failed with one fingerprint.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Failure {
    /// The fingerprint, such as `f1:7c7dabcd45b86bc5`.
    pub(crate) fingerprint: String,
    /// The state. A resolved group is opened again by a failure of a plugin that was loaded first after the resolve.
    pub(crate) state: FailureState,
    /// The task, as PLUGIN/TASK.
    pub(crate) task: String,
    /// The outcome of the last attempts.
    pub(crate) outcome: Outcome,
    /// First line of the reports, without numbers, times, IDs, hashes and quoted texts.
    pub(crate) message: String,
    /// Number of times that a job failed; one that was retried and failed again counts again.
    pub(crate) count: u64,
    /// Number of different keys of the jobs, counted up to 1,000.
    pub(crate) keys: u32,
    /// True if there may be more keys than are counted.
    pub(crate) more_keys: bool,
    /// When a job failed first.
    pub(crate) first_seen_at: Moment,
    /// When a job failed last.
    pub(crate) last_seen_at: Moment,
    /// When the state changed last; `null` if it never did.
    pub(crate) changed_at: Option<Moment>,
    /// Name of the token with which the state was changed last; `null` if the host asks for none, or after a regression.
    pub(crate) changed_by: Option<String>,
    /// When the group last came back after it was resolved; `null` if it never did.
    pub(crate) regressed_at: Option<Moment>,
    /// The versions of the plugin that failed last, the last one first; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) versions: Option<Vec<FailureVersion>>,
    /// The jobs that failed last, the last one first; absent in lists. Deleted jobs are not among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) samples: Option<Vec<FailureSample>>,
}

/// The failures of a group with one version of the plugin.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FailureVersion {
    /// Version of the plugin.
    pub(crate) version: String,
    /// SHA-256 of the plugin's file, in hex.
    pub(crate) digest: String,
    /// Number of times that a job failed with this digest.
    pub(crate) count: u64,
    /// When a job failed first with this digest.
    pub(crate) first_seen_at: Moment,
    /// When a job failed last with this digest.
    pub(crate) last_seen_at: Moment,
}

/// A job of a failure group, as an example.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FailureSample {
    /// ID of the job.
    pub(crate) job: String,
    /// When the job failed.
    pub(crate) failed_at: Moment,
    /// First line of its report, of at most 500 bytes.
    pub(crate) message: String,
}

/// A page of a list of failure groups.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FailurePage {
    /// The groups, the one that failed last first.
    pub(crate) failures: Vec<Failure>,
    /// Address of the next page, relative to the address of the request; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "uri-reference"))]
    pub(crate) next: Option<String>,
}

/// The query of a list of failure groups.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailuresQuery {
    /// Only groups in this state.
    pub(crate) state: Option<FailureState>,
    /// Only groups of this task, as PLUGIN/TASK.
    pub(crate) task: Option<String>,
    /// Only groups after this place in the list; `next` of a page has it.
    pub(crate) after: Option<String>,
    /// Number of groups on a page; 100 by default.
    pub(crate) limit: Option<u32>,
}

impl Failure {
    /// Returns the document of a group with its versions and samples.
    pub(crate) fn whole(details: &failure::FailureDetails) -> Failure {
        Failure {
            versions: Some(details.versions.iter().map(FailureVersion::from).collect()),
            samples: Some(details.samples.iter().map(FailureSample::from).collect()),
            ..Failure::from(&details.group)
        }
    }
}

impl From<&failure::FailureGroup> for Failure {
    fn from(group: &failure::FailureGroup) -> Failure {
        let changed = group.changed.as_ref();
        Failure {
            fingerprint: group.fingerprint.to_string(),
            state: group.state.into(),
            task: group.task.to_string(),
            outcome: group.outcome.into(),
            message: group.message.clone(),
            count: group.count,
            keys: group.keys,
            more_keys: group.keys >= FAILURE_KEYS_MAX,
            first_seen_at: Moment(group.first_seen),
            last_seen_at: Moment(group.last_seen),
            changed_at: changed.map(|change| Moment(change.at)),
            changed_by: changed.and_then(|change| change.by.clone()),
            regressed_at: group.regressed.map(Moment),
            versions: None,
            samples: None,
        }
    }
}

impl From<&failure::FailureVersion> for FailureVersion {
    fn from(version: &failure::FailureVersion) -> FailureVersion {
        FailureVersion {
            version: version.version.clone(),
            digest: version.digest.clone(),
            count: version.count,
            first_seen_at: Moment(version.first_seen),
            last_seen_at: Moment(version.last_seen),
        }
    }
}

impl From<&failure::FailureSample> for FailureSample {
    fn from(sample: &failure::FailureSample) -> FailureSample {
        FailureSample { job: sample.job.to_string(), failed_at: Moment(sample.at), message: sample.message.clone() }
    }
}
