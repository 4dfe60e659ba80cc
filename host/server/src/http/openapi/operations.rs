//! Every operation, in the order of the routes.

use schemars::JsonSchema;
use serde_json::{Value, json};

use super::operation::Operation;
use super::schedules;
use super::schemas::Schemas;
use crate::http::api::{
    ActPage, AfterQuery, AttemptList, AuditQuery, Batch, BroadcastEnded, BroadcastEventName, BroadcastQuery,
    BroadcastRequest, BroadcastStarted, BulkOperation, Config, DrainedNode, EnqueueQuery, Enqueued, Failure,
    FailurePage, FailuresQuery, Health, Hold, HoldPage, HoldRequest, Job, JobEventName, JobPage, JobRequest, Limit,
    LimitNumbers, LimitQuery, ListQuery, LiveBroadcast, LogEntry, Node, OperationPage, OperationPreview,
    OperationRequest, OperationsQuery, PluginFile, Readiness, ReleaseQuery, Reply, RetryQuery, Summary, SummaryQuery,
};
use crate::http::bytes::MEDIA_TYPES;
use crate::http::problem::Kind;

const LIMIT: &str =
    "The limits to set, at least one; one that is absent or null stays as declared. A key has only `per_key`.";

/// Returns every operation, and adds the schemas that they use.
pub(super) fn operations(schemas: &mut Schemas) -> Vec<Operation> {
    let mut all = jobs(schemas);
    all.extend(failures(schemas));
    all.extend(broadcasts(schemas));
    all.extend(plugins_and_nodes(schemas));
    all.extend(limits(schemas));
    all.extend(holds(schemas));
    all.push(audit(schemas));
    all.push(summary(schemas));
    all.extend(bulk_operations(schemas));
    all.extend(schedules::operations(schemas));
    all.extend(host(schemas));
    all.into_iter()
        .map(|operation| match operation.need() {
            Some(need) => operation.needs(need),
            None => operation,
        })
        .collect()
}

fn json_of(schema: Value) -> Value {
    json!({ "application/json": schema })
}

fn list_of(schema: Value) -> Value {
    json!({ "type": "array", "items": schema })
}

/// Returns the schema of a stream of events: that of their data, and in `x-event-name` that of their names.
fn events_of<Name: JsonSchema>(schemas: &mut Schemas, data: &[Value]) -> Value {
    json!({ "text/event-stream": { "anyOf": data, "x-event-name": schemas.response::<Name>() } })
}

/// Returns the schemas of a result, by media type: a plugin may return anything.
fn bytes() -> Value {
    let schema = |kind: &str| match kind {
        "application/json" => json!({}),
        kind if kind.starts_with("text/") => json!({ "type": "string" }),
        _ => json!({ "type": "string", "format": "binary" }),
    };
    MEDIA_TYPES.iter().map(|kind| ((*kind).to_owned(), schema(kind))).collect()
}

