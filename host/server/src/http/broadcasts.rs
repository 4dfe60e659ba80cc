//! `/v1/broadcasts`: every subscriber of a topic, called now with one reply from each, or durably with one job for each.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use serde_json::json;
use wharf_core::bounds;
use wharf_core::ids::PluginId;
use wharf_core::job::StateName;
use wharf_core::outcome::Failure;
use wharf_core::rollcall::{self, Answer, Mode};
use wharf_runner::{Broadcast, BroadcastError, Durable, Enqueued, Replies};

use super::app_state::Face;
use super::bytes::{Carried, from_base64, inline_base64, inline_json, json_or_base64, json_or_base64_of_event};
use super::documents::report;
use super::events::KEEP_ALIVE;
use super::path::Path;
use super::problem::{Kind, Problem};
use super::wire::{self, BroadcastAsked, BroadcastQuery};
use super::{body, query};
use crate::config;

/// Room for the largest payload when it comes as base64, and for what stands around it.
const JSON_BYTES_MAX: u64 = bounds::PAYLOAD_BYTES_MAX / 3 * 4 + 64 * bounds::KIB;

/// What a request asks for.
struct Asked {
    payload: Arc<[u8]>,
    timeout: Option<Duration>,
    mode: Option<Mode>,
    durable: bool,
}

pub(crate) async fn send(
    State(face): State<Arc<Face>>,
    Path(topic): Path<String>,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let query: BroadcastQuery = query::query(&head.uri)?;
    body::no_idempotency_key(&head.headers, "each broadcast that is asked for is sent")?;
    let asked = read(query, &head.headers, body).await?;
    if asked.durable {
        if asked.timeout.is_some() || asked.mode.is_some() {
            return Err(Problem::bad_request(
                "`timeout` and `mode` are of a live broadcast; the jobs of a durable one each keep to their plugin's manifest",
            ));
        }
        let durable = face.host.broadcast_durably(&topic, asked.payload).await.map_err(problem)?;
        let url = url(&durable.id.to_string());
        return Ok((StatusCode::ACCEPTED, [(header::LOCATION, url)], Json(durable_document(&durable))).into_response());
    }
    let began = Instant::now();
    let replies = face.host.broadcast(Broadcast {
        topic,
        payload: asked.payload,
        timeout: asked.timeout.unwrap_or(bounds::BROADCAST_TIMEOUT_DEFAULT),
        mode: asked.mode.unwrap_or(Mode::All),
    });
    let replies = replies.map_err(problem)?;
    if wants_events(&head.headers) {
        let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
        let stopping = face.stopping.clone().cancelled_owned();
        let events = Sse::new(events(replies, began).take_until(stopping).map(Ok::<_, Infallible>));
        return Ok(([(header::CACHE_CONTROL, "no-store")], events.keep_alive(keep_alive)).into_response());
    }
    let (id, topic) = (replies.id.to_string(), replies.topic.to_string());
    let loading = ids(&replies.loading);
    let replies = replies.all().await;
    let ended = ended(replies.iter().map(|reply| reply.answer.kind()), began);
    let replies = replies.into_iter().map(|reply| reply_document(reply, json_or_base64)).collect();
    Ok(Json(wire::Broadcast { id, topic, ended, loading, replies }).into_response())
}

/// How far a durable broadcast is, with the results that are there.
pub(crate) async fn show(State(face): State<Arc<Face>>, Path(id): Path<String>) -> Result<Json<wire::Batch>, Problem> {
    let unknown = || {
        let detail = format!(
            "there is no durable broadcast {id}: nobody subscribed, or its jobs were forgotten; live ones are answered where they are asked"
        );
        Problem::new(Kind::BROADCAST_UNKNOWN, detail)
    };
    let id = id.parse().map_err(|_| unknown())?;
    let batch = face.host.batch(id).await?.ok_or_else(unknown)?;
    let jobs = batch.jobs.iter().map(|of| {
        let result = of.job.result.as_deref();
        wire::BatchJob {
            plugin: of.plugin.to_string(),
            state: of.job.standing.state.name().as_str().to_owned(),
            id: Some(of.job.id.to_string()),
            url: Some(format!("/v1/jobs/{}", of.job.id)),
            attempt: of.job.standing.attempt,
            reply: result.and_then(inline_json),
            reply_base64: result.and_then(inline_base64),
            report: of.job.report.as_ref().map(report),
        }
    });
    let finished = batch.jobs.iter().all(|of| of.job.standing.state.name().is_final());
    Ok(Json(batch_document(&batch.id.to_string(), batch.topic.as_str(), finished, jobs.collect())))
}

