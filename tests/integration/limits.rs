//! Limits per key, on a running host.

use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually};

fn sleeper(host: &Host, task: &str, key: &str, ms: u64) -> String {
    host.enqueue(task, json!({ "key": key, "do": "sleep", "ms": ms }))
}

fn running(host: &Host, key: &str) -> usize {
    let page = host.client().get(&format!("/v1/jobs?state=running&key={key}&limit=1000")).ok();
    page["jobs"].as_array().expect("a list").len()
}

#[test]
fn a_waiting_job_says_which_limit_and_which_jobs_hold_it() {
    let host = Setup::default().plugin("villain").start();
    let holder = sleeper(&host, "villain/keyed", "k", 5000);
    host.in_state(&holder, "running");
    let waiting = sleeper(&host, "villain/keyed", "k", 0);
    let other = sleeper(&host, "villain/keyed", "other", 0);
    assert_eq!(host.finished(&other)["state"], "succeeded", "another key is not held up");
    let why = &host.job(&waiting)["wait"];
    assert_eq!(why["reason"], "lane-full", "{why}");
    assert_eq!(why["limit"], 1);
    assert_eq!(why["holders"][0]["id"], json!(holder));
    assert_eq!(host.finished(&waiting)["state"], "succeeded");
}

#[test]
fn a_group_is_shared_by_its_tasks() {
    let host = Setup::default().plugin("villain").start();
    let left = sleeper(&host, "villain/left", "k", 4000);
    host.in_state(&left, "running");
    let right = sleeper(&host, "villain/right", "k", 0);
    assert_eq!(host.job(&right)["wait"]["reason"], "lane-full");
    host.finished(&left);
    assert_eq!(host.finished(&right)["state"], "succeeded");
}

#[test]
fn the_total_of_a_group_holds_over_all_keys() {
    let host = Setup::default().plugin("villain").start();
    let ids: Vec<_> = (0..12).map(|n| sleeper(&host, "villain/pair", &format!("k{n}"), 300)).collect();
    let mut max = 0;
    let ended = |host: &Host| ids.iter().all(|id| host.job(id)["state"] == "succeeded");
    eventually("all end", || {
        let page = host.client().get("/v1/jobs?state=running&limit=1000").ok();
        max = max.max(page["jobs"].as_array().expect("a list").len());
        ended(&host).then_some(())
    });
    assert!(max <= 5, "at most five of the group at once: {max}");
    assert!(max >= 2, "and they do run side by side: {max}");
}

#[test]
fn on_conflict_discard_takes_no_job_that_would_wait() {
    let host = Setup::default().plugin("villain").start();
    let first = sleeper(&host, "villain/discarding", "k", 4000);
    let job = json!({ "task": "villain/discarding", "payload": { "key": "k", "do": "sleep", "ms": 0 } });
    let reply = host.client().post("/v1/jobs", &job);
    assert_eq!((reply.status, reply.json()["code"].as_str()), (409, Some("lane-full")), "{reply:?}");
    assert_eq!(reply.json()["holders"], json!([first]), "it says which job is in the way");
    host.finished(&first);
    let after = host.enqueue_with(job);
    assert_eq!(host.finished(&after)["state"], "succeeded");
}

#[test]
fn on_conflict_replace_waiting_keeps_the_newest() {
    let host = Setup::default().plugin("villain").start();
    let first = sleeper(&host, "villain/replacing", "k", 4000);
    host.in_state(&first, "running");
    let second = sleeper(&host, "villain/replacing", "k", 0);
    let third = sleeper(&host, "villain/replacing", "k", 0);
    assert_eq!(host.job(&second)["state"], "cancelled");
    assert_eq!(host.finished(&first)["state"], "succeeded");
    assert_eq!(host.finished(&third)["state"], "succeeded");
}

#[test]
fn on_conflict_cancel_running_makes_room() {
    let host = Setup::default().plugin("villain").settings("[attempts]\ncancel-grace = \"100ms\"").start();
    let first = host.enqueue("villain/cancelling", json!({ "key": "k", "do": "loop-ignoring-cancel" }));
    host.in_state(&first, "running");
    let second = sleeper(&host, "villain/cancelling", "k", 0);
    assert_eq!(host.finished(&first)["state"], "cancelled");
    assert_eq!(host.finished(&second)["state"], "succeeded");
}

#[test]
fn a_limit_changes_while_jobs_run() {
    let host = Setup::default().plugin("villain").start();
    let ids: Vec<_> = (0..8).map(|_| sleeper(&host, "villain/keyed", "k", 2000)).collect();
    host.in_state(&ids[0], "running");
    assert!(running(&host, "k") <= 1);

    let path = "/v1/limits?group=villain%2Fkeyed&key=k";
    host.client().put(path, &json!({ "per_key": 4 })).ok();
    eventually("raising acts at once", || (running(&host, "k") == 4).then_some(()));
    host.client().put(path, &json!({ "per_key": 1 })).ok();
    let limits = host.client().get("/v1/limits").ok().to_string();
    assert!(limits.contains("villain/keyed"), "{limits}");
    for id in &ids {
        assert_eq!(host.finished(id)["state"], "succeeded", "lowering killed none");
    }
    let reply = host.client().delete(path);
    assert!((200..300).contains(&reply.status), "{reply:?}");
}

#[test]
fn a_limit_of_zero_is_a_pause() {
    let host = Setup::default().plugin("villain").start();
    let path = "/v1/limits?group=villain%2Fkeyed";
    host.client().put(path, &json!({ "total": 0 })).ok();
    let id = sleeper(&host, "villain/keyed", "k", 0);
    assert_eq!(host.job(&id)["wait"]["reason"], "paused");
    host.client().delete(path);
    assert_eq!(host.finished(&id)["state"], "succeeded");
}

#[test]
fn an_override_outlives_the_host() {
    let mut host = Setup::default().plugin("villain").start();
    host.client().put("/v1/limits?group=villain%2Fkeyed&key=k", &json!({ "per_key": 3 })).ok();
    host.kill();
    host.start();
    let limits = host.client().get("/v1/limits").ok();
    let is_there = |l: &Value| l["group"] == "villain/keyed" && l.to_string().contains("\"per_key\":3");
    assert!(limits.as_array().expect("a list").iter().any(is_there), "{limits}");
}

/// A lane with a long backlog delays nobody else.
#[test]
fn lanes_take_turns() {
    let host = Setup::default().plugin("villain").settings("[attempts]\nat-once = 2").start();
    let jobs: Vec<Value> = (0..400)
        .map(|_| json!({ "task": "villain/do", "key": "big", "payload": { "do": "sleep", "ms": 20 } }))
        .collect();
    host.client().post("/v1/jobs", &json!(jobs)).ok();
    let payload = json!({ "do": "echo", "payload": 1 });
    let small = host.enqueue_with(json!({ "task": "villain/do", "key": "small", "payload": payload }));
    assert_eq!(host.finished(&small)["state"], "succeeded");
    let left = host.client().get("/v1/jobs?state=waiting&key=big&limit=1000").ok();
    assert!(left["jobs"].as_array().expect("a list").len() > 100, "the backlog was not waited for");
}
