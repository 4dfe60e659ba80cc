//! Every operation, in the order of the routes.

use serde_json::{Value, json};

use super::operation::Operation;
use super::schemas::Schemas;
use crate::http::bytes::MEDIA_TYPES;
use crate::http::nodes::Node;
use crate::http::plugins::Plugin;
use crate::http::problem::Kind;
use crate::http::wire::{
    Batch, Broadcast, BroadcastAsked, BroadcastBegun, BroadcastEnded, BroadcastQuery, EnqueueQuery, Enqueued, Entry,
    Health, Job, JobAsked, Limit, LimitNumbers, ListQuery, Page, Ready, Reply,
};

const LIMIT: &str =
    "The numbers to set, at least one; one that is absent or null stays as it is declared. A key has no `total`.";
const GROUP: &str = "A limit group; a task's own is written as one segment: `plugin%2Ftask`.";

pub(super) fn operations(schemas: &mut Schemas) -> Vec<Operation> {
    let mut all = jobs(schemas);
    all.extend(broadcasts(schemas));
    all.extend(plugins_and_nodes(schemas));
    all.extend(limits(schemas));
    all.extend(of_the_host(schemas));
    all
}

fn json_of(schema: Value) -> Value {
    json!({ "application/json": schema })
}

fn list_of(schema: Value) -> Value {
    json!({ "type": "array", "items": schema })
}

/// What a plugin returned: it may be anything.
fn bytes() -> Value {
    let schema = |kind: &str| match kind {
        "application/json" => json!({}),
        kind if kind.starts_with("text/") => json!({ "type": "string" }),
        _ => json!({ "type": "string", "format": "binary" }),
    };
    MEDIA_TYPES.iter().map(|kind| ((*kind).to_owned(), schema(kind))).collect()
}

fn jobs(schemas: &mut Schemas) -> Vec<Operation> {
    let (job, enqueued, entry) = (schemas.answer::<Job>(), schemas.answer::<Enqueued>(), schemas.answer::<Entry>());
    let asked = schemas.asked::<JobAsked>("JobAsked", "A job as it is asked for.");
    let of_job = |name, method, path, summary| {
        Operation::new("jobs", name, method, path, summary).segment("id", "The job's id.")
    };
    vec![
        Operation::new("jobs", "enqueueJobs", "post", "/v1/jobs", "Enqueues one job, or an array of them")
            .description(
                "An array is enqueued as a whole or not at all. With `task` in the query the body is the payload, byte \
                 for byte. With `wait` the answer is the result of the one job, as from `/v1/jobs/{id}/result`.\n\nA job is \
                 also taken for a task that only another host of the store has. What others have is known some three \
                 seconds late; a host that was silent for ten seconds does not count. While a plugin is still being made \
                 ready its jobs are refused with `plugin-loading`, but a job with a known token is answered all the same.",
            )
            .query(schemas.query::<EnqueueQuery>())
            .body(
                true,
                "A job or an array of jobs; with `task` in the query any bytes, best as `application/octet-stream`.",
                json!({
                    "application/json": { "anyOf": [asked, list_of(asked.clone())] },
                    "application/octet-stream": { "type": "string", "format": "binary" },
                }),
            )
            .answers(
                200,
                "The result, where it was waited for; else a job with the same token, which stood before.",
                bytes(),
            )
            .answers(
                202,
                "What became of each job; where the result was waited for in vain, the job.",
                json_of(json!({ "anyOf": [enqueued, list_of(enqueued.clone()), job] })),
            )
            .problems(&[
                Kind::JOB_INVALID,
                Kind::LANE_FULL,
                Kind::JOB_UNKNOWN,
                Kind::JOB_FAILED,
                Kind::JOB_CANCELLED,
                Kind::PLUGIN_LOADING,
                Kind::PLUGIN_ELSEWHERE,
            ])
            .asks_the_store(),
        Operation::new("jobs", "listJobs", "get", "/v1/jobs", "Lists jobs, newest first")
            .query(schemas.query::<ListQuery>())
            .answers(200, "One page, and where the next one is.", json_of(schemas.answer::<Page>()))
            .asks_the_store(),
        of_job("getJob", "get", "/v1/jobs/{id}", "One job: its state, why it waits, what its last attempt cost")
            .answers(200, "The job.", json_of(job.clone()))
            .problems(&[Kind::JOB_UNKNOWN])
            .asks_the_store(),
        of_job("getJobResult", "get", "/v1/jobs/{id}/result", "The result, byte for byte")
            .answers(200, "What the plugin returned.", bytes())
            .problems(&[Kind::JOB_UNKNOWN, Kind::JOB_NOT_FINISHED, Kind::JOB_FAILED, Kind::JOB_CANCELLED])
            .asks_the_store(),
        of_job("followJob", "get", "/v1/jobs/{id}/events", "What the job writes and where it stands, as it comes")
            .description(
                "Server-sent events: `chunk`, `log`, `log-dropped` and `progress`, with an entry as data; `state`, with \
                 the job; `trouble`, with a text, where the store does not answer. The stream ends with the final state.",
            )
            .header("Last-Event-ID", "The id of the last event that was seen: the stream goes on behind it.")
            .answers(
                200,
                "The events; the schema is that of their data.",
                json!({ "text/event-stream": { "anyOf": [entry, job, { "type": "string" }] } }),
            )
            .answers(204, "The final state was seen: nothing follows.", Value::Null)
            .problems(&[Kind::JOB_UNKNOWN])
            .asks_the_store(),
        of_job("cancelJob", "post", "/v1/jobs/{id}/cancel", "Asks the job to end")
            .description("One that runs is stopped after a grace period.")
            .answers(200, "The job.", json_of(job.clone()))
            .problems(&[Kind::JOB_UNKNOWN, Kind::JOB_FINISHED])
            .asks_the_store(),
        of_job("retryJob", "post", "/v1/jobs/{id}/retry", "Tries a failed or cancelled job again")
            .answers(200, "The job.", json_of(job.clone()))
            .problems(&[Kind::JOB_UNKNOWN, Kind::JOB_NOT_FINISHED, Kind::JOB_FINISHED])
            .asks_the_store(),
    ]
}

