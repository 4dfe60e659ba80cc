//! Queries and bodies as anybody may send them.

use std::time::Duration;

use axum::http::Uri;
use serde::de::DeserializeOwned;

use super::query::{encode, json, query};
use super::wire::{BroadcastAsked, BroadcastQuery, EnqueueQuery, JobAsked, LimitNumbers, ListQuery};
use crate::fuzz::{Target, fuzz};

const TARGET: Target = Target {
    name: "requests",
    tokens: &[
        "/v1/jobs?",
        "task=words/count",
        "state=running",
        "key=",
        "batch=",
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

/// An address on the first line, a body below it.
fn check(input: &[u8]) -> String {
    let line = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (address, body) = (&input[..line], input.get(line + 1..).unwrap_or_default());
    let mut came_to = String::new();
    if let Ok(uri) = Uri::try_from(address) {
        came_to.push_str(&asked::<ListQuery>(&uri));
        came_to.push_str(&asked::<EnqueueQuery>(&uri));
        came_to.push_str(&asked::<BroadcastQuery>(&uri));
    }
    for told in
        [read::<JobAsked>(body), read::<Vec<JobAsked>>(body), read::<LimitNumbers>(body), read::<BroadcastAsked>(body)]
    {
        came_to.push_str(&told);
    }
    assert!(came_to.len() <= 64 * 1024 + 12 * input.len(), "{} bytes of text", came_to.len());
    // What the commands make of a text is what the host reads.
    let text = String::from_utf8_lossy(&body[..body.len().min(4096)]).into_owned();
    let uri: Uri = format!("/v1/jobs?key={}", encode(&text)).parse().expect("an address");
    assert_eq!(query::<ListQuery>(&uri).expect("a query").key, Some(text));
    came_to
}

fn asked<T: DeserializeOwned>(uri: &Uri) -> String {
    query::<T>(uri).map_or_else(|problem| format!("{problem:?}\n"), |_| "a query\n".to_owned())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> String {
    json::<T>(body).map_or_else(|problem| format!("{problem:?}\n"), |_| "a body\n".to_owned())
}

#[test]
fn holds() {
    fuzz(module_path!(), &TARGET);
}
