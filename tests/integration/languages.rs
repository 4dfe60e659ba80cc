//! The same plugin in every language: one table of expectations, and nobody can tell from outside which is which.

use std::path::Path;

use plugin_kit::language::Language;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Host, Setup, component, eventually, wharf};
use crate::project::run_as_its_author;

/// What a trap's report must show of the place where each gave up.
fn place_of_the_panic(language: Language) -> &'static str {
    match language {
        Language::Rust => "asked to panic",
        Language::JavaScript => "at fail (/build/words.js:",
        Language::TypeScript => "at fail (/build/words.js:",
        Language::JavaScriptWeb => "fail@words.js:",
        Language::Python => "RuntimeError: asked to panic",
        Language::Go => "main.fail",
        Language::C => "asked to panic",
    }
}

/// A text, its lines, words and characters.
const TEXTS: [(&str, u64, u64, u64); 7] = [
    ("to be\nor not to be\n", 2, 6, 19),
    ("no line's end at the end", 1, 6, 24),
    ("", 0, 0, 0),
    ("\n\n", 2, 0, 2),
    ("dos\r\nlines\r\n", 2, 2, 12),
    ("spaces\u{a0}of\u{3000}many\u{2003}kinds\ttoo", 1, 5, 24),
    ("\"quoted\" \\ \u{1d11e} \u{e4}\u{f6}\u{fc}", 1, 4, 16),
];

fn task(language: Language) -> String {
    format!("{}/count", language.example())
}

fn events(host: &Host, id: &str, kind: &str) -> Vec<Value> {
    host.client().events(id, None).filter(|event| event.kind == kind).map(|event| event.data).collect()
}

