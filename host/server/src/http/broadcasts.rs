//! `/v1/broadcasts`: calls every subscriber of a topic, live with one reply from each, or durably with one job for each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::ids::PluginId;
use wharf_core::outcome::Failure;
use wharf_core::rollcall::{self, Answer, Mode};
use wharf_core::shared_bytes::SharedBytes;
use wharf_runner::{Broadcast, BroadcastError, Durable, Enqueued, Host, Replies};

use super::api::{
    AttemptReport, Batch, BatchJob, BatchJobState, BroadcastEnded, BroadcastEventName, BroadcastQuery,
    BroadcastRequest, BroadcastStarted, Disposition, LiveBroadcast, Reply, ReplyOutcome, millis,
};
use super::bytes::{JsonOrBase64, inline, json_or_base64, json_or_base64_of_event, payload_bytes};
use super::enqueue::queue_full;
use super::event_stream::{event, event_stream};
use super::memory::{self, BodyMemory};
use super::path::Path;
use super::problem::{Kind, Problem};
use super::scope::{forbidden, still_valid};
use super::{body, length, links, query};
use crate::access::Access;

/// The longest JSON body, in bytes: the largest payload in base64, and 64 KiB for the other members.
const JSON_BYTES_MAX: u64 = bounds::PAYLOAD_BYTES_MAX / 3 * 4 + 64 * bounds::KIB;

/// The payload and options of one request, from its body and query.
struct Options {
    payload: SharedBytes,
    timeout: Option<Duration>,
    mode: Option<Mode>,
    durable: bool,
}

/// Starts a broadcast, and answers with the replies, the stream of events, or the durable broadcast.
pub(crate) async fn send(
    State(host): State<Host>,
    State(stopping): State<CancellationToken>,
    access: Access,
    Path(topic): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let query: BroadcastQuery = query::query(&head.uri)?;
    body::no_idempotency_key(&head.headers, "every request starts a broadcast of its own")?;
    // What is no topic is refused for that.
    if let Ok(parsed) = topic.parse()
        && !access.broadcasts(&parsed)
    {
        return Err(forbidden(&access, &format!("broadcast:{topic}")));
    }
    // The payload, and a copy of it in a store or on its way from the text that it stands in.
    let mut memory = BodyMemory::new(host.budget(), 2);
    let options = read(query, &head.headers, body, &mut memory).await?;
    still_valid(&access)?;
    if options.durable {
        return send_durably(&host, &topic, options, memory).await;
    }
    let started = Instant::now();
    let replies = host.broadcast(Broadcast {
        topic,
        payload: options.payload,
        timeout: options.timeout.unwrap_or(bounds::BROADCAST_TIMEOUT_DEFAULT),
        mode: options.mode.unwrap_or(Mode::All),
    });
    let replies = replies.map_err(problem)?;
    if accepts_events(&head.headers) {
        let events = events(replies, started).map(move |event| {
            let _until_the_end = &memory;
            event
        });
        return Ok(event_stream(events, access.end(stopping)));
    }
    let (id, topic) = (replies.id.to_string(), replies.topic.to_string());
    let loading = ids(&replies.loading);
    let replies = tokio::select! {
        replies = replies.all() => replies,
        () = access.revoked.cancelled() => {
            return Err(Problem::new(Kind::UNAUTHORIZED, "the token was revoked while the broadcast ran; its calls were stopped"));
        }
    };
    let ended = ended(replies.iter().map(|reply| (&reply.answer).into()), started);
    let replies = replies.into_iter().map(|reply| reply_document(reply, json_or_base64)).collect();
    memory::json(host.budget(), &LiveBroadcast { id, topic, ended, loading, replies }).await
}

async fn send_durably(host: &Host, topic: &str, options: Options, mut memory: BodyMemory) -> Result<Response, Problem> {
    if options.timeout.is_some() || options.mode.is_some() {
        return Err(Problem::bad_request(
            "`timeout` and `mode` apply only to live broadcasts; each job of a durable one follows its plugin's manifest",
        ));
    }
    let durable = host.broadcast_durably(topic, options.payload, memory.take_for_store()).await.map_err(problem)?;
    let location = [(header::LOCATION, links::broadcast_from_broadcast(durable.id))];
    Ok((StatusCode::ACCEPTED, location, Json(durable_document(&durable))).into_response())
}

/// Returns the problem that no durable broadcast has this ID.
pub(crate) fn unknown(id: &str) -> Problem {
    let detail = format!(
        "unknown durable broadcast {id}; it had no subscribers, or its jobs were deleted; a live broadcast can't be read later"
    );
    Problem::new(Kind::BROADCAST_UNKNOWN, detail)
}

