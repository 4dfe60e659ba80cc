//! Whoever reads what a host or a command says may be slow, may stop, may go away: nothing else suffers for it.

use std::io::pipe;
use std::process::{Command, Output};

use serde_json::json;

use crate::harness::{Hears, Host, Setup, eventually, wharf};

const LOUD: &str = "[log]\nlevel = \"debug\"\n[lease]\nlength = \"6s\"\nmargin = \"1s\"";

fn dropped(host: &Host) -> f64 {
    host.metric("wharf_host_log_lines_dropped_total").expect("the metric is there")
}

/// Runs so many jobs that do nothing, each with several lines in the log.
fn run_many(host: &Host, count: usize) {
    let jobs: Vec<_> = (0..count).map(|_| json!({ "task": "villain/do", "payload": { "do": "echo" } })).collect();
    let taken = host.client().post("/v1/jobs", &json!(jobs)).ok();
    let last = taken.as_array().and_then(|all| all.last()).map(|one| one["id"].as_str().expect("an id").to_owned());
    host.finished(&last.expect("jobs were taken"));
    eventually("all are over", || {
        let open = ["waiting", "running"].map(|state| {
            let page = host.client().get(&format!("/v1/jobs?task=villain/do&state={state}")).ok();
            page["jobs"].as_array().expect("a list").len()
        });
        (open == [0, 0]).then_some(())
    });
}

#[test]
fn a_pipe_that_nobody_reads_holds_up_nothing_and_the_gap_is_told() {
    let mut host = Setup::default().plugin("villain").settings(LOUD).heard_by(Hears::OnlyTheStart).start();
    // Longer than its lease, which is renewed meanwhile or it would run twice.
    let long = host.enqueue("villain/slow", json!({ "do": "sleep", "ms": 9000 }));
    for _ in 0..20 {
        run_many(&host, 1000);
        for probe in ["/health", "/ready"] {
            assert_eq!(host.client().get(probe).status, 200, "{probe}");
        }
        if dropped(&host) > 0.0 {
            break;
        }
    }
    let lost = dropped(&host);
    assert!(lost > 0.0, "more was said than a pipe and a queue have room for");
    assert_eq!(host.finished(&long)["attempt"], 1);
    host.hear_on();
    let line = eventually("it says how much is missing", || {
        let said = host.said();
        said.lines().find(|line| line.contains("lines of this log were dropped")).map(str::to_owned)
    });
    let told: f64 = line.rsplit("lines=").next().and_then(|count| count.trim().parse().ok()).unwrap_or_default();
    assert!(told >= lost && told <= dropped(&host), "{line}, and {lost} by the metric");
    run_many(&host, 1);
    assert_eq!(host.terminate(), Some(0));
    eventually("the last line is there", || host.said().trim_end().ends_with("stopped").then_some(()));
}

#[test]
fn a_host_whose_log_nobody_reads_can_be_ended() {
    let mut host = Setup::default().plugin("villain").settings(LOUD).heard_by(Hears::OnlyTheStart).start();
    run_many(&host, 1000);
    assert_eq!(host.terminate(), Some(0));
}

#[test]
fn a_host_whose_log_s_reader_is_gone_goes_on() {
    let mut host = Setup::default().plugin("villain").settings(LOUD).heard_by(Hears::TheStartAndIsGone).start();
    run_many(&host, 50);
    eventually("what nobody hears is counted", || (dropped(&host) >= 50.0).then_some(()));
    assert!(host.is_ready());
    assert_eq!(host.terminate(), Some(0));
}

/// What the command does with the standard error, or the output, of a reader that is gone.
fn unheard(command: &mut Command, output: bool) -> Output {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    if output {
        command.stdout(writer)
    } else {
        command.stderr(writer)
    };
    command.output().expect("it runs")
}

#[test]
fn commands_keep_their_exit_code_where_nobody_hears_what_they_say() {
    let host = Setup::default().plugin("villain").start();
    let trap = ["job", "enqueue", "villain/do", "--input", r#"{"do":"trap"}"#, "--wait"];
    assert_eq!(unheard(&mut host.cli(&trap), false).status.code(), Some(1));
    assert_eq!(unheard(&mut host.cli(&["job", "list", "--state", "waiting"]), false).status.code(), Some(0));
    assert_eq!(unheard(&mut host.cli(&["job", "show", "0000000000000"]), false).status.code(), Some(4));
    assert_eq!(
        unheard(wharf().args(["job", "list"]).env("WHARF__HOST", "http://127.0.0.1:9"), false).status.code(),
        Some(3)
    );
    assert_eq!(unheard(wharf().args(["serve", "--listen", "nonsense"]), false).status.code(), Some(2));
    assert_eq!(unheard(wharf().arg("nonsense"), false).status.code(), Some(2));
    let folder = tempfile::tempdir().expect("a folder");
    let mut blocked = wharf();
    blocked.current_dir(folder.path()).args([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--store",
        "sqlite:no/such/folder/x.db",
    ]);
    assert_eq!(unheard(&mut blocked, false).status.code(), Some(5));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let host = Setup::default().plugin("villain").start();
    let id = host.enqueue("villain/do", json!({ "do": "echo" }));
    host.finished(&id);
    for args in [
        &["job", "list"][..],
        &["job", "show", &id],
        &["job", "list", "--json"],
        &["job", "follow", &id],
        &["plugin", "list"],
    ] {
        let Output { status, stderr, .. } = unheard(&mut host.cli(args), true);
        assert_eq!((status.code(), String::from_utf8_lossy(&stderr).as_ref()), (Some(0), ""), "{args:?}");
    }
    for args in [&["--help"][..], &["config"], &["completion", "bash"], &["--version"]] {
        let Output { status, stderr, .. } = unheard(wharf().args(args), true);
        assert_eq!((status.code(), String::from_utf8_lossy(&stderr).as_ref()), (Some(0), ""), "{args:?}");
    }
}
