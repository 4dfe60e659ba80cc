//! The command line as people and scripts use it.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{Setup, component, eventually, photo, wharf};

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("text")
}

#[test]
fn enqueue_show_list_follow_cancel_retry() {
    let host = Setup::default().plugin("words").plugin("villain").start();
    let input = r#"{"tenant":"acme","text":"one two\nthree"}"#;
    let result = succeeds(&mut host.cli(&["job", "enqueue", "words/count", "--input", input, "--wait"]));
    assert_eq!(serde_json::from_str::<Value>(&result).expect("JSON")["words"], 3);

    let shown = succeeds(&mut host.cli(&["job", "list", "--json"]));
    let id = serde_json::from_str::<Value>(&shown).expect("JSON")["jobs"][0]["id"].as_str().expect("an id").to_owned();
    let shown = succeeds(&mut host.cli(&["job", "show", &id]));
    assert!(shown.contains("succeeded") && shown.contains("acme"), "{shown}");
    let followed = succeeds(&mut host.cli(&["job", "follow", &id]));
    assert!(followed.contains("\"line\":1"), "{followed}");

    let late = succeeds(&mut host.cli(&["job", "enqueue", "words/count", "--input", input, "--delay", "1h"]));
    let late = late.trim();
    succeeds(&mut host.cli(&["job", "cancel", late]));
    assert_eq!(host.job(late)["state"], "cancelled");
    succeeds(&mut host.cli(&["job", "retry", late]));
    host.finished(late);

    let failing = host.cli(&["job", "enqueue", "villain/do", "--input", r#"{"do":"trap"}"#, "--wait"]).output();
    let failing = failing.expect("it runs");
    assert_eq!(failing.status.code(), Some(1), "a job that failed has an exit code of its own");
    assert!(String::from_utf8_lossy(&failing.stderr).contains("unreachable"));
}

#[test]
fn attempts_are_told_apart_and_a_retry_is_shown() {
    let host = Setup::default().plugin("villain").start();
    let id = host.enqueue("villain/do", json!({ "do": "panic-after-output" }));
    let first = host.finished(&id)["attempt"].as_u64().expect("a number");
    succeeds(&mut host.cli(&["job", "retry", &id]));
    assert_eq!(host.finished(&id)["attempt"], first + 1);
    let followed = host.cli(&["job", "follow", &id]).output().expect("it runs");
    let said = String::from_utf8_lossy(&followed.stderr).into_owned();
    assert_eq!(said.matches(" begins").count() as u64, first, "one line between two attempts: {said}");
    assert!(said.contains(&format!("attempt {} begins", first + 1)), "{said}");
    let shown = succeeds(&mut host.cli(&["job", "show", &id]));
    assert!(shown.contains("(1 failed since the last retry)") && shown.contains("retried"), "{shown}");
}

#[test]
fn plugins_and_limits_are_shown_and_set() {
    let host = Setup::default().plugin("words").start();
    assert!(succeeds(&mut host.cli(&["plugin", "list"])).contains("words"));
    assert!(succeeds(&mut host.cli(&["plugin", "show", "words"])).contains("count"));
    succeeds(&mut host.cli(&["limit", "set", "words/count", "acme", "--per-key", "7"]));
    let listed = succeeds(&mut host.cli(&["limit", "list"]));
    assert!(listed.contains("acme") && listed.contains('7'), "{listed}");
    succeeds(&mut host.cli(&["limit", "clear", "words/count", "acme"]));
    assert!(!succeeds(&mut host.cli(&["limit", "list"])).contains("acme"));
}

#[test]
fn call_needs_neither_host_nor_store() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("plugins")).expect("a folder");
    std::fs::copy(component("words"), dir.path().join("plugins/words.wasm")).expect("copied");
    let run = |args: &[&str]| {
        let mut command = wharf();
        command.current_dir(dir.path()).arg("call").args(args);
        command
    };
    let result = succeeds(&mut run(&["words/count", "--input", r#"{"text":"a b"}"#]));
    assert_eq!(
        serde_json::from_str::<Value>(&result).expect("JSON"),
        json!({ "lines": 1, "words": 2, "characters": 3 })
    );
    assert!(!dir.path().join("wharf.db").exists(), "nothing is stored");
    std::fs::copy(component("thumbnail"), dir.path().join("plugins/thumbnail.wasm")).expect("copied");
    let input = format!("@{}", photo("chelsea.png").display());
    let output = run(&["thumbnail/make", "--input", &input]).output().expect("it runs");
    assert!(output.stdout.starts_with(b"\x89PNG"), "{}", String::from_utf8_lossy(&output.stderr));
    let unknown = run(&["words/nothing", "--input", "1"]).output().expect("it runs");
    assert!(!unknown.status.success());
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("its tasks: count"), "it says what there is");
}

#[test]
fn a_host_that_is_not_there_is_said() {
    let output = wharf().args(["job", "list"]).env("WHARF__HOST", "http://127.0.0.1:9").output().expect("it runs");
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("127.0.0.1:9") && text.contains("serve"), "where, and what to do: {text}");
}

#[test]
fn every_shell_completes() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(succeeds(wharf().args(["completion", shell])).contains("enqueue"), "{shell}");
    }
}

#[test]
fn config_shows_every_setting_and_where_it_came_from() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("wharf.toml"), "[attempts]\nat-once = 3\n").expect("written");
    let text = succeeds(wharf().current_dir(dir.path()).arg("config").env("WHARF__UPKEEP__INTERVAL", "9m"));
    let line = |name: &str| text.lines().find(|l| l.contains(name)).unwrap_or_else(|| panic!("{name}:\n{text}"));
    assert!(line("at-once").contains("wharf.toml:2"), "{text}");
    assert!(line("upkeep.interval").contains("WHARF__UPKEEP__INTERVAL"), "{text}");
    assert!(line("listen").contains("default"), "{text}");
    let json = succeeds(wharf().current_dir(dir.path()).args(["config", "--json"]));
    serde_json::from_str::<Value>(&json).expect("JSON");
}

#[test]
fn a_file_name_that_is_no_id_is_refused_in_the_same_words_everywhere() {
    let host = Setup::default().plugin("words").start();
    host.put_plugin("my_plugin", &component("words"));
    let rule = ["file name: invalid name `my_plugin`: expected a-z", "rename the file to my-plugin.wasm; its name"];
    let file = host.plugin_file("my_plugin").display().to_string();
    for args in [&["check", &file][..], &["call", &format!("{file}#count")]] {
        let Output { status, stdout, stderr } = host.cli(args).output().expect("it runs");
        let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        assert!(!status.success() && rule.iter().all(|part| said.contains(part)), "{args:?}: {said}");
    }
    eventually("the folder refuses it", || rule.iter().all(|part| host.said().contains(part)).then_some(()));
}
