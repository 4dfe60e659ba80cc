//! Attempts that wait hold up nobody else, whatever language they are written in and however much room each takes.

use plugin_kit::language::Language;
use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually};

/// Returns the jobs of a task in a state.
fn jobs(host: &Host, task: &str, state: &str) -> Vec<Value> {
    let page = host.client().get(&format!("/v1/jobs?limit=1000&task={task}&state={state}")).ok();
    page["jobs"].as_array().expect("a list").clone()
}

fn running(host: &Host) -> u64 {
    host.client().get("/ready").ok()["running"].as_u64().expect("a number")
}

/// Runs a job of the neighbour, which is written in Rust.
fn neighbour_runs(host: &Host, who_sleeps: &str) {
    let job = host.run("villain/do", json!({ "do": "echo" }));
    assert_eq!(job["state"], "succeeded", "beside {who_sleeps}: {job}");
}

/// Tests that a neighbour's jobs end before any of `count` attempts wakes: while they begin, and while all of them
/// sleep at once.
fn hold_up_nobody(language: Language, count: usize) {
    let plugin = language.example();
    let task = format!("{plugin}/count");
    let settings = format!("[plugins.{plugin}.tasks.count]\ntimeout = \"10m\"\n");
    let host = Setup::default().plugin(plugin).plugin("villain").settings(&settings).start();
    // Two of a tenant may run at once: each has its own. It sleeps after each line, which it shows first, and for longer in all
    // than the test takes.
    let sleeper = |tenant: usize| {
        let payload = json!({ "tenant": format!("t{tenant}"), "text": "a\n".repeat(55), "pause-ms": 10_000 });
        json!({ "task": task, "payload": payload })
    };
    let answer = host.client().post("/v1/jobs", &(0..count).map(sleeper).collect::<Vec<_>>().into()).ok();
    let ids: Vec<String> =
        answer.as_array().expect("a list").iter().map(|job| job["id"].as_str().expect("an ID").into()).collect();
    assert_eq!(ids.len(), count);
    neighbour_runs(&host, plugin);
    eventually(&format!("all {count} of {plugin} run"), || {
        (jobs(&host, &task, "running").len() == count).then_some(())
    });
    for id in &ids {
        eventually("it has shown its first line, and so has a sandbox", || {
            host.job(id)["entries"].as_u64().filter(|entries| *entries > 0)
        });
    }
    neighbour_runs(&host, plugin);
    assert_eq!(jobs(&host, &task, "running").len(), count, "the neighbour's jobs ended before any of {plugin} did");
    assert_eq!(running(&host), count as u64);
}

#[test]
fn sleepers_in_rust_hold_up_nobody() {
    hold_up_nobody(Language::Rust, 200);
}

#[test]
fn sleepers_in_javascript_hold_up_nobody() {
    hold_up_nobody(Language::JavaScript, 200);
}

#[test]
fn sleepers_in_typescript_hold_up_nobody() {
    hold_up_nobody(Language::TypeScript, 200);
}

/// Fewer, since each has 9 MiB.
#[test]
fn sleepers_in_javascript_with_the_functions_of_the_web_hold_up_nobody() {
    hold_up_nobody(Language::JavaScriptWeb, 100);
}

/// Fewer, since each has 13 MiB.
#[test]
fn sleepers_in_python_hold_up_nobody() {
    hold_up_nobody(Language::Python, 100);
}

#[test]
fn sleepers_in_go_hold_up_nobody() {
    hold_up_nobody(Language::Go, 200);
}

#[test]
fn sleepers_in_c_hold_up_nobody() {
    hold_up_nobody(Language::C, 200);
}

/// Each takes seventeen memories, and counts as nine sandboxes.
#[test]
fn sleepers_that_take_many_sandboxes_wait_in_the_queue_and_hold_up_nobody() {
    let settings = "[attempts]\nat-once = 40\n";
    let host = Setup::default().plugin("villain-memories").plugin("villain").settings(settings).start();
    let task = "villain-memories/slow";
    let sleeper = |ms: u64| json!({ "task": task, "payload": { "do": "sleep", "ms": ms } });
    let ids = |answer: Value| -> Vec<String> {
        answer.as_array().expect("a list").iter().map(|job| job["id"].as_str().expect("an ID").into()).collect()
    };
    let sleeping = ids(host.client().post("/v1/jobs", &vec![sleeper(600_000); 4].into()).ok());
    eventually("four run: thirty-six sandboxes of forty", || (running(&host) == 4).then_some(()));
    let waiting = ids(host.client().post("/v1/jobs", &vec![sleeper(1); 6].into()).ok());
    for _ in 0..20 {
        neighbour_runs(&host, "four that leave it room, and six that wait");
    }
    // None is shown as running that has no sandbox.
    assert_eq!((running(&host), jobs(&host, task, "waiting").len()), (4, waiting.len()));
    assert!(waiting.iter().all(|id| host.job(id)["wait"]["reason"] == "in-turn"));
    // Small jobs never cease to come, and the room of a single one that ends is enough for all that wait.
    let small = vec![json!({ "task": "villain/do", "payload": { "do": "sleep", "ms": 50 } }); 1000];
    let small = ids(host.client().post("/v1/jobs", &small.into()).ok());
    host.client().post(&format!("/v1/jobs/{}/cancel", sleeping[0]), &json!({})).ok();
    for id in &waiting {
        assert_eq!(host.finished(id)["state"], "succeeded");
    }
    for id in &small {
        assert_eq!(host.finished(id)["state"], "succeeded");
    }
    assert_eq!(jobs(&host, task, "running").len(), 3);
}
