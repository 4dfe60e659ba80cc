//! Ticks of schedules that are held, paused or refused, on running hosts.

use serde_json::{Value, json};

use crate::harness::{Client, Setup, eventually};
use crate::schedules::{put, show, wait_for_ticks};

/// Waits until the last ticks of a schedule have an outcome, so many in a row, and returns their record.
fn wait_for_outcome(client: &Client, id: &str, outcome: &str, count: u64) -> Value {
    eventually(&format!("{id}: {outcome}"), || {
        let last = show(client, id)["recent"][0].clone();
        (last["outcome"] == outcome && last["count"].as_u64() >= Some(count)).then_some(last)
    })
}

#[test]
fn a_hold_of_a_key_or_of_a_group_concerns_its_schedules_only() {
    let host = Setup::default().plugin("villain").start();
    let client = host.client();
    let every = |more: Value| {
        let quick = json!({ "do": "sleep", "ms": 0 });
        let mut definition = json!({ "task": "villain/do", "every": "1s", "payload": quick, "missed": "latest" });
        definition.as_object_mut().expect("members").extend(more.as_object().expect("members").clone());
        definition
    };
    put(client, "keyed", &every(json!({ "key": "acme" })));
    put(client, "plain", &every(json!({})));
    client.post("/v1/holds", &json!({ "key": "acme" })).ok();
    let held = wait_for_outcome(client, "keyed", "held", 2);
    assert_eq!(client.get("/v1/jobs?where=state:held").ok()["jobs"][0]["id"], held["job"]);
    wait_for_ticks(client, "plain", 2);
    client.delete("/v1/holds?key=acme");
    wait_for_ticks(client, "keyed", 1);

    client.post("/v1/holds", &json!({ "group": "villain/do" })).ok();
    wait_for_outcome(client, "keyed", "held", 2);
    wait_for_outcome(client, "plain", "held", 2);
    let waiting = client.get("/v1/jobs?where=state:held").ok();
    assert_eq!(waiting["jobs"].as_array().map(Vec::len), Some(2), "{waiting}");
    client.delete("/v1/holds?group=villain%2Fdo");
    wait_for_ticks(client, "keyed", 1);
    wait_for_ticks(client, "plain", 1);
}

#[test]
fn a_pause_ends_by_itself_and_its_ticks_never_come() {
    let host = Setup::default().plugin("villain").start();
    let client = host.client();
    let quick = json!({ "do": "sleep", "ms": 0 });
    put(client, "tick", &json!({ "task": "villain/do", "every": "1s", "payload": quick, "missed": "all" }));
    wait_for_ticks(client, "tick", 1);
    let paused = client.post("/v1/schedules/tick/pause", &json!({ "for": "4s" })).ok();
    let moment =
        |value: &Value| value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()).expect("a moment");
    let (since, until) = (moment(&paused["pause"]["since"]), moment(&paused["pause"]["until"]));
    wait_for_ticks(client, "tick", 2);
    let shown = show(client, "tick");
    assert_eq!((&shown["state"], shown.get("pause")), (&json!("active"), None), "{shown}");
    assert_eq!((&shown["ticks"]["missed"], &shown["ticks"]["skipped"]), (&json!(0), &json!(0)), "{shown}");
    let ticks = shown["recent"].as_array().expect("ticks").iter().map(|tick| moment(&tick["tick"]));
    let in_pause: Vec<_> = ticks.filter(|tick| *tick > since && *tick < until).collect();
    assert!(in_pause.is_empty(), "{in_pause:?} came in the pause from {since} until {until}");
}

#[test]
fn a_tick_whose_payload_the_task_no_longer_takes_is_refused_with_the_reason() {
    let host = Setup::default().plugin("program").start();
    let client = host.client();
    put(client, "tick", &json!({ "task": "program/run", "every": "1s", "payload": { "days": 1 } }));
    wait_for_ticks(client, "tick", 1);
    let manifest = "[tasks.run]\npayload-schema = '{\"type\": \"object\", \"required\": [\"weeks\"]}'\n";
    std::fs::write(host.plugin_file("program").with_extension("toml"), manifest).expect("written");
    let refused = wait_for_outcome(client, "tick", "refused", 2);
    let reason = refused["reason"].as_str().expect("a reason");
    assert!(reason.contains("weeks"), "{reason}");
    assert!(show(client, "tick")["ticks"]["skipped"].as_u64() >= Some(2));
    std::fs::write(host.plugin_file("program").with_extension("toml"), "").expect("written");
    wait_for_ticks(client, "tick", 1);
}
