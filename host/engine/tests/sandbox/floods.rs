//! Tests unlimited output: it is bounded, logs never make anybody wait, and neighbours are not affected.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use wharf_core::bounds;
use wharf_core::job::Stream;
use wharf_core::outcome::Outcome;
use wharf_engine::AttemptHandle;

use crate::scene::{RecordingHost, Scene, assert_returned, call};

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_lines_is_dropped_past_the_bound_and_counted() {
    let scene = Scene::new(8);
    let (villain, words) = (scene.load("villain").await, scene.load("words").await);
    for order in ["flood-stdout", "flood-stderr"] {
        let asked = call(&villain, "slow", format!(r#"{{"do":"{order}","lines":100000,"bytes":200}}"#));
        let (ended, recorded) = scene.run_beside(&words, &villain, asked).await;
        assert_returned(&ended);
        let lines = recorded.lines.lock().unwrap();
        let bytes: usize = lines.iter().map(|(_, line)| line.len() + 1).sum();
        let dropped = *recorded.dropped.lock().unwrap();
        assert!(bytes as u64 <= bounds::LOG_BYTES_MAX && bytes as u64 > bounds::LOG_BYTES_MAX - 300, "{bytes}");
        assert_eq!(lines.len() as u64 + dropped, 100_000, "every line is kept or counted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_empty_lines_is_bounded_in_number() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let (ended, recorded) =
        scene.run(&villain, call(&villain, "slow", r#"{"do":"flood-stdout","lines":100000,"bytes":0}"#)).await;
    assert_returned(&ended);
    let kept = recorded.lines.lock().unwrap().len() as u64;
    assert_eq!((kept, *recorded.dropped.lock().unwrap()), (bounds::LOG_LINES_MAX, 100_000 - bounds::LOG_LINES_MAX));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_end_is_cut() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let (ended, recorded) = scene.run(&villain, call(&villain, "do", r#"{"do":"long-line","bytes":3000000}"#)).await;
    assert_returned(&ended);
    let lines = recorded.lines.lock().unwrap();
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].1.len() as u64 <= bounds::LOG_LINE_BYTES_MAX && lines[0].1.contains("(cut: "),
        "{}",
        lines[0].1.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_bounded_in_number_and_bytes_and_the_plugin_is_told() {
    let scene = Scene::new(8);
    let (villain, words) = (scene.load("villain").await, scene.load("words").await);
    for order in [r#"{"do":"flood-chunks","bytes":1000000}"#, r#"{"do":"flood-chunks","bytes":10}"#] {
        let (ended, recorded) = scene.run_beside(&words, &villain, call(&villain, "slow", order)).await;
        assert!(matches!(&ended.outcome, Outcome::Failed(_)), "{:?}", ended.outcome);
        assert!(
            ended.outcome.report().contains("an attempt can send at most 100000 chunks, 64 MiB in all"),
            "{}",
            ended.outcome.report()
        );
        let chunks = recorded.chunks.lock().unwrap();
        let bytes: usize = chunks.iter().map(Vec::len).sum();
        assert!(chunks.len() as u64 <= bounds::CHUNKS_MAX && bytes as u64 <= bounds::CHUNKS_BYTES_MAX);
        assert!(ended.usage.out_bytes >= bytes as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_are_cut_and_jobs_are_bounded_in_bytes() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let (ended, recorded) = scene.run(&villain, call(&villain, "do", r#"{"do":"huge-note","bytes":2000000}"#)).await;
    assert_returned(&ended);
    assert_eq!(recorded.progress.lock().unwrap()[0].1.len() as u64, bounds::PROGRESS_NOTE_BYTES_MAX);
    let (ended, _) = scene.run(&villain, call(&villain, "do", r#"{"do":"flood-progress","times":100000}"#)).await;
    assert_returned(&ended);
    let (ended, _) = scene.run(&villain, call(&villain, "do", r#"{"do":"huge-task-name","bytes":20000000}"#)).await;
    assert_returned(&ended);
}

/// Tests that logs are independent of chunks: a client that does not take chunks makes the guest wait, but affects
/// neither its log nor its CPU time.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_room_is_no_cpu_time_and_no_stall() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let gate = Arc::new(Semaphore::new(0));
    let recorded = Arc::new(RecordingHost { gate: Some(Arc::clone(&gate)), ..RecordingHost::default() });
    let asked = call(&villain, "stall", r#"{"do":"emit","chunks":3,"log-bytes":30000}"#);
    let running = scene.begin(&villain, asked, &recorded, &AttemptHandle::new());
    // Longer than the task's stall timeout.
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(recorded.lines.lock().unwrap().len(), 2, "the lines before the first chunk are there");
    assert!(recorded.chunks.lock().unwrap().is_empty());
    gate.add_permits(3);
    let ended = running.await.unwrap();
    assert_returned(&ended);
    assert_eq!(recorded.chunks.lock().unwrap().len(), 3);
    assert_eq!(recorded.lines.lock().unwrap().iter().filter(|(stream, _)| *stream == Stream::Stdout).count(), 3);
    assert!(
        ended.usage.cpu < Duration::from_millis(600) && ended.usage.wall > Duration::from_millis(800),
        "{:?}",
        ended.usage
    );
}