fn jobs(schemas: &mut Schemas) -> Vec<Operation> {
    let (job, enqueued, entry) =
        (schemas.response::<Job>(), schemas.response::<Enqueued>(), schemas.response::<LogEntry>());
    let request = schemas.request::<JobRequest>("JobRequest", "A request to enqueue one job.");
    let events = events_of::<JobEventName>(schemas, &[entry, job.clone(), json!({ "type": "string" })]);
    let of_job = |name, method, path, summary| {
        Operation::new("jobs", name, method, path, summary).segment("id", "ID of the job.")
    };
    vec![
        Operation::new("jobs", "enqueueJobs", "post", "/v1/jobs", "Enqueues one job, or an array of jobs")
            .description(
                "An array is enqueued as a whole or not at all. With `task` in the query the body is the payload, byte \
                 for byte. With `wait` the response is the result of the one job, as from `/v1/jobs/{id}/result`.\n\nJobs \
                 for a task that only another host of the store has are accepted, too. A host learns of the tasks of \
                 others about three seconds late, and ignores hosts that were silent for ten seconds. While a plugin is \
                 still loading, its jobs are refused with `plugin-loading`, except those with a token that is already \
                 known.",
            )
            .query(schemas.query::<EnqueueQuery>())
            .body(
                true,
                "A job or an array of jobs; with `task` in the query any bytes, preferably as \
                 `application/octet-stream`.",
                json!({
                    "application/json": { "anyOf": [request, list_of(request.clone())] },
                    "application/octet-stream": { "type": "string", "format": "binary" },
                }),
            )
            .response(200, "The result, with `wait`; otherwise the existing job with the same token.", bytes())
            .response(
                202,
                "The result for each job; with `wait`, the job, if it did not end in time.",
                json_of(json!({ "anyOf": [enqueued, list_of(enqueued.clone()), job] })),
            )
            .problems(&[
                Kind::JOB_INVALID,
                Kind::KEY_FORBIDDEN,
                Kind::LANE_FULL,
                Kind::NO_MEMORY,
                Kind::JOB_UNKNOWN,
                Kind::JOB_FAILED,
                Kind::JOB_CANCELLED,
                Kind::PLUGIN_LOADING,
                Kind::PLUGIN_ELSEWHERE,
            ])
            .uses_store(),
        Operation::new("jobs", "listJobs", "get", "/v1/jobs", "Lists the jobs that meet a filter")
            .description(
                "A filter has terms with spaces between them, each `field:value` or `field:value,value`; a job meets all of \
                 them. A value with spaces, commas or quotes is in quotes, with `\\` before each quote in it. The fields are \
                 `state`, `id`, `task`, `plugin`, `key` (empty quotes for jobs without one), `batch`, `parent`, `outcome`, \
                 `fingerprint`, `digest` (8 characters of it or more), `since`, `until`, `finished-since`, `finished-until` and `text`; `payload./tenant=42` looks at a value of a JSON \
                 payload by its pointer. Moments are in RFC 3339, or say how long ago, such as `15m`, `2h` or `7d`.\n\nEach \
                 answer comes within a moment, however many jobs there are: it has the jobs found so far, says how far back it \
                 looked, and where to go on. Pages stay in place while jobs are added or end.",
            )
            .query(schemas.query::<ListQuery>())
            .response(200, "One page, and the address of the next page.", json_of(schemas.response::<JobPage>()))
            .uses_store(),
        of_job("getJob", "get", "/v1/jobs/{id}", "Returns one job: its state, why it waits, the usage of its attempts")
            .response(200, "The job.", json_of(job.clone()))
            .problems(&[Kind::JOB_UNKNOWN])
            .uses_store(),
        of_job("getJobResult", "get", "/v1/jobs/{id}/result", "Returns the result, byte for byte")
            .response(200, "The bytes that the plugin returned.", bytes())
            .problems(&[
                Kind::JOB_UNKNOWN,
                Kind::JOB_NOT_FINISHED,
                Kind::JOB_FAILED,
                Kind::JOB_CANCELLED,
                Kind::NO_MEMORY,
            ])
            .uses_store(),
        of_job("listAttempts", "get", "/v1/jobs/{id}/attempts", "Lists the attempts of the job that ended without a result")
            .description(
                "The first five and the last twenty stay with the job, and the others are counted. Of an attempt that ended \
                 with its host only the node and the times are known.",
            )
            .response(200, "The attempts.", json_of(schemas.response::<AttemptList>()))
            .problems(&[Kind::JOB_UNKNOWN])
            .uses_store(),
        of_job("followJob", "get", "/v1/jobs/{id}/events", "Streams what the job writes, and its state")
            .description(
                "Server-sent events: `chunk`, `log`, `log-dropped` and `progress`, with a log entry as data; `state`, \
                 with the job as data; `store-error`, with a text as data, if the store fails. The stream ends with the \
                 final state.",
            )
            .header("Last-Event-ID", "The ID of the last event that was received: the stream continues after it.")
            .response(200, "The events: the schema of their data, and in `x-event-name` that of their names.", events)
            .response(204, "The final state was already received: nothing follows.", Value::Null)
            .problems(&[Kind::JOB_UNKNOWN])
            .uses_store(),
        of_job("cancelJob", "post", "/v1/jobs/{id}/cancel", "Cancels the job")
            .description("A job that waits is cancelled at once; one that runs is stopped after a grace period.")
            .response(200, "The job.", json_of(job.clone()))
            .problems(&[Kind::JOB_UNKNOWN, Kind::JOB_FINISHED])
            .uses_store(),
        of_job("retryJob", "post", "/v1/jobs/{id}/retry", "Retries a failed or cancelled job")
            .description("The job gets one attempt, or as many as `attempts` says, whatever its task allows.")
            .query(schemas.query::<RetryQuery>())
            .response(200, "The job.", json_of(job.clone()))
            .problems(&[Kind::JOB_UNKNOWN, Kind::JOB_NOT_FINISHED, Kind::JOB_FINISHED])
            .uses_store(),
    ]
}

