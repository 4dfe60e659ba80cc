//! The numbers and the log that operators live with: metrics as Prometheus' own checker takes them, alert rules against recorded
//! situations, and one line for each job that failed.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually, promtool};

fn page(host: &Host) -> String {
    String::from_utf8(host.client().get("/metrics").body).expect("text")
}

fn number(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
fn what_waits_is_told_by_task_and_reason_also_at_zero_and_promtool_has_no_complaint() {
    let host = Setup::default().plugin("words").plugin("villain").start();
    let of = |page: &str, reason: &str| {
        number(page, &format!("wharf_jobs_waiting_by_reason{{task=\"words/count\",reason=\"{reason}\"}}"))
    };
    let idle = page(&host);
    for reason in ["ready", "delayed", "retrying", "blocked", "held"] {
        assert_eq!(of(&idle, reason), Some(0.0), "{reason}: {idle}");
    }
    host.run("words/count", json!({ "text": "a" }));
    host.run("villain/do", json!({ "do": "trap" }));
    let held = host.cli(&["hold", "task", "words/count", "--reason", "test"]).output().expect("the CLI runs");
    assert!(held.status.success());
    host.enqueue("words/count", json!({ "text": "a" }));
    host.enqueue_with(json!({ "task": "words/count", "payload": { "text": "a" }, "delay": "1h" }));
    let seen = eventually("it is held", || {
        let page = page(&host);
        (of(&page, "held") == Some(1.0) && of(&page, "delayed") == Some(1.0)).then_some(page)
    });
    let age = number(&seen, "wharf_oldest_ready_age_seconds{task=\"words/count\"}");
    assert_eq!(
        (age, number(&seen, "wharf_oldest_due_age_seconds")),
        (Some(0.0), Some(0.0)),
        "held jobs do not count: {seen}"
    );
    for name in [
        "wharf_build_info{version=",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
        "wharf_store_bytes",
        "wharf_store_log_bytes",
        "wharf_memory_budget_bytes",
        "wharf_plugins_pending{step=\"compiling\"} 0",
        "wharf_sandboxes{plugin=\"words\"} 0",
        "wharf_draining 0",
    ] {
        assert!(seen.lines().any(|line| line.starts_with(name)), "{name} is missing:\n{seen}");
    }
    let checked = promtool(&["check", "metrics"], seen.as_bytes());
    let complaints = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(checked.status.success() && complaints.trim().is_empty(), "{complaints}\n{seen}");

    // A sandbox is counted for as long as it lives.
    let sleeper = host.enqueue("villain/slow", json!({ "do": "sleep", "ms": 600_000 }));
    host.in_state(&sleeper, "running");
    eventually("its sandbox is counted", || {
        (number(&page(&host), "wharf_sandboxes{plugin=\"villain\"}") == Some(1.0)).then_some(())
    });
}

#[test]
fn the_example_alerts_hold_in_the_recorded_situations() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    for args in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let file = folder.join(args[2]).display().to_string();
        let checked = promtool(&[args[0], args[1], &file], b"");
        let told = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
        assert!(checked.status.success(), "{args:?}: {told}");
    }
    // Each series that a rule reads is one that a host shows.
    let host = Setup::default().plugin("words").start();
    host.run("words/count", json!({ "text": "a" }));
    let page = page(&host);
    let rules = std::fs::read_to_string(folder.join("alerts.yml")).expect("the rules");
    let names = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("wharf_"));
    for name in names {
        assert!(page.lines().any(|line| line.starts_with(name)), "{name} is not a series of a host:\n{page}");
    }
}

#[test]
fn the_final_failure_of_a_job_is_one_line_with_its_attempts() {
    let retry =
        "[plugins.villain.tasks.keyed]\nretry = { attempts = 2, backoff = \"1ms..1ms\" }\n[log]\nformat = \"json\"\n";
    let host = Setup::default().plugin("villain").settings(retry).start();
    let job = host.enqueue("villain/keyed", json!({ "key": "acme", "do": "trap" }));
    assert_eq!(host.finished(&job)["state"], "failed");
    let limit = host.cli(&["limit", "set", "villain/keyed", "--per-key", "3"]).output().expect("the CLI runs");
    assert!(limit.status.success(), "{}", String::from_utf8_lossy(&limit.stderr));
    let lines = |host: &Host, message: &str| -> Vec<Value> {
        let said = host.said();
        let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with(message))).collect()
    };
    let line = eventually("the failure is told", || lines(&host, "job failed").pop());
    assert_eq!(lines(&host, "job failed").len(), 1, "one line for both attempts");
    assert_eq!(
        (&line["job"], &line["key"], &line["outcome"]),
        (&json!(job), &json!("acme"), &json!("trapped")),
        "{line}"
    );
    assert_eq!(
        (&line["level"], &line["attempts"], &line["plugin_version"]),
        (&json!("WARN"), &json!(2), &json!("0.1.0"))
    );
    let trace = line["trace"].as_str().expect("a trace");
    assert!(trace.starts_with("1 trapped after ") && trace.contains("; 2 trapped after "), "{trace}");
    assert!(line["duration_ms"].is_u64(), "{line}");
    let changed = eventually("the limit is told", || lines(&host, "limit changed").pop());
    assert_eq!((&changed["group"], &changed["per_key"]), (&json!("villain/keyed"), &json!(3)), "{changed}");
}
