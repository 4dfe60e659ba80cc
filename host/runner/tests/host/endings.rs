//! Cancel, drain, stop: whatever a guest does.

use std::time::Duration;

use tokio::time::Instant;
use wharf_core::author::Author;
use wharf_core::job::StateName;
use wharf_core::lifecycle::Refusal;
use wharf_runner::{ChangeError, JobWaitReason};

use crate::setup::{LONG, Setup, memory, order};

#[tokio::test(flavor = "multi_thread")]
async fn a_tight_loop_that_ignores_cancel_is_stopped_after_the_grace() {
    let running = Setup::new().with(&["villain"]).start(memory()).await;
    let id = running.enqueue(order("slow", r#"{"do":"loop-ignoring-cancel"}"#)).await;
    running.until_running(id).await;
    let asked = Instant::now();
    assert_eq!(running.host.cancel(id, Author::anyone()).await.unwrap(), StateName::Running);
    assert_eq!(running.finished(id).await.job.status.state.name(), StateName::Cancelled);
    assert!(asked.elapsed() >= Duration::from_millis(200), "the grace period was not given");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(matches!(
        running.host.cancel(id, Author::anyone()).await,
        Err(ChangeError::Refused(Refusal::Finished(StateName::Cancelled)))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_cancelled_whatever_moment_it_is_asked() {
    let running = Setup::new().with(&["villain"]).start(memory()).await;
    for _ in 0..50 {
        // No waiting in between: it may wait, be on its way from the store, or run.
        let id = running.enqueue(order("slow", r#"{"do":"loop"}"#)).await;
        running.host.cancel(id, Author::anyone()).await.unwrap();
        let asked = Instant::now();
        assert_eq!(running.finished(id).await.job.status.state.name(), StateName::Cancelled);
        assert!(asked.elapsed() < Duration::from_secs(5), "the request was lost until a lease was renewed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_attempts_finish_and_gives_back_the_rest() {
    let setup = Setup::new().with(&["villain"]);
    let store = memory();
    let first = setup.start(store.clone()).await;
    let short = first.enqueue(order("slow", r#"{"do":"sleep","ms":400}"#)).await;
    let long = first.enqueue(order("slow", r#"{"do":"sleep","ms":9000}"#)).await;
    first.until_running(long).await;
    first.until_running(short).await;
    let timeout = Duration::from_millis(1500);
    let began = Instant::now();
    let (host, late) = (first.host.clone(), order("do", r#"{"do":"echo"}"#));
    let drain = tokio::spawn(async move { host.drain(timeout).await });
    first.until_notified("the drain began", |notice| matches!(notice, wharf_runner::Notice::DrainStarted { .. })).await;
    // Accepted, and left to the next host.
    let late = first.enqueue(late).await;
    // The notice is sent before the drain is.
    let drains = async {
        while !matches!(first.host.job(late).await.unwrap().unwrap().waiting, Some(JobWaitReason::Draining)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, drains).await.expect("it says that its host drains");
    tokio::time::timeout(LONG, drain).await.expect("the drain ends").unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());

    let state = |seen: &wharf_store::JobSnapshot| {
        (seen.job.status.state.name(), seen.job.status.failures.failed(), seen.job.status.crashes)
    };
    let seen = first.host.job(short).await.unwrap().unwrap().seen;
    assert_eq!(state(&seen), (StateName::Succeeded, 0, 0));
    let seen = first.host.job(long).await.unwrap().unwrap().seen;
    assert_eq!(state(&seen), (StateName::Waiting, 0, 0), "given back, at no cost");

    let second = setup.start(store).await;
    assert_eq!(second.finished(long).await.job.status.attempt, 2);
    second.finished(late).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_at_once_gives_everything_back_at_once() {
    let setup = Setup::new().with(&["villain"]);
    let running = setup.start(setup.sqlite()).await;
    let id = running.enqueue(order("slow", r#"{"do":"loop-ignoring-cancel"}"#)).await;
    running.until_running(id).await;
    let began = Instant::now();
    running.host.stop_now().await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(running.host.job(id).await.unwrap().unwrap().seen.job.status.state.name(), StateName::Waiting);
}
