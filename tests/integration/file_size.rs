//! A process that may make no file larger than so much (`ulimit -f`, `LimitFSIZE=` of systemd): that is a full disk, and no end.

use std::process::Command;

use serde_json::json;

use crate::harness::{Setup, component, eventually, wharf_under};

/// The soft limit alone, so that a test can raise it while the host runs.
const UNDER_8_MIB: &[&str] = &["prlimit", "--fsize=8388608:unlimited"];

#[test]
fn a_plugin_that_makes_a_file_too_large_is_told_so_and_the_host_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let grant = format!(
        "[plugins.villain]\ndirs = [{{ host = \"{}\", guest = \"/out\", writable = true }}]",
        folder.path().display()
    );
    let host = Setup::default().plugin("villain").settings(&grant).under(UNDER_8_MIB).start();
    for order in [
        json!({ "do": "resize-file", "path": "/out/a", "bytes": 9_000_000 }),
        json!({ "do": "resize-file", "path": "/out/b", "bytes": u64::MAX / 4 }),
    ] {
        let job = host.run("villain/do", order);
        let told = job["report"]["text"].as_str().unwrap_or_default();
        assert_eq!(
            (job["state"].as_str(), job["report"]["outcome"].as_str()),
            (Some("failed"), Some("failed")),
            "{job}"
        );
        assert!(told.contains("cannot resize /out/") && told.contains("too large"), "an ordinary error: {told}");
    }
    assert_eq!(
        host.run("villain/do", json!({ "do": "resize-file", "path": "/out/c", "bytes": 7 }))["state"],
        "succeeded"
    );
    assert!(host.is_ready());
}

#[test]
fn a_store_that_may_not_grow_says_so_and_goes_on_once_it_may() {
    let mut host = Setup::default().plugin("villain").under(UNDER_8_MIB).start();
    let large =
        json!({ "task": "villain/do", "payload": { "do": "echo", "payload": "x".repeat(1_000_000) }, "delay": "1h" });
    let mut kept = Vec::new();
    let refused = loop {
        let reply = host.client().post("/v1/jobs", &large);
        if reply.status != 202 {
            break reply;
        }
        kept.push(reply.json()["id"].as_str().expect("an id").to_owned());
        assert!(kept.len() < 20, "the file has become larger than it may be");
    };
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("store-busy")), "{refused:?}");
    assert!(kept.len() >= 4, "the log has not taken the room of the file: {} jobs of 1 MB", kept.len());
    let said = refused.json()["detail"].as_str().expect("a reason").to_owned();
    assert!(said.contains("8388608 bytes") && said.contains("LimitFSIZE="), "{said}");
    let ready = host.client().get("/ready");
    assert_eq!(ready.status, 503, "{ready:?}");
    assert!(ready.json()["reasons"][0].as_str().is_some_and(|why| why.contains("the largest size")), "{ready:?}");
    eventually("the log says it, too", || host.said().contains("the largest size").then_some(()));

    let raised = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &host.pid().to_string()]).status();
    assert!(raised.expect("prlimit runs").success());
    eventually("work goes on by itself", || (host.client().post("/v1/jobs", &large).status == 202).then_some(()));
    assert_eq!(host.run("villain/do", json!({ "do": "echo" }))["state"], "succeeded");
    eventually("it is ready by itself", || host.is_ready().then_some(()));
    assert_eq!(host.terminate(), Some(0));
    host.start();
    for id in kept {
        assert_eq!(host.job(&id)["state"], "waiting", "what was acknowledged is there");
    }
}

#[test]
fn a_log_that_may_not_grow_begins_anew_in_time() {
    let host = Setup::default().plugin("villain").under(UNDER_8_MIB).start();
    // Each writes a few pages, always the same ones: far more than the limit in all, and hardly anything that stays.
    for max in 1..=3000 {
        let reply = host.client().put("/v1/limits?group=villain%2Fdo", &json!({ "total": max }));
        assert_eq!(reply.status, 200, "{max}: {reply:?}");
    }
    assert!(host.is_ready());
}

#[test]
fn compiled_code_that_may_not_be_written_is_the_file_s_problem_and_no_signal_s() {
    let folder = tempfile::tempdir().expect("a folder");
    // Its code is larger than the component, for which there is room.
    let plugin = component("summary");
    let max = std::fs::metadata(&plugin).expect("it was built").len() + 1024;
    let limit = format!("--fsize={max}");
    let mut check = wharf_under(&["prlimit", &limit]);
    check.arg("check").arg(&plugin).env("WHARF__CACHE_DIR", folder.path()).current_dir(folder.path());
    let output = check.output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("too large") && !told.contains("signal"), "{told}");
}