fn url(id: &str) -> String {
    format!("/v1/broadcasts/{id}")
}

fn batch_document(id: &str, topic: &str, finished: bool, jobs: Vec<wire::BatchJob>) -> wire::Batch {
    let mut states = BTreeMap::new();
    for job in &jobs {
        *states.entry(job.state.clone()).or_default() += 1;
    }
    wire::Batch { id: id.to_owned(), topic: topic.to_owned(), url: url(id), states, finished, jobs }
}

fn durable_document(durable: &Durable) -> wire::Batch {
    let jobs = durable.jobs.iter().map(|(plugin, enqueued)| {
        let plugin = plugin.to_string();
        let (state, id) = match enqueued {
            Enqueued::Added(id) | Enqueued::Duplicate(id) => (StateName::Waiting.as_str(), Some(id.to_string())),
            Enqueued::Discarded { .. } => ("discarded", None),
        };
        let url = id.as_ref().map(|id| format!("/v1/jobs/{id}"));
        wire::BatchJob { plugin, state: state.to_owned(), id, url, ..wire::BatchJob::default() }
    });
    let jobs: Vec<_> = jobs.collect();
    let finished = jobs.iter().all(|job| job.id.is_none());
    batch_document(&durable.id.to_string(), durable.topic.as_str(), finished, jobs)
}

/// A body is a document where it says that it is JSON, as curl does where it is not told; any other is a payload as it is.
async fn read(query: BroadcastQuery, headers: &HeaderMap, body: Body) -> Result<Asked, Problem> {
    let media_type = body::media_type(headers)?;
    let is_document = ["", "application/json", "application/x-www-form-urlencoded"].contains(&media_type.as_str());
    if !is_document {
        let payload = body::read(headers, body, bounds::PAYLOAD_BYTES_MAX).await?;
        return asked(payload, query.timeout, query.mode, query.durable);
    }
    if query.timeout.is_some() || query.mode.is_some() || query.durable.is_some() {
        return Err(Problem::bad_request(
            "options in the query go with a body that is the payload as it is, of type application/octet-stream; else write them into the JSON",
        ));
    }
    let bytes = body::read(headers, body, JSON_BYTES_MAX).await?;
    let document: BroadcastAsked = if bytes.is_empty() {
        BroadcastAsked::default()
    } else {
        query::json(&bytes).map_err(|problem| problem.hint("the payload goes into `payload`"))?
    };
    let payload = match (document.payload, document.payload_base64) {
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request(
                "payload: it is given twice; use `payload` for JSON or `payload_base64` for bytes",
            ));
        }
        (Some(json), None) => json.get().as_bytes().to_vec(),
        (None, Some(text)) => {
            from_base64(&text).map_err(|error| Problem::bad_request(format!("payload_base64: {error}")))?
        }
        (None, None) => b"null".to_vec(),
    };
    asked(payload, document.timeout, document.mode, document.durable)
}

fn asked(
    payload: Vec<u8>,
    timeout: Option<String>,
    mode: Option<String>,
    durable: Option<bool>,
) -> Result<Asked, Problem> {
    let timeout = timeout.as_deref().map(config::duration).transpose();
    Ok(Asked {
        payload: payload.into(),
        timeout: timeout.map_err(|error| Problem::bad_request(format!("`timeout`: {error}")))?,
        mode: mode.as_deref().map(mode_of).transpose().map_err(Problem::bad_request)?,
        durable: durable.unwrap_or(false),
    })
}

