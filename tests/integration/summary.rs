//! The summary of all hosts: what it counts, whom it names, and what it says when it does not know.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually, eventually_within, shared_address};

/// Longer than the minute after which rates are known.
const LONG: Duration = Duration::from_secs(240);

fn of_task(host: &Host, task: &str) -> (Value, Value) {
    let summary = host.client().get("/v1/summary?keys=10").ok();
    let found = summary["tasks"].as_array().expect("tasks").iter().find(|of| of["task"] == task).cloned();
    (found.unwrap_or(Value::Null), summary)
}

#[test]
fn rates_of_all_hosts_are_summed_up_once_they_are_known() {
    let address = shared_address();
    let first = Setup::default().plugin("villain").database(&address).start();
    let second = Setup::default().plugin("villain").database(&address).start();
    for (host, key) in [(&first, "a"), (&first, "b"), (&second, "a")] {
        let job = host.enqueue("villain/keyed", json!({ "key": key, "do": "sleep", "ms": 20 }));
        host.finished(&job);
    }
    let failed = first.enqueue("villain/do", json!({ "do": "trap" }));
    first.finished(&failed);
    first.client().post("/v1/holds", &json!({ "task": "villain/keyed" })).ok();
    first.enqueue("villain/keyed", json!({ "key": "c", "do": "sleep", "ms": 0 }));
    let (task, summary) = of_task(&first, "villain/keyed");
    assert_eq!(
        (&task["hour"], &task["minute"], &task["wait"]),
        (&Value::Null, &Value::Null, &Value::Null),
        "{summary}"
    );
    assert_eq!((&task["waiting"], &task["running"], &task["held"]), (&json!(1), &json!(0), &json!(true)), "{task}");
    let waits = json!({ "ready": 0, "blocked": 0, "held": 1, "delayed": 0, "retrying": 0, "more": false });
    assert_eq!((&task["waits"], &task["oldest_ready_ms"]), (&waits, &Value::Null), "{task}");
    let cli = first.cli(&["summary", "--keys"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&cli.stdout).into_owned();
    assert!(text.contains("unknown") && text.contains("1 (held)") && text.contains("1 held"), "{text}");

    let known = |host: &Host| {
        let (task, summary) = of_task(host, "villain/keyed");
        (task["hour"]["ended"] == 3).then_some((task, summary))
    };
    for host in [&first, &second] {
        let (task, summary) = eventually_within(LONG, "the hour is known", || known(host));
        assert_eq!(summary["hosts"], 2, "{summary}");
        assert!(summary["covers_s"].as_u64().is_some_and(|seconds| seconds >= 60), "{summary}");
        assert_eq!(task["hour"]["failed"], 0, "{task}");
        assert!(task["run"]["p50_ms"].as_f64().is_some_and(|ms| ms >= 17.0), "{task}");
        assert!(task["hour"]["memory_peak_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{task}");
        let mut keys: Vec<&str> =
            summary["keys"].as_array().expect("keys").iter().map(|of| of["key"].as_str().expect("text")).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["a", "b"], "{summary}");
        assert!(summary["keys"][0]["error_ms"] == 0.0, "few keys are exact: {summary}");
        let (failing, _) = of_task(host, "villain/do");
        assert!(failing["hour"]["failed"].as_u64().is_some_and(|failed| failed >= 1), "{failing}");
    }
    drop(second);
    // A host that starts makes the numbers unknown again.
    let third = Setup::default().plugin("villain").database(&address).start();
    let unknown = eventually("the third host is counted", || {
        let (task, summary) = of_task(&first, "villain/keyed");
        (task["hour"] == Value::Null && summary["hosts"].as_u64() >= Some(2)).then_some(summary)
    });
    assert!(unknown["covers_s"].as_u64().is_none_or(|seconds| seconds < 60), "{unknown}");
    drop(third);
}
