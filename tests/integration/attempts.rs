//! The attempts of a job that ended without a result.

use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually};

fn attempts(host: &Host, id: &str) -> Value {
    host.client().get(&format!("/v1/jobs/{id}/attempts")).ok()
}

#[test]
fn each_failed_attempt_stays_with_its_node_and_its_plugin_and_the_job_pays_for_all() {
    let host = Setup::default().plugin("villain").start();
    let job = host.run("villain/retrying", json!({ "do": "fail-until", "attempt": 4 }));
    let id = job["id"].as_str().expect("an id");
    let list = attempts(&host, id);
    let kept = list["attempts"].as_array().expect("attempts");
    assert_eq!((kept.len(), &list["left_out"]), (3, &json!(0)), "{list}");
    let node = &eventually("the node has announced its plugin", || {
        let node = host.client().get("/v1/nodes").ok()[0].clone();
        node["plugins"][0].is_object().then_some(node)
    });
    let plugin = &node["plugins"][0];
    for (number, attempt) in (1..).zip(kept) {
        assert_eq!((&attempt["number"], &attempt["outcome"]), (&json!(number), &json!("failed")), "{attempt}");
        assert_eq!((&attempt["node"], &attempt["node_name"]), (&node["id"], &node["name"]), "{attempt}");
        assert_eq!(
            (&attempt["plugin_version"], &attempt["digest"]),
            (&plugin["version"], &plugin["digest"]),
            "{attempt}"
        );
        assert!(attempt["started_at"].as_str() <= attempt["ended_at"].as_str(), "{attempt}");
    }
    let wall = |usage: &Value| usage["wall_ms"].as_f64().expect("a usage");
    let failed: f64 = kept.iter().map(|attempt| wall(&attempt["usage"])).sum();
    assert!(wall(&job["usage"]) > failed, "the attempt that succeeded is counted, too: {job} {list}");

    let shown = host.cli(&["job", "show", id]).output().expect("it runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let version = plugin["version"].as_str().expect("a version");
    for number in 1..=3 {
        let line = shown.lines().find(|line| line.starts_with(&format!("attempt {number}"))).expect("a line for each");
        assert!(line.contains(version) && line.contains("failed: "), "{line}");
    }
}

#[test]
fn a_job_that_succeeds_at_once_has_no_attempts_to_list() {
    let host = Setup::default().plugin("villain").start();
    let job = host.run("villain/do", json!({ "do": "sleep", "ms": 0 }));
    let list = attempts(&host, job["id"].as_str().expect("an id"));
    assert_eq!(list, json!({ "attempts": [], "left_out": 0 }));
    let unknown = host.client().get("/v1/jobs/0000000000001/attempts");
    assert_eq!((unknown.status, &unknown.json()["code"]), (404, &json!("job-unknown")));
}

#[test]
fn an_attempt_that_ended_with_its_host_is_one_of_which_little_is_known() {
    let mut host = Setup::default().plugin("villain").start();
    let id = host.enqueue("villain/slow", json!({ "do": "sleep", "ms": 600_000 }));
    host.in_state(&id, "running");
    let node = host.job(&id)["lease"]["node"].clone();
    host.kill();
    host.start();
    host.in_state(&id, "running");
    let list = attempts(&host, &id);
    let crashed = &list["attempts"][0];
    assert_eq!((&crashed["number"], &crashed["outcome"]), (&json!(1), &json!("interrupted")), "{list}");
    assert_eq!((&crashed["node"], &crashed["node_name"]), (&node, &Value::Null), "{list}");
    assert_eq!((&crashed["plugin_version"], &crashed["usage"]), (&Value::Null, &Value::Null), "{list}");
    assert!(crashed["started_at"].is_string(), "{list}");
}
