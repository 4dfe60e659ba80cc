//! Clients that are slow with what they send, or do not read what they asked for: nobody else waits for them, and they cost little.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Host, Setup, eventually};

/// More than a host serves at once.
const MANY: usize = 4200;

fn send(host: &Host, text: &str) -> TcpStream {
    let address = host.client().address().trim_start_matches("http://").to_owned();
    // The backlog of the listener may be full for a moment.
    let mut stream = eventually("the host can be reached", || TcpStream::connect(&address).ok());
    // Where the host has closed it already, that is no concern of this test.
    let _ = stream.write_all(text.as_bytes());
    stream
}

/// Returns true if the host has neither closed the connection nor sent anything.
fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("it is set");
    stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Memory of the host's process that is resident, in bytes.
fn resident(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

/// Asks for this path many times, and reads no more of each response than its beginning.
fn readers_that_stop(host: &Host, path: &str, count: usize) -> Vec<TcpStream> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    let mut readers: Vec<_> = (0..count).map(|_| send(host, &request)).collect();
    for reader in &mut readers {
        let mut beginning = vec![0; 200_000];
        reader.read_exact(&mut beginning).expect("the beginning of a response");
        assert!(beginning.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&beginning[..200]));
    }
    readers
}

#[test]
fn thousands_of_slow_heads_leave_the_probes_alone() {
    let host = Setup::default().start();
    let slow: Vec<TcpStream> =
        (0..MANY).map(|_| send(&host, "GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nX-S")).collect();
    for path in ["/health", "/ready", "/metrics", "/v1/jobs"].into_iter().cycle().take(20) {
        let mut probe = send(&host, &format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"));
        probe.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let mut response = String::new();
        probe.read_to_string(&mut response).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(response.starts_with("HTTP/1.1 200"), "{path}: {response}");
    }
    assert!(slow.iter().any(is_open), "the probes were answered beside slow heads, not after them");
}

#[test]
fn followers_that_do_not_read_share_what_they_hold() {
    let host = Setup::default().plugin("villain").start();
    let job = host.run("villain/slow", json!({ "do": "flood-chunks", "chunks": 40, "bytes": 1_000_000 }));
    assert_eq!(job["state"], "succeeded", "{job}");
    let path = format!("/v1/jobs/{}/events", job["id"].as_str().expect("an id"));
    drop(readers_that_stop(&host, &path, 5));
    let before = resident(&host);
    let readers = readers_that_stop(&host, &path, 300);
    let more = resident(&host).saturating_sub(before);
    // A page of the log and the event being sent, for each reader alone, would be more than a gigabyte.
    assert!(more < 400 << 20, "{} readers hold {} MiB", readers.len(), more >> 20);
    drop(readers);
    // What they shared is whole for whoever does read.
    let chunks = host.client().events(job["id"].as_str().expect("an id"), None).filter(|event| event.kind == "chunk");
    let lengths: Vec<_> = chunks.map(|chunk| chunk.data["text"].as_str().map_or(0, str::len)).collect();
    assert_eq!(lengths, [1_000_001; 40], "each ends with a newline");
}

#[test]
fn readers_of_a_result_share_it() {
    let host = Setup::default().plugin("villain").start();
    let bytes = 16 << 20;
    let job = host.run("villain/slow", json!({ "do": "big-output", "bytes": bytes }));
    let path = format!("/v1/jobs/{}/result", job["id"].as_str().expect("an id"));
    drop(readers_that_stop(&host, &path, 5));
    let before = resident(&host);
    let readers = readers_that_stop(&host, &path, 80);
    let more = resident(&host).saturating_sub(before);
    assert!(more < 320 << 20, "{} readers hold {} MiB", readers.len(), more >> 20);
    drop(readers);
    assert_eq!(host.client().get(&path).body.len(), bytes);
}
