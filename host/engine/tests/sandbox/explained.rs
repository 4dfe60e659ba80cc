//! Tests the problems that are reported for files that cannot be loaded.

use std::sync::Arc;

use wharf_engine::{CheckReport, Problem};

use crate::scene::{Scene, component, settings};

const WORLDS: &str = "a plugin exports a world of the package `wharf:plugin`: `handler-plugin`, `subscriber-plugin`, or `plugin` for both";

async fn check(scene: &Scene, id: &str, bytes: impl Into<Arc<[u8]>>, toml: &str) -> CheckReport {
    let bytes: Arc<[u8]> = bytes.into();
    scene.engine.check(id, bytes, &settings(toml), &|_| {}).await
}

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn component_of(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// Makes a component that exports an instance with one function of the given name and WIT type.
fn exporting(interface: &str, function: &str, ty: &str) -> Vec<u8> {
    component_of(&format!(
        r#"(component
            (core module $m (func (export "f") (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            (func $f {ty} (canon lift (core func $i "f")))
            (instance $e (export "{function}" (func $f)))
            (export "{interface}" (instance $e)))"#
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_components() {
    let scene = Scene::new(1);
    let core = component_of(r#"(module (import "wasi_snapshot_preview1" "fd_write" (func)))"#);
    let cases: &[(&[u8], &str)] = &[
        (b"", "the file is empty"),
        (b"hello", "it is not WebAssembly: it does not start with the bytes 00 61 73 6d"),
        (b"\x7fELF\x02\x01\x01\x00", "it is native code, such as a .cwasm file; only WebAssembly is accepted"),
        (b"(component)", "it is WebAssembly text, not a binary\n    convert it: `wasm-tools parse FILE -o OUT.wasm`"),
        (b"\0asm", "the file ends after its first bytes"),
        (b"\0asm\x02\0\0\0", "unknown WebAssembly version: [02, 00, 00, 00]"),
        (b"\0asm\x01\0\0\0", "it is a core module, not a component\n    wrap it: `wharf pack FILE -o OUT.wasm`"),
        (&core, "wrap it: `wharf pack FILE -o OUT.wasm`"),
        (b"\0asm\x0d\0\x01\0\xff\xff", "it is not valid WebAssembly: "),
    ];
    for (bytes, expected) in cases {
        let checked = check(&scene, "x", *bytes, "").await;
        assert!(shown(&checked.problems).contains(expected), "`{expected}` is not in\n{}", shown(&checked.problems));
        assert!(checked.plugin.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named() {
    let scene = Scene::new(1);
    let checked = check(&scene, "Bad Name", component_of("(component)"), "").await;
    assert_eq!(
        shown(&checked.problems),
        format!(
            "it does not export `wharf:plugin/manifest@0.1.0`\n    {WORLDS}\n\
         it exports neither `wharf:plugin/handler@0.1.0` nor `wharf:plugin/subscriber@0.1.0`\n    {WORLDS}\n\
         file name: invalid name `Bad Name`: expected a-z, 0-9 and `-`, not starting with `-`, at most 64 characters\n    \
         rename the file to bad-name.wasm; its name without .wasm is the plugin's ID"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_shown_side_by_side() {
    let scene = Scene::new(1);
    let handler = "wharf:plugin/handler@0.1.3";
    let checked = check(&scene, "x", exporting(handler, "handle", "(result u32)"), "").await;
    let text = shown(&checked.problems);
    assert!(text.contains("it exports `wharf:plugin/handler@0.1.0#handle` with a different type"), "{text}");
    assert!(
        text.contains(
            "expected: func(job: record { id: string, task: string, key: option<string>, payload: list<u8>, attempt: u32 }) \
             -> result<list<u8>, variant { retry(string), retry-after(tuple<string, u64>), discard(string) }>\n    found:    func() -> u32"
        ),
        "{text}"
    );
    let text = shown(&check(&scene, "x", exporting(handler, "handel", "(result u32)"), "").await.problems);
    assert!(text.contains("it exports `wharf:plugin/handler@0.1.0` without the function `handle`"), "{text}");
    let text = shown(
        &check(&scene, "x", exporting("wharf:plugin/handler@0.2.0", "handle", "(result u32)"), "").await.problems,
    );
    assert!(
        text.contains("it exports `wharf:plugin/handler@0.2.0`, but this host calls `wharf:plugin/handler@0.1.0`"),
        "{text}"
    );
    let text = shown(&check(&scene, "x", exporting("wasi:cli/run@0.2.0", "run", "(result u32)"), "").await.problems);
    assert!(text.contains("it exports `wasi:cli/run` without the function `run: func() -> result`"), "{text}");
    assert!(text.contains("it exports nothing that can be a task"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_import_that_is_not_there_is_named() {
    let scene = Scene::new(1);
    let bytes = component_of(
        r#"(component
            (import "wasi:io/pol@0.2.6" (instance))
            (import "wasi:clocks/monotonic-clock@0.3.0" (instance))
            (import "acme:db/query@1.0.0" (instance))
            (import "wharf:plugin/attempt@0.1.7" (instance (export "pause" (func))))
            (import "lonely" (func)))"#,
    );
    let text = shown(&check(&scene, "x", bytes, "").await.problems);
    for expected in [
        "unknown import: `wasi:io/pol@0.2.6`\n    did you mean `wasi:io/poll`?",
        "it imports `wasi:clocks/monotonic-clock@0.3.0`, but this host has `wasi:clocks/monotonic-clock@0.2.12`",
        "unknown import: `acme:db/query@1.0.0`\n    a plugin can import interfaces of `wharf:plugin` and of WASI 0.2",
        "unknown import: `pause` of `wharf:plugin/attempt@0.1.7`",
        "unknown import: function `lonely`",
        "it exports neither `wharf:plugin/handler@0.1.0` nor `wharf:plugin/subscriber@0.1.0`",
    ] {
        assert!(text.contains(expected), "`{expected}` is not in\n{text}");
    }
}

/// Everything that `check` accepts as an import must be in the linker: the plugins of `plugins/` import most of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_offered_is_linked() {
    let scene = Scene::new(1);
    for name in ["words", "thumbnail", "villain", "villain-http", "villain-async"] {
        let checked = check(&scene, name, component(name).await, "").await;
        assert!(checked.plugin.is_some(), "{name}: {}", shown(&checked.problems));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_wasi_0_3_are_refused_clearly() {
    let scene = Scene::new(1);
    let bytes = component_of(
        r#"(component
            (type $s (stream u8))
            (import "wharf:plugin/attempt@0.1.0" (instance (export "emit" (func (param "chunk" (stream u8)))))))"#,
    );
    let text = shown(&check(&scene, "x", bytes, "").await.problems);
    assert!(text.contains("this version of the host does not support streams and futures of WASI 0.3"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_say_what_could_be_granted_and_what_a_plugin_declares() {
    let scene = Scene::new(1);
    let checked = check(&scene, "villain-http", component("villain-http").await, "").await;
    assert!(checked.problems.is_empty(), "{}", shown(&checked.problems));
    let notes = shown(&checked.notes);
    assert!(notes.contains("[plugins.villain-http]\n    http = [\"https://api.example.com\"]"), "{notes}");
    assert!(checked.imports.iter().any(|name| name.starts_with("wasi:http/outgoing-handler@0.2")));
    let granted =
        check(&scene, "villain-http", component("villain-http").await, r#"http = ["https://a.example"]"#).await;
    assert!(!shown(&granted.notes).contains("HTTP requests"), "{}", shown(&granted.notes));

    let muted = check(&scene, "villain", component("villain").await, "topics = []").await;
    assert!(
        shown(&muted.notes)
            .contains("it exports `wharf:plugin/subscriber`, which is never called: its manifest lists no topics")
    );
    assert!(muted.manifest().unwrap().receive.is_none());

    let checked = check(&scene, "words", component("words").await, "").await;
    assert_eq!(checked.manifest().unwrap().tasks.keys().collect::<Vec<_>>(), ["count"]);
    assert_eq!(checked.digest.len(), 64);
    println!("words: imports {:?}, exports {:?}\nnotes: {}", checked.imports, checked.exports, shown(&checked.notes));
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_and_settings_are_checked_together() {
    let scene = Scene::new(1);
    let text =
        shown(&check(&scene, "villain-bad-manifest", component("villain-bad-manifest").await, "").await.problems);
    assert_eq!(text, "manifest, line 5, column 1: unknown key `timeuot`\n    did you mean `timeout`?");

    let bad = "tasks.cuont.timeout = \"1s\"\ntasks.count.memory = \"2GiB\"\ntasks.count.key = \"tenant\"\ntasks.count.retry.attempts = 0";
    let text = shown(&check(&scene, "words", component("words").await, bad).await.problems);
    for expected in [
        "settings: unknown task [plugins.words.tasks.cuont]\n    did you mean `count`?",
        "tasks.count.memory: 2.0 GiB is out of range; expected 64 KiB, which is one page, to 1.0 GiB",
        "tasks.count.key: invalid JSON pointer `tenant`",
        "tasks.count.retry.attempts: 0 is out of range; expected 1 to 1000",
    ] {
        assert!(text.contains(expected), "`{expected}` is not in\n{text}");
    }

    let text = shown(&check(&scene, "thumbnail", component("thumbnail").await, "topics = [\"a.*\"]").await.problems);
    assert!(text.starts_with("it has topics, but it does not export `wharf:plugin/subscriber`"), "{text}");
    let told_of = "receive = { timeout = \"1s\", reentrant = true }\ntopics = [\"a.*\"]";
    let checked = check(&scene, "villain", component("villain").await, told_of).await;
    let receive = checked.manifest().unwrap().receive.as_ref().unwrap();
    assert_eq!((receive.task.timeout.as_secs(), receive.task.cpu.as_secs(), receive.reentrant), (1, 2, true));
    assert_eq!(checked.manifest().unwrap().topics[0].as_str(), "a.*");

    let good = "tasks.count.timeout = \"1s\"\ntasks.count.limit = { total = 7 }";
    let checked = check(&scene, "words", component("words").await, good).await;
    let task = &checked.manifest().unwrap().tasks["count"];
    assert_eq!(
        (task.timeout.as_secs(), task.limits.total, task.limits.per_key),
        (1, Some(7), Some(2)),
        "the operator's word on top of the manifest's"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_describe_that_misbehaves_is_told() {
    let scene = Scene::new(1);
    let text = shown(&check(&scene, "villain-slow", component("villain-slow").await, "").await.problems);
    assert!(text.starts_with("`describe` did not return within 5 s"), "{text}");
    let text = shown(&check(&scene, "villain-trap", component("villain-trap").await, "").await.problems);
    assert!(
        text.starts_with("`describe` failed: panicked at ")
            && text.lines().next().is_some_and(|line| line.ends_with(": no manifest today")),
        "{text}"
    );
    assert!(text.contains("trapped: the guest reached an `unreachable` instruction"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_may_be_is_refused_before_it_is_looked_at() {
    let scene = Scene::new(1);
    let mut huge = vec![0_u8; (64 << 20) + 1];
    huge[..8].copy_from_slice(b"\0asm\x0d\0\x01\0");
    let text = shown(&check(&scene, "x", huge, "").await.problems);
    assert!(text.starts_with("the file is 64.0 MiB; the limit is 64.0 MiB"), "{text}");
}

/// The validator has no codes, so these are recognized by parts of its texts.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_validator_says_of_features_is_recognized() {
    let scene = Scene::new(1);
    for (text, expected) in [
        (
            "(component (core module (memory 1 1 shared)))",
            "it uses threads and shared memory, which plugins cannot use",
        ),
        ("(component (core module (memory i64 1)))", "it uses 64-bit memories, which plugins cannot use"),
        ("(component (core module (type (struct))))", "it uses garbage-collected types, which plugins cannot use"),
        ("(component (core module (tag)))", "it uses exceptions, which plugins cannot use"),
        ("(component (core func (canon subtask.cancel async)))", STREAMS),
    ] {
        let checked = check(&scene, "x", component_of(text), "").await;
        assert!(shown(&checked.problems).contains(expected), "`{expected}` is not in\n{}", shown(&checked.problems));
    }
    // A canonical function of a later version: section 8 with one function of an unknown kind.
    let checked = check(&scene, "x", *b"\0asm\x0d\0\x01\0\x08\x02\x01\x7e", "").await;
    assert!(shown(&checked.problems).contains(STREAMS), "{}", shown(&checked.problems));
}

const STREAMS: &str = "this version of the host does not support streams and futures of WASI 0.3";