fn failures(schemas: &mut Schemas) -> Vec<Operation> {
    let failure = schemas.response::<Failure>();
    let of_group = |name, method, path, summary| {
        Operation::new("failures", name, method, path, summary)
            .segment("fingerprint", "Fingerprint of the group.")
            .response(200, "The group.", json_of(failure.clone()))
            .problems(&[Kind::FAILURE_UNKNOWN])
            .uses_store()
    };
    vec![
        Operation::new("failures", "listFailures", "get", "/v1/failures", "Lists failure groups, the one that failed last first")
            .description(
                "Jobs that fail are grouped by a fingerprint: of the task, the outcome, the first line of the report without \
                 numbers, times, IDs, hashes and quoted texts, and of a trap the functions in which it happened, by name.",
            )
            .query(schemas.query::<FailuresQuery>())
            .response(200, "One page, and the address of the next page.", json_of(schemas.response::<FailurePage>()))
            .uses_store(),
        of_group("getFailure", "get", "/v1/failures/{fingerprint}", "Returns one failure group, with its versions and samples"),
        of_group("resolveFailure", "post", "/v1/failures/{fingerprint}/resolve", "Says that the cause of a failure group is removed")
            .description(
                "A failure by a plugin that was loaded first after this, on any host of the store, is a regression: the group is \
                 open again, and the log and a metric tell it. Failures by versions that were known before are counted and change \
                 nothing: they may still run elsewhere while the next version is rolled out.",
            ),
        of_group("ignoreFailure", "post", "/v1/failures/{fingerprint}/ignore", "Says that a failure group needs no attention"),
        of_group("reopenFailure", "post", "/v1/failures/{fingerprint}/reopen", "Opens a resolved or ignored failure group again"),
    ]
}

fn broadcasts(schemas: &mut Schemas) -> Vec<Operation> {
    let data =
        [schemas.response::<BroadcastStarted>(), schemas.response::<Reply>(), schemas.response::<BroadcastEnded>()];
    let mut replies = events_of::<BroadcastEventName>(schemas, &data);
    replies["application/json"] = schemas.response::<LiveBroadcast>();
    let request = schemas.request::<BroadcastRequest>("BroadcastRequest", "A request to broadcast.");
    vec![
        Operation::new(
            "broadcasts",
            "broadcast",
            "post",
            "/v1/broadcasts/{topic}",
            "Calls every subscriber of a topic",
        )
        .description(
            "Each subscriber has exactly one reply. With `Accept: text/event-stream` the response is a stream of \
             server-sent events: `subscribers`, a `reply` for each, `end`. With `durable` each subscriber gets a \
             job.\n\nSubscribers are those of all hosts of the store. A host learns of the subscribers of others about \
             three seconds late, and ignores hosts that were silent for ten seconds. A host that has just started \
             refuses both kinds with `plugin-loading` until it has loaded every plugin that it need not compile. After \
             that it sends a live broadcast, and `loading` lists the plugins that may subscribe and are still compiled \
             for the first time; it refuses a durable one with `plugin-loading` until they are loaded, unless another \
             host has them.",
        )
        .segment("topic", "The topic.")
        .query(schemas.query::<BroadcastQuery>())
        .body(
            false,
            "The payload and options as JSON; or any bytes as the payload, with options in the query.",
            json!({
                "application/json": request,
                "application/octet-stream": { "type": "string", "format": "binary" },
            }),
        )
        .response(200, "Each subscriber's reply; for events, the schema of their data.", replies)
        .response(202, "A durable broadcast, with its jobs.", json_of(schemas.response::<Batch>()))
        .problems(&[
            Kind::BROADCAST_INVALID,
            Kind::TOO_MANY_BROADCASTS,
            Kind::NO_MEMORY,
            Kind::DRAINING,
            Kind::PLUGIN_LOADING,
            Kind::PLUGIN_ELSEWHERE,
        ])
        .uses_store(),
        Operation::new(
            "broadcasts",
            "getBroadcast",
            "get",
            "/v1/broadcasts/{topic}",
            "Returns the state of a durable broadcast, and the results of its jobs",
        )
        .segment("topic", "ID of the durable broadcast, not its topic.")
        .response(200, "The broadcast, with its jobs.", json_of(schemas.response::<Batch>()))
        .problems(&[Kind::BROADCAST_UNKNOWN, Kind::NO_MEMORY])
        .uses_store(),
    ]
}

