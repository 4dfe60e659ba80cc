//! Tests the way from a file to a plugin: compiled once, in a process that may die, and cached where only the host may
//! write.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wharf_core::bounds;
use wharf_engine::{CacheSettings, Compile, CompileLimits, Engine, Progress, Settings, compile_child_main};

use crate::scene::{Scene, assert_returned, child, child_with, component, settings, words_call};

/// The compiling process of the other tests. Does nothing when it is run as a test.
#[test]
fn the_compiling_process() {
    let args: Vec<OsString> = std::env::args_os().skip_while(|arg| arg != "--").skip(1).collect();
    if !args.is_empty() {
        std::process::exit(i32::from(compile_child_main(args)));
    }
}

fn engine(cache: &Path, compile: Compile) -> Arc<Engine> {
    let cache = CacheSettings::in_folder(cache);
    Engine::new(Settings {
        attempts: 2,
        broadcast_calls: 1,
        guest_threads: 1,
        cache,
        compile,
        memory_budget: 4 << 30,
        extra_ca: None,
    })
    .unwrap()
}

/// Loads `words` and returns the steps of it, or the explanation of why it failed.
async fn load(engine: &Arc<Engine>) -> Result<Vec<Progress>, String> {
    let steps = Mutex::new(Vec::new());
    let loaded = engine
        .load("words".parse().unwrap(), component("words").await, &settings(""), &|step| {
            steps.lock().unwrap().push(step)
        })
        .await;
    loaded.map(|_| steps.into_inner().unwrap()).map_err(|error| error.to_string())
}

