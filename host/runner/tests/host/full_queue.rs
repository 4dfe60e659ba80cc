//! A queue that is full: what it refuses, what it answers all the same, and what counts as waiting.

use std::sync::atomic::Ordering;
use std::time::Duration;

use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::ids::{JobId, ScheduleId};
use wharf_core::job::StateName;
use wharf_core::rollcall::{Answer, Mode};
use wharf_core::schedule::{MissedPolicy, OverlapPolicy, ScheduleSpec, Timing};
use wharf_runner::{Broadcast, ChangeError, EnqueueError, Enqueued, Notice, QueueFull, Request};

use crate::cut_store::Cut;
use crate::setup::{LONG, Running, Setup, component, memory, order};

/// A job that waits for longer than a test takes.
fn later() -> Request {
    Request { delay: Some(10 * LONG), ..order("do", r#"{"do":"echo"}"#) }
}

fn with_token(token: &str) -> Request {
    Request { token: Some(token.to_owned()), ..later() }
}

impl Running {
    #[track_caller]
    fn full(&self, enqueued: Result<Vec<Enqueued>, EnqueueError>) -> QueueFull {
        match enqueued {
            Err(EnqueueError::QueueFull(full)) => full,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_token_finds_its_job_however_many_jobs_wait() {
    let setup = Setup::new().with(&["villain"]).granting("villain", "waiting-max = 2");
    // Its own jobs do not wait in the full queue.
    std::fs::copy(component("villain"), setup.plugins().join("other.wasm")).unwrap();
    let running = setup.start(memory()).await;
    let known = running.enqueue(with_token("known")).await;
    running.enqueue(later()).await;
    running.full(running.host.enqueue(vec![later()]).await);
    running.full(running.host.enqueue(vec![with_token("new")]).await);
    let twice = running.host.enqueue(vec![with_token("known"), with_token("known")]).await.unwrap();
    assert_eq!(twice, [Enqueued::Duplicate(known), Enqueued::Duplicate(known)]);
    let full = running.full(running.host.enqueue(vec![with_token("known"), with_token("new")]).await);
    assert_eq!((full.waiting, full.max), (2, 2));

    let parent = |token: &str| {
        let child = format!(r#"{{"task":"villain/do","payload":{{"do":"echo"}},"token":"{token}"}}"#);
        let payload = format!(r#"{{"do":"enqueue","children":[{child}, {child}]}}"#).into_bytes();
        Request { task: "other/do".to_owned(), payload, ..Request::default() }
    };
    let ids: Vec<JobId> = serde_json::from_value::<Vec<String>>(running.result(parent("known")).await)
        .unwrap()
        .iter()
        .map(|id| id.parse().unwrap())
        .collect();
    assert_eq!(ids, [known, known]);
    let refused = running.enqueue(parent("new")).await;
    let report = running.finished(refused).await.job.report.unwrap().text;
    assert!(report.contains("jobs of plugin `villain` wait"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_retried_is_refused_for_that_in_a_full_queue_too() {
    let running = Setup::new().with(&["villain"]).granting("villain", "waiting-max = 1").start(memory()).await;
    let succeeded = running.enqueue(order("do", r#"{"do":"echo"}"#)).await;
    assert_eq!(running.finished(succeeded).await.job.status.state.name(), StateName::Succeeded);
    let cancelled = running.enqueue(later()).await;
    assert_eq!(running.host.cancel(cancelled, Author::anyone()).await.unwrap(), StateName::Cancelled);
    let waiting = running.enqueue(later()).await;
    let gone: JobId = "0000000000001".parse().unwrap();
    for id in [succeeded, waiting, gone] {
        let refused = running.host.retry(id, 1, Author::anyone()).await.unwrap_err();
        assert!(matches!(refused, ChangeError::Refused(_)), "{id}: {refused}");
    }
    let full = running.host.retry(cancelled, 1, Author::anyone()).await.unwrap_err();
    assert!(matches!(full, ChangeError::QueueFull(_)), "{full}");
    running.host.cancel(waiting, Author::anyone()).await.unwrap();
    assert_eq!(running.host.retry(cancelled, 1, Author::anyone()).await.unwrap(), StateName::Waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_subscriber_count_until_they_are_written() {
    let cut = Cut::before(memory());
    let setup = Setup::new().with(&["villain"]).granting("villain", "waiting-max = 1");
    let running = setup.start(cut.clone()).await;
    cut.subscribers_hang.store(true, Ordering::SeqCst);
    let child = r#"{"task":"villain/do","payload":{"do":"echo"},"delay-ms":600000}"#;
    let payload = format!(r#"{{"do":"enqueue","children":[{child}]}}"#).into_bytes().into();
    let asked = Broadcast { topic: "villain.x".into(), payload, timeout: LONG, mode: Mode::All };
    let replies = tokio::spawn(running.host.broadcast(asked).unwrap().all());
    let written = async {
        while cut.subscribers_wrote.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, written).await.expect("the subscriber has replied, and its job is being written");
    // The engine has forgotten the call by now; a second client would be told the same.
    for _ in 0..2 {
        running.full(running.host.enqueue(vec![later()]).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cut.subscribers_hang.store(false, Ordering::SeqCst);
    let answer = replies.await.unwrap().remove(0).answer;
    assert!(matches!(answer, Answer::Replied(_)), "{answer:?}");
    let full = running.full(running.host.enqueue(vec![later()]).await);
    assert_eq!((full.waiting, full.max), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_count_holds_up_no_new_job() {
    let cut = Cut::before(memory());
    let mut setup = Setup::new().with(&["villain"]);
    setup.write_timeout = Duration::from_millis(100);
    let running = setup.start(cut.clone()).await;
    cut.counts_hang.store(true, Ordering::SeqCst);
    let id = tokio::time::timeout(LONG, running.enqueue(order("do", r#"{"do":"echo"}"#))).await.expect("an answer");
    assert_eq!(running.finished(id).await.job.status.state.name(), StateName::Succeeded);
    let is_it = |notice: &Notice| matches!(notice, Notice::StoreFailed { doing, .. } if doing.contains("counting"));
    running.until_notified("the waiting jobs are not counted", is_it).await;
}

/// The task alone knows where the key stands in a payload, and is not there to say so: the payloads are compared, large ones
/// apart.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_payload_finds_its_job_by_its_token_when_the_plugin_is_gone() {
    let running = Setup::new().with(&["villain"]).start(memory()).await;
    let large = |space: &str, last: &str| {
        let payload = format!(r#"{{"do":{space}"echo","payload":"{}{last}"}}"#, "x".repeat(1 << 20));
        Request { payload: payload.into_bytes(), ..with_token("large") }
    };
    let id = running.enqueue(large("", "a")).await;
    std::fs::remove_file(running.plugins.join("villain.wasm")).unwrap();
    running.until_notified("it was retired", |notice| matches!(notice, Notice::PluginRetired { .. })).await;
    assert_eq!(running.host.enqueue(vec![large("\n", "a")]).await.unwrap(), [Enqueued::Duplicate(id)]);
    assert!(running.host.enqueue(vec![large("", "b")]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_stays_due_while_the_queue_is_full() {
    let running = Setup::new().with(&["villain"]).granting("villain", "waiting-max = 1").start(memory()).await;
    let waits = running.enqueue(later()).await;
    let spec = ScheduleSpec {
        task: "villain/do".parse().unwrap(),
        payload: br#"{"do":"echo"}"#.as_slice().into(),
        key: None,
        priority: 0,
        timing: Timing::Every(Duration::from_secs(1)),
        missed: MissedPolicy::All,
        window: bounds::SCHEDULE_WINDOW_DEFAULT,
        overlap: OverlapPolicy::Allow,
        spread: Duration::ZERO,
        pause_after: None,
        tick_as: None,
    };
    let id: ScheduleId = "tick".parse().unwrap();
    let (first, _) = running.host.put_schedule(id.clone(), spec, true, Author::anyone()).await.unwrap();
    // It was due for seconds, and nothing became of its ticks.
    while running.host.now() < first.next_at.unwrap() + Duration::from_secs(3) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let stored = running.host.schedule(id.clone()).await.unwrap().unwrap();
    assert_eq!((stored.next_at, stored.fired, stored.skipped, stored.missed), (first.next_at, 0, 0, 0));
    running.host.cancel(waits, Author::anyone()).await.unwrap();
    loop {
        let stored = running.host.schedule(id.clone()).await.unwrap().unwrap();
        if stored.fired >= 3 {
            assert_eq!((stored.recent[0].tick, stored.skipped, stored.missed), (first.next_at.unwrap(), 0, 0));
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
