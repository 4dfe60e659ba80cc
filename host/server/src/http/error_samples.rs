//! The problem details of invalid queries and bodies, for the snapshot of error texts.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;
use serde_json::Value;
use wharf_core::time::Timestamp;

use super::api::{
    AfterQuery, BroadcastQuery, BroadcastRequest, EnqueueQuery, FailuresQuery, HoldRequest, JobRequest, LimitNumbers,
    LimitQuery, ListQuery, ReleaseQuery,
};
use super::body::{self, media_type, no_idempotency_key};
use super::filter;
use super::problem::Problem;
use super::query::{json, query};
use crate::error_snapshot::ErrorSamples;

/// Adds the problems of invalid queries, bodies and headers.
pub(crate) async fn collect(samples: &mut ErrorSamples) {
    for text in [
        "stat=running",
        "limit=many",
        "state=running&state=failed",
        "key=%FF",
        "state=done",
        "order=last",
        "where=stat:failed",
        "where=task:a/b%20text:%22x",
        "where=payload.tenant=42",
        "where=state:failed&state=failed",
        "since=tomorrow",
        "outcome=crashed",
    ] {
        add(samples, "jobs query", text, problem_of_list(text)).await;
    }
    for text in ["tsk=a/b", "priority=high", "at=tomorrow"] {
        add(samples, "enqueue query", text, problem_of_query::<EnqueueQuery>(text)).await;
    }
    for text in ["timeuot=5s", "durable=yes"] {
        add(samples, "broadcast query", text, problem_of_query::<BroadcastQuery>(text)).await;
    }
    for text in ["key=a", "group=a&grup=b"] {
        add(samples, "limit query", text, problem_of_query::<LimitQuery>(text)).await;
    }
    for text in ["afetr=key:a", "limit=many"] {
        add(samples, "holds query", text, problem_of_query::<AfterQuery>(text)).await;
    }
    for text in ["state=done", "afetr=x"] {
        add(samples, "failures query", text, problem_of_query::<FailuresQuery>(text)).await;
    }
    for text in ["all=yes", "keys=a"] {
        add(samples, "release query", text, problem_of_query::<ReleaseQuery>(text)).await;
    }
    for text in ["{\"kye\":\"a\"}", "{\"until\":\"tomorrow\"}"] {
        add(samples, "hold", text, json::<HoldRequest>(text.as_bytes()).err()).await;
    }
    for text in ["", "{", "{\"payload\":1}", "{\"task\":1}", "{\"task\":\"a/b\",\"dealy\":\"1s\"}"] {
        add(samples, "job", text, json::<JobRequest>(text.as_bytes()).err()).await;
    }
    add(samples, "broadcast", "{\"payloda\":1}", json::<BroadcastRequest>(b"{\"payloda\":1}").err()).await;
    add(samples, "limit", "{\"per_key\":-1}", json::<LimitNumbers>(b"{\"per_key\":-1}").err()).await;

    let with =
        |name: header::HeaderName, value: &'static str| HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
    add(samples, "body", "7 bytes of 5", body::read_small(&HeaderMap::new(), Body::from("1234567"), 5).await.err())
        .await;
    let encoded = with(header::CONTENT_ENCODING, "gzip");
    add(samples, "header", "Content-Encoding: gzip", body::read_small(&encoded, Body::from("x"), 5).await.err()).await;
    let mut twice = with(header::CONTENT_TYPE, "text/plain");
    twice.append(header::CONTENT_TYPE, HeaderValue::from_static("image/png"));
    add(samples, "header", "Content-Type, twice", media_type(&twice).err()).await;
    let key = with(header::HeaderName::from_static("idempotency-key"), "1");
    add(samples, "header", "Idempotency-Key: 1", no_idempotency_key(&key, "…").err()).await;
}

fn problem_of_list(text: &str) -> Option<Problem> {
    let uri: Uri = format!("/v1/x?{text}").parse().expect("an address");
    query::<ListQuery>(&uri).and_then(|list| filter::of_parameters(&list, Timestamp::ZERO)).err()
}

fn problem_of_query<T: DeserializeOwned>(text: &str) -> Option<Problem> {
    let uri: Uri = format!("/v1/x?{text}").parse().expect("an address");
    query::<T>(&uri).err()
}

/// Adds the code and the detail of a problem, as a client gets them.
async fn add(samples: &mut ErrorSamples, source: &str, input: &str, problem: Option<Problem>) {
    let Some(problem) = problem else { return samples.add(source, input, "(checked later)") };
    let body = to_bytes(problem.into_response().into_body(), usize::MAX).await.expect("a body");
    let document: Value = serde_json::from_slice(&body).expect("JSON");
    let member = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
    samples.add(source, input, format_args!("{} ({})", member("detail"), member("code")));
}
