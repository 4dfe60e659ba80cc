//! The attempts of a job that ended without a result.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_core::attempt;

use super::jobs::Usage;
use super::moment::Moment;
use super::values::Outcome;

/// The attempts of a job that ended without a result.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct AttemptList {
    /// The attempts in the order of their numbers: the first five and the last twenty.
    pub(crate) attempts: Vec<Attempt>,
    /// Number of attempts that are left out, between the first five and the last twenty.
    pub(crate) left_out: u32,
}

/// An attempt that ended without a result.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Attempt {
    /// Number of the attempt, from 1.
    pub(crate) number: u32,
    /// ID of the node that had the lease.
    pub(crate) node: String,
    /// Name of the node; `null` if the attempt ended with its host, or never started.
    pub(crate) node_name: Option<String>,
    /// Version of the plugin; `null` if the attempt ended with its host, or never started.
    pub(crate) plugin_version: Option<String>,
    /// SHA-256 of the plugin's file, in hex; `null` if the attempt ended with its host, or never started.
    pub(crate) digest: Option<String>,
    /// When the job was claimed for the attempt.
    pub(crate) started_at: Option<Moment>,
    /// When the end was recorded. The host of an attempt that ended with it was gone before.
    pub(crate) ended_at: Moment,
    /// The outcome.
    pub(crate) outcome: Outcome,
    /// First line of the report.
    pub(crate) summary: String,
    /// Description of what happened, of at most 4 KiB.
    pub(crate) report: String,
    /// Fingerprint of the failure; `null` if the attempt did not fail.
    pub(crate) fingerprint: Option<String>,
    /// Resource usage; `null` if nobody measured it.
    pub(crate) usage: Option<Usage>,
}

impl From<&[attempt::Attempt]> for AttemptList {
    fn from(kept: &[attempt::Attempt]) -> AttemptList {
        AttemptList { attempts: kept.iter().map(Attempt::from).collect(), left_out: attempt::dropped_count(kept) }
    }
}

impl From<&attempt::Attempt> for Attempt {
    fn from(attempt: &attempt::Attempt) -> Attempt {
        let end = &attempt.end;
        let origin =
            |pick: fn(&attempt::AttemptOrigin) -> &String| end.origin.as_deref().map(|origin| pick(origin).clone());
        Attempt {
            number: end.number,
            node: end.node.to_string(),
            node_name: origin(|origin| &origin.node_name),
            plugin_version: origin(|origin| &origin.plugin_version),
            digest: origin(|origin| &origin.digest),
            started_at: attempt.began.map(Moment),
            ended_at: Moment(attempt.ended),
            outcome: end.report.kind.into(),
            summary: end.first_line().to_owned(),
            report: end.report.text.clone(),
            fingerprint: attempt.fingerprint.map(|fingerprint| fingerprint.to_string()),
            usage: end.usage.as_ref().map(Usage::from),
        }
    }
}
