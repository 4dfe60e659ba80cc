//! The documents of the API: every JSON object that a route reads or writes, and every query. The commands read the same
//! types, and `/openapi.json` is made from them.

mod moment;
mod raw_json;
mod after_query;
mod values;
mod enqueue;
mod holds;
mod audit;
mod summary;
mod wait;
mod jobs;
mod attempts;
mod failures;
mod log_entry;
mod broadcasts;
mod schedules;
mod plugins;
mod nodes;
mod config;
mod limits;
mod operations;
mod health;

pub(crate) use after_query::AfterQuery;
pub(crate) use attempts::AttemptList;
pub(crate) use audit::{Act, ActPage, AuditQuery};
pub(crate) use broadcasts::{
    Batch, BatchJob, BroadcastEnded, BroadcastQuery, BroadcastRequest, BroadcastStarted, LiveBroadcast, Reply,
};
pub(crate) use config::{Config, ConfigRefusal, ConfigSetting};
pub(crate) use enqueue::{EnqueueQuery, Enqueued, JobRequest};
pub(crate) use failures::{Failure, FailurePage, FailuresQuery};
pub(crate) use health::{Health, Readiness};
pub(crate) use holds::{Hold, HoldPage, HoldRequest, ReleaseQuery};
pub(crate) use jobs::{AttemptReport, Job, JobPage, JobTick, ListOrder, ListQuery, RetryQuery, Usage};
pub(crate) use limits::{LaneUse, Limit, LimitNumbers, LimitQuery, WaitingJobs};
pub(crate) use log_entry::LogEntry;
pub(crate) use moment::{Moment, millis};
pub(crate) use nodes::{DrainedNode, LoadedPlugin, Node};
pub(crate) use operations::{
    BulkOperation, OperationAct, OperationPage, OperationPreview, OperationRequest, OperationState, OperationsQuery,
};
pub(crate) use plugins::{
    PluginFile, Refusal, SuggestedSchedule, TaskDocument, TaskKind, loaded_or_refused, plugin_files, suggested,
    suggestion_text, suggestion_times,
};
pub(crate) use schedules::{
    CLOCK_LAW, PauseRequest, PutScheduleQuery, Schedule, SchedulePage, ScheduleRequest, ScheduleRun,
};
pub(crate) use summary::{EndedCounts, KeySummary, Quantiles, Summary, SummaryQuery, TaskSummary, WaitCounts};
pub(crate) use values::{
    BatchJobState, BroadcastEventName, ClockChange, Disposition, EnqueueOutcome, FailureState, JobEventName, JobState,
    ReplyOutcome, ScheduleSource, ScheduleState, TickOutcome, from_name,
};
pub(crate) use wait::Wait;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_stays_as_it_was_written() {
        let request: JobRequest = serde_json::from_str(r#"{"task":"a/b","payload":{"b": 1e400, "a": 2}}"#).unwrap();
        assert_eq!(request.payload.unwrap().get(), r#"{"b": 1e400, "a": 2}"#);
    }

    #[test]
    fn a_null_in_a_document_is_a_value() {
        let job = |payload: &str| {
            let rest = r#""id":"","task":"","state":"waiting","group":"","key":null,"priority":0,"token":null,
                "enqueued_at":"2030-01-31T12:00:00Z","generation":0,"attempt":0,"failures":0,"crashes":0,"cancel_requested":false"#;
            serde_json::from_str::<Job>(&format!("{{{rest}{payload}}}"))
                .unwrap()
                .payload
                .map(|json| json.get().to_owned())
        };
        assert_eq!((job(r#","payload": null"#).as_deref(), job("")), (Some("null"), None));
    }

    #[test]
    fn a_member_given_twice_is_refused() {
        for twice in [r#"{"task":"a/b","key":"a","key":"b"}"#, r#"{"task":"a/b","payload":1,"pay\u006coad":2}"#] {
            assert!(
                serde_json::from_str::<JobRequest>(twice).unwrap_err().to_string().contains("duplicate field"),
                "{twice}"
            );
        }
        assert!(serde_json::from_str::<LimitNumbers>(r#"{"total":1,"total":null}"#).is_err());
        assert!(serde_json::from_str::<BroadcastRequest>(r#"{"mode":"all","mode":"quorum"}"#).is_err());
    }

    #[test]
    fn an_unknown_member_is_refused() {
        let error = serde_json::from_str::<JobRequest>(r#"{"task":"a/b","prority":1}"#).unwrap_err().to_string();
        assert!(error.starts_with("unknown field `prority`, expected one of `task`, `payload`"), "{error}");
    }
}
