//! The HTTP API as programs see it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Host, Reply, Setup, eventually, resolve};

#[track_caller]
fn is_problem(reply: &Reply, status: u16, code: &str) -> Value {
    assert_eq!(reply.status, status, "{}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.content_type, "application/problem+json");
    let problem = reply.json();
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["status"], status);
    assert!(problem["detail"].as_str().is_some_and(|text| text.len() > 10), "{problem}");
    problem
}

#[test]
fn every_wrong_request_has_a_status_a_code_and_a_text() {
    let host = Setup::default().plugin("words").start();
    let post = |body: Value| host.client().post("/v1/jobs", &body);
    let unknown = is_problem(&post(json!({ "task": "words/cuont", "payload": {} })), 422, "job-invalid");
    assert!(unknown.to_string().contains("words/count"), "the nearest task is named: {unknown}");
    let schema = is_problem(&post(json!({ "task": "words/count", "payload": { "text": 7 } })), 422, "job-invalid");
    assert!(schema.to_string().contains("text"), "the place in the payload is named: {schema}");
    is_problem(&post(json!({ "task": "words/count", "pay": 1 })), 400, "bad-request");
    is_problem(&post(json!({ "task": "words/count", "payload": { "text": "" }, "key": "" })), 422, "job-invalid");
    is_problem(&host.client().post_bytes("/v1/jobs", "application/json", b"{\"task\": "), 400, "bad-request");
    is_problem(&host.client().get("/v1/jobs/nonsense"), 404, "job-unknown");
    is_problem(&host.client().get("/v1/jobs/0000000000001"), 404, "job-unknown");
    is_problem(&host.client().get("/v1/jobs?state=asleep"), 400, "bad-request");
    is_problem(&host.client().get("/v1/nothing"), 404, "route-unknown");
    is_problem(&host.client().get("/v1/plugins/nobody"), 404, "plugin-unknown");
    is_problem(&host.client().delete("/v1/limits?group=words%2Fcount"), 404, "limit-not-set");
    let kept = host.client().get("/v1/jobs").ok();
    assert_eq!(kept["jobs"], json!([]), "none of these left anything behind");
}