fn mode_of(text: &str) -> Result<Mode, String> {
    let first = |text: &str| text.strip_prefix("first=")?.parse().ok();
    match text {
        "all" => Ok(Mode::All),
        "quorum" => Ok(Mode::Quorum),
        text => first(text)
            .map(Mode::First)
            .ok_or_else(|| format!("`mode`: `{text}` is none; all, quorum or first=N is possible, as in first=2")),
    }
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|one| one.trim().starts_with("text/event-stream"))
}

/// Who is asked, each reply as it comes, and the end.
fn events(replies: Replies, began: Instant) -> impl Stream<Item = Event> {
    let begun = wire::BroadcastBegun {
        id: replies.id.to_string(),
        topic: replies.topic.to_string(),
        asked: ids(&replies.asked),
        loading: ids(&replies.loading),
    };
    let rest = stream::unfold(Some((replies, Vec::new())), move |state| async move {
        let (mut replies, mut kinds) = state?;
        match replies.next().await {
            Some(reply) => {
                kinds.push(reply.answer.kind());
                Some((event("reply", &reply_document(reply, json_or_base64_of_event)), Some((replies, kinds))))
            }
            None => Some((event("end", &ended(kinds, began)), None)),
        }
    });
    stream::iter([event("asked", &begun)]).chain(rest)
}

fn event(name: &str, data: &impl Serialize) -> Event {
    // These documents have no part that JSON could not carry.
    Event::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}

fn ended(kinds: impl IntoIterator<Item = &'static str>, began: Instant) -> wire::BroadcastEnded {
    let mut outcomes = BTreeMap::new();
    for kind in kinds {
        *outcomes.entry(kind.to_owned()).or_default() += 1;
    }
    wire::BroadcastEnded { outcomes, elapsed_ms: millis(began.elapsed()) }
}

fn millis(length: Duration) -> f64 {
    length.as_micros() as f64 / 1000.0
}

fn reply_document(reply: rollcall::Reply, carry: impl Fn(&[u8]) -> Carried) -> wire::Reply {
    let plain = wire::Reply {
        plugin: reply.plugin.to_string(),
        outcome: reply.answer.kind().to_owned(),
        elapsed_ms: millis(reply.elapsed),
        ..wire::Reply::default()
    };
    let failed = |disposition: &str, report| wire::Reply {
        disposition: Some(disposition.to_owned()),
        report: Some(report),
        ..wire::Reply::default()
    };
    let own = match reply.answer {
        Answer::Replied(bytes) => {
            let (reply, reply_base64) = carry(&bytes);
            wire::Reply { reply, reply_base64, ..wire::Reply::default() }
        }
        Answer::Failed(Failure::Retry(text)) => failed("retry", text),
        Answer::Failed(Failure::RetryAfter(text, after)) => {
            wire::Reply { retry_after_ms: u64::try_from(after.as_millis()).ok(), ..failed("retry-after", text) }
        }
        Answer::Failed(Failure::Discard(text)) => failed("discard", text),
        Answer::Trapped(report) | Answer::TimedOut(report) | Answer::Skipped(report) => {
            wire::Reply { report: Some(report), ..wire::Reply::default() }
        }
    };
    wire::Reply { plugin: plain.plugin, outcome: plain.outcome, elapsed_ms: plain.elapsed_ms, ..own }
}

fn ids(plugins: &[PluginId]) -> Vec<String> {
    plugins.iter().map(ToString::to_string).collect()
}

fn problem(error: BroadcastError) -> Problem {
    let text = error.to_string();
    let kind = match error {
        BroadcastError::Store(error) => return error.into(),
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
    fn modes_are_read_as_they_are_documented() {
        assert_eq!(mode_of("all"), Ok(Mode::All));
        assert_eq!(mode_of("quorum"), Ok(Mode::Quorum));
        assert_eq!(mode_of("first=3"), Ok(Mode::First(3)));
        for bad in ["", "first", "first=", "first=-1", "first=x", "most"] {
            assert!(mode_of(bad).unwrap_err().contains("first=N is possible"), "{bad}");
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