fn counts(host: &Host, language: Language) {
    for (text, lines, words, characters) in TEXTS {
        let id = host.enqueue(&task(language), json!({ "text": text }));
        assert_eq!(host.finished(&id)["state"], "succeeded", "{language}: {:?}", host.job(&id));
        let counted = host.result(&id);
        assert_eq!(
            counted,
            json!({ "lines": lines, "words": words, "characters": characters }),
            "{language}: {text:?}"
        );
        let chunks = events(host, &id, "chunk");
        assert_eq!(chunks.len() as u64, lines, "{language}: one chunk for each line of {text:?}: {chunks:?}");
    }
    // Byte for byte, so that a plugin can be written anew in another language.
    let id = host.enqueue(&task(language), json!({ "text": "a b\nc" }));
    host.finished(&id);
    let raw = host.client().get(&format!("/v1/jobs/{id}/result")).body;
    assert_eq!(String::from_utf8_lossy(&raw), "{\"lines\":2,\"words\":3,\"characters\":5}\n", "{language}");
    let chunks = events(host, &id, "chunk");
    assert!(chunks[1].to_string().contains(r#"{\"line\":2,\"words\":1}\n"#), "{language}: {chunks:?}");
    let progress = events(host, &id, "progress");
    let last = progress.last().unwrap_or_else(|| panic!("{language}: there is progress"));
    assert_eq!((last["fraction"].as_f64(), last["note"].as_str()), (Some(1.0), Some("line 2 of 2")), "{language}");
}

fn takes_a_large_text(host: &Host, language: Language) {
    // More than one page of memory, and more than a garbage collector lets pass.
    let text = "one two three four five\n".repeat(4000) + &"x ".repeat(250_000);
    let job = host.run(&task(language), json!({ "text": text }));
    assert_eq!(job["state"], "succeeded", "{language}: {job}");
    let counted = host.result(job["id"].as_str().expect("an id"));
    assert_eq!((counted["lines"].as_u64(), counted["words"].as_u64()), (Some(4001), Some(270_000)), "{language}");
}

fn fails_as_asked(host: &Host, language: Language) {
    let fail = |how: &str| host.enqueue(&task(language), json!({ "text": "a", "fail": how }));
    let discarded = fail("discard");
    let job = host.finished(&discarded);
    assert_eq!((job["state"].as_str(), job["attempt"].as_u64()), (Some("failed"), Some(1)), "{language}: {job}");
    assert_eq!(job["report"]["text"], "asked to fail", "{language}");
    let log: Vec<Value> = events(host, &discarded, "log");
    assert!(
        log.iter().any(|line| line["stream"] == "stderr" && line["line"] == "failing on request: discard"),
        "{language}: stderr is the attempt's log: {log:?}"
    );
    for how in ["retry", "retry-after", "panic"] {
        let id = fail(how);
        let job = eventually(&format!("{language} fails once with {how}"), || {
            let job = host.job(&id);
            (job["failures"] == 1 && job["state"] == "waiting").then_some(job)
        });
        let report = job["report"]["text"].as_str().unwrap_or_default();
        let wanted = if how == "panic" { place_of_the_panic(language) } else { "asked to fail" };
        assert!(report.contains(wanted), "{language}, {how}: {job}");
        host.client().post(&format!("/v1/jobs/{id}/cancel"), &json!({})).ok();
    }
    let broken = host.client().post_bytes(&format!("/v1/jobs?task={}", task(language)), "application/json", b"{}");
    assert_eq!(broken.status, 422, "{language}: its schema is checked when a job is enqueued: {broken:?}");
}

fn honours_cancel_key_and_limit(host: &Host, language: Language) {
    let slow = json!({ "tenant": "acme", "text": "a\n".repeat(400), "pause-ms": 50 });
    let ids: Vec<_> = (0..3).map(|_| host.enqueue(&task(language), slow.clone())).collect();
    host.in_state(&ids[0], "running");
    host.in_state(&ids[1], "running");
    let third = host.job(&ids[2]);
    assert_eq!(third["key"], "acme", "{language}");
    assert_eq!(third["wait"]["reason"], "lane-full", "{language}: two at once for each tenant: {third}");
    for id in ids.iter().rev() {
        host.client().post(&format!("/v1/jobs/{id}/cancel"), &json!({})).ok();
    }
    for id in &ids[..2] {
        let job = host.finished(id);
        assert_eq!(job["state"], "cancelled", "{language}: {job}");
        let guest = job["usage"]["cpu_ms"].as_f64().expect("a usage");
        assert!(guest < 2000.0, "{language}: a pause is not the plugin's own time: {job}");
    }
}

fn all(host: &Host, language: Language) {
    counts(host, language);
    takes_a_large_text(host, language);
    fails_as_asked(host, language);
    honours_cancel_key_and_limit(host, language);
}

#[test]
fn rust_does_what_the_table_says() {
    all(&Setup::default().plugin("words").start(), Language::Rust);
}

#[test]
fn javascript_does_what_the_table_says() {
    all(&Setup::default().plugin("words-js").start(), Language::JavaScript);
}

#[test]
fn typescript_does_what_the_table_says() {
    all(&Setup::default().plugin("words-ts").start(), Language::TypeScript);
}

/// Its project is built for this test only: packing another engine takes half a minute, and the builder does what its author does.
#[test]
fn javascript_with_the_functions_of_the_web_does_what_the_table_says() {
    all(&Setup::default().plugin("words-web").start(), Language::JavaScriptWeb);
}

#[test]
fn python_does_what_the_table_says() {
    all(&Setup::default().plugin("words-python").start(), Language::Python);
}

#[test]
fn go_does_what_the_table_says() {
    all(&Setup::default().plugin("words-go").start(), Language::Go);
}

#[test]
fn c_does_what_the_table_says() {
    all(&Setup::default().plugin("words-c").start(), Language::C);
}

#[test]
fn all_languages_answer_one_broadcast() {
    let examples = Language::ALL.map(Language::example);
    let host = examples.iter().fold(Setup::default(), |setup, name| setup.plugin(name)).start();
    let asked = json!({ "payload": { "text": "to be\nor not\u{3000}to be" }, "timeout": "30s" });
    let answer = host.client().post("/v1/broadcasts/text.written", &asked).ok();
    assert_eq!(answer["outcomes"], json!({ "replied": Language::ALL.len() }), "{answer}");
    let mut languages = Vec::new();
    for reply in answer["replies"].as_array().expect("a list") {
        assert_eq!(reply["reply"]["words"], 6, "{reply}");
        languages.push(reply["reply"]["language"].as_str().expect("a language"));
    }
    languages.sort_unstable();
    assert_eq!(languages, ["c", "go", "javascript", "javascript-web", "python", "rust", "typescript"]);
    let wrong = host.client().post("/v1/broadcasts/text.written", &json!({ "payload": { "txet": "" } })).ok();
    assert_eq!(wrong["outcomes"], json!({ "failed": Language::ALL.len() }), "one after the other says why: {wrong}");
}

/// Which test of this file, or elsewhere, holds each component. A folder without a row here does not compile.
#[test]
fn every_plugin_has_its_test() {
    mod row {
        pub(super) use super::c_does_what_the_table_says as words_c;
        pub(super) use super::go_does_what_the_table_says as words_go;
        pub(super) use super::javascript_does_what_the_table_says as words_js;
        pub(super) use super::javascript_with_the_functions_of_the_web_does_what_the_table_says as words_web;
        pub(super) use super::python_does_what_the_table_says as words_python;
        pub(super) use super::rust_does_what_the_table_says as words;
        pub(super) use super::typescript_does_what_the_table_says as words_ts;
        pub(super) use crate::bench;
        pub(super) use crate::broadcasts as link_check;
        pub(super) use crate::broadcasts as summary;
        pub(super) use crate::broadcasts as word_index;
        pub(super) use crate::kv as changes;
        pub(super) use crate::kv as villain_kv;
        pub(super) use crate::ordinary as functions;
        pub(super) use crate::ordinary as functions_js;
        pub(super) use crate::ordinary as functions_python;
        pub(super) use crate::ordinary as program;
        pub(super) use crate::ordinary as program_c;
        pub(super) use crate::ordinary as program_go;
        pub(super) use crate::outside as outside_go;
        pub(super) use crate::outside as outside_js;
        pub(super) use crate::outside as outside_python;
        pub(super) use crate::photo as thumbnail;
        pub(super) use crate::retries as villain;
        pub(super) use crate::secret_headers as outside_web;
        // These belong to the engine's own tests and benches, in host/engine.
        pub(super) mod functions_contract {}
        pub(super) mod villain_http {}
        pub(super) mod villain_memories {}
        pub(super) mod villain_async {}
        pub(super) mod villain_slow {}
        pub(super) mod villain_bad_manifest {}
        pub(super) mod villain_trap {}
    }
    macro_rules! is_there {
        ($name:ident) => {{
            #[expect(unused_imports, reason = "that it can be imported is the test")]
            use row::$name;
        }};
    }
    plugins::for_each_plugin!(is_there);
}

fn wharf_said(args: &[&str], dir: &Path) -> String {
    let output = wharf().args(args).current_dir(dir).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "wharf {args:?}: {said}");
    said
}

/// What a new user does: new, the command that it prints, check, drop, call, enqueue. Returns the folder above the project.
fn from_nothing_to_a_job(language: Language) -> TempDir {
    component(language.example());
    let dir = tempfile::tempdir().expect("a temporary folder");
    let printed = wharf_said(&["new", "shout", "--language", language.name()], dir.path());
    let line = printed.lines().find_map(|line| line.strip_prefix("    ")).expect("it prints a command");
    run_as_its_author(language, line, dir.path());

    let checked = check("shout/shout.wasm", dir.path());
    assert!(checked.contains("would be loaded as `shout`") && checked.contains("task shout/count"), "{checked}");
    for word in ["topic", "HTTP"] {
        assert!(!checked.contains(word), "{language}: nobody asked for it: {checked}");
    }

    let host = Setup::default().start();
    host.put_plugin("shout", &dir.path().join("shout/shout.wasm"));
    let loaded = || host.client().get("/v1/plugins").ok().to_string().contains("shout/count").then_some(());
    eventually("it is loaded", loaded);
    let payload = r#"{"text": "one two"}"#;
    let called = host.cli(&["call", "shout/count", "--input", payload]).output().expect("the binary starts");
    assert!(called.status.success(), "{language}: {}", String::from_utf8_lossy(&called.stderr));
    assert!(String::from_utf8_lossy(&called.stdout).contains("\"words\":2"), "{language}");
    let job = host.run("shout/count", json!({ "text": "one two" }));
    assert_eq!(job["state"], "succeeded", "{language}: {job}");
    assert_eq!(host.result(job["id"].as_str().expect("an id"))["words"], 2);
    dir
}

/// Compiles into the cache that the hosts of the tests share: compiling Python takes a while.
fn check(file: &str, dir: &Path) -> String {
    let cache = format!("cache-dir={}", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache").display());
    wharf_said(&["--set", &cache, "check", file], dir)
}

#[test]
fn a_new_rust_project_becomes_a_job() {
    from_nothing_to_a_job(Language::Rust);
}

#[test]
fn a_new_javascript_project_becomes_a_job() {
    from_nothing_to_a_job(Language::JavaScript);
}

#[test]
fn a_new_typescript_project_becomes_a_job() {
    from_nothing_to_a_job(Language::TypeScript);
}

#[test]
fn a_new_python_project_becomes_a_job() {
    from_nothing_to_a_job(Language::Python);
}

#[test]
fn a_new_go_project_becomes_a_job() {
    from_nothing_to_a_job(Language::Go);
}

#[test]
fn a_new_c_project_becomes_a_job_and_check_of_its_core_module_names_pack() {
    let project = from_nothing_to_a_job(Language::C);
    let dir = project.path();
    std::fs::rename(dir.join("shout/core.wasm"), dir.join("mine.wasm")).expect("what the compiler made");
    let refused = wharf().args(["check", "mine.wasm"]).current_dir(dir).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("`wharf pack FILE -o OUT.wasm`") && said.contains("built with ") && said.contains("clang"),
        "{said}"
    );
    wharf_said(&["pack", "mine.wasm", "-o", "packed.wasm"], dir);
    assert!(check("packed.wasm", dir).contains("task packed/count"));
    let again = wharf().args(["pack", "packed.wasm", "-o", "twice.wasm"]).current_dir(dir).output();
    let again = again.expect("the binary starts");
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("component already"));
    assert!(!dir.join("twice.wasm").exists());
}

