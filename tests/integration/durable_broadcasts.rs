//! Durable broadcasts: a job for each subscriber, with one batch id, through the queue.

use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually};

#[track_caller]
fn send(host: &Host, topic: &str, payload: Value) -> Value {
    host.client().post(&format!("/v1/broadcasts/{topic}"), &json!({ "payload": payload, "durable": true })).ok()
}

/// The address of a durable broadcast.
#[track_caller]
fn address(batch: &Value) -> String {
    format!("/v1/broadcasts/{}", batch["id"].as_str().expect("an id"))
}

/// The broadcast when all its jobs are over.
#[track_caller]
fn finished(host: &Host, batch: &Value) -> Value {
    let url = address(batch);
    eventually(&format!("{url} is over"), || {
        let batch = host.client().get(&url).ok();
        (batch["finished"] == true).then_some(batch)
    })
}

fn section(id: &str, order: &Value) -> String {
    format!("[plugins.{id}]\nenv = {{ ORDER = '{order}' }}\n")
}

#[test]
fn each_subscriber_has_a_job_with_its_own_retries_and_result() {
    let host = Setup::default()
        .plugin_as("villain", "fails")
        .plugin_as("villain", "fine")
        .plugin_as("villain", "stumbles")
        .plugin("words")
        .settings(&section("fails", &json!({ "do": "fail-retry", "text": "not today" })))
        .settings(&section("fine", &json!({ "do": "job" })))
        .settings(&section("stumbles", &json!({ "do": "fail-discard", "text": "never" })))
        .start();
    let batch = send(&host, "villain.saved", json!({ "do": "from-env" }));
    assert_eq!((&batch["topic"], &batch["states"]), (&json!("villain.saved"), &json!({ "waiting": 3 })), "{batch}");
    let id = batch["id"].as_str().expect("an id").to_owned();
    let over = finished(&host, &batch);
    assert_eq!(over["states"], json!({ "failed": 2, "succeeded": 1 }), "{over}");
    let jobs = over["jobs"].as_array().expect("a list");
    let plugins: Vec<&str> = jobs.iter().filter_map(|job| job["plugin"].as_str()).collect();
    assert_eq!(plugins, ["fails", "fine", "stumbles"]);
    assert_eq!(
        (&jobs[0]["attempt"], &jobs[2]["attempt"]),
        (&json!(2), &json!(1)),
        "as [receive] in the manifest says: {over}"
    );
    assert!(jobs[0]["report"]["text"].to_string().contains("not today"), "{over}");
    // What the subscriber saw is a message: the broadcast's id, and the topic.
    assert_eq!((&jobs[1]["reply"]["id"], &jobs[1]["reply"]["task"]), (&json!(id), &json!("villain.saved")), "{over}");
    // The jobs are ordinary ones.
    let job = host.job(jobs[1]["id"].as_str().expect("an id"));
    assert_eq!((&job["task"], &job["batch"]), (&json!("fine/receive"), &json!(id)), "{job}");
    let listed = host.client().get(&format!("/v1/jobs?batch={id}")).ok();
    assert_eq!(listed["jobs"].as_array().map(Vec::len), Some(3));
    let failed = jobs[0]["id"].as_str().expect("an id");
    host.client().post(&format!("/v1/jobs/{failed}/retry"), &json!({})).ok();
    assert_eq!(finished(&host, &batch)["states"], json!({ "failed": 2, "succeeded": 1 }));
}

#[test]
fn the_limits_of_a_subscriber_hold_for_its_durable_broadcasts() {
    let host =
        Setup::default().plugin("villain").settings("[plugins.villain.receive]\nlimit = { total = 1 }\n").start();
    let batches: Vec<Value> = (0..4).map(|_| send(&host, "villain.x", json!({ "do": "sleep", "ms": 100 }))).collect();
    let mut max = 0;
    while !batches.iter().all(|batch| host.client().get(&address(batch)).ok()["finished"] == true) {
        let limits = host.client().get("/v1/limits").ok();
        let held = limits.as_array().expect("a list").iter().find(|l| l["group"] == "villain/receive").cloned();
        max = max.max(held.expect("a durable broadcast has a group of its own")["running"].as_u64().unwrap());
    }
    assert_eq!(max, 1, "one at a time");
}

#[test]
fn a_durable_broadcast_survives_its_host() {
    let mut host = Setup::default()
        .plugin_as("villain", "a")
        .plugin_as("villain", "b")
        .settings("[lease]\nlength = \"1s\"\nmargin = \"100ms\"\n")
        .start();
    let batch = send(&host, "villain.x", json!({ "do": "sleep", "ms": 1500 }));
    eventually("they run", || {
        let batch = host.client().get(&address(&batch)).ok();
        (batch["states"]["running"] == 2).then_some(())
    });
    host.kill();
    host.start();
    let over = finished(&host, &batch);
    assert_eq!(over["states"], json!({ "succeeded": 2 }), "{over}");
}

#[test]
fn the_job_of_a_broadcast_is_made_by_broadcasts_only() {
    let host = Setup::default().plugin("villain").start();
    let reply = host.client().post("/v1/jobs", &json!({ "task": "villain/receive", "payload": {} }));
    assert_eq!(reply.status, 422);
    assert!(reply.json()["detail"].to_string().contains("durable broadcast"), "{}", reply.json());
}

#[test]
fn the_command_waits_for_all_jobs() {
    let host = Setup::default().plugin("summary").plugin("word-index").start();
    let input = r##"{"text": "# Hi\n\nThere you are."}"##;
    let run = |args: &[&str]| host.cli(args).output().expect("it runs");
    let output = run(&["broadcast", "document.saved", "--input", input, "--durable", "--wait"]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(
        text.starts_with("PLUGIN") && text.contains("summary     succeeded") && text.contains("word-index  succeeded"),
        "{text}"
    );
    assert_eq!(output.status.code(), Some(0));
    let output = run(&["broadcast", "document.saved", "--input", input, "--durable"]);
    let id = String::from_utf8(output.stdout).expect("text").trim().to_owned();
    let listed = run(&["job", "list", "--batch", &id]);
    assert_eq!(String::from_utf8_lossy(&listed.stdout).matches("/receive").count(), 2, "{listed:?}");
}