fn broadcasts(schemas: &mut Schemas) -> Vec<Operation> {
    let events = [schemas.answer::<BroadcastBegun>(), schemas.answer::<Reply>(), schemas.answer::<BroadcastEnded>()];
    let asked = schemas.asked::<BroadcastAsked>("BroadcastAsked", "A broadcast as it is asked for.");
    vec![
        Operation::new(
            "broadcasts",
            "broadcast",
            "post",
            "/v1/broadcasts/{topic}",
            "Calls every subscriber of a topic",
        )
        .description(
            "Exactly one reply from each. With `Accept: text/event-stream` as server-sent events: `asked`, a `reply` \
                 for each, `end`. With `durable` each subscriber gets a job.\n\nSubscribers are those of all hosts of the \
                 store. What others have is known some three seconds late; a host that was silent for ten seconds does \
                 not count. A host that has just started refuses both kinds with `plugin-loading` until it has loaded \
                 what need not be compiled. After that a live one is sent, and names in `loading` who may subscribe and \
                 is still being compiled for the first time; a durable one is refused with `plugin-loading` until that \
                 is done, unless another host has the plugin.",
        )
        .segment("topic", "The topic.")
        .query(schemas.query::<BroadcastQuery>())
        .body(
            false,
            "The payload and options as JSON; or any bytes as the payload, with options in the query.",
            json!({
                "application/json": asked,
                "application/octet-stream": { "type": "string", "format": "binary" },
            }),
        )
        .answers(
            200,
            "Each subscriber's reply; of events, the schema is that of their data.",
            json!({
                "application/json": schemas.answer::<Broadcast>(),
                "text/event-stream": { "anyOf": events },
            }),
        )
        .answers(202, "A durable broadcast, with its jobs.", json_of(schemas.answer::<Batch>()))
        .problems(&[
            Kind::BROADCAST_INVALID,
            Kind::TOO_MANY_BROADCASTS,
            Kind::DRAINING,
            Kind::PLUGIN_LOADING,
            Kind::PLUGIN_ELSEWHERE,
        ])
        .asks_the_store(),
        Operation::new(
            "broadcasts",
            "getBroadcast",
            "get",
            "/v1/broadcasts/{topic}",
            "How far a durable broadcast is, and each result",
        )
        .segment("topic", "The id of the durable broadcast, not its topic.")
        .answers(200, "The broadcast, with its jobs.", json_of(schemas.answer::<Batch>()))
        .problems(&[Kind::BROADCAST_UNKNOWN])
        .asks_the_store(),
    ]
}

