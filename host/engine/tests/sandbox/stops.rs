//! Tests ending attempts from outside: by cancellation, and by force.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use wharf_core::outcome::{Interruption, Outcome};
use wharf_engine::{AttemptHandle, Call, Plugin};

use crate::scene::{RecordingHost, Scene, assert_returned, call};

/// The promise is 50 ms; on a busy machine it may take longer.
const PROMPTLY: Duration = Duration::from_secs(5);

/// Gives the guest time to start its work.
async fn at_work() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn with_grace(plugin: &Plugin, order: &str, grace_ms: u64) -> Call {
    let mut asked = call(plugin, "slow", order);
    asked.limits.cancel_grace = Duration::from_millis(grace_ms);
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_listens_is_asked_first() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    for order in [r#"{"do":"loop"}"#, r#"{"do":"wait-for-cancel"}"#] {
        let handle = AttemptHandle::new();
        let running = scene.begin(&villain, with_grace(&villain, order, 60_000), &Arc::default(), &handle);
        at_work().await;
        handle.request_cancel();
        let asked = Instant::now();
        let ended = running.await.unwrap();
        assert_eq!(ended.outcome, Outcome::Cancelled, "{order}");
        assert!(asked.elapsed() < PROMPTLY);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_listen_is_stopped_after_the_grace() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    for order in [r#"{"do":"loop-ignoring-cancel"}"#, r#"{"do":"sleep","ms":60000}"#] {
        let handle = AttemptHandle::new();
        let running = scene.begin(&villain, with_grace(&villain, order, 150), &Arc::default(), &handle);
        at_work().await;
        handle.request_cancel();
        let asked = Instant::now();
        let ended = running.await.unwrap();
        assert_eq!(ended.outcome, Outcome::Cancelled, "{order}");
        let took = asked.elapsed();
        println!("{order}: stopped {:?} after the grace", took.saturating_sub(Duration::from_millis(150)));
        assert!(took >= Duration::from_millis(150) && took < Duration::from_millis(150) + PROMPTLY, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_came_in_time_stands() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let handle = AttemptHandle::new();
    let running =
        scene.begin(&villain, with_grace(&villain, r#"{"do":"sleep","ms":300}"#, 60_000), &Arc::default(), &handle);
    at_work().await;
    handle.request_cancel();
    assert_returned(&running.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_prompt_whatever_the_guest_does() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let closed = Arc::new(Semaphore::new(0));
    for order in [
        r#"{"do":"loop-ignoring-cancel"}"#,
        r#"{"do":"sleep","ms":60000}"#,
        r#"{"do":"emit"}"#,
        r#"{"do":"flood-stdout"}"#,
        r#"{"do":"flood-progress"}"#,
    ] {
        let handle = AttemptHandle::new();
        let recorded = Arc::new(RecordingHost { gate: Some(Arc::clone(&closed)), ..RecordingHost::default() });
        let running = scene.begin(&villain, call(&villain, "slow", order), &recorded, &handle);
        at_work().await;
        handle.stop(Interruption::LeaseLost, "as the test wants".to_owned());
        let stopped = Instant::now();
        let ended = running.await.unwrap();
        let took = stopped.elapsed();
        println!("{order}: gone {took:?} after the stop");
        assert_eq!(
            ended.outcome,
            Outcome::Interrupted(Interruption::LeaseLost, "as the test wants".to_owned()),
            "{order}"
        );
        assert!(took < PROMPTLY, "{order}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_heard_of_an_attempt_that_was_stopped() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    for order in [r#"{"do":"flood-chunks","bytes":10}"#, r#"{"do":"flood-stdout"}"#, r#"{"do":"flood-progress"}"#] {
        let (handle, recorded) = (AttemptHandle::new(), Arc::new(RecordingHost::default()));
        let running = scene.begin(&villain, call(&villain, "slow", order), &recorded, &handle);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let said = |recorded: &RecordingHost| {
            recorded.chunks.lock().unwrap().len()
                + recorded.lines.lock().unwrap().len()
                + recorded.progress.lock().unwrap().len()
        };
        handle.stop(Interruption::LeaseLost, String::new());
        let at_the_stop = said(&recorded);
        running.await.unwrap();
        // One call may have been in progress.
        assert!(said(&recorded) <= at_the_stop + 1, "{order}: {} after {at_the_stop}", said(&recorded));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_not_renewed_ends_its_attempt_and_one_that_is_does_not() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let (lost, kept) = (AttemptHandle::new(), AttemptHandle::new());
    let began = Instant::now();
    let mut asked = call(&villain, "slow", r#"{"do":"sleep","ms":700}"#);
    asked.limits.first_lease_end = Some(began + Duration::from_millis(300));
    let first = scene.begin(&villain, asked.clone(), &Arc::default(), &lost);
    let second = scene.begin(&villain, asked, &Arc::default(), &kept);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        kept.trust_until(Instant::now() + Duration::from_millis(300));
    }
    assert!(matches!(first.await.unwrap().outcome, Outcome::Interrupted(Interruption::LeaseLost, _)));
    kept.trust_until(Instant::now() + Duration::from_secs(60));
    assert_returned(&second.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_nobody_waits_for_makes_room() {
    let scene = Scene::new(1);
    let villain = scene.load("villain").await;
    let running = scene.begin(
        &villain,
        call(&villain, "slow", r#"{"do":"loop-ignoring-cancel"}"#),
        &Arc::default(),
        &AttemptHandle::new(),
    );
    at_work().await;
    running.abort();
    let (ended, _) = scene.run(&villain, call(&villain, "do", r#"{"do":"echo"}"#)).await;
    assert_returned(&ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_room_can_be_cancelled_and_uses_no_time_of_the_attempt() {
    let scene = Scene::new(1);
    let villain = scene.load("villain").await;
    let first = scene.begin(
        &villain,
        call(&villain, "slow", r#"{"do":"sleep","ms":800}"#),
        &Arc::default(),
        &AttemptHandle::new(),
    );
    at_work().await;
    let handle = AttemptHandle::new();
    let cancelled = scene.begin(&villain, call(&villain, "do", r#"{"do":"echo"}"#), &Arc::default(), &handle);
    // Waits longer than its timeout.
    let patient =
        scene.begin(&villain, call(&villain, "hurried", r#"{"do":"echo"}"#), &Arc::default(), &AttemptHandle::new());
    handle.request_cancel();
    assert_eq!(cancelled.await.unwrap().outcome, Outcome::Cancelled);
    assert!(!first.is_finished());
    assert_returned(&first.await.unwrap());
    assert_returned(&patient.await.unwrap());
}
