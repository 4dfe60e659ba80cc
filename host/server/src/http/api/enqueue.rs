//! Requests to enqueue jobs, and their results.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::moment::Moment;
use super::values::EnqueueOutcome;

/// A request to enqueue one job.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobRequest {
    /// The task, as PLUGIN/TASK.
    pub(crate) task: String,
    /// The payload as JSON, kept as it is written; `null` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<Box<RawValue>>,
    /// The payload as bytes that are not JSON, in base64 with padding; instead of `payload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_base64: Option<String>,
    /// The key, if the task's manifest does not find it in the payload.
    pub(crate) key: Option<String>,
    /// Jobs with a higher priority start first; 0 by default.
    pub(crate) priority: Option<i32>,
    /// Length of time before which the job does not start, such as "90s" or "5m".
    pub(crate) delay: Option<String>,
    /// Moment before which the job does not start; instead of `delay`.
    pub(crate) at: Option<Moment>,
    /// Idempotency token, chosen by the client: repeated requests with one token enqueue the job once.
    pub(crate) token: Option<String>,
}

/// The query of a request to enqueue. With `task`, the body is the payload, byte for byte.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnqueueQuery {
    /// The task, as PLUGIN/TASK. With it the body is the payload as it is, and the other options are in the query, too.
    pub(crate) task: Option<String>,
    /// The key, if the task's manifest does not find it in the payload.
    pub(crate) key: Option<String>,
    /// Jobs with a higher priority start first; 0 by default.
    pub(crate) priority: Option<i32>,
    /// Length of time before which the job does not start, such as "90s" or "5m".
    pub(crate) delay: Option<String>,
    /// Moment before which the job does not start; instead of `delay`.
    pub(crate) at: Option<Moment>,
    /// Idempotency token, chosen by the client: repeated requests with one token enqueue the job once.
    pub(crate) token: Option<String>,
    /// Time to wait for the result of one job, such as "30s"; 10 minutes at most.
    pub(crate) wait: Option<String>,
}

/// Result of a request to enqueue one job.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Enqueued {
    /// `duplicate` if a job with the same token exists; `discarded` if its lane is full and it was not enqueued.
    pub(crate) outcome: EnqueueOutcome,
    /// ID of the job; absent if it was discarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// Address of the job, relative to the address of the request; absent if it was discarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "uri-reference"))]
    pub(crate) url: Option<String>,
    /// IDs of the running jobs that fill its lane, if it was discarded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) holders: Vec<String>,
}