fn compiled_files(cache: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Tests tenants that each have a copy of the same plugin: another name, other settings, the same code in memory.
#[tokio::test(flavor = "multi_thread")]
async fn plugins_of_the_same_bytes_share_what_was_made_of_them() {
    let cache = tempfile::tempdir().unwrap();
    let engine = engine(cache.path(), Compile::InProcess);
    let (bytes, mine) = (component("words").await, settings(""));
    let first = engine.load("first".parse().unwrap(), bytes, &mine, &|_| {}).await.unwrap();
    for file in compiled_files(cache.path()) {
        std::fs::remove_file(file).unwrap();
    }
    assert_eq!(load(&engine).await.unwrap(), [Progress::Checking, Progress::Describing], "nothing is read or compiled");
    drop(first);
    assert!(load(&engine).await.unwrap().contains(&Progress::Compiling), "nobody holds it any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_compiled_once_in_a_process_of_its_own() {
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path().join("deep/cache");
    let steps = load(&engine(&cache, child())).await.unwrap();
    assert_eq!(steps, [Progress::Checking, Progress::WaitingToCompile, Progress::Compiling, Progress::Describing]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&cache), 0o700);
    assert!(compiled_files(&cache).iter().all(|file| mode(file) == 0o600));
    assert_eq!(
        compiled_files(&cache).len(),
        2,
        "the compiled form and its description, and nothing temporary: {:?}",
        compiled_files(&cache)
    );
    let again = load(&engine(&cache, child())).await.unwrap();
    assert_eq!(again, [Progress::Checking, Progress::Cached, Progress::Describing]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_in_the_cache_is_made_again() {
    let cache = tempfile::tempdir().unwrap();
    std::fs::set_permissions(cache.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let engine = engine(cache.path(), Compile::InProcess);
    load(&engine).await.unwrap();
    let compiled =
        compiled_files(cache.path()).into_iter().find(|path| path.extension().is_some_and(|e| e == "cwasm")).unwrap();
    let whole = std::fs::read(&compiled).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [flipped, whole[..whole.len() / 2].to_vec(), Vec::new()] {
        // Replaced, not written into: the old file may be mapped.
        std::fs::remove_file(&compiled).unwrap();
        std::fs::write(&compiled, damaged).unwrap();
        assert!(load(&engine).await.unwrap().contains(&Progress::Compiling));
        assert_eq!(std::fs::read(&compiled).unwrap().len(), whole.len());
    }
    // Compiled code is refused as a plugin.
    let refused = engine.load("x".parse().unwrap(), whole, &settings(""), &|_| {}).await.unwrap_err().to_string();
    assert!(refused.starts_with("it is native code, such as a .cwasm file; only WebAssembly is accepted"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_removed_is_made_again() {
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path().join("cache");
    let engine = engine(&cache, child());
    load(&engine).await.unwrap();
    std::fs::remove_dir_all(&cache).unwrap();
    assert!(load(&engine).await.unwrap().contains(&Progress::Compiling));
    assert_eq!(compiled_files(&cache).len(), 2);
}

fn shell(script: &str) -> Compile {
    Compile::Child { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()], max: CompileLimits::default() }
}

/// Counts how often `script` was run as the compiling process: once for each line in the file.
fn counted(script: &str, runs: &Path) -> Compile {
    shell(&format!("echo run >> {}; {script}", runs.display()))
}

fn lines_of(runs: &Path) -> usize {
    std::fs::read_to_string(runs).map_or(0, |text| text.lines().count())
}

/// Tests that a file which ended its reader is not read again: not by this host, and not by the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_ended_its_reader_is_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (
            "echo 'memory allocation of 77 bytes failed' >&2; kill -6 $$",
            // The limit is a part of this machine's memory.
            "reading it took more memory than the limit of ",
            1,
        ),
        (
            "echo \"thread 'examine' has overflowed its stack\" >&2; kill -6 $$",
            "reading it overflowed the stack: its types or its code nest too deep",
            1,
        ),
        ("kill -XCPU $$", "reading it took too long", 1),
        ("kill -SEGV $$", "the process that was reading it was killed by signal 11", 1),
        ("echo 'a bug' >&2; exit 101", "the process that was reading it failed: a bug; this is a bug of the host", 1),
        // The machine may have been short of memory: it is tried once more, and then the file counts as the cause.
        ("kill -9 $$", "the process that was reading it was killed by signal 9", 2),
    ];
    for (number, (script, expected, max)) in cases.into_iter().enumerate() {
        let (cache, runs) =
            (folder.path().join(format!("cache-{number}")), folder.path().join(format!("{number}.runs")));
        for _ in 0..2 {
            // A host that starts again each time.
            for _ in 0..2 {
                let shown = load(&engine(&cache, counted(script, &runs))).await.unwrap_err();
                assert!(shown.contains(expected), "`{expected}` is not in {shown}");
            }
        }
        assert_eq!(lines_of(&runs), max, "{script}");
        assert_eq!(compiled_files(&cache).len(), 1, "what is known of it, and nothing temporary");
        // Another file is not affected.
        let (child, other) = (child(), component("summary").await);
        let loaded = engine(&cache, child).load("summary".parse().unwrap(), other, &settings(""), &|_| {}).await;
        loaded.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Tests that a failure which says nothing about the file is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_file_s_fault_is_not_held_against_it() {
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path().join("cache");
    let cases = [
        (shell("echo 'the disk is full' >&2; exit 1"), "could not compile it: the disk is full"),
        (shell("yes | head -c 1000000 >&2; exit 1"), "could not compile it: y"),
        (
            Compile::Child { program: "/no/such/program".into(), args: Vec::new(), max: CompileLimits::default() },
            "could not run the compiling process",
        ),
        (shell("exit 0"), "could not read what was compiled from the cache folder"),
    ];
    for (compile, expected) in cases {
        let shown = load(&engine(&cache, compile)).await.unwrap_err();
        assert!(shown.contains(expected) && shown.len() < 1000, "`{expected}` is not in {shown}");
        assert_eq!(compiled_files(&cache), Vec::<PathBuf>::new(), "nothing is left behind");
    }
    load(&engine(&cache, child())).await.unwrap();
}

/// Tests that the problems of a refused file are known at the next start, without starting a process.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_kept_as_code_is() {
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path().join("cache");
    let check = async |compile: Compile, settings_text: &str| {
        let bytes: Arc<[u8]> =
            wat::parse_str("(component (import \"acme:db/query@1.0.0\" (instance)))").unwrap().into();
        engine(&cache, compile).check("x", bytes, &settings(settings_text), &|_| {}).await
    };
    let nobody =
        || Compile::Child { program: "/no/such/program".into(), args: Vec::new(), max: CompileLimits::default() };
    let first = check(child(), "").await;
    assert!(first.problems[0].what.contains("it does not export `wharf:plugin/manifest@0.1.0`"), "{first:?}");
    let second = check(nobody(), "").await;
    assert_eq!((&second.problems, &second.imports), (&first.problems, &first.imports));
    // A damaged description is read again.
    let file = compiled_files(&cache).pop().unwrap();
    std::fs::write(&file, b"{").unwrap();
    assert!(check(nobody(), "").await.problems[0].what.contains("could not run the compiling process"));
    assert_eq!(check(child(), "").await.problems, first.problems);
}

/// Tests the compiling process's own limits, each reached by a real component, while another plugin goes on.
#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_much_to_compile_is_refused_and_nobody_notices() {
    let scene = Scene::new(2);
    let words = scene.load("words").await;
    let folder = tempfile::tempdir().unwrap();
    let max = CompileLimits::default();
    // How much it takes depends on the program that compiles: less and less, until it is too little.
    let memory = (8..13).rev().map(|part| CompileLimits { memory_bytes: part * (16 << 20), ..max });
    // A second of processor time, or of wall time if the machine is busy.
    let time = [1000, 50].map(|ms| CompileLimits { time: Duration::from_millis(ms), ..max });
    let mut refused = Vec::new();
    for (number, max) in memory.chain(time).enumerate() {
        let is_memory = max.memory_bytes < bounds::COMPILE_MEMORY_BYTES_MAX;
        if is_memory && !refused.is_empty() {
            continue;
        }
        let cache = folder.path().join(number.to_string());
        let engine = engine(&cache, child_with(max));
        // The first takes some memory and little time, the other several seconds on any machine.
        let name = if is_memory { "thumbnail" } else { "words-python" };
        let bytes = component(name).await;
        let loading = async { engine.load(name.parse().unwrap(), bytes, &settings(""), &|_| {}).await };
        let beside = async {
            for _ in 0..10 {
                assert_returned(&scene.run(&words, words_call(&words)).await.0);
            }
        };
        let (loaded, ()) = tokio::join!(loading, beside);
        if loaded.is_ok() && is_memory {
            continue;
        }
        let shown = loaded.unwrap_err().to_string();
        println!("{max:?}: {shown}");
        assert_eq!(compiled_files(&cache).len(), 1, "what is known of it");
        refused.push(shown.lines().next().unwrap_or_default().split(" MiB").next().unwrap_or_default().to_owned());
    }
    assert_eq!(refused.len(), 3, "{refused:?}");
    assert!(refused[0].contains("ing it took more memory than the limit of 1"), "{refused:?}");
    assert!(refused[1..].iter().all(|shown| shown.contains("ing it took too long: stopped after")), "{refused:?}");
}
