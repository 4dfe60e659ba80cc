//! The documents of broadcasts, live and durable.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A broadcast as it is asked for; its topic is in the address.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BroadcastAsked {
    /// Kept as it is written; `null` where none is given.
    pub(crate) payload: Option<Box<RawValue>>,
    /// Bytes that are no JSON, in base64 with padding.
    pub(crate) payload_base64: Option<String>,
    /// For the whole, as "500ms".
    pub(crate) timeout: Option<String>,
    /// "all", "quorum" or "first=N": how many replies end it.
    pub(crate) mode: Option<String>,
    /// A job for each subscriber in place of a live call.
    pub(crate) durable: Option<bool>,
}

/// The same in the address, where the body is the payload, byte for byte.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BroadcastQuery {
    pub(crate) timeout: Option<String>,
    pub(crate) mode: Option<String>,
    pub(crate) durable: Option<bool>,
}

/// Who was asked: the first event of a stream.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct BroadcastBegun {
    pub(crate) id: String,
    pub(crate) topic: String,
    pub(crate) asked: Vec<String>,
    /// Plugins that may subscribe and were not asked, since they are still being made ready, and no other host has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) loading: Vec<String>,
}

/// What one subscriber answered.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Reply {
    pub(crate) plugin: String,
    /// "replied", "failed", "trapped", "timed-out" or "skipped".
    pub(crate) outcome: String,
    /// From the broadcast's begin to this reply.
    pub(crate) elapsed_ms: f64,
    /// Of a reply that is JSON, as it is written.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::as_written")]
    pub(crate) reply: Option<Box<RawValue>>,
    /// Of any other reply, and of JSON that is nested deeper than 60 levels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reply_base64: Option<String>,
    /// Of one that failed: "retry", "retry-after" or "discard".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disposition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_ms: Option<u64>,
    /// Why there is no reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) report: Option<String>,
}

/// How a broadcast ended: the last event of a stream.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct BroadcastEnded {
    /// How many gave each kind of answer.
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) elapsed_ms: f64,
}

/// A live broadcast whole: its replies stand in the order of the plugins.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Broadcast {
    pub(crate) id: String,
    pub(crate) topic: String,
    #[serde(flatten)]
    pub(crate) ended: BroadcastEnded,
    /// Plugins that may subscribe and were not asked, since they are still being made ready, and no other host has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) loading: Vec<String>,
    pub(crate) replies: Vec<Reply>,
}

/// A durable broadcast, by its jobs.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Batch {
    pub(crate) id: String,
    pub(crate) topic: String,
    pub(crate) url: String,
    /// How many jobs are in each state.
    pub(crate) states: BTreeMap<String, u64>,
    /// Whether all of them are over.
    pub(crate) finished: bool,
    /// By plugin.
    pub(crate) jobs: Vec<BatchJob>,
}

/// One subscriber's job.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct BatchJob {
    pub(crate) plugin: String,
    /// A job's state, or "discarded" where the subscriber's lane was full and it takes no more then.
    pub(crate) state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    #[serde(default)]
    pub(crate) attempt: u32,
    /// Of a job that succeeded and replied in JSON; where it is long, it is at the job's `result`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::as_written")]
    pub(crate) reply: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reply_base64: Option<String>,
    /// How the last attempt ended that did not return.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) report: Option<super::Report>,
}
