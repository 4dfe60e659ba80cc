//! Failures by what they have in common, on a running host with real plugins.

use serde_json::{Value, json};

use crate::harness::{Host, Setup, component, eventually};

fn groups(host: &Host) -> Vec<Value> {
    host.client().get("/v1/failures").ok()["failures"].as_array().expect("a list").clone()
}

/// Has a job fail, and returns the fingerprint of its failure.
#[track_caller]
fn fail(host: &Host, task: &str, payload: Value) -> String {
    let job = host.run(task, payload);
    assert_eq!(job["state"], "failed", "{job}");
    job["fingerprint"].as_str().expect("a fingerprint").to_owned()
}

fn refuse(host: &Host, text: &str) -> String {
    fail(host, "villain/do", json!({ "do": "fail-discard", "text": text }))
}

#[test]
fn failures_of_one_cause_are_one_group_whatever_ids_they_name() {
    let mut host = Setup::default().plugin("villain").start();
    let orders = refuse(&host, "no order 17 of customer 0b5f0a3e-54cc-4f3a-9c2e-7f6f0d6d7a11");
    assert_eq!(refuse(&host, "no order 4711 of customer 94f1c7de-0000-4f3a-9c2e-000000000000"), orders);
    let customers = refuse(&host, "no customer 17");
    let trap = fail(&host, "villain/do", json!({ "do": "trap" }));
    let panics =
        |text: &str| fail(&host, "villain/do", json!({ "do": "panic-after-output", "chunks": 1, "text": text }));
    let panic = panics("no row 17");
    assert_eq!(panics("no row 18"), panic);
    let all = [&orders, &customers, &trap, &panic];
    for (index, one) in all.iter().enumerate() {
        assert!(!all[..index].contains(one), "{all:?}");
    }
    // What was counted is durable.
    host.kill();
    host.start();
    let text = |group: &Value| group["fingerprint"].as_str().expect("text").to_owned();
    let counts: Vec<(String, Option<u64>)> =
        groups(&host).iter().map(|group| (text(group), group["count"].as_u64())).collect();
    assert_eq!(counts, [(panic, Some(2)), (trap, Some(1)), (customers, Some(1)), (orders.clone(), Some(2))]);

    let group = host.client().get(&format!("/v1/failures/{orders}")).ok();
    assert_eq!(group["message"], "no order # of customer #", "{group}");
    assert_eq!((&group["state"], &group["versions"][0]["count"]), (&json!("open"), &json!(2)), "{group}");
    assert_eq!(group["samples"].as_array().map(Vec::len), Some(2), "{group}");
    let shown = host.cli(&["failure", "show", &orders]).output().expect("it runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("no order # of customer #") && shown.contains("no order 4711"), "{shown}");
    let listed = host.cli(&["failure", "list", "--task", "villain/do"]).output().expect("it runs");
    assert!(String::from_utf8_lossy(&listed.stdout).contains(&orders));
}

#[test]
fn a_resolved_failure_that_a_new_version_has_again_is_told() {
    let host = Setup::default().plugin("villain").start();
    let group = refuse(&host, "no order 17");
    let resolved = host.cli(&["failure", "resolve", &group]).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&resolved.stdout).trim(), format!("{group} resolved"));
    refuse(&host, "no order 18");
    let state = || host.client().get(&format!("/v1/failures/{group}")).ok();
    assert_eq!((&state()["state"], &state()["count"]), (&json!("resolved"), &json!(2)), "the version is as old");

    // A section of its own makes another digest of the same plugin.
    let digest = || host.client().get("/v1/plugins/villain").ok()["loaded"]["digest"].clone();
    let before = digest();
    let mut bytes = std::fs::read(component("villain")).expect("a component");
    bytes.extend([0, 2, 1, b'x']);
    let file = host.dir().join("next.wasm");
    std::fs::write(&file, bytes).expect("written");
    host.put_plugin("villain", &file);
    eventually("the next version is loaded", || (digest() != before).then_some(()));
    refuse(&host, "no order 19");
    let back = state();
    assert_eq!((&back["state"], &back["count"]), (&json!("open"), &json!(3)), "{back}");
    assert!(back["regressed_at"].is_string() && back["versions"].as_array().map(Vec::len) == Some(2), "{back}");
    assert_eq!(host.metric("wharf_failure_regressions_total{task=\"villain/do\"}"), Some(1.0));
    eventually("the log tells it", || host.said().contains("a failure that was resolved is back").then_some(()));
}

#[test]
fn an_ignored_failure_stays_so_and_can_be_reopened() {
    let host = Setup::default().plugin("villain").start();
    let group = refuse(&host, "no order 17");
    let set = |verb: &str| {
        let path = format!("/v1/failures/{group}/{verb}");
        host.client().post(&path, &Value::Null).ok()["state"].clone()
    };
    assert_eq!(set("ignore"), "ignored");
    refuse(&host, "no order 18");
    let in_state = |state: &str| host.client().get(&format!("/v1/failures?state={state}")).ok()["failures"].clone();
    assert_eq!((in_state("open"), in_state("ignored")[0]["count"].clone()), (json!([]), json!(2)));
    assert_eq!(set("reopen"), "open");
    let unknown = host.client().post("/v1/failures/f1:0000000000000001/resolve", &Value::Null);
    assert_eq!((unknown.status, &unknown.json()["code"]), (404, &json!("failure-unknown")));
}

/// An exception of an interpreter is known by its own functions; those of the interpreter are the same for all.
#[test]
fn exceptions_of_interpreters_are_grouped_by_their_message_and_functions() {
    let plugins = ["words-python", "words-js"];
    let setup = plugins.iter().fold(Setup::default(), |setup, plugin| {
        let once = format!("[plugins.{plugin}.tasks.count]\nretry = {{ attempts = 1 }}\n");
        setup.plugin(plugin).settings(&once)
    });
    let host = setup.start();
    for plugin in plugins {
        let task = format!("{plugin}/count");
        let with = |text: &str, how: &str| fail(&host, &task, json!({ "text": text, "fail": how }));
        let exception = with("a", "panic");
        assert_eq!(with("another text of order 17", "panic"), exception, "{plugin}");
        assert_ne!(with("a", "discard"), exception, "{plugin}");
        let group = host.client().get(&format!("/v1/failures/{exception}")).ok();
        assert_eq!((&group["outcome"], &group["count"]), (&json!("trapped"), &json!(2)), "{group}");
    }
}
