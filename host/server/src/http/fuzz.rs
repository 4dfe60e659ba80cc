//! Feeds the readers of queries and bodies with arbitrary input.

use std::time::Duration;

use axum::http::Uri;
use serde::de::DeserializeOwned;
use wharf_core::time::Timestamp;

use super::api::{
    AfterQuery, BroadcastQuery, BroadcastRequest, EnqueueQuery, HoldRequest, JobRequest, LimitNumbers, LimitQuery,
    ListQuery, ReleaseQuery,
};
use super::filter;
use super::query::{encode, json, query};
use crate::fuzz::{Target, fuzz};

const TARGET: Target = Target {
    name: "requests",
    tokens: &[
        "/v1/jobs?",
        "task=words/count",
        "state=running",
        "key=",
        "batch=",
        "group=a",
        "limit=10",
        "before=0s9y115fm0000",
        "wait=30s",
        "delay=1s",
        "at=2030-01-31T12:00:00Z",
        "priority=-1",
        "token=",
        "&",
        "=",
        "%",
        "%00",
        "%ff",
        "%2F",
        "%C3%BC",
        "+",
        "#",
        "\n",
        "{\"task\":\"a/b\"",
        "\"payload\":",
        "\"payload_base64\":\"",
        "\"key\":",
        "\"delay\":\"1s\"",
        "\"per_key\":1",
        "\"total\":null",
        "\"for\":\"1s\"",
        "\"reason\":",
        "\"timeout\":",
        "\"mode\":",
        "[",
        "]",
        "{",
        "}",
        ",",
        "null",
        "\\u0000",
        "\\ud800",
        "1e400",
    ],
    longest: 48 * 1024,
    cpu: Duration::from_secs(1),
    make: None,
    check,
};

/// Reads an address on the first line, and a body below it; returns what came of them.
fn check(input: &[u8]) -> String {
    let line = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (address, body) = (&input[..line], input.get(line + 1..).unwrap_or_default());
    let mut results = String::new();
    if let Ok(uri) = Uri::try_from(address) {
        results.push_str(&read_query::<ListQuery>(&uri));
        if let Ok(list) = query::<ListQuery>(&uri) {
            let filter = filter::of_parameters(&list, Timestamp::ZERO);
            results.push_str(&filter.map_or_else(|problem| format!("{problem:?}\n"), |filter| format!("{filter}\n")));
        }
        results.push_str(&read_query::<EnqueueQuery>(&uri));
        results.push_str(&read_query::<BroadcastQuery>(&uri));
        results.push_str(&read_query::<LimitQuery>(&uri));
        results.push_str(&read_query::<AfterQuery>(&uri));
        results.push_str(&read_query::<ReleaseQuery>(&uri));
    }
    for result in [
        read_body::<JobRequest>(body),
        read_body::<Vec<JobRequest>>(body),
        read_body::<LimitNumbers>(body),
        read_body::<HoldRequest>(body),
        read_body::<BroadcastRequest>(body),
    ] {
        results.push_str(&result);
    }
    assert!(results.len() <= 64 * 1024 + 16 * input.len(), "{} bytes of text", results.len());
    // The host reads the text that the commands encode.
    let text = String::from_utf8_lossy(&body[..body.len().min(4096)]).into_owned();
    let uri: Uri = format!("/v1/jobs?key={}", encode(&text)).parse().expect("an address");
    assert_eq!(query::<ListQuery>(&uri).expect("a query").key, Some(text));
    results
}

fn read_query<T: DeserializeOwned>(uri: &Uri) -> String {
    query::<T>(uri).map_or_else(|problem| format!("{problem:?}\n"), |_| "a query\n".to_owned())
}

fn read_body<T: DeserializeOwned>(body: &[u8]) -> String {
    json::<T>(body).map_or_else(|problem| format!("{problem:?}\n"), |_| "a body\n".to_owned())
}

#[test]
fn holds() {
    fuzz(module_path!(), &TARGET);
}
