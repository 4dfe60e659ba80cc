//! Tests components that attack their reader: each costs only its own reader.

use std::path::Path;
use std::sync::Arc;

use wasm_encoder::Encode;
use wharf_core::bounds;
use wharf_core::outcome::Outcome;
use wharf_engine::{CacheSettings, CheckReport, Engine, Plugin, Settings};

use crate::made::{Made, inlined, line_program, section};
use crate::scene::{Scene, assert_returned, call, child, settings, words_call};

/// Makes an engine that reads files as a host does: in a child process.
fn engine(cache: &Path) -> Arc<Engine> {
    let cache = CacheSettings::in_folder(cache.join("cache"));
    let (attempts, broadcast_calls, guest_threads) = (4, 1, 2);
    Engine::new(Settings {
        attempts,
        broadcast_calls,
        guest_threads,
        cache,
        compile: child(),
        memory_budget: 4 << 30,
        extra_ca: None,
    })
    .unwrap()
}

async fn check(engine: &Arc<Engine>, bytes: Vec<u8>) -> CheckReport {
    engine.check("evil", bytes, &settings(""), &|_| {}).await
}

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

#[tokio::test(flavor = "multi_thread")]
async fn types_that_nest_deep_end_nobody_but_their_reader() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path());
    // Instance types, component types and lists, nested within one another.
    let kinds: [(&[u8], &[u8]); 3] =
        [(b"\x42\x01\x01", b""), (b"\x41\x01\x01", b""), (b"\x42\x01\x01\x42\x01\x01", b"")];
    for (open, close) in kinds {
        for depth in [100, 528, 1000, 20_000, 200_000] {
            let mut types = vec![1];
            (0..depth).for_each(|_| types.extend_from_slice(open));
            types.push(0x7f);
            (0..depth).for_each(|_| types.extend_from_slice(close));
            let checked = check(&engine, [COMPONENT, &section(7, &types)].concat()).await;
            assert!(!checked.problems.is_empty() && checked.plugin.is_none());
            let shown = format!("{:?}", checked.problems);
            assert!(shown.len() < 2 * bounds::REFUSAL_BYTES_MAX, "{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn components_that_nest_without_end_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path());
    let (mut open, mut length) = (Vec::new(), COMPONENT.len());
    for _ in 0..40_000 {
        let mut begin = [COMPONENT, &[4]].concat();
        length.encode(&mut begin);
        length += begin.len();
        open.push(begin);
    }
    open.reverse();
    let checked = check(&engine, [open.concat().as_slice(), COMPONENT].concat()).await;
    assert_eq!(checked.problems[0].what, "its modules and components nest too deep; the limit is 32 levels");
}

/// Makes a component that imports a function by each name.
fn importing(names: &[String]) -> Vec<u8> {
    let mut imports = Vec::new();
    names.len().encode(&mut imports);
    for name in names {
        imports.push(0);
        name.encode(&mut imports);
        imports.extend_from_slice(&[1, 0]);
    }
    [COMPONENT, &section(7, &[1, 0x40, 0, 1, 0]), &section(10, &imports)].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_has_a_bound_however_much_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path());
    let many: Vec<String> = (0..100_000).map(|number| format!("a{number}")).collect();
    let checked = check(&engine, importing(&many)).await;
    let shown: usize = checked.problems.iter().map(|problem| problem.to_string().len()).sum();
    assert!(shown <= bounds::REFUSAL_BYTES_MAX + 1000, "{shown} bytes");
    assert_eq!(checked.problems.len(), bounds::PROBLEMS_MAX + 1);
    assert_eq!(checked.problems[bounds::PROBLEMS_MAX].what, "99983 more problems are not shown");
    assert_eq!(checked.imports.len(), bounds::COMPONENT_NAMES_MAX + 1);
    // One import with a name of the maximum length.
    let checked = check(&engine, importing(&["long".repeat(20_000)])).await;
    let shown: usize = checked.problems.iter().map(|problem| problem.to_string().len()).sum();
    assert!(shown <= bounds::REFUSAL_BYTES_MAX, "{shown} bytes");
    assert!(checked.imports.iter().all(|name| name.len() <= bounds::COMPONENT_NAME_BYTES_MAX));
}

async fn load(engine: &Arc<Engine>, made: &Made) -> Arc<Plugin> {
    engine.load("evil".parse().unwrap(), made.component(), &settings(""), &|_| {}).await.unwrap()
}

/// Runs a trap beside a neighbour that goes on.
async fn trap(made: &Made) -> String {
    let scene = Scene::new(4);
    let words = scene.load("words").await;
    let folder = tempfile::tempdir().unwrap();
    let loaded = load(&engine(folder.path()), made).await;
    let plugin = load(&scene.engine, made).await;
    assert_eq!(plugin.digest, loaded.digest);
    let (ended, _) = scene.run_beside(&words, &plugin, call(&plugin, "do", "")).await;
    assert_returned(&scene.run(&words, words_call(&words)).await.0);
    let Outcome::Trapped(report) = ended.outcome else { panic!("{:?}", ended.outcome) };
    assert!(report.len() as u64 <= bounds::REPORT_BYTES_MAX);
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn debug_sections_cost_a_trap_nothing() {
    for depth in [100, 10_000] {
        let report = trap(&Made { custom: inlined(depth), ..Made::default() }).await;
        assert!(report.contains("\n   0: handle"), "{report}");
        let folder = tempfile::tempdir().unwrap();
        let made = Made { custom: inlined(depth), describe_traps: true, ..Made::default() };
        let checked = check(&engine(folder.path()), made.component()).await;
        assert!(
            checked.problems[0].what.starts_with("`describe` failed: the guest reached an `unreachable` instruction"),
            "{:?}",
            checked.problems
        );
    }
}

/// Tests names that unfold to a million bytes each, and one that is a million bytes long.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_functions_are_short_in_a_report_whatever_they_are() {
    let generic =
        |times: usize| format!("_RINvC1a1b{}E", "TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTuuEuE".repeat(times));
    let mut names: Vec<String> = (0..20).map(generic).collect();
    names.push("n".repeat(1_000_000));
    names.reverse();
    names.extend((0..30).map(|number| format!("last{number}")).rev());
    names.truncate(12);
    let report = trap(&Made { names, ..Made::default() }).await;
    let frames: Vec<&str> = report
        .lines()
        .filter(|line| line.trim_start().split(':').next().is_some_and(|n| n.parse::<u32>().is_ok()))
        .collect();
    assert_eq!(frames.len(), 13, "{report}");
    assert!(frames.iter().all(|line| line.len() <= bounds::FUNCTION_NAME_BYTES_MAX + 10), "{report}");
    assert!(report.contains("nnn..."), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_names_the_line_where_the_component_has_its_lines() {
    let names = vec!["_ZN5words5split17h0123456789abcdefE".to_owned()];
    let report = trap(&Made { names, custom: line_program(), ..Made::default() }).await;
    assert!(report.contains("\n   0: words::split at src/lib.rs:7\n   1: handle at src/lib.rs:7"), "{report}");
}
