//! Tests core modules that are programs of WASI preview 1: each is the task `run`, with every bound of a plugin.

use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, Mode, mkfifoat};
use tokio::sync::Semaphore;
use wharf_core::budget::MemoryUse;
use wharf_core::job::Stream;
use wharf_core::outcome::{Failure, Outcome, TimeoutKind};
use wharf_engine::{AttemptEnd, AttemptHandle, Plugin};

use crate::programs::ends_when_cancelled;
use crate::scene::{RecordingHost, Scene, assert_returned, call, component, settings};

const C: &str = "program-c";
const GO: &str = "program-go";

async fn program(scene: &Scene, name: &'static str, task: &str) -> Arc<Plugin> {
    scene.load_with(name, &format!("[tasks.run]\n{task}")).await
}

async fn run(scene: &Scene, name: &'static str, task: &str, input: &str) -> (AttemptEnd, Arc<RecordingHost>) {
    let plugin = program(scene, name, task).await;
    scene.run(&plugin, call(&plugin, "run", input)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_payload_goes_in_and_the_result_comes_out() {
    let scene = Scene::new(4);
    for name in [C, GO] {
        let plugin = scene.load(name).await;
        assert_eq!(plugin.manifest.tasks.keys().collect::<Vec<_>>(), ["run"]);
        assert_eq!(plugin.imports, ["wasi_snapshot_preview1"]);
        let (ended, host) = scene.run(&plugin, call(&plugin, "run", "to be\nor not")).await;
        assert_eq!(assert_returned(&ended), "TO BE\nOR NOT", "{name}");
        assert_eq!(*host.lines.lock().unwrap(), [(Stream::Stderr, "12 bytes".to_owned())]);
        assert_eq!((ended.usage.in_bytes, ended.usage.out_bytes), (12, 12 + 9));
        let large = "abcdefgh\n".repeat(300_000);
        let (ended, _) = scene.run(&plugin, call(&plugin, "run", large.clone())).await;
        assert_eq!(assert_returned(&ended), large.to_uppercase());
        assert!(ended.held_bytes > large.len() as u64, "{}", ended.held_bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_environment_and_lines_come_from_the_settings() {
    let scene = Scene::new(4);
    let (ended, _) = run(&scene, C, "args = ['--args', 'a b']", "").await;
    assert_eq!(assert_returned(&ended), "program-c\n--args\na b\n");
    let plugin = scene.load_with(C, "env = { COLOUR = 'blue' }\n[tasks.run]\nargs = ['--env', 'COLOUR']").await;
    assert_eq!(assert_returned(&scene.run(&plugin, call(&plugin, "run", "")).await.0), "blue\n");
    let (ended, _) = run(&scene, C, "args = ['--env', 'PATH']", "").await;
    assert_eq!(assert_returned(&ended), "none\n");
    let (ended, host) = run(&scene, C, "stream = 'lines'", "one\n\ntwo\r\nthree").await;
    assert_eq!(assert_returned(&ended), "");
    assert_eq!(*host.chunks.lock().unwrap(), [&b"ONE"[..], b"", b"TWO", b"THREE"]);
    let (ended, host) = run(&scene, GO, "args = ['--lines', '3']\nstream = 'lines'", "").await;
    assert_eq!(assert_returned(&ended), "");
    assert_eq!(*host.chunks.lock().unwrap(), [b"line 0", b"line 1", b"line 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_exit_status_reaches_the_host_as_it_is() {
    let scene = Scene::new(4);
    for (name, args, status) in [
        (C, "['--status', '75']", 75),
        (C, "['--return', '3']", 3),
        (C, "['--status', '200']", 200),
        (GO, "['--status', '75']", 75),
    ] {
        let (ended, _) = run(&scene, name, &format!("args = {args}"), "").await;
        let Outcome::Failed(Failure::Retry(why)) = &ended.outcome else { panic!("{:?}", ended.outcome) };
        assert!(why.starts_with(&format!("the program ended with exit status {status}")), "{name}: {why}");
        let (ended, _) = run(&scene, name, &format!("args = {args}\ndiscard-on = [{status}]"), "").await;
        assert!(matches!(&ended.outcome, Outcome::Failed(Failure::Discard(_))), "{:?}", ended.outcome);
        let (ended, _) = run(&scene, name, &format!("args = {args}\ndiscard-on = [1]"), "").await;
        assert!(matches!(&ended.outcome, Outcome::Failed(Failure::Retry(_))), "{:?}", ended.outcome);
    }
    let (ended, _) = run(&scene, GO, "args = ['--status', '0']", "").await;
    assert_returned(&ended);
    let (ended, _) = run(&scene, C, "args = ['--abort']", "").await;
    let Outcome::Trapped(report) = &ended.outcome else { panic!("{:?}", ended.outcome) };
    assert!(report.contains("about to abort"), "{report}");
    let (ended, _) = run(&scene, GO, "args = ['--panic']", "").await;
    let Outcome::Failed(Failure::Retry(why)) = &ended.outcome else { panic!("{:?}", ended.outcome) };
    assert!(why.contains("asked to panic") && why.contains("exit status 2"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_program_gets_past_its_bounds_or_disturbs_its_neighbours() {
    let scene = Scene::new(4);
    let words = scene.load("words").await;
    let spinning = program(&scene, C, "args = ['--spin']\ncpu = '100ms'").await;
    let (ended, _) = scene.run_beside(&words, &spinning, call(&spinning, "run", "")).await;
    assert!(matches!(ended.outcome, Outcome::TimedOut { clock: TimeoutKind::Cpu, .. }), "{:?}", ended.outcome);
    let hoarding = program(&scene, C, "args = ['--hoard']\nmemory = '16MiB'").await;
    let (ended, _) = scene.run_beside(&words, &hoarding, call(&hoarding, "run", "")).await;
    assert!(matches!(ended.outcome, Outcome::OutOfMemory { .. }), "{:?}", ended.outcome);
    for (settings, limit) in [
        ("args = ['--flood']", "output limit reached: the result on standard output has at most 32 MiB"),
        (
            "args = ['--flood']\nstream = 'lines'",
            "output limit reached: an attempt can send at most 100000 chunks, 64 MiB in all",
        ),
    ] {
        let flooding = program(&scene, C, settings).await;
        let (ended, _) = scene.run_beside(&words, &flooding, call(&flooding, "run", "")).await;
        let Outcome::OutputBound(report) = &ended.outcome else { panic!("{:?}", ended.outcome) };
        assert!(report.starts_with(limit), "{report}");
    }
}

/// A program's memory and its output are of one attempt: together they are refused what the budget could never hold.
#[tokio::test(flavor = "multi_thread")]
async fn memory_and_output_count_together() {
    let scene = Scene::with_budget(2, 128 << 20);
    let most = scene.engine.budget().most(MemoryUse::Attempts) >> 20;
    // What the allocator adds is within the quarter that is left.
    let (held, max) = (most * 3 / 4, most - 1);
    let plugin = program(&scene, C, &format!("args = ['--hold', '{held}']\nmemory = '{max}MiB'")).await;
    let (ended, _) = scene.run(&plugin, call(&plugin, "run", "")).await;
    let Outcome::OutputBound(report) = &ended.outcome else { panic!("{:?}", ended.outcome) };
    assert!(report.contains("its standard output is more than this host's budget of memory can hold"), "{report}");
}

/// The threads that run guests have no timers, so that a sleep which used theirs would panic.
#[tokio::test(flavor = "multi_thread")]
async fn a_sleep_takes_no_processor_and_ends_with_the_attempt() {
    let scene = Scene::new(4);
    for name in [C, GO] {
        let (ended, _) = run(&scene, name, "args = ['--sleep', '300']", "").await;
        assert_returned(&ended);
        assert!(ended.usage.wall >= Duration::from_millis(300), "{name}: {:?}", ended.usage);
        assert!(ended.usage.cpu < Duration::from_millis(250), "{name}: {:?}", ended.usage);
        let (ended, _) = run(&scene, name, "args = ['--sleep', '600000']\ntimeout = '300ms'", "").await;
        assert!(matches!(ended.outcome, Outcome::TimedOut { clock: TimeoutKind::Wall, .. }), "{:?}", ended.outcome);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_cancelled_ends() {
    let scene = Scene::new(4);
    let plugin = program(&scene, C, "args = ['--flood']\nstream = 'lines'").await;
    ends_when_cancelled(&scene, &plugin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_reaches_the_folders_that_are_granted_and_no_others() {
    let scene = Scene::new(4);
    let outside = tempfile::tempdir().unwrap();
    let granted = outside.path().join("granted");
    std::fs::create_dir(&granted).unwrap();
    std::fs::write(granted.join("file"), "x\n").unwrap();
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    std::os::unix::fs::symlink("../secret", granted.join("out")).unwrap();
    // An open of it would wait for a writer for ever.
    mkfifoat(CWD, granted.join("fifo"), Mode::from_raw_mode(0o600)).unwrap();
    let with = |args: &str, writable: bool| {
        let host = granted.display();
        format!("dirs = [{{ host = '{host}', guest = '/data', writable = {writable} }}]\n[tasks.run]\nargs = {args}")
    };
    for (path, said) in [
        ("/data/file", "x\n"),
        ("/data/fifo", "Not supported\n"),
        ("/data/none", "No such file or directory\n"),
        ("/data/out", "Operation not permitted\n"),
        ("/etc/passwd", "No such file or directory\n"),
    ] {
        let plugin = scene.load_with(C, &with(&format!("['--read', '{path}']"), false)).await;
        let (ended, _) = scene.run(&plugin, call(&plugin, "run", "")).await;
        assert_eq!(assert_returned(&ended), said, "{path}");
    }
    for (writable, written) in [(false, None), (true, Some("mine"))] {
        let plugin = scene.load_with(C, &with("['--write', '/data/new', 'mine']", writable)).await;
        let (ended, _) = scene.run(&plugin, call(&plugin, "run", "")).await;
        assert_eq!(matches!(ended.outcome, Outcome::Returned(_)), writable, "{:?}", ended.outcome);
        assert_eq!(std::fs::read_to_string(granted.join("new")).ok().as_deref(), written);
    }
    let (ended, _) = run(&scene, C, "args = ['--read', '/data/file']", "").await;
    assert_eq!(assert_returned(&ended), "No such file or directory\n", "nothing is granted");
    let (ended, _) = run(&scene, C, "args = ['--shutdown']", "").await;
    assert_eq!(assert_returned(&ended), "Not a socket\n");
}

/// Behind the adapter for preview 1, Go's runtime overwrites the adapter's memory as soon as its heap grows.
#[tokio::test(flavor = "multi_thread")]
async fn a_heap_of_go_s_grows() {
    let scene = Scene::new(4);
    let (ended, _) = run(&scene, GO, "args = ['--heap', '60']\nmemory = '256MiB'", "").await;
    assert_eq!(assert_returned(&ended), format!("{}\n", 60 << 20));
    assert!(ended.usage.memory_peak_bytes > 60 << 20, "{:?}", ended.usage);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_a_core_module_is_checked() {
    let scene = Scene::new(1);
    let check = async |bytes: Arc<[u8]>, toml: &str| scene.engine.check("m", bytes, &settings(toml), &|_| {}).await;
    let found = check(component(C).await, "[tasks.run]\ndiscard-on = [64]").await;
    let notes = found.notes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    assert!(!notes.contains("exit status"), "its status reaches the host: {notes}");
    assert!(notes.contains("it can read files"), "{notes}");
    let found = check(component(C).await, "topics = ['a']").await;
    assert!(found.problems[0].what.contains("it has topics"), "{:?}", found.problems);
    let start = r#"(func (export "_start"))(memory (export "memory") 1)"#;
    for (text, what) in [
        ("(type (struct (field i32)))".to_owned() + start, "it uses garbage-collected types, which plugins cannot use"),
        ("(tag)".to_owned() + start, "it uses exceptions, which plugins cannot use"),
        ("(memory $shared 1 1 shared)".to_owned() + start, "it uses threads and shared memory"),
        (
            format!(r#"(import "wasi_snapshot_preview1" "sock_open" (func)){start}"#),
            "it imports `wasi_snapshot_preview1.sock_open`, which WASI preview 1 does not have",
        ),
        (format!(r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i64))){start}"#), "could not link it: "),
        (r#"(import "wbg" "x" (func))"#.to_owned() + start, "it is a core module that imports `wbg`"),
    ] {
        let bytes: Arc<[u8]> = wat::parse_str(format!("(module {text})")).unwrap().into();
        let found = check(bytes, "").await;
        let problems = found.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(problems.contains(what), "{text}: {problems}");
    }
    // A program that does nothing is one all the same.
    let bytes = wat::parse_str(r#"(module (func (export "_start")))"#).unwrap();
    let loaded = scene.engine.load("nothing".parse().unwrap(), bytes, &settings(""), &|_| {}).await.unwrap();
    assert_eq!(assert_returned(&scene.run(&loaded, call(&loaded, "run", "")).await.0), "");
}

/// Nothing of it is called after its end: what it was given is taken from it at the end, also while it computes.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_was_stopped_reaches_nothing_any_more() {
    let scene = Scene::new(2);
    let plugin = program(&scene, C, "args = ['--flood']\nstream = 'lines'\ntimeout = '60s'").await;
    let host = Arc::new(RecordingHost::default());
    let handle = AttemptHandle::new();
    let running = scene.begin(&plugin, call(&plugin, "run", ""), &host, &handle);
    while host.chunks.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    plugin.revoke("a grant was taken away".to_owned());
    let ended = running.await.unwrap();
    let Outcome::Interrupted(_, why) = &ended.outcome else { panic!("{:?}", ended.outcome) };
    assert_eq!(why, "a grant was taken away");
}

/// Writes two lines at once, and then a file: without a loop, so that nothing but the calls themselves can stop it.
const WRITES_LATE: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\10\00\00\00\0b\00\00\00")
    (data (i32.const 16) "ready\0await\0alate")
    (func (export "_start")
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 256)))
        (drop (call $open (i32.const 3) (i32.const 0) (i32.const 27) (i32.const 4) (i32.const 1)
            (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 256)))))"#;

#[tokio::test(flavor = "multi_thread")]
async fn files_are_out_of_reach_from_the_call_on_at_which_an_attempt_was_stopped() {
    let scene = Scene::new(2);
    for is_revoked in [false, true] {
        let granted = tempfile::tempdir().unwrap();
        let dirs = format!("dirs = [{{ host = '{}', guest = '/data', writable = true }}]", granted.path().display());
        let toml = format!("{dirs}\n[tasks.run]\nstream = 'lines'");
        let bytes = wat::parse_str(WRITES_LATE).unwrap();
        let plugin = scene.engine.load("late".parse().unwrap(), bytes, &settings(&toml), &|_| {}).await.unwrap();
        // The first line is taken. The write waits until the second is taken, too.
        let gate = Arc::new(Semaphore::new(1));
        let host = Arc::new(RecordingHost { gate: Some(Arc::clone(&gate)), ..RecordingHost::default() });
        let running = scene.begin(&plugin, call(&plugin, "run", ""), &host, &AttemptHandle::new());
        while host.chunks.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        if is_revoked {
            plugin.revoke("a grant was taken away".to_owned());
        }
        gate.add_permits(1);
        let ended = running.await.unwrap();
        assert_eq!(matches!(ended.outcome, Outcome::Interrupted(..)), is_revoked, "{:?}", ended.outcome);
        assert_eq!(*host.chunks.lock().unwrap(), [&b"ready"[..], b"wait"], "the write that had begun ends as it would");
        assert_eq!(granted.path().join("late").exists(), !is_revoked);
    }
}
