//! A job's life: enqueued, waiting, run, kept.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Setup, eventually};

#[test]
fn a_job_runs_and_its_result_is_kept() {
    let host = Setup::default().plugin("words").start();
    let id = host.enqueue("words/count", json!({ "tenant": "acme", "text": "one two\nthree\n" }));
    let job = host.finished(&id);
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(job["key"], "acme", "the key comes from the payload");
    assert_eq!(job["attempt"], 1);
    assert_eq!(host.result(&id), json!({ "lines": 2, "words": 3, "characters": 14 }));
    let usage = &job["usage"];
    assert!(usage["cpu_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{usage}");
    assert!(usage["memory_peak_bytes"].as_u64().is_some_and(|bytes| bytes >= 64 << 10), "{usage}");
}

#[test]
fn many_jobs_in_one_request_are_one_transaction() {
    let host = Setup::default().plugin("words").start();
    let job = |n: usize| json!({ "task": "words/count", "payload": { "tenant": format!("t{n}"), "text": "a b" } });
    let good: Vec<_> = (0..50).map(job).collect();
    let reply = host.client().post("/v1/jobs", &json!(good)).ok();
    let ids: Vec<String> =
        reply.as_array().expect("a list").iter().map(|j| j["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(ids.len(), 50);
    for id in &ids {
        assert_eq!(host.finished(id)["state"], "succeeded");
    }

    let mut bad = good;
    bad[17]["payload"] = json!({ "tenant": "t17" });
    let reply = host.client().post("/v1/jobs", &json!(bad));
    assert_eq!(reply.status, 422, "{reply:?}");
    let text = reply.json().to_string();
    assert!(text.contains("17") && text.contains("text"), "which job and which field: {text}");
    let kept = host.client().get("/v1/jobs?limit=1000").ok();
    assert_eq!(kept["jobs"].as_array().expect("a list").len(), 50, "nothing of the bad request was taken");
}

#[test]
fn a_token_enqueued_twice_is_one_job() {
    let host = Setup::default().plugin("words").start();
    let job = json!({ "task": "words/count", "payload": { "text": "a" }, "token": "once" });
    let first = host.enqueue_with(job.clone());
    let again = host.enqueue_with(job.clone());
    assert_eq!(first, again);
    host.finished(&first);
    assert_eq!(host.enqueue_with(job), first, "also when the job is over");
}

#[test]
fn higher_priority_goes_first_and_equals_in_order() {
    let host = Setup::default().plugin("villain").settings("[attempts]\nat-once = 1").start();
    // A pause is the gate: nothing starts before all of them wait.
    let gate = "/v1/limits?group=villain%2Fdo";
    host.client().put(gate, &json!({ "total": 0 })).ok();
    let enqueue = |n: i32, priority: i32| {
        let payload = json!({ "do": "echo", "payload": n });
        host.enqueue_with(json!({ "task": "villain/do", "payload": payload, "priority": priority }))
    };
    let ids = [enqueue(0, 0), enqueue(1, 5), enqueue(2, -1), enqueue(3, 5), enqueue(4, 0)];
    host.client().delete(gate);
    let mut order: Vec<(String, usize)> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| (host.finished(id)["started_at"].as_str().expect("it started").to_owned(), n))
        .collect();
    order.sort();
    assert_eq!(order.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [1, 3, 0, 4, 2]);
}

#[test]
fn a_delayed_job_waits_until_it_is_due_and_says_so() {
    let host = Setup::default().plugin("words").start();
    let payload = json!({ "text": "a" });
    let soon = host.enqueue_with(json!({ "task": "words/count", "payload": payload, "delay": "300ms" }));
    let late = host.enqueue_with(json!({ "task": "words/count", "payload": payload, "delay": "1h" }));
    assert_eq!(host.job(&late)["wait"]["reason"], "not-due", "{}", host.job(&late));
    let start = Instant::now();
    assert_eq!(host.finished(&soon)["state"], "succeeded");
    assert!(start.elapsed() < Duration::from_secs(5), "it starts when it is due, not when someone looks");
    assert_eq!(host.job(&late)["state"], "waiting");
}

/// LeptonAI's worker received a task and ran it to its end before it took the next.
#[test]
fn leptonai_two_jobs_of_two_seconds_with_a_limit_of_two_end_in_under_three() {
    let host = Setup::default().plugin("villain").start();
    let job = json!({ "task": "villain/pair", "payload": { "key": "one", "do": "sleep", "ms": 2000 } });
    let both = host.client().post("/v1/jobs", &json!([job, job])).ok();
    let jobs = [0, 1].map(|n| host.finished(both[n]["id"].as_str().expect("an id")));
    let time = |job: &serde_json::Value, name: &str| -> String { job[name].as_str().expect("a moment").to_owned() };
    for (one, other) in [(0, 1), (1, 0)] {
        assert_eq!(jobs[one]["state"], "succeeded");
        assert!(time(&jobs[one], "started_at") < time(&jobs[other], "finished_at"), "side by side: {jobs:?}");
    }
    let wall: f64 = jobs.iter().filter_map(|job| job["usage"]["wall_ms"].as_f64()).fold(0.0, f64::max);
    assert!(wall < 3000.0, "two seconds each, and no more: {wall} ms");
}

/// exo awaited each peer before it called the next.
#[test]
fn exo_a_slow_job_delays_no_other() {
    let host = Setup::default().plugin("villain").start();
    let slow: Vec<_> = (0..20).map(|_| host.enqueue("villain/do", json!({ "do": "sleep", "ms": 4000 }))).collect();
    let quick = host.enqueue("villain/do", json!({ "do": "echo", "payload": 1 }));
    assert_eq!(host.finished(&quick)["state"], "succeeded");
    assert!(slow.iter().any(|id| host.job(id)["state"] == "running"), "the slow ones still run");
}

#[test]
fn children_come_with_the_success_of_their_attempt_or_not_at_all() {
    let host = Setup::default().plugin("villain").start();
    let child =
        |n: u32| json!({ "task": "villain/do", "payload": { "do": "echo", "payload": n }, "token": format!("c{n}") });
    let good = host.run("villain/do", json!({ "do": "enqueue", "children": [child(1), child(2)] }));
    assert_eq!(good["state"], "succeeded", "{good}");
    for then in ["trap", "fail-discard"] {
        let payload = json!({ "do": "enqueue", "children": [child(3)], "then": then });
        assert_eq!(host.run("villain/do", payload)["state"], "failed", "{then}");
    }
    let all = eventually("the children are there", || {
        let page = host.client().get("/v1/jobs?limit=1000").ok();
        let jobs = page["jobs"].as_array().expect("a list").clone();
        jobs.iter().all(|j| j["state"] != "waiting" && j["state"] != "running").then_some(jobs)
    });
    assert_eq!(all.len(), 5, "three parents, two children: {all:?}");

    let unknown =
        host.run("villain/do", json!({ "do": "enqueue", "children": [{ "task": "nobody/home", "payload": 1 }] }));
    assert_eq!(unknown["state"], "failed");
    assert!(unknown["report"]["text"].to_string().contains("nobody/home"), "{unknown}");
}

#[test]
fn finished_jobs_are_forgotten_when_their_time_is_over() {
    let host =
        Setup::default().plugin("words").settings("[upkeep]\ninterval = \"200ms\"\nkeep-finished = \"5s\"").start();
    let id = host.run("words/count", json!({ "text": "a" }))["id"].as_str().expect("an id").to_owned();
    eventually("the job is forgotten", || (host.client().get(&format!("/v1/jobs/{id}")).status == 404).then_some(()));
}