/// Shows a durable broadcast, with the results of the jobs that have ended.
pub(crate) async fn show(State(host): State<Host>, Path(id): Path<String>) -> Result<Response, Problem> {
    let number = id.parse().map_err(|_| unknown(&id))?;
    let _reading = memory::to_read_a_broadcast().await;
    let batch = host.batch(number).await?.ok_or_else(|| unknown(&id))?;
    let jobs = batch.jobs.iter().map(|entry| {
        let (reply, reply_base64) = entry.job.result.as_deref().map(inline).unwrap_or_default();
        BatchJob {
            plugin: entry.plugin.to_string(),
            state: entry.job.status.state.name().into(),
            id: Some(entry.job.id.to_string()),
            url: Some(links::job_from_broadcast(entry.job.id)),
            attempt: entry.job.status.attempt,
            reply,
            reply_base64,
            report: entry.job.report.as_ref().map(AttemptReport::from),
        }
    });
    let finished = batch.jobs.iter().all(|entry| entry.job.status.state.name().is_final());
    let document = Batch {
        deleted: batch.deleted,
        ..batch_document(batch.id.to_string(), batch.topic.to_string(), finished, jobs.collect())
    };
    memory::json(host.budget(), &document).await
}

fn batch_document(id: String, topic: String, finished: bool, jobs: Vec<BatchJob>) -> Batch {
    let mut states = BTreeMap::new();
    for job in &jobs {
        *states.entry(job.state).or_default() += 1;
    }
    Batch { url: links::broadcast_from_broadcast(&id), id, topic, states, deleted: 0, finished, jobs }
}

fn durable_document(durable: &Durable) -> Batch {
    let jobs = durable.jobs.iter().map(|(plugin, enqueued)| {
        let (state, id) = match enqueued {
            Enqueued::Added(id) | Enqueued::Duplicate(id) => (BatchJobState::Waiting, Some(*id)),
            Enqueued::Discarded { .. } => (BatchJobState::Discarded, None),
        };
        BatchJob {
            plugin: plugin.to_string(),
            state,
            id: id.map(|id| id.to_string()),
            url: id.map(links::job_from_broadcast),
            attempt: 0,
            reply: None,
            reply_base64: None,
            report: None,
        }
    });
    let jobs: Vec<_> = jobs.collect();
    let finished = jobs.iter().all(|job| job.id.is_none());
    batch_document(durable.id.to_string(), durable.topic.to_string(), finished, jobs)
}

/// Reads the payload and the options. A body is a document if its type is JSON, or absent, or the one that curl sends by
/// default; any other body is the payload.
async fn read(
    query: BroadcastQuery,
    headers: &HeaderMap,
    body: Body,
    memory: &mut BodyMemory,
) -> Result<Options, Problem> {
    let media_type = body::media_type(headers)?;
    let is_document = ["", "application/json", "application/x-www-form-urlencoded"].contains(&media_type.as_str());
    if !is_document {
        let payload = body::read(headers, body, bounds::PAYLOAD_BYTES_MAX, memory).await?;
        return options(payload, query.timeout, query.mode, query.durable);
    }
    if query.timeout.is_some() || query.mode.is_some() || query.durable.is_some() {
        return Err(Problem::bad_request(
            "options in the query need the payload as the body, with the type application/octet-stream; otherwise put them into the JSON",
        ));
    }
    let bytes = body::read(headers, body, JSON_BYTES_MAX, memory).await?;
    let document: BroadcastRequest = if bytes.is_empty() {
        BroadcastRequest::default()
    } else {
        query::json(&bytes).map_err(|problem| problem.hint("the payload goes into `payload`"))?
    };
    let payload = payload_bytes(document.payload, document.payload_base64).map_err(Problem::bad_request)?;
    options(payload, document.timeout, document.mode, document.durable)
}

fn options(
    payload: Vec<u8>,
    timeout: Option<String>,
    mode: Option<String>,
    durable: Option<bool>,
) -> Result<Options, Problem> {
    Ok(Options {
        payload: payload.into(),
        timeout: timeout.map(|text| length::duration("timeout", &text)).transpose()?,
        mode: mode.as_deref().map(parse_mode).transpose().map_err(Problem::bad_request)?,
        durable: durable.unwrap_or(false),
    })
}

fn parse_mode(text: &str) -> Result<Mode, String> {
    let first = |text: &str| text.strip_prefix("first=")?.parse().ok();
    match text {
        "all" => Ok(Mode::All),
        "quorum" => Ok(Mode::Quorum),
        text => first(text)
            .map(Mode::First)
            .ok_or_else(|| format!("`mode`: expected all, quorum or first=N, such as first=2; got `{text}`")),
    }
}

fn accepts_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|one| one.trim().starts_with("text/event-stream"))
}

