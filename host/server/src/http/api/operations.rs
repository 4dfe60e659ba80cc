//! Bulk operations: one act on all jobs that meet a filter.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_core::bulk::{self, BulkAct, OperationState as State};

use super::jobs::Job;
use super::moment::{Moment, millis};

/// An act of a bulk operation: a change to each of its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OperationAct {
    /// Tries failed and cancelled jobs again.
    Retry,
    /// Cancels waiting jobs, and asks running ones to end.
    Cancel,
    /// Deletes finished jobs.
    Delete,
    /// Makes waiting jobs that are not due start as soon as they can.
    RunNow,
    /// Gives waiting jobs another priority.
    SetPriority,
}

/// The state of a bulk operation. The last three are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OperationState {
    /// It changes its first jobs, or waits for their ends.
    Trying,
    /// It changes jobs.
    Running,
    /// It stands still: one of its first jobs did not succeed, or its next step failed each time.
    Halted,
    /// It has gone through all jobs.
    Done,
    /// An operator stopped it.
    Cancelled,
}

/// A request to start a bulk operation.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperationRequest {
    /// The act.
    pub(crate) act: OperationAct,
    /// The filter that the jobs meet, as in `GET /v1/jobs`; an empty one is refused.
    pub(crate) r#where: String,
    /// Idempotency token of 1 to 256 bytes: a request of the same author with the same token returns the operation that came of the first,
    /// for as long as that is kept, and starts no other. Acts and filters are not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// Number of jobs to retry first; the operation goes on only when all of them have succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) r#try: Option<u32>,
    /// Time within which they must succeed, such as `10m`, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) within: Option<String>,
    /// Time over which the retried jobs start, such as `10m`; all at once by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spread: Option<String>,
    /// Number of attempts that each retried job gets, whatever its task allows; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attempts: Option<u32>,
    /// The priority that jobs get; required for `set-priority`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<i32>,
    /// True to change nothing, and only return what would be changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) preview: bool,
}

/// The jobs that a bulk operation would change if it began now.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct OperationPreview {
    /// The filter, with the condition that the act can change the jobs.
    pub(crate) filter: String,
    /// Number of jobs that meet it; as many as were counted within two seconds.
    pub(crate) count: u64,
    /// True if there may be more: the operation looks at all jobs, however long that takes.
    pub(crate) more: bool,
    /// Number of jobs that were looked at, from the newest on; jobs that an index rules out are not counted.
    pub(crate) looked_at: u64,
    /// The moment back to which the count goes: when the last job that was looked at was enqueued; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Moment>,
    /// The first jobs, ten at most, the newest first.
    pub(crate) jobs: Vec<Job>,
}

/// A bulk operation.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct BulkOperation {
    /// ID of the operation.
    pub(crate) id: String,
    /// The act.
    pub(crate) act: OperationAct,
    /// The filter of its jobs, with the condition that the act can change them.
    pub(crate) filter: String,
    /// Name of the operator's token; `null` if the host asks for none.
    pub(crate) author: Option<String>,
    /// Idempotency token of its request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// True in the answer to a request whose token belongs to this earlier operation: the request started nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) duplicate: bool,
    /// When it began. It is about the jobs that met the filter then.
    pub(crate) created_at: Moment,
    /// When it ended.
    pub(crate) ended_at: Option<Moment>,
    /// The state.
    pub(crate) state: OperationState,
    /// Number of jobs that it changed.
    pub(crate) changed: u64,
    /// Number of jobs that it left out since they had moved on when it came to them: they started, ended or came back to wait after it began.
    /// Only jobs that are in one of the filter's states by then, and may have met the filter when it began, are counted.
    pub(crate) skipped: u64,
    /// Number of jobs to try first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) r#try: Option<u32>,
    /// IDs of the jobs that were tried first.
    pub(crate) tried: Vec<String>,
    /// Milliseconds over which the jobs are spread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spread_ms: Option<f64>,
    /// Number of attempts that each retried job gets; present with the act `retry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempts: Option<u32>,
    /// The priority that jobs get; present with the act `set-priority`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<i32>,
    /// Why it was halted; of an operation that has not ended, what it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// One page of a list of bulk operations, newest first.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct OperationPage {
    /// The operations.
    pub(crate) operations: Vec<BulkOperation>,
    /// Address of the next page, relative to the address of the request; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "uri-reference"))]
    pub(crate) next: Option<String>,
}

/// The query of a list of bulk operations.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperationsQuery {
    /// Only operations older than the one with this ID.
    pub(crate) before: Option<String>,
    /// Number of operations on a page; 100 by default.
    pub(crate) limit: Option<u32>,
}

impl From<OperationAct> for BulkAct {
    fn from(act: OperationAct) -> BulkAct {
        match act {
            OperationAct::Retry => BulkAct::Retry,
            OperationAct::Cancel => BulkAct::Cancel,
            OperationAct::Delete => BulkAct::Delete,
            OperationAct::RunNow => BulkAct::RunNow,
            OperationAct::SetPriority => BulkAct::SetPriority,
        }
    }
}

impl From<BulkAct> for OperationAct {
    fn from(act: BulkAct) -> OperationAct {
        match act {
            BulkAct::Retry => OperationAct::Retry,
            BulkAct::Cancel => OperationAct::Cancel,
            BulkAct::Delete => OperationAct::Delete,
            BulkAct::RunNow => OperationAct::RunNow,
            BulkAct::SetPriority => OperationAct::SetPriority,
        }
    }
}

impl From<&bulk::BulkOperation> for BulkOperation {
    fn from(operation: &bulk::BulkOperation) -> BulkOperation {
        BulkOperation {
            id: operation.id.to_string(),
            act: operation.act.into(),
            filter: operation.filter.clone(),
            author: operation.author.clone(),
            token: operation.token.as_ref().map(|token| token.as_str().to_owned()),
            duplicate: false,
            created_at: Moment(operation.created_at),
            ended_at: operation.ended_at.map(Moment),
            state: match operation.state {
                State::Trying => OperationState::Trying,
                State::Running => OperationState::Running,
                State::Halted => OperationState::Halted,
                State::Done => OperationState::Done,
                State::Cancelled => OperationState::Cancelled,
            },
            changed: operation.changed,
            skipped: operation.skipped,
            r#try: operation.trial.map(|trial| trial.jobs),
            tried: operation.tried.iter().map(ToString::to_string).collect(),
            spread_ms: Some(millis(operation.spread)).filter(|spread| *spread > 0.0),
            attempts: Some(operation.attempts).filter(|_| operation.act == BulkAct::Retry),
            priority: Some(operation.priority).filter(|_| operation.act == BulkAct::SetPriority),
            reason: operation.reason.clone(),
        }
    }
}