#[test]
fn a_new_project_has_a_subscriber_on_request() {
    component(Language::JavaScript.example());
    let dir = tempfile::tempdir().expect("a temporary folder");
    let new = ["new", "shout", "--subscriber", "--language", "javascript"];
    let printed = wharf_said(&new, dir.path());
    let line = printed.lines().find_map(|line| line.strip_prefix("    ")).expect("it prints a command");
    run_as_its_author(Language::JavaScript, line, dir.path());
    let host = Setup::default().plugin_file("shout", &dir.path().join("shout/shout.wasm")).start();
    let asked = json!({ "payload": { "text": "to be" }, "timeout": "30s" });
    let answer = host.client().post("/v1/broadcasts/text.written", &asked).ok();
    assert_eq!(answer["replies"][0]["reply"]["words"], 2, "{answer}");
    let both =
        wharf().args(["new", "other", "--language", "c", "--plain", "--subscriber"]).current_dir(dir.path()).output();
    let both = both.expect("the binary starts");
    assert_eq!(both.status.code(), Some(2), "a plain project answers no broadcasts");
    assert!(!dir.path().join("other").exists());
}

#[test]
fn new_refuses_bad_names_and_overwrites_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let new = |name: &str| {
        let output = wharf().args(["new", "--language", "c", "--", name]).current_dir(dir.path()).output();
        let output = output.expect("the binary starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for name in ["../up", "Upper", "9lives", "a b", "-x"] {
        let (code, said) = new(name);
        assert_eq!(code, Some(2), "{name}: {said}");
        assert!(said.contains("cannot be a plugin's name"), "{name}: {said}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0);
    std::fs::write(dir.path().join("mine"), "precious").expect("a file");
    let (code, said) = new("mine");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("there already"), "{said}");
    assert_eq!(std::fs::read(dir.path().join("mine")).expect("still there"), b"precious");
}
