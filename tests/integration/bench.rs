//! `wharf bench`, each kind at its smallest: that it runs from the binary alone, and says what it measured and how.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::harness::{Setup, eventually, wharf};

/// Runs in an empty folder, with the cache that all tests share.
fn run(args: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = wharf();
    command.env("WHARF__CACHE_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
    command.current_dir(dir.path()).arg("bench").args(args).output().expect("the binary starts")
}

#[track_caller]
fn report(args: &[&str]) -> Value {
    let output = run(&[args, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "wharf bench {args:?}: {}\n{said}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["bench"], args[0]);
    assert!(report["with"]["cores"].as_u64().expect("a number") > 0, "{report}");
    assert!(report["with"]["busy_cores_of_others"].as_f64().is_some(), "{report}");
    report
}

/// Figures of these names are there, and are numbers above zero.
#[track_caller]
fn has(report: &Value, figures: &[&str]) {
    for name in figures.iter().map(|name| name.replace('-', "_")) {
        assert!(report["figures"][name.as_str()].as_f64().is_some_and(|number| number > 0.0), "{name}: {report}");
    }
}

/// A latency is there, of so many, and in order.
#[track_caller]
fn has_latency(report: &Value, name: &str, count: u64) {
    let latency = &report["latency_ms"][name.replace('-', "_")];
    assert_eq!(latency["count"], count, "{name}: {report}");
    let at = |point: &str| latency[point].as_f64().unwrap_or_else(|| panic!("{name}: no {point} in {report}"));
    assert!(0.0 < at("p50") && at("p50") <= at("p99") && at("p99") <= at("max"), "{name}: {report}");
}

#[test]
fn jobs_are_run_from_the_binary_alone() {
    let report = report(&["jobs", "--jobs", "200", "--batch", "50", "--singles", "5"]);
    has(&report, &["jobs-per-second", "processor-per-job-ms", "peak_memory_bytes"]);
    has_latency(&report, "enqueue-to-result", 5);
    has_latency(&report, "fsync-of-a-page", 5);
    assert_eq!(report["with"]["durability"], "synchronous=FULL, write-ahead log; claims do not wait for the disk");
    assert_eq!((&report["with"]["batch"], &report["with"]["task"]), (&50.into(), &"bench/noop".into()));
}

#[test]
fn a_plugin_of_ones_own_is_run() {
    let words = crate::harness::component("words");
    let words = words.to_str().expect("text");
    let own = ["jobs", "--jobs", "20", "--singles", "2", "--store", "memory:", "--plugin", words];
    let report = report(&[&own[..], &["--task", "count", "--input", r#"{"text":"to be"}"#]].concat());
    assert_eq!((&report["with"]["task"], &report["with"]["store"]), (&"words/count".into(), &"memory".into()));
    assert_eq!(report["with"]["payload_bytes"], 16);
    // What its schema does not take is said as anywhere else.
    let wrong = run(&[&own[..], &["--task", "count", "--input", "7"]].concat());
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("payload"), "{wrong:?}");
}

#[test]
fn jobs_of_keys_are_held_against_jobs_without() {
    let report = report(&["keys", "--keys", "20", "--jobs", "100", "--rounds", "2"]);
    has(&report, &["jobs-without-key-per-second", "jobs-of-keys-per-second", "of_keys_to_without_ratio"]);
    assert_eq!((&report["with"]["keys"], &report["with"]["per_key"]), (&20.into(), &1.into()));
}

#[test]
fn requests_are_acknowledged_when_they_are_durable() {
    let report = report(&["http", "--connections", "4", "--requests", "100"]);
    has(&report, &["requests-per-second", "jobs-run-per-second", "host_peak_memory_bytes"]);
    has_latency(&report, "request", 100);
}

#[test]
fn a_broadcast_is_held_against_native_sleeps() {
    let report = report(&["broadcast", "--subscribers", "12", "--wait", "20ms", "--rounds", "2"]);
    has(&report, &["broadcast-ms", "native-sleeps-ms", "broadcast_to_native_sleeps_ratio"]);
    assert!(report["figures"]["broadcast_ms"].as_f64() >= Some(20.0), "{report}");
}

#[test]
fn sandboxes_are_called_and_suspended() {
    let called = report(&["sandbox", "--calls", "256"]);
    has(&called, &["calls-1-at-once-per-second", "calls-64-at-once-per-second"]);
    has_latency(&called, "call-64-at-once", 256);
    let suspended = report(&["sandbox", "--suspended", "20"]);
    assert_eq!(suspended["figures"]["attempts_suspended"], 20.0, "{suspended}");
    assert_eq!(suspended["with"]["one_more"], "waiting", "{suspended}");
    has(&suspended, &["resident_memory_bytes"]);
}

#[test]
fn loops_are_ended_and_small_jobs_are_not() {
    let report = report(&["isolation", "--loops", "2", "--rate", "50", "--sleepers", "20"]);
    has(&report, &["small-jobs-p99-before-ms", "p99-beside-a-loop-to-before-ratio"]);
    has(&report, &["small-jobs-p99-beside-sleepers-ms", "p99-beside-sleepers-to-before-ratio"]);
    let with = &report["with"];
    assert_eq!((&with["loops"], &with["sleepers"], &with["sleeper"]), (&2.into(), &20.into(), &"bench/wait".into()));
}

#[test]
fn a_backlog_has_its_price() {
    let report = report(&["backlog", "--waiting", "320,3200", "--rounds", "4"]);
    for case in ["one-key", "many_keys"] {
        for what in ["claim", "record", "enqueue"] {
            has(&report, &[&format!("{what}-320-waiting-{case}-ms"), &format!("{what}-3200-waiting-{case}-ms")]);
            has(&report, &[&format!("{what}-at-most-to-fewest-by-the-clock-{case}-ratio")]);
        }
    }
}

#[test]
fn plugins_are_replaced_and_no_job_notices() {
    let report = report(&["reload", "--plugins", "2", "--starts", "1", "--replacements", "2", "--connections", "2"]);
    has(&report, &["ready-after-compiling-all-ms", "ready-after-with-all-compiled-ms", "jobs_meanwhile"]);
    assert_eq!(report["figures"]["jobs_that_failed"], 0.0, "{report}");
    has_latency(&report, "file-to-next-version", 2);
}

#[test]
fn a_running_host_is_measured_with_the_plugin_that_the_bench_writes() {
    let host = Setup::default().start();
    let bench = |args: &[&str]| host.cli(&["bench"]).args(args).output().expect("the binary starts");
    let address = host.client().address().to_owned();
    let missing = bench(&["jobs", "--jobs", "10", "--singles", "1", "--host", &address]);
    assert_eq!(missing.status.code(), Some(4), "{missing:?}");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("wharf bench plugin"), "{missing:?}");

    let file = host.dir().join("written.wasm");
    assert!(bench(&["plugin", file.to_str().expect("text")]).status.success());
    host.put_plugin("bench", &file);
    eventually("it is loaded", || {
        host.client().get("/v1/plugins").ok().to_string().contains("bench/noop").then_some(())
    });
    for args in [
        &["jobs", "--jobs", "20", "--singles", "2"][..],
        &["keys", "--jobs", "20", "--rounds", "1"],
        &["http", "--connections", "2", "--requests", "20"],
        &["broadcast", "--wait", "5ms", "--rounds", "2"],
    ] {
        let output = bench(&[args, &["--json", "--host", &address]].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report["with"]["host"], address);
    }
}

#[test]
fn flags_that_cannot_be_are_explained() {
    for (args, expected) in [
        (&["jobs", "--jobs", "0"][..], "--jobs"),
        (&["jobs", "--plugin", "x.wasm"], "--task"),
        (&["jobs", "--store", "redis://here"], "of an unknown kind"),
        (&["jobs", "--dir", "/no/such/folder"], "--dir"),
        (&["broadcast", "--wait", "5"], "the unit is missing"),
        (&["sandbox", "--suspended", "9000"], "8000"),
        (&["sandbox", "--host", "http://127.0.0.1:1"], "cannot measure a running host"),
        (&["backlog", "--store", "memory:"], "several stores"),
        (&["backlog", "--waiting", "10"], "320"),
        (&["jobs", "--host", "http://127.0.0.1:1"], "could not reach the host"),
    ] {
        let output = run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{args:?}");
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}
