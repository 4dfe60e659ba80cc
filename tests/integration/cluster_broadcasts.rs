//! Broadcasts over several hosts on one PostgreSQL: every subscribed plugin once, wherever it is loaded.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually, shared_address};

#[track_caller]
fn broadcast(host: &Host, topic: &str, body: Value) -> Value {
    host.client().post(&format!("/v1/broadcasts/{topic}"), &body).ok()
}

/// Waits until a host has heard of so many plugins of others.
#[track_caller]
fn knows(host: &Host, nodes: usize, plugins: usize) {
    eventually("the nodes know of each other's plugins", || {
        let all = host.client().get("/v1/nodes").ok();
        let all = all.as_array().expect("a list");
        let count: usize = all.iter().filter_map(|node| node["plugins"].as_array()).map(Vec::len).sum();
        (all.len() == nodes && count == plugins).then_some(())
    });
}

/// Broadcasts until so many were asked: what others have is known some seconds late.
#[track_caller]
fn until_asked(host: &Host, topic: &str, body: &Value, asked: usize) -> Value {
    eventually(&format!("{asked} are asked"), || {
        let answer = broadcast(host, topic, body.clone());
        (answer["replies"].as_array().map(Vec::len) == Some(asked)).then_some(answer)
    })
}

fn section(id: &str, order: &Value) -> String {
    format!("[plugins.{id}]\nenv = {{ ORDER = '{order}' }}\n")
}

fn outcome<'a>(answer: &'a Value, plugin: &str) -> &'a Value {
    let replies = answer["replies"].as_array().expect("a list");
    replies.iter().find(|reply| reply["plugin"] == plugin).unwrap_or_else(|| panic!("no {plugin} in {answer}"))
}

#[test]
fn every_subscriber_is_called_once_wherever_it_is() {
    let address = shared_address();
    // Both have `summary`: it is called once all the same.
    let one = Setup::default().plugin("summary").plugin("word-index").database(&address).start();
    let two = Setup::default().plugin("summary").plugin("link-check").plugin("villain").database(&address).start();
    knows(&one, 2, 5);
    let body = json!({ "payload": { "path": "a.md", "text": "# To be\n\n[Or](#not)." } });
    for host in [&one, &two] {
        let answer = until_asked(host, "document.saved", &body, 3);
        let plugins: Vec<&str> =
            answer["replies"].as_array().unwrap().iter().filter_map(|reply| reply["plugin"].as_str()).collect();
        assert_eq!(
            (plugins, &answer["outcomes"]),
            (vec!["link-check", "summary", "word-index"], &json!({ "replied": 3 }))
        );
        assert_eq!(outcome(&answer, "link-check")["reply"]["problems"][0]["target"], "#not");
    }
    // What a subscriber elsewhere says of its end comes as it was said.
    for (order, expected, said) in [
        (json!({ "do": "fail-retry-after", "ms": 900, "text": "busy" }), "failed", "busy"),
        (json!({ "do": "trap" }), "trapped", "unreachable"),
    ] {
        let answer = broadcast(&one, "villain.x", json!({ "payload": order }));
        let reply = outcome(&answer, "villain");
        assert_eq!(reply["outcome"], expected, "{answer}");
        assert!(reply["report"].to_string().contains(said), "{answer}");
    }
    // One that reads what it is told over there is stopped in time by whoever waits here.
    let answer =
        broadcast(&one, "villain.x", json!({ "payload": { "do": "loop-ignoring-cancel" }, "timeout": "300ms" }));
    assert_eq!(outcome(&answer, "villain")["outcome"], "timed-out", "{answer}");
    // A broadcast from within: the chain and its depth go with it.
    let ask = json!({ "do": "broadcast", "topic": "document.saved", "payload": { "text": "a b" } });
    let answer = broadcast(&one, "villain.x", json!({ "payload": ask, "timeout": "20s" }));
    let inner = &outcome(&answer, "villain")["reply"];
    assert_eq!(inner.as_array().map(Vec::len), Some(3), "{answer}");
    assert!(inner.as_array().unwrap().iter().all(|reply| reply["kind"] == "replied"), "{answer}");
    let circle = json!({ "do": "broadcast", "topic": "villain.x", "payload": { "do": "echo" } });
    let answer = broadcast(&one, "villain.x", json!({ "payload": circle, "timeout": "20s" }));
    assert_eq!(
        outcome(&answer, "villain")["reply"][0]["kind"],
        "skipped",
        "no plugin is called back into itself: {answer}"
    );
}

#[test]
fn enough_elsewhere_ends_what_still_runs_there() {
    let address = shared_address();
    let long = "[plugins.slow.receive]\ntimeout = \"10m\"\ncpu = \"10m\"\n";
    let near = Setup::default().plugin_as("villain", "quick").settings(&section("quick", &json!({ "do": "echo" })));
    let near = near.database(&address).start();
    let far = Setup::default()
        .plugin_as("villain", "slow")
        .settings(&section("slow", &json!({ "do": "loop-ignoring-cancel" })))
        .settings(long)
        .database(&address)
        .start();
    knows(&near, 2, 2);
    let body = json!({ "payload": { "do": "from-env" }, "timeout": "10m", "mode": "first=1" });
    let answer = until_asked(&near, "villain.x", &body, 2);
    assert_eq!(outcome(&answer, "quick")["outcome"], "replied", "{answer}");
    assert_eq!(outcome(&answer, "slow")["outcome"], "skipped", "{answer}");
    let spent = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", far.pid())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        fields[11].parse::<u64>().expect("ticks") + fields[12].parse::<u64>().expect("ticks")
    };
    eventually("the loop over there is stopped", || {
        let before = spent();
        std::thread::sleep(Duration::from_millis(500));
        (spent() - before < 25).then_some(())
    });
}

#[test]
fn a_node_that_dies_during_a_broadcast_is_no_hang() {
    let address = shared_address();
    let near = Setup::default().plugin_as("villain", "near").database(&address).start();
    let mut far = Setup::default().plugin_as("villain", "far").database(&address).start();
    knows(&near, 2, 2);
    until_asked(&near, "villain.x", &json!({ "payload": { "do": "echo" } }), 2);
    std::thread::scope(|scope| {
        let began = Instant::now();
        let asked = scope.spawn(|| {
            broadcast(&near, "villain.x", json!({ "payload": { "do": "sleep", "ms": 3000 }, "timeout": "5m" }))
        });
        std::thread::sleep(Duration::from_millis(500));
        far.kill();
        let answer = asked.join().expect("no panic");
        assert_eq!(outcome(&answer, "near")["outcome"], "replied", "{answer}");
        let gone = outcome(&answer, "far");
        assert_eq!(gone["outcome"], "skipped", "{answer}");
        assert!(gone["report"].to_string().contains("went away"), "{answer}");
        assert!(began.elapsed() < Duration::from_secs(60), "long before the broadcast's own five minutes");
    });
    // From now on it is not asked any more.
    until_asked(&near, "villain.x", &json!({ "payload": { "do": "echo" } }), 1);
}