fn plugins_and_nodes(schemas: &mut Schemas) -> Vec<Operation> {
    let (plugin, node) = (schemas.response::<PluginFile>(), schemas.response::<Node>());
    let drained = schemas.response::<DrainedNode>();
    let of_node = |name, path, summary| {
        Operation::new("nodes", name, "post", path, summary)
            .segment("node", "ID or name of the host; `self` is the one that is asked.")
            .response(200, "The host, once it has done so.", json_of(drained.clone()))
            .problems(&[Kind::NODE_UNKNOWN, Kind::NODE_SILENT])
            .uses_store()
    };
    vec![
        Operation::new(
            "plugins",
            "listPlugins",
            "get",
            "/v1/plugins",
            "Lists the plugins of this host, and the files that it refused",
        )
        .response(200, "Every file of the plugin folder.", json_of(list_of(plugin.clone()))),
        Operation::new("plugins", "getPlugin", "get", "/v1/plugins/{id}", "Returns one plugin, and its KV usage")
            .segment("id", "ID of the plugin: its file's name without `.wasm`.")
            .response(200, "The plugin.", json_of(plugin))
            .problems(&[Kind::PLUGIN_UNKNOWN, Kind::PLUGIN_LOADING])
            .uses_store(),
        Operation::new("nodes", "listNodes", "get", "/v1/nodes", "Lists the hosts that share the store")
            .response(200, "Each host, as it registered itself.", json_of(list_of(node)))
            .uses_store(),
        of_node("drainNode", "/v1/nodes/{node}/drain", "Drains a host: it goes on with what runs, and begins no more").description(
            "The host claims no jobs, starts no live broadcasts and fires no schedules; other hosts of the store do. Its API \
             answers, and `/ready` says that it is draining. A host that starts does not remember it.",
        ),
        of_node("resumeNode", "/v1/nodes/{node}/resume", "Has a drained host claim jobs again").problems(&[Kind::DRAINING]),
    ]
}

fn limits(schemas: &mut Schemas) -> Vec<Operation> {
    let (limit, request) = (schemas.response::<Limit>(), schemas.request::<LimitNumbers>("LimitRequest", LIMIT));
    let query = schemas.query::<LimitQuery>();
    let of_limit =
        |name, method, summary| Operation::new("limits", name, method, "/v1/limits", summary).query(query.clone());
    let set = |operation: Operation| {
        operation
            .description(
                "Takes effect while hosts run, on all that share the store. A limit of 0 is a pause; `POST /v1/holds` is one \
                 that keeps the limit, has a reason, and may end by itself.",
            )
            .body(true, "The limits.", json_of(request.clone()))
            .response(200, "The group with its new limits.", json_of(limit.clone()))
            .problems(&[Kind::GROUP_UNKNOWN, Kind::PLUGIN_LOADING])
            .uses_store()
    };
    let clear = |operation: Operation| {
        operation
            .response(204, "The declared limits are in force again.", Value::Null)
            .problems(&[Kind::GROUP_UNKNOWN, Kind::LIMIT_NOT_SET, Kind::PLUGIN_LOADING])
            .uses_store()
    };
    vec![
        Operation::new(
            "limits",
            "listLimits",
            "get",
            "/v1/limits",
            "Lists the limits in force, their sources, and the number of jobs that run",
        )
        .response(200, "Every limit group.", json_of(list_of(limit.clone())))
        .uses_store(),
        set(of_limit("setLimit", "put", "Sets the limits of a group, or of one key of it")),
        clear(of_limit("clearLimit", "delete", "Removes the limits that were set for a group, or for one key of it")),
    ]
}

fn holds(schemas: &mut Schemas) -> Vec<Operation> {
    let request = schemas.request::<HoldRequest>("HoldRequest", "What to hold, until when, and why.");
    let hold = schemas.response::<Hold>();
    vec![
        Operation::new("holds", "listHolds", "get", "/v1/holds", "Lists the holds in force")
            .query(schemas.query::<AfterQuery>())
            .response(200, "One page, and the address of the next page.", json_of(schemas.response::<HoldPage>()))
            .uses_store(),
        Operation::new("holds", "setHold", "post", "/v1/holds", "Holds all jobs, or those of a plugin, a task, a group or a key")
            .description(
                "Held jobs are enqueued and wait, on all hosts that share the store, until the hold ends or is released; \
                 attempts that run go on. Live broadcasts skip held plugins. A hold replaces an earlier one on the same.",
            )
            .body(true, "The hold.", json_of(request))
            .response(200, "The hold.", json_of(hold))
            .problems(&[Kind::TOO_MANY_HOLDS])
            .uses_store(),
        Operation::new("holds", "releaseHold", "delete", "/v1/holds", "Releases a hold")
            .query(schemas.query::<ReleaseQuery>())
            .response(204, "The hold is gone; others may still be on the same jobs.", Value::Null)
            .problems(&[Kind::HOLD_UNKNOWN])
            .uses_store(),
    ]
}

