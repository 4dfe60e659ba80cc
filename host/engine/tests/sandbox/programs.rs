//! Tests programs: a component that exports `wasi:cli/run` is the task `run`, with every bound of a plugin.

use std::sync::Arc;

use wharf_core::job::Stream;
use wharf_core::outcome::{Failure, Outcome, TimeoutKind};
use wharf_engine::{AttemptEnd, AttemptHandle, Plugin};

use crate::scene::{RecordingHost, Scene, assert_returned, call, component, settings, words_call};

/// Loads the program with these settings of its task.
async fn program(scene: &Scene, task: &str) -> Arc<Plugin> {
    scene.load_with("program", &format!("[tasks.run]\n{task}")).await
}

async fn run(scene: &Scene, task: &str, input: &str) -> (AttemptEnd, Arc<RecordingHost>) {
    let plugin = program(scene, task).await;
    scene.run(&plugin, call(&plugin, "run", input)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_payload_goes_in_and_the_result_comes_out() {
    let scene = Scene::new(4);
    let plugin = scene.load("program").await;
    assert_eq!(plugin.manifest.tasks.keys().collect::<Vec<_>>(), ["run"]);
    assert_eq!((plugin.manifest.name.as_str(), plugin.manifest.version.as_str()), ("program", &plugin.digest[..12]));
    let (ended, host) = scene.run(&plugin, call(&plugin, "run", "to be\nor not")).await;
    assert_eq!(assert_returned(&ended), "TO BE\nOR NOT");
    assert_eq!(*host.lines.lock().unwrap(), [(Stream::Stderr, "12 bytes".to_owned())]);
    assert!(host.chunks.lock().unwrap().is_empty());
    assert_eq!((ended.usage.in_bytes, ended.usage.out_bytes), (12, 12 + 9));
    let large = "abcdefgh\n".repeat(300_000);
    let (ended, _) = scene.run(&plugin, call(&plugin, "run", large.clone())).await;
    assert_eq!(assert_returned(&ended), large.to_uppercase());
    assert!(ended.held_bytes > large.len() as u64, "{}", ended.held_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_and_environment_come_from_the_settings() {
    let scene = Scene::new(4);
    let (ended, _) = run(&scene, "args = ['--args', 'a b']", "").await;
    assert_eq!(assert_returned(&ended), "[\"program\", \"--args\", \"a b\"]\n");
    let plugin = scene.load_with("program", "env = { COLOUR = 'blue' }\n[tasks.run]\nargs = ['--env', 'COLOUR']").await;
    assert_eq!(assert_returned(&scene.run(&plugin, call(&plugin, "run", "")).await.0), "blue\n");
    let (ended, _) = run(&scene, "args = ['--env', 'PATH']", "").await;
    assert_eq!(assert_returned(&ended), "none\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_is_a_chunk_where_the_settings_say_so() {
    let scene = Scene::new(4);
    let (ended, host) = run(&scene, "stream = 'lines'", "one\n\ntwo\r\nthree").await;
    assert_eq!(assert_returned(&ended), "");
    assert_eq!(*host.chunks.lock().unwrap(), [&b"ONE"[..], b"", b"TWO", b"THREE"]);
    let (ended, host) = run(&scene, "stream = 'lines'", &"a line\n".repeat(20_000)).await;
    assert_returned(&ended);
    assert_eq!(host.chunks.lock().unwrap().len(), 20_000);
    assert!(host.chunks.lock().unwrap().iter().all(|chunk| chunk == b"A LINE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_before_a_panic_are_told() {
    let scene = Scene::new(4);
    let (ended, host) = run(&scene, "stream = 'lines'\nargs = ['--panic-after', \"one\\ntwo\"]", "").await;
    assert!(!matches!(ended.outcome, Outcome::Returned(_)), "{:?}", ended.outcome);
    assert_eq!(*host.chunks.lock().unwrap(), [&b"one"[..], b"two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_exit_status_says_whether_it_failed() {
    let scene = Scene::new(4);
    let (ended, _) = run(&scene, "args = ['--status', '0']", "").await;
    assert_returned(&ended);
    // What is not success arrives as 1: the target wasm32-wasip2 tells no more.
    for args in ["['--status', '3']", "['--fail', '3']"] {
        let (ended, _) = run(&scene, &format!("args = {args}"), "").await;
        let Outcome::Failed(Failure::Retry(why)) = &ended.outcome else { panic!("{:?}", ended.outcome) };
        assert!(why.starts_with("the program ended with exit status 1"), "{why}");
        assert_eq!(why.contains("last lines of stderr:\n  could not do it"), args.contains("fail"), "{why}");
        let (ended, _) = run(&scene, &format!("args = {args}\ndiscard-on = [1, 75]"), "").await;
        assert!(matches!(&ended.outcome, Outcome::Failed(Failure::Discard(_))), "{:?}", ended.outcome);
    }
    let (ended, _) = run(&scene, "args = ['--panic']", "").await;
    let Outcome::Trapped(report) = &ended.outcome else { panic!("{:?}", ended.outcome) };
    assert!(report.starts_with("panicked at program/src/main.rs:") && report.contains("asked to panic"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_program_gets_past_its_bounds_or_disturbs_its_neighbours() {
    let scene = Scene::new(4);
    let words = scene.load("words").await;
    let spinning = program(&scene, "args = ['--spin']\ncpu = '100ms'").await;
    let (ended, _) = scene.run_beside(&words, &spinning, call(&spinning, "run", "")).await;
    assert!(matches!(ended.outcome, Outcome::TimedOut { clock: TimeoutKind::Cpu, .. }), "{:?}", ended.outcome);
    let hoarding = program(&scene, "args = ['--hoard']\nmemory = '16MiB'").await;
    let (ended, _) = scene.run_beside(&words, &hoarding, call(&hoarding, "run", "")).await;
    assert!(matches!(ended.outcome, Outcome::OutOfMemory { .. }), "{:?}", ended.outcome);
    for (settings, limit) in [
        ("args = ['--flood']", "output limit reached: the result on standard output has at most 32 MiB"),
        (
            "args = ['--flood']\nstream = 'lines'",
            "output limit reached: an attempt can send at most 100000 chunks, 64 MiB in all",
        ),
    ] {
        let flooding = program(&scene, settings).await;
        let (ended, _) = scene.run_beside(&words, &flooding, call(&flooding, "run", "")).await;
        let Outcome::OutputBound(report) = &ended.outcome else { panic!("{:?}", ended.outcome) };
        assert!(report.starts_with(limit), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_cancelled_ends() {
    let scene = Scene::new(4);
    let plugin = program(&scene, "args = ['--flood']\nstream = 'lines'").await;
    ends_when_cancelled(&scene, &plugin).await;
}

/// A program that is cancelled is not told, so that it is stopped when its grace is over; its lines are not taken any more.
pub(crate) async fn ends_when_cancelled(scene: &Scene, flooding: &Arc<Plugin>) {
    let gate = Arc::new(tokio::sync::Semaphore::new(1));
    let host = Arc::new(RecordingHost { gate: Some(Arc::clone(&gate)), ..RecordingHost::default() });
    let handle = AttemptHandle::new();
    let running = scene.begin(flooding, call(flooding, "run", ""), &host, &handle);
    while host.chunks.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    handle.request_cancel();
    gate.add_permits(1);
    let ended = running.await.unwrap();
    assert!(matches!(ended.outcome, Outcome::Cancelled), "{:?}", ended.outcome);
    assert!(host.chunks.lock().unwrap().len() <= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_a_program_is_checked() {
    let scene = Scene::new(1);
    let check = async |name: &'static str, toml: &str| {
        scene.engine.check(name, component(name).await, &settings(toml), &|_| {}).await
    };
    let notes = |report: &wharf_engine::CheckReport| {
        report.notes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let problems = |report: &wharf_engine::CheckReport| {
        report.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let found = check("program", "").await;
    assert!(
        found.problems.is_empty() && notes(&found).contains("its exit status does not reach the host"),
        "{}",
        notes(&found)
    );
    for (toml, expected) in [
        ("[tasks.run]\ndiscard-on = [0]", "tasks.run.discard-on: 0 is the status of success"),
        ("[tasks.run]\nargs = [\"a\\u0000\"]", "tasks.run.args: argument 1 has a zero byte"),
        ("[tasks.run]\non-error = 'discard'", "tasks.run.on-error: it is for an exported function"),
        ("[tasks.runs]\ntimeout = '1s'", "unknown task [plugins.program.tasks.runs]\n    did you mean `run`?"),
        ("topics = ['a']", "it has topics, but it knows nothing of broadcasts"),
    ] {
        let found = check("program", toml).await;
        assert!(problems(&found).contains(expected), "{toml}: {}", problems(&found));
    }
    let found = check("words", "[tasks.count]\nargs = ['a']").await;
    assert!(problems(&found).contains("tasks.count.args: it is for a program"), "{}", problems(&found));
    let words = scene.load("words").await;
    assert_returned(&scene.run(&words, words_call(&words)).await.0);
}
