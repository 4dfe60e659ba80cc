//! Broadcasts, live and durable.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::jobs::AttemptReport;
use super::values::{BatchJobState, Disposition, ReplyOutcome};

/// A request to broadcast; its topic is in the address.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BroadcastRequest {
    /// The payload as JSON, kept as it is written; `null` by default.
    pub(crate) payload: Option<Box<RawValue>>,
    /// The payload as bytes that are not JSON, in base64 with padding; instead of `payload`.
    pub(crate) payload_base64: Option<String>,
    /// Timeout of the whole broadcast, such as "500ms".
    pub(crate) timeout: Option<String>,
    /// Number of replies that end the broadcast: "all", "quorum" or "first=N".
    pub(crate) mode: Option<String>,
    /// True to enqueue a job for each subscriber instead of calling it live.
    pub(crate) durable: Option<bool>,
}

/// The query of a request to broadcast whose body is the payload, byte for byte.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BroadcastQuery {
    /// Timeout of the whole broadcast, such as "500ms".
    pub(crate) timeout: Option<String>,
    /// Number of replies that end the broadcast: "all", "quorum" or "first=N".
    pub(crate) mode: Option<String>,
    /// True to enqueue a job for each subscriber instead of calling it live.
    pub(crate) durable: Option<bool>,
}

/// The start of a live broadcast: the data of the event `subscribers`, the first of a stream.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct BroadcastStarted {
    /// ID of the broadcast.
    pub(crate) id: String,
    /// The topic.
    pub(crate) topic: String,
    /// The plugins that are called.
    pub(crate) subscribers: Vec<String>,
    /// Plugins that may subscribe but are not called, as they are still loading and no other host has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) loading: Vec<String>,
}

/// The reply of one subscriber, or why there is none: the data of the event `reply`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Reply {
    /// The subscriber.
    pub(crate) plugin: String,
    /// The outcome of its call.
    pub(crate) outcome: ReplyOutcome,
    /// Milliseconds from the start of the broadcast to this reply.
    pub(crate) elapsed_ms: f64,
    /// The reply as the plugin wrote it, if it is JSON with at most 60 levels.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::raw_json::as_written")]
    pub(crate) reply: Option<Box<RawValue>>,
    /// The reply in base64, if it is not JSON, or JSON with more than 60 levels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reply_base64: Option<String>,
    /// The subscriber's request after its failure; present with `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disposition: Option<Disposition>,
    /// Milliseconds after which to try again; present with the disposition `retry-after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_ms: Option<u64>,
    /// Reason for a missing reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) report: Option<String>,
}

/// The end of a live broadcast: the data of the event `end`, the last of a stream.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct BroadcastEnded {
    /// Number of subscribers by outcome.
    pub(crate) outcomes: BTreeMap<ReplyOutcome, u64>,
    /// Milliseconds from the start of the broadcast to its end.
    pub(crate) elapsed_ms: f64,
}

/// A live broadcast with all replies, in the order of the plugins' IDs.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LiveBroadcast {
    /// ID of the broadcast.
    pub(crate) id: String,
    /// The topic.
    pub(crate) topic: String,
    /// Outcomes and duration.
    #[serde(flatten)]
    pub(crate) ended: BroadcastEnded,
    /// Plugins that may subscribe but were not called, as they are still loading and no other host has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) loading: Vec<String>,
    /// One reply for each subscriber.
    pub(crate) replies: Vec<Reply>,
}

/// A durable broadcast: one job for each subscriber.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Batch {
    /// ID of the broadcast.
    pub(crate) id: String,
    /// The topic.
    pub(crate) topic: String,
    /// Address of the broadcast, relative to the address of the request.
    #[schemars(extend("format" = "uri-reference"))]
    pub(crate) url: String,
    /// Number of jobs by state.
    pub(crate) states: BTreeMap<BatchJobState, u64>,
    /// Number of jobs that were deleted since, by age or by an operator.
    #[serde(default)]
    pub(crate) deleted: u64,
    /// True if every job has reached its final state.
    pub(crate) finished: bool,
    /// The jobs, in the order of the plugins' IDs.
    pub(crate) jobs: Vec<BatchJob>,
}

/// The job of one subscriber in a durable broadcast.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct BatchJob {
    /// The subscriber.
    pub(crate) plugin: String,
    /// State of the job.
    pub(crate) state: BatchJobState,
    /// ID of the job; absent if it was discarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// Address of the job, relative to the address of the request; absent if it was discarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "uri-reference"))]
    pub(crate) url: Option<String>,
    /// Number of the last attempt that was started; 0 before the first.
    #[serde(default)]
    pub(crate) attempt: u32,
    /// The reply, if the job succeeded with JSON; a long one is only at the job's `/result`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::raw_json::as_written")]
    pub(crate) reply: Option<Box<RawValue>>,
    /// The reply in base64, if it is not JSON; a long one is only at the job's `/result`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reply_base64: Option<String>,
    /// Report of the last attempt that did not return.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) report: Option<AttemptReport>,
}
