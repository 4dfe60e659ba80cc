//! No signal that somebody may send, or that the kernel sends for what the process does, ends a host without a word.

use serde_json::json;

use std::process::{Command, Stdio};

use crate::harness::{Host, Setup, eventually, wharf};

/// Whoever started the tests may have chosen to ignore some, as `nohup` does: a host would keep to that.
const NONE_IGNORED: &[&str] = &["env", "--default-signal"];

fn host(starter: &'static [&'static str]) -> Host {
    let patient = "[attempts]\ndrain-timeout = \"60s\"";
    Setup::default().plugin("villain").settings(patient).under(starter).start()
}

/// No terminal, whatever the tests were started on.
const NO_TERMINAL: &[&str] = &["setsid", "env", "--default-signal"];

#[test]
fn without_a_terminal_a_hangup_reads_the_settings_again_and_hurries_no_drain() {
    let told = tempfile::tempdir().expect("a folder");
    let folder = format!("dirs = [{{ host = \"{}\", guest = \"/told\" }}]", told.path().display());
    let settings = format!("[attempts]\ndrain-timeout = \"10m\"\n[plugins.villain]\n{folder}\n");
    let mut host = Setup::default().plugin("villain").settings(&settings).under(NO_TERMINAL).start();
    let id = host.enqueue("villain/slow", json!({ "do": "emit-when-told", "dir": "/told", "chunks": 1 }));
    host.in_state(&id, "running");
    host.signal("-HUP");
    eventually("it is said", || host.said().contains("wharf.toml again: nothing changed").then_some(()));
    assert!(host.is_ready(), "{}", host.said());
    host.signal("-TERM");
    eventually("the host drains", || (!host.is_ready()).then_some(()));
    host.signal("-HUP");
    eventually("the second one is said", || {
        host.said().contains("ignored SIGHUP; the host already drains").then_some(())
    });
    std::fs::write(told.path().join("0"), "").expect("it is told to end");
    assert_eq!(host.ended(), Some(0), "{}", host.said());
    host.start();
    let job = host.finished(&id);
    assert_eq!(
        (job["state"].as_str(), job["attempt"].as_u64()),
        (Some("succeeded"), Some(1)),
        "it could finish: {job}"
    );
}

#[test]
fn a_terminal_that_closes_drains_the_host() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    std::fs::create_dir(folder.path().join("plugins")).expect("a plugin folder");
    let command = wharf();
    let program = command.get_program().to_str().expect("text");
    // The terminal is one of `script`: when that is killed, its terminal closes.
    let line = format!("exec env --default-signal '{program}' serve --listen 127.0.0.1:0 --store memory: 2>log");
    let mut script = Command::new("setsid");
    script.args(["script", "--quiet", "--command", &line, "/dev/null"]).env("SHELL", "/bin/sh");
    script.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
    for (name, _) in command.get_envs() {
        script.env_remove(name);
    }
    let mut script = script.spawn().expect("`script` of util-linux runs");
    eventually("the host is ready", || said().contains("ready: 0 plugins").then_some(()));
    let children = format!("/proc/{0}/task/{0}/children", script.id());
    let host = std::fs::read_to_string(children).expect("it runs").trim().to_owned();
    let hangup = Command::new("kill").args(["-HUP", &host]).status().expect("kill runs");
    assert!(hangup.success(), "kill -HUP {host}");
    eventually("an open terminal does not end it", || said().contains("again: nothing changed").then_some(()));
    script.kill().expect("it can be killed");
    script.wait().expect("it can be waited for");
    eventually("the host drains", || {
        said().contains("received SIGHUP: the terminal of this host closed; the host drains").then_some(())
    });
    eventually("the host ends", || (!std::path::Path::new(&format!("/proc/{host}")).exists()).then_some(()));
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
    host.says("stopping at once: running jobs are returned to the queue");
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
        let said = host.says(&format!("SIG{signal}: "));
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