fn plugins_and_nodes(schemas: &mut Schemas) -> Vec<Operation> {
    let (plugin, node) = (schemas.answer::<Plugin>(), schemas.answer::<Node>());
    vec![
        Operation::new(
            "plugins",
            "listPlugins",
            "get",
            "/v1/plugins",
            "What is loaded here, and what was refused and why",
        )
        .answers(200, "Every file of the plugin folder.", json_of(list_of(plugin.clone()))),
        Operation::new("plugins", "getPlugin", "get", "/v1/plugins/{id}", "One plugin, and what it keeps")
            .segment("id", "The plugin's id: its file's name without `.wasm`.")
            .answers(200, "The plugin.", json_of(plugin))
            .problems(&[Kind::PLUGIN_UNKNOWN, Kind::PLUGIN_LOADING])
            .asks_the_store(),
        Operation::new("nodes", "listNodes", "get", "/v1/nodes", "The hosts that share the store")
            .answers(200, "Each host, as it announced itself.", json_of(list_of(node)))
            .asks_the_store(),
    ]
}

fn limits(schemas: &mut Schemas) -> Vec<Operation> {
    let (limit, asked) = (schemas.answer::<Limit>(), schemas.asked::<LimitNumbers>("LimitAsked", LIMIT));
    let of_group = |name, method, summary| {
        Operation::new("limits", name, method, "/v1/limits/{group}", summary).segment("group", GROUP)
    };
    let of_key = |name, method, summary| {
        Operation::new("limits", name, method, "/v1/limits/{group}/{key}", summary)
            .segment("group", GROUP)
            .segment("key", "A key.")
    };
    let set = |operation: Operation| {
        operation
            .description("While hosts run, for all that share the store. Zero is a pause.")
            .body(true, "The numbers.", json_of(asked.clone()))
            .answers(200, "The group as it is now.", json_of(limit.clone()))
            .problems(&[Kind::GROUP_UNKNOWN, Kind::PLUGIN_LOADING])
            .asks_the_store()
    };
    let clear = |operation: Operation| {
        operation
            .answers(204, "What is declared holds again.", Value::Null)
            .problems(&[Kind::GROUP_UNKNOWN, Kind::LIMIT_NOT_SET, Kind::PLUGIN_LOADING])
            .asks_the_store()
    };
    vec![
        Operation::new(
            "limits",
            "listLimits",
            "get",
            "/v1/limits",
            "What is in force, from whom, and how much is held",
        )
        .answers(200, "Every limit group.", json_of(list_of(limit.clone())))
        .asks_the_store(),
        set(of_group("setGroupLimit", "put", "Sets the limits of a group")),
        clear(of_group("clearGroupLimit", "delete", "Takes the limits that were set for a group back")),
        set(of_key("setKeyLimit", "put", "Sets the limit of one key of a group")),
        clear(of_key("clearKeyLimit", "delete", "Takes the limit that was set for one key back")),
    ]
}

fn of_the_host(schemas: &mut Schemas) -> Vec<Operation> {
    let ready = schemas.answer::<Ready>();
    vec![
        Operation::new("host", "health", "get", "/health", "Whether the process answers")
            .answers(200, "It does.", json_of(schemas.answer::<Health>()))
            .open(),
        Operation::new("host", "ready", "get", "/ready", "Whether the host takes and runs jobs")
            .answers(200, "It does.", json_of(ready.clone()))
            .answers(503, "It does not, and why.", json_of(ready))
            .open(),
        Operation::new("host", "metrics", "get", "/metrics", "Metrics for Prometheus").answers(
            200,
            "A page of OpenMetrics.",
            json!({ "application/openmetrics-text": { "type": "string" } }),
        ),
        Operation::new("host", "openapi", "get", "/openapi.json", "This document").answers(
            200,
            "OpenAPI 3.1.",
            json_of(json!({ "type": "object" })),
        ),
    ]
}
