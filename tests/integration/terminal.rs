//! Text of guests and of files: a terminal does not obey it, no line of the log is forged by it, and a pipe gets it as it is.

use std::process::Output;

use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually, on_a_terminal};

/// A title for the terminal's window, a clear screen in one byte of Latin-1, text from right to left, an overwritten line, an
/// invisible character.
const EVIL: &str = "\u{1b}]0;pwned\u{7}\u{9b}2J\u{202e}good\rbad\0\u{7f}\u{200b}.";
const SHOWN: &str = r"\u{1b}]0;pwned\u{7}\u{9b}2J\u{202e}good\rbad\u{0}\u{7f}\u{200b}.";

fn say() -> String {
    json!({ "do": "say", "text": EVIL }).to_string()
}

/// Asserts that a text controls no terminal. The terminal itself adds a carriage return to each newline.
#[track_caller]
fn controls_nothing(text: &str) {
    let text = text.replace("\r\n", "\n");
    let bad = |c: char| c.is_control() && c != '\n' && c != '\t' || matches!(c, '\u{202e}' | '\u{200b}');
    assert!(!text.contains(bad), "{text:?}");
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

#[test]
fn what_a_guest_says_is_escaped_on_a_terminal_and_unchanged_in_a_pipe() {
    let host = Setup::default().plugin("villain").start();
    let input = say();
    let id = host.enqueue("villain/do", json!({ "do": "say", "text": EVIL }));
    assert_eq!(host.finished(&id)["state"], "succeeded");
    for args in [
        &["job", "enqueue", "villain/do", "--input", &input, "--wait"][..],
        &["job", "enqueue", "villain/do", "--input", &input, "--follow"],
        &["job", "follow", &id],
        &["job", "follow", &id, "--raw"],
        &["call", "villain/do", "--input", &input],
        &["call", "villain/do", "--input", &input, "--chunks"],
    ] {
        let Output { stdout, .. } = host.cli(args).output().expect("it runs");
        let piped = text(stdout);
        assert_eq!(piped.trim_end_matches('\n'), EVIL, "{args:?}");
        let Output { stdout, stderr, .. } = on_a_terminal(&host.cli(args), false);
        let shown = text(stdout);
        controls_nothing(&shown);
        assert_eq!(shown.trim_end(), SHOWN, "{args:?}");
        // Log lines, whoever reads them.
        controls_nothing(&text(stderr));
        // The progress display writes to the same terminal.
        let whole = text(on_a_terminal(&host.cli(args), true).stdout);
        assert!(!whole.contains("\x1b]0;") && !whole.contains(['\u{7}', '\u{9b}', '\u{202e}']), "{whole:?}");
        assert!(whole.contains(SHOWN), "{whole:?}");
    }
}

#[test]
fn json_on_a_terminal_is_the_same_value() {
    let host = Setup::default().plugin("villain").start();
    let id = host.enqueue("villain/do", json!({ "do": "say", "text": EVIL }));
    host.finished(&id);
    let shown = text(on_a_terminal(&host.cli(&["job", "follow", &id, "--json"]), false).stdout);
    controls_nothing(&shown);
    let events: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let chunk = events.iter().find(|event| event["event"] == "chunk").expect("a chunk");
    assert_eq!(chunk["data"]["text"], EVIL);
    let shown = text(on_a_terminal(&host.cli(&["job", "show", &id, "--json"]), false).stdout);
    controls_nothing(&shown);
    assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON")["id"], json!(id));
}

#[test]
fn names_and_reports_are_escaped_in_every_list() {
    let host = Setup::default().plugin("villain").start();
    let key = "k\u{202e}yek\u{200b}";
    let fail = json!({ "do": "fail-discard", "text": EVIL });
    let reply = host.client().post("/v1/jobs", &json!({ "task": "villain/do", "payload": fail, "key": key })).ok();
    let id = reply["id"].as_str().expect("an id").to_owned();
    assert_eq!(host.finished(&id)["state"], "failed");
    let set = ["limit", "set", "villain/do", key, "--per-key", "3"];
    let wait = fail.to_string();
    let wait = ["job", "enqueue", "villain/do", "--input", &wait, "--wait"];
    let call = ["call", "villain/do", "--input", wait[4]];
    for args in [
        &["job", "list"][..],
        &["job", "show", &id],
        &["job", "follow", &id],
        &set,
        &["limit", "list"],
        &wait,
        &call,
        // What the host says of a wrong request quotes it.
        &["job", "list", "--state", "a\u{1b}[2J\u{9b}"],
        &["plugin", "show", "a\u{1b}[2J\u{202e}"],
        &["broadcast", "a\u{1b}[2J\u{9b}"],
    ] {
        let Output { stdout, stderr, .. } = host.cli(args).output().expect("it runs");
        let said = text(stdout) + &text(stderr);
        controls_nothing(&said);
        assert!(said.contains(r"\u{"), "{args:?}: {said}");
    }
}

/// A line of the log as the host would write it.
const FORGED: &str = "2026-01-01T00:00:00.000000Z  INFO loaded plugin payroll";

/// Lets strangers say what they can say into the host's log, at the level that logs most.
fn host_with_evil_text(format: &str) -> Host {
    let log = format!("[log]\nlevel = \"debug\"\nformat = \"{format}\"");
    let host = Setup::default().plugin("villain").settings(&log).start();
    let file = host.dir().join("plugins").join(format!("x\n{FORGED} \u{1b}[2J\u{9b}\u{202e}.wasm"));
    std::fs::write(file, "nothing").expect("written");
    let evil = format!("{EVIL}\r\n{FORGED}\n");
    for order in [
        json!({ "do": "say", "text": evil }),
        json!({ "do": "fail-discard", "text": format!("\r{FORGED}{evil}") }),
        json!({ "do": "panic", "text": evil }),
    ] {
        let id = host.enqueue("villain/do", order);
        host.finished(&id);
    }
    eventually("the file is refused", || host.said().contains("invalid name").then_some(()));
    host
}

#[test]
fn no_text_forges_a_line_of_the_host_s_log() {
    let host = host_with_evil_text("text");
    host.says(r"\u{1b}]0;pwned\u{7}\u{9b}2J\u{202e}good");
    let said = host.says(FORGED);
    controls_nothing(&said);
    for line in said.lines() {
        assert!(!line.starts_with("2026-01-01"), "{line}");
    }
}

#[test]
fn a_log_of_json_has_one_document_a_line_and_controls_no_terminal() {
    let host = host_with_evil_text("json");
    let said = host.said();
    controls_nothing(&said);
    for line in said.lines() {
        let event: Value = serde_json::from_str(line).expect("a document");
        assert!(!event["timestamp"].as_str().expect("a time").starts_with("2026-01-01"), "{line}");
    }
}
