//! What becomes of a job whose attempt failed.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::Setup;

#[test]
fn a_failed_attempt_is_tried_again_until_it_succeeds() {
    let host = Setup::default().plugin("villain").start();
    let job = host.run("villain/retrying", json!({ "do": "fail-until", "attempt": 3 }));
    assert_eq!((job["state"].as_str(), job["attempt"].as_u64()), (Some("succeeded"), Some(3)), "{job}");
}

#[test]
fn attempts_are_used_up_and_the_last_report_stays() {
    let host = Setup::default().plugin("villain").start();
    let job = host.run("villain/retrying", json!({ "do": "fail-retry", "text": "no luck" }));
    assert_eq!((job["state"].as_str(), job["attempt"].as_u64()), (Some("failed"), Some(5)), "{job}");
    assert_eq!(job["report"]["outcome"], "failed");
    assert_eq!(job["report"]["text"], "no luck");
}

#[test]
fn discard_ends_at_the_first_failure() {
    let host = Setup::default().plugin("villain").start();
    let job = host.run("villain/retrying", json!({ "do": "fail-discard", "text": "never" }));
    assert_eq!((job["state"].as_str(), job["attempt"].as_u64()), (Some("failed"), Some(1)), "{job}");
}

#[test]
fn retry_after_is_waited_for() {
    let host = Setup::default().plugin("villain").start();
    let start = Instant::now();
    let id = host.enqueue("villain/retrying", json!({ "do": "fail-retry-after", "ms": 400 }));
    let job = host.finished(&id);
    assert_eq!(job["attempt"], 5);
    assert!(start.elapsed() >= Duration::from_millis(1600), "four waits of 400 ms, took {:?}", start.elapsed());
}

#[test]
fn a_failed_job_can_be_tried_again_by_a_person() {
    let host = Setup::default().plugin("villain").start();
    let id = host.enqueue("villain/do", json!({ "do": "fail-until", "attempt": 2 }));
    assert_eq!(host.finished(&id)["state"], "failed");
    host.client().post(&format!("/v1/jobs/{id}/retry"), &json!({})).ok();
    let job = host.finished(&id);
    assert_eq!(job["state"], "succeeded", "{job}");
    let again = host.client().post(&format!("/v1/jobs/{id}/retry"), &json!({}));
    assert_eq!(again.status, 409, "a job that succeeded is not tried again: {again:?}");
}

#[test]
fn every_way_to_end_badly_is_told_in_plain_words_and_harms_no_neighbour() {
    let host = Setup::default().plugin("villain").start();
    let table = [
        ("do", json!({ "do": "trap" }), "trapped", "unreachable"),
        ("do", json!({ "do": "panic", "text": "oh dear" }), "trapped", "oh dear"),
        ("do", json!({ "do": "panic-after-output" }), "trapped", "as asked"),
        ("do", json!({ "do": "stack-overflow" }), "trapped", "stack"),
        ("do", json!({ "do": "exit", "code": 3 }), "trapped", "exit"),
        ("frugal", json!({ "do": "hoard" }), "out-of-memory", "16.0 MiB"),
        ("frugal", json!({ "do": "loop-ignoring-cancel" }), "timed-out", "200"),
        ("hurried", json!({ "do": "sleep", "ms": 60_000 }), "timed-out", "500"),
        ("do", json!({ "do": "big-output", "bytes": 40_000_000 }), "output-bound", "32"),
    ];
    let jobs: Vec<_> = table
        .iter()
        .map(|(task, payload, ..)| {
            let neighbour = host.enqueue("villain/do", json!({ "do": "echo", "payload": "well" }));
            (host.enqueue(&format!("villain/{task}"), payload.clone()), neighbour)
        })
        .collect();
    for ((_, payload, kind, text), (id, neighbour)) in table.iter().zip(&jobs) {
        let job = host.finished(id);
        assert_eq!(job["state"], "failed", "{payload}: {job}");
        assert_eq!(job["report"]["outcome"], *kind, "{payload}: {job}");
        let report = job["report"]["text"].as_str().expect("a text");
        assert!(report.contains(text), "{payload}: the report names {text:?}:\n{report}");
        assert_eq!(host.finished(neighbour)["state"], "succeeded", "beside {payload}");
    }
    let stalled = host.run("villain/stall", json!({ "do": "stall" }));
    assert_eq!(stalled["report"]["outcome"], "timed-out", "{stalled}");
    assert_eq!(stalled["attempt"], 2, "a stalled attempt is tried again");
}