#[test]
fn a_payload_that_is_too_large_is_refused() {
    let host = Setup::default().plugin("thumbnail").start();
    let reply = host.client().post_bytes("/v1/jobs?task=thumbnail/make", "image/png", &vec![0; 33 << 20]);
    assert!(reply.status == 413 || reply.status == 422, "{}", String::from_utf8_lossy(&reply.body));
    assert!(String::from_utf8_lossy(&reply.body).contains("32.0 MiB"), "{}", String::from_utf8_lossy(&reply.body));
    assert!(host.is_ready());
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending_its_body() {
    let host = Setup::default().plugin("words").token("the-token-of-the-tests").start();
    let address = host.client().address().trim_start_matches("http://");
    let refused = [
        ("POST /v1/jobs", "Bearer wrong", "HTTP/1.1 401 "),
        ("POST /v1/nothing", "Bearer the-token-of-the-tests", "HTTP/1.1 404 "),
        ("POST /v1/jobs?wait=never", "Bearer the-token-of-the-tests", "HTTP/1.1 400 "),
        ("PUT /v1/limits?group=nobody%2Fdo", "Bearer wrong", "HTTP/1.1 401 "),
        ("POST /login", "Bearer wrong", "HTTP/1.1 4"),
    ];
    for (line, authorization, status) in refused {
        let mut client = TcpStream::connect(address).expect("the host listens");
        let head = |line: &str| format!("{line} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {authorization}\r\n");
        write!(client, "{}Content-Length: 4\r\n\r\n", head(line)).expect("sent");
        // The host has the head alone for a while, and can refuse the request by it.
        std::thread::park_timeout(Duration::from_millis(200));
        write!(client, "body{}Connection: close\r\n\r\n", head("GET /health")).expect("the connection is open");
        let mut answers = String::new();
        client.read_to_string(&mut answers).expect("answers");
        assert!(answers.starts_with(status), "{line}: {answers}");
        assert!(answers.contains("HTTP/1.1 200 "), "the connection serves the next request: {line}: {answers}");
    }
    // Who waits for leave to send a body is told at once, and sends none.
    let mut client = TcpStream::connect(address).expect("the host listens");
    let head =
        format!("POST /v1/jobs HTTP/1.1\r\nHost: {address}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    client.write_all(head.as_bytes()).expect("sent");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[test]
fn a_request_can_wait_for_the_result() {
    let host = Setup::default().plugin("words").start();
    let job = json!({ "task": "words/count", "payload": { "text": "a b c" } });
    let result = host.client().post("/v1/jobs?wait=30s", &job).ok();
    assert_eq!(result["words"], 3, "{result}");
}

#[test]
fn jobs_are_listed_in_pages_newest_first() {
    let host = Setup::default().plugin("words").start();
    let ids: Vec<String> = (0..5).map(|n| host.enqueue("words/count", json!({ "text": format!("{n}") }))).collect();
    let mut seen: Vec<String> = Vec::new();
    let mut query = "/v1/jobs?limit=2".to_owned();
    loop {
        let page = host.client().get(&query).ok();
        let jobs = page["jobs"].as_array().expect("a list");
        assert!(jobs.len() <= 2);
        seen.extend(jobs.iter().map(|j| j["id"].as_str().expect("an id").to_owned()));
        match page["next"].as_str() {
            Some(next) => query = resolve(&query, next),
            None => break,
        }
    }
    assert_eq!(seen, ids.iter().rev().cloned().collect::<Vec<_>>());
}

fn metric(host: &Host, line: &str) -> Option<f64> {
    let text = String::from_utf8(host.client().get("/metrics").body).expect("text");
    let found = text.lines().find(|l| l.starts_with(line) && !l.starts_with('#'))?;
    found.rsplit(' ').next()?.parse().ok()
}

#[test]
fn health_readiness_and_metrics_tell_what_is() {
    let host = Setup::default().plugin("words").plugin("villain").start();
    assert_eq!(host.client().get("/health").status, 200);
    assert!(host.is_ready());
    for _ in 0..3 {
        host.run("words/count", json!({ "text": "a" }));
    }
    host.run("villain/do", json!({ "do": "trap" }));
    let text = String::from_utf8(host.client().get("/metrics").body).expect("text");
    let count = |task: &str, outcome: &str| {
        text.lines()
            .filter(|l| {
                !l.starts_with('#') && l.contains(&format!("task=\"{task}\"")) && l.contains(&format!("\"{outcome}\""))
            })
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .fold(0.0, f64::max)
    };
    assert_eq!(count("words/count", "returned").max(count("words/count", "succeeded")), 3.0, "{text}");
    assert_eq!(count("villain/do", "trapped"), 1.0, "{text}");
    for name in [
        "wharf_oldest_due_age_seconds",
        "wharf_attempt_wall_seconds_sum",
        "wharf_attempt_sandbox_seconds_sum",
        "wharf_limit",
    ] {
        assert!(text.contains(name), "{name} is missing:\n{text}");
    }
    eventually("nothing runs", || (metric(&host, "wharf_attempts_running")? == 0.0).then_some(()));
}

#[test]
fn off_loopback_a_token_is_required_and_then_asked_for() {
    let host = Setup::default().plugin("words").token("secret-of-the-test").start();
    let bare = crate::harness::Client::new(host.client().address());
    is_problem(&bare.get("/v1/jobs"), 401, "unauthorized");
    assert_eq!(host.client().get("/v1/jobs").status, 200);
    assert_eq!(bare.get("/health").status, 200, "a probe needs no token");
}

#[test]
fn the_log_shows_requests_and_parts_at_their_levels() {
    let quiet = Setup::default().plugin("words").start();
    assert_eq!(quiet.client().get("/v1/jobs/0000000000001").status, 404);
    assert!(!quiet.said().contains("request ended"), "{}", quiet.said());

    let level = "[log]\nlevel = \"info,wharf::http=debug,wharf_engine=debug\"\n";
    let host = Setup::default().plugin("words").settings(level).start();
    assert_eq!(host.client().get("/v1/jobs/0000000000001").status, 404);
    let request = "request{method=GET route=\"/v1/jobs/{id}\" status=404}: wharf::http::entry: request ended";
    eventually("the request is logged with its target", || host.said().contains(request).then_some(()));
    let said = host.said();
    let of_engine = |line: &str| line.contains("wharf_engine::") && line.contains("component checked");
    assert!(said.lines().any(of_engine), "{said}");
    assert_eq!(host.client().get("/v1/nothing").status, 404);
    eventually("a request without a route is logged", || {
        host.said().contains("route=\"unknown\" status=404").then_some(())
    });
}
