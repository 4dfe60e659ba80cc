//! No signal that somebody may send, or that the kernel sends for what the process does, ends a host without a word.

use serde_json::json;

use crate::harness::{Host, Setup, eventually};

/// Whoever started the tests may have chosen to ignore some, as `nohup` does: a host would keep to that.
const NONE_IGNORED: &[&str] = &["env", "--default-signal"];

fn host(starter: &'static [&'static str]) -> Host {
    let patient = "[attempts]\ndrain-timeout = \"60s\"";
    Setup::default().plugin("villain").settings(patient).under(starter).start()
}

#[test]
fn a_terminal_that_closes_drains_the_host_however_often_it_says_so() {
    let mut host = host(NONE_IGNORED);
    let id = host.enqueue("villain/slow", json!({ "do": "sleep", "ms": 3000 }));
    host.in_state(&id, "running");
    host.signal("-HUP");
    eventually("the host drains", || (!host.is_ready()).then_some(()));
    host.signal("-HUP");
    eventually("the second one is said", || {
        host.said().contains("SIGHUP: this version does not reload settings; the host already drains").then_some(())
    });
    assert_eq!(host.ended(), Some(0), "{}", host.said());
    assert!(
        host.said().contains("SIGHUP: this version does not reload settings; the host drains\n"),
        "{}",
        host.said()
    );
    host.start();
    let job = host.finished(&id);
    assert_eq!(
        (job["state"].as_str(), job["attempt"].as_u64()),
        (Some("succeeded"), Some(1)),
        "it could finish: {job}"
    );
}

#[test]
fn what_nohup_ignores_stays_ignored() {
    let mut host = host(&["env", "--default-signal", "--ignore-signal=HUP,INT"]);
    host.signal("-HUP");
    host.signal("-INT");
    assert_eq!(host.run("villain/do", json!({ "do": "echo" }))["state"], "succeeded");
    assert!(host.is_ready(), "{}", host.said());
    assert_eq!(host.terminate(), Some(0));
}

#[test]
fn a_quit_ends_it_at_once_and_costs_no_attempt() {
    let mut host = host(NONE_IGNORED);
    let id = host.enqueue("villain/slow", json!({ "do": "sleep", "ms": 60_000 }));
    host.in_state(&id, "running");
    host.signal("-QUIT");
    assert_eq!(host.ended(), Some(0), "{}", host.said());
    assert!(host.said().contains("stopping at once: running jobs are returned to the queue"), "{}", host.said());
    host.start();
    let job = host.in_state(&id, "running");
    assert_eq!((job["failures"].as_u64(), job["crashes"].as_u64()), (Some(0), Some(0)), "{job}");
}

#[test]
fn signals_of_the_machine_drain_it_with_a_word() {
    let mut host = host(NONE_IGNORED);
    for signal in ["XCPU", "PWR", "ALRM", "VTALRM", "PROF"] {
        host.signal(&format!("-{signal}"));
        assert_eq!(host.ended(), Some(0), "{signal}: {}", host.said());
        let said = host.said();
        let line = said.lines().find(|line| line.contains(&format!("SIG{signal}: "))).unwrap_or_default();
        assert!(line.ends_with("; the host drains"), "{signal}: {said}");
        host.start();
    }
}

#[test]
fn signals_that_mean_nothing_are_said_and_change_nothing() {
    let mut host = host(NONE_IGNORED);
    let id = host.enqueue("villain/slow", json!({ "do": "sleep", "ms": 1000 }));
    host.in_state(&id, "running");
    for signal in ["USR1", "USR2", "IO", "STKFLT", "PIPE", "WINCH", "XFSZ"] {
        host.signal(&format!("-{signal}"));
    }
    for signal in ["USR1", "USR2", "IO", "STKFLT"] {
        let line = format!("ignored SIG{signal}; the host goes on");
        eventually("it is said", || host.said().contains(&line).then_some(()));
    }
    assert_eq!(host.finished(&id)["attempt"], 1);
    assert_eq!(host.terminate(), Some(0));
}