/// Returns the events of a live broadcast: its subscribers, each reply as it comes, and the end.
fn events(replies: Replies, started: Instant) -> impl Stream<Item = Bytes> {
    let document = BroadcastStarted {
        id: replies.id.to_string(),
        topic: replies.topic.to_string(),
        subscribers: ids(&replies.asked),
        loading: ids(&replies.loading),
    };
    let rest = stream::unfold(Some((replies, Vec::new())), move |state| async move {
        let (mut replies, mut outcomes) = state?;
        match replies.next().await {
            Some(reply) => {
                outcomes.push((&reply.answer).into());
                let document = reply_document(reply, json_or_base64_of_event);
                Some((event(BroadcastEventName::Reply, None, &document), Some((replies, outcomes))))
            }
            None => Some((event(BroadcastEventName::End, None, &ended(outcomes, started)), None)),
        }
    });
    stream::iter([event(BroadcastEventName::Subscribers, None, &document)]).chain(rest)
}

fn ended(replies: impl IntoIterator<Item = ReplyOutcome>, started: Instant) -> BroadcastEnded {
    let mut outcomes = BTreeMap::new();
    for outcome in replies {
        *outcomes.entry(outcome).or_default() += 1;
    }
    BroadcastEnded { outcomes, elapsed_ms: millis(started.elapsed()) }
}

/// Returns the document of a reply; `encode` puts its bytes into JSON or base64.
pub(crate) fn reply_document(reply: rollcall::Reply, encode: impl Fn(&[u8]) -> JsonOrBase64) -> Reply {
    let mut document = Reply {
        plugin: reply.plugin.to_string(),
        outcome: (&reply.answer).into(),
        elapsed_ms: millis(reply.elapsed),
        reply: None,
        reply_base64: None,
        disposition: None,
        retry_after_ms: None,
        report: None,
    };
    match reply.answer {
        Answer::Replied(bytes) => (document.reply, document.reply_base64) = encode(&bytes),
        Answer::Failed(failure) => {
            let (disposition, report) = match failure {
                Failure::Retry(text) => (Disposition::Retry, text),
                Failure::RetryAfter(text, after) => {
                    document.retry_after_ms = u64::try_from(after.as_millis()).ok();
                    (Disposition::RetryAfter, text)
                }
                Failure::Discard(text) => (Disposition::Discard, text),
            };
            (document.disposition, document.report) = (Some(disposition), Some(report));
        }
        Answer::Trapped(report) | Answer::TimedOut(report) | Answer::Skipped(report) => document.report = Some(report),
    }
    document
}

fn ids(plugins: &[PluginId]) -> Vec<String> {
    plugins.iter().map(ToString::to_string).collect()
}

/// Returns the problem of a request that failed.
pub(crate) fn problem(error: BroadcastError) -> Problem {
    let text = error.to_string();
    let kind = match error {
        BroadcastError::Store(error) => return error.into(),
        BroadcastError::QueueFull(full) => return queue_full(&full),
        BroadcastError::Loading { plugins, .. } => {
            return Problem::new(Kind::PLUGIN_LOADING, text).with("plugins", ids(&plugins));
        }
        BroadcastError::Elsewhere(plugins) => {
            let each: Vec<_> =
                plugins.iter().map(|(plugin, nodes)| json!({"plugin": plugin.to_string(), "nodes": nodes})).collect();
            return Problem::new(Kind::PLUGIN_ELSEWHERE, text).with("plugins", each);
        }
        BroadcastError::BadTopic(_) | BroadcastError::TooLong { .. } | BroadcastError::FirstOfNone => {
            Kind::BROADCAST_INVALID
        }
        BroadcastError::TooLarge { .. } => Kind::TOO_LARGE,
        BroadcastError::TooMany { .. } | BroadcastError::TooDeep { .. } => Kind::TOO_MANY_BROADCASTS,
        BroadcastError::Draining => Kind::DRAINING,
    };
    Problem::new(kind, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_parsed_as_they_are_documented() {
        assert_eq!(parse_mode("all"), Ok(Mode::All));
        assert_eq!(parse_mode("quorum"), Ok(Mode::Quorum));
        assert_eq!(parse_mode("first=3"), Ok(Mode::First(3)));
        for bad in ["", "first", "first=", "first=-1", "first=x", "most"] {
            assert!(parse_mode(bad).unwrap_err().contains("expected all, quorum or first=N"), "{bad}");
        }
    }

    #[test]
    fn a_failure_carries_its_disposition() {
        let reply = |answer| {
            let plugin = "words".parse().unwrap();
            let reply = rollcall::Reply { plugin, answer, elapsed: Duration::from_micros(1500) };
            let document = reply_document(reply, json_or_base64);
            serde_json::to_value(document).unwrap()
        };
        let after = Answer::Failed(Failure::RetryAfter("busy".into(), Duration::from_secs(2)));
        assert_eq!(
            reply(after),
            serde_json::json!({"plugin": "words", "outcome": "failed", "elapsed_ms": 1.5,
                "disposition": "retry-after", "retry_after_ms": 2000, "report": "busy"})
        );
        assert_eq!(reply(Answer::Replied(b"{\"a\": 1}".to_vec()))["reply"], serde_json::json!({"a": 1}));
        assert_eq!(reply(Answer::Replied(vec![0xff]))["reply_base64"], "/w==");
    }
}
