//! Fuzzes the parser of server-sent events with bytes that a host, or another program at its address, may send.

use std::io::{BufReader, Read};
use std::time::Duration;

use super::sse::{Events, SseEvent};
use crate::fuzz::{Target, fuzz};

const TARGET: Target = Target {
    name: "events",
    tokens: &[
        "event: chunk\n",
        "event: state\n",
        "data: {}\n",
        "data:x\n",
        "data\n",
        "id: 1\n",
        "id\n",
        "id: 1.end\n",
        ": keep-alive\n",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        ":",
        "retry: 5\n",
        " ",
        "event",
        "data",
    ],
    longest: 32 * 1024,
    cpu: Duration::from_secs(1),
    make: None,
    check,
};

/// Checks that the events do not depend on whether the bytes come all at once or one by one.
fn check(input: &[u8]) -> String {
    let whole: Result<Vec<SseEvent>, String> = all(input, 64 * 1024);
    assert_eq!(whole, all(input, 1), "the events depend on how their bytes arrive");
    let events = match whole {
        Ok(events) => events,
        Err(why) => return why,
    };
    let bytes: usize = events.iter().map(|event| event.data.len() + event.name.len()).sum();
    assert!(bytes <= input.len(), "{bytes} bytes of {}", input.len());
    let summary = events.iter().flat_map(|event| [event.name.as_str(), if event.id.is_some() { "id" } else { "" }]);
    summary.collect::<Vec<_>>().join("\n")
}

fn all(input: impl Read, at_once: usize) -> Result<Vec<SseEvent>, String> {
    Events::new(BufReader::with_capacity(at_once, input)).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

#[test]
fn holds() {
    fuzz(module_path!(), &TARGET);
}