fn audit(schemas: &mut Schemas) -> Operation {
    Operation::new("host", "listActs", "get", "/v1/audit", "Lists what operators changed, newest first")
        .description(
            "Each act that changed something, with its author, its time and the address that it came from: retries and cancels of \
             jobs, bulk operations as a whole, schedules, limits, holds, states of failure groups, and settings that a host read again. Enqueued jobs and broadcasts are no acts. Acts are kept \
             for 90 days.",
        )
        .query(schemas.query::<AuditQuery>())
        .response(200, "One page, and the address of the next page.", json_of(schemas.response::<ActPage>()))
        .uses_store()
}

fn summary(schemas: &mut Schemas) -> Operation {
    Operation::new("host", "getSummary", "get", "/v1/summary", "Returns what waits, runs and ended on all hosts, by task")
        .description(
            "Numbers of the last minute and the last hour are sums over the hosts that run now, up to ten seconds old. A number that \
             is not known is `null`: that of a host which has just started, or which does not tell.",
        )
        .query(schemas.query::<SummaryQuery>())
        .response(200, "The summary.", json_of(schemas.response::<Summary>()))
        .uses_store()
}

fn bulk_operations(schemas: &mut Schemas) -> Vec<Operation> {
    let operation = schemas.response::<BulkOperation>();
    let request = schemas.request::<OperationRequest>("OperationRequest", "What to do, with which jobs.");
    let preview = schemas.response::<OperationPreview>();
    let of_one = |name, method, summary| {
        Operation::new("operations", name, method, "/v1/operations/{id}", summary).segment("id", "ID of the operation.")
    };
    vec![
        Operation::new("operations", "listOperations", "get", "/v1/operations", "Lists bulk operations, newest first")
            .query(schemas.query::<OperationsQuery>())
            .response(200, "One page, and the address of the next page.", json_of(schemas.response::<OperationPage>()))
            .uses_store(),
        Operation::new(
            "operations",
            "startOperation",
            "post",
            "/v1/operations",
            "Retries, cancels, deletes or runs all jobs that meet a filter",
        )
        .description(
            "The operation is durable: it goes on after a crash, on any host of the store. It changes the jobs that meet the \
             filter when it begins, each at most once, a few at a time; one that has moved on meanwhile is skipped, and one that \
             comes to meet the filter is not changed. Running jobs are only ever cancelled. With `try` it first retries that \
             many jobs, and goes on only when all of them have succeeded. Deleted jobs are gone with their payload, result, \
             report and log; what their plugins stored, and copies of the store, stay.",
        )
        .body(true, "The operation.", json_of(request))
        .response(
            200,
            "The operation; with `preview`, what it would change.",
            json_of(json!({ "anyOf": [operation.clone(), preview] })),
        )
        .problems(&[Kind::TOO_MANY_OPERATIONS])
        .uses_store(),
        of_one("getOperation", "get", "Returns one bulk operation")
            .response(200, "The operation.", json_of(operation.clone()))
            .problems(&[Kind::OPERATION_UNKNOWN])
            .uses_store(),
        of_one("cancelOperation", "delete", "Cancels a bulk operation: what it has changed stays changed")
            .response(200, "The operation as it was left.", json_of(operation))
            .problems(&[Kind::OPERATION_UNKNOWN, Kind::OPERATION_ENDED])
            .uses_store(),
    ]
}

fn host(schemas: &mut Schemas) -> Vec<Operation> {
    let readiness = schemas.response::<Readiness>();
    vec![
        Operation::new("host", "health", "get", "/health", "Reports that the process answers")
            .response(200, "The process answers.", json_of(schemas.response::<Health>()))
            .open(),
        Operation::new("host", "ready", "get", "/ready", "Reports if the host takes and runs jobs")
            .response(200, "The host is ready.", json_of(readiness.clone()))
            .response(503, "The host is not ready, and why.", json_of(readiness))
            .open(),
        Operation::new("host", "metrics", "get", "/metrics", "Returns metrics for Prometheus").response(
            200,
            "Metrics in the text format of OpenMetrics for clients that accept it, and otherwise in the older text format.",
            json!({ "application/openmetrics-text": { "type": "string" }, "text/plain": { "type": "string" } }),
        ),
        Operation::new("host", "getConfig", "get", "/v1/config", "Returns the settings of this host")
            .description(
                "Every setting with its source, without secrets. Each host reads its own settings file, and again when it \
                 changes; a file that is refused changes nothing, and `refused` says what is wrong.",
            )
            .response(200, "The settings that hold.", json_of(schemas.response::<Config>())),
        Operation::new("host", "openapi", "get", "/openapi.json", "Returns this document").response(
            200,
            "OpenAPI 3.1.",
            json_of(json!({ "type": "object" })),
        ),
    ]
}
