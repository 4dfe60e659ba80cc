//! Server-sent events on the wire, and the response that streams them.

use std::convert::Infallible;
use std::fmt::{Display, Write as _};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;

/// Pause after which a comment is sent on a silent stream: a proxy may close a connection that is silent for half a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Headers for proxies: events are of no use later. nginx collects a response before it passes it on, unless this header
/// says otherwise, and others do so to compress it.
const HEADERS: [(HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/event-stream"),
    (header::CACHE_CONTROL, "no-cache, no-store, no-transform"),
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// Returns the response that streams these events until `end` is ready.
pub(crate) fn event_stream(
    events: impl Stream<Item = Bytes> + Send + 'static,
    end: impl Future<Output = ()> + Send + 'static,
) -> Response {
    let events = Box::pin(events.take_until(Box::pin(end)));
    let frames = stream::unfold(events, |mut events| async move {
        let frame = match tokio::time::timeout(KEEP_ALIVE, events.next()).await {
            Ok(event) => event?,
            Err(_) => Bytes::from_static(b": keep-alive\n\n"),
        };
        Some((Ok::<_, Infallible>(frame), events))
    });
    (HEADERS, Body::from_stream(frames)).into_response()
}

/// Returns an event with this name and a document as its data, and an ID if it has one.
pub(crate) fn event(name: impl Display, id: Option<&str>, document: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(document).expect("documents have string keys and no value that JSON lacks");
    let mut event = String::with_capacity(data.len() + 64);
    let _ = writeln!(event, "event: {name}");
    if let Some(id) = id {
        let _ = writeln!(event, "id: {id}");
    }
    // JSON that a plugin wrote may have several lines. A carriage return ends a line, too; in JSON it is white space like any other.
    for line in data.split(['\n', '\r']) {
        let _ = writeln!(event, "data: {line}");
    }
    event.push('\n');
    event.into()
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn an_event_has_a_name_perhaps_an_id_and_its_data_on_each_line() {
        assert_eq!(event("log", Some("7"), &"a\nb"), "event: log\nid: 7\ndata: \"a\\nb\"\n\n");
        let raw: Box<RawValue> = serde_json::from_str("[1,\n2,\r\n3]").unwrap();
        assert_eq!(event("x", None, &raw), "event: x\ndata: [1,\ndata: 2,\ndata: \ndata: 3]\n\n");
    }

    #[tokio::test]
    async fn proxies_are_told_to_pass_events_on() {
        let response = event_stream(stream::iter([event("a", None, &1)]), std::future::pending());
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/event-stream");
        assert_eq!(header("x-accel-buffering"), "no");
        assert!(header("cache-control").contains("no-cache") && header("cache-control").contains("no-transform"));
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(body, "event: a\ndata: 1\n\n");
    }
}
