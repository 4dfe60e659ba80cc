//! How attempts and hosts are ended.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Setup, eventually};

#[test]
fn a_waiting_job_is_cancelled_at_once() {
    let host = Setup::default().plugin("words").start();
    let id = host.enqueue_with(json!({ "task": "words/count", "payload": { "text": "a" }, "delay": "1h" }));
    host.client().post(&format!("/v1/jobs/{id}/cancel"), &json!({})).ok();
    assert_eq!(host.job(&id)["state"], "cancelled");
    let again = host.client().post(&format!("/v1/jobs/{id}/cancel"), &json!({}));
    assert_eq!(again.status, 409, "{again:?}");
}

#[test]
fn a_running_job_is_asked_and_one_that_does_not_listen_is_stopped() {
    let host = Setup::default().plugin("villain").settings("[attempts]\ncancel-grace = \"300ms\"").start();
    for order in ["wait-for-cancel", "loop", "loop-ignoring-cancel", "stall"] {
        let id = host.enqueue("villain/slow", json!({ "do": order }));
        host.in_state(&id, "running");
        host.client().post(&format!("/v1/jobs/{id}/cancel"), &json!({})).ok();
        let job = host.finished(&id);
        assert_eq!(job["state"], "cancelled", "{order}: {job}");
    }
}

#[test]
fn drain_waits_for_what_runs_and_gives_back_the_rest_at_no_cost() {
    let mut host = Setup::default().plugin("villain").settings("[attempts]\ndrain-timeout = \"5s\"").start();
    let short = host.enqueue("villain/do", json!({ "do": "sleep", "ms": 3000 }));
    let long = host.enqueue("villain/slow", json!({ "do": "sleep", "ms": 12_000 }));
    let tight = host.enqueue("villain/slow", json!({ "do": "spin", "ms": 12_000 }));
    for id in [&short, &long, &tight] {
        host.in_state(id, "running");
    }
    assert_eq!(host.terminate(), Some(0), "{}", host.said());
    host.start();
    assert_eq!(host.finished(&short)["attempt"], 1, "it could finish");
    for id in [&long, &tight] {
        let job = host.finished(id);
        assert_eq!((job["state"].as_str(), job["attempt"].as_u64()), (Some("succeeded"), Some(2)), "{job}");
        assert_eq!(job["failures"], 0, "being given back costs nothing: {job}");
    }
}

#[test]
fn a_second_sigterm_stops_at_once() {
    let mut host = Setup::default().plugin("villain").settings("[attempts]\ndrain-timeout = \"10m\"").start();
    let id = host.enqueue("villain/slow", json!({ "do": "sleep", "ms": 60_000 }));
    host.in_state(&id, "running");
    host.signal("-TERM");
    eventually("the host drains", || (!host.is_ready()).then_some(()));
    assert_eq!(host.terminate(), Some(0), "{}", host.said());
    host.start();
    // The job could have ended within the drain timeout.
    let job = host.in_state(&id, "running");
    assert_eq!((job["attempt"].as_u64(), job["failures"].as_u64()), (Some(2), Some(0)), "{job}");
}

#[test]
fn an_endless_loop_delays_no_other_job() {
    let host = Setup::default().plugin("villain").start();
    for _ in 0..6 {
        host.enqueue("villain/slow", json!({ "do": "loop-ignoring-cancel" }));
    }
    eventually("the loops run", || {
        let page = host.client().get("/v1/jobs?state=running").ok();
        (page["jobs"].as_array().expect("a list").len() == 6).then_some(())
    });
    let start = Instant::now();
    for n in 0..20 {
        let job = host.run("villain/do", json!({ "do": "echo", "payload": n }));
        assert_eq!(job["state"], "succeeded", "{job}");
    }
    assert!(start.elapsed() < Duration::from_secs(30), "20 jobs one by one took {:?}", start.elapsed());
}
