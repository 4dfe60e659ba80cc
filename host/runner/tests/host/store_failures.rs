//! A store that fails for a while, and one that fails for too long.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wharf_core::author::Author;
use wharf_core::job::StateName;
use wharf_core::outcome::OutcomeKind;
use wharf_core::rollcall::{Answer, Mode};
use wharf_runner::{Broadcast, ChangeError, EnqueueError, Enqueued, Notice, Request};
use wharf_store::{Queue, SqliteStore, Store, StoreError, SystemClock};

use crate::cut_store::Cut;
use crate::setup::{LONG, Setup, memory, order};

#[tokio::test(flavor = "multi_thread")]
async fn an_end_while_the_store_is_away_is_recorded_when_it_is_back() {
    let cut = Cut::before(memory());
    let running = Setup::new().with(&["villain"]).start(cut.clone()).await;
    let id = running.enqueue(order("slow", r#"{"do":"emit","chunks":5,"pause-ms":50}"#)).await;
    running.until_running(id).await;
    cut.off.store(true, Ordering::SeqCst);
    running.until_notified("the attempt ended", |notice| matches!(notice, Notice::AttemptEnded(_))).await;
    running.until_notified("the store failed", |notice| matches!(notice, Notice::StoreFailed { .. })).await;
    assert!(running.host.health().store.unwrap_err().contains("cut off"));
    assert_eq!(running.host.job(id).await.unwrap().unwrap().seen.job.status.state.name(), StateName::Running);
    cut.off.store(false, Ordering::SeqCst);
    let seen = running.finished(id).await;
    assert_eq!((seen.job.status.state.name(), seen.job.status.attempt), (StateName::Succeeded, 1));
    let chunks = running.host.follow(id, 0);
    let chunks = futures_util::StreamExt::collect::<Vec<_>>(chunks).await;
    assert_eq!(chunks.len(), 6, "five chunks and the end: {chunks:?}");
    running.until_notified("the store has recovered", |notice| matches!(notice, Notice::StoreRecovered)).await;
    assert_eq!(running.host.health().store, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_lease_cannot_be_confirmed_is_stopped_before_it_runs_out() {
    let cut = Cut::before(memory());
    let mut setup = Setup::new().with(&["villain"]);
    (setup.lease, setup.lease_margin) = (Duration::from_millis(1500), Duration::from_millis(300));
    let running = setup.start(cut.clone()).await;
    let id = running.enqueue(order("slow", r#"{"do":"sleep","ms":60000}"#)).await;
    // It outlives its first lease, since the store can be reached.
    running.until_running(id).await;
    let first = running.host.job(id).await.unwrap().unwrap().seen.job.status;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let now = running.host.job(id).await.unwrap().unwrap().seen.job.status;
    assert_eq!((first.attempt, now.attempt), (1, 1));
    cut.off.store(true, Ordering::SeqCst);
    let stopped =
        |notice: &Notice| matches!(notice, Notice::AttemptEnded(ended) if ended.job == id && ended.number == 1);
    running.until_notified("it was stopped", stopped).await;
    let wharf_core::job::State::Running { lease } = running.host.job(id).await.unwrap().unwrap().seen.job.status.state
    else {
        panic!("nobody could have recorded its end")
    };
    assert!(cut.now() < lease.until, "its lease had run out before it was stopped");
    cut.off.store(false, Ordering::SeqCst);
    running.until_notified("it runs again", |notice| matches!(notice, Notice::AttemptStarted { number: 2, .. })).await;
    running.host.stop_now().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_a_response_is_reported_as_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let file: Arc<dyn Store> =
        Arc::new(SqliteStore::open(folder.path().join("wharf.db"), Arc::new(SystemClock)).unwrap());
    for store in [memory(), file] {
        let cut = Cut::before(store);
        let mut setup = Setup::new().with(&["villain"]);
        setup.write_timeout = Duration::from_millis(100);
        let running = setup.start(cut.clone()).await;
        let asked =
            || Request { token: Some("one".to_owned()), delay: Some(LONG), ..order("slow", r#"{"do":"echo"}"#) };
        cut.hanging.store(true, Ordering::SeqCst);
        let unknown = running.host.enqueue(vec![asked()]).await.unwrap_err();
        assert!(matches!(unknown, EnqueueError::Store(StoreError::Unknown(_))), "{unknown:?}");
        let no_response =
            |notice: &Notice| matches!(notice, Notice::StoreFailed { why, .. } if why.contains("no response"));
        running.until_notified("the store gave no response", no_response).await;
        cut.hanging.store(false, Ordering::SeqCst);
        let Enqueued::Duplicate(id) = running.host.enqueue(vec![asked()]).await.unwrap().remove(0) else {
            panic!("it was written, and its token is known")
        };
        cut.hanging.store(true, Ordering::SeqCst);
        let unknown = running.host.cancel(id, Author::anyone()).await.unwrap_err();
        assert!(matches!(unknown, ChangeError::Store(StoreError::Unknown(_))), "{unknown:?}");
        cut.hanging.store(false, Ordering::SeqCst);
        assert_eq!(running.finished(id).await.job.status.state.name(), StateName::Cancelled);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_hangs_is_reported_while_it_hangs() {
    let cut = Cut::before(memory());
    let running = Setup::new().with(&["villain"]).start(cut.clone()).await;
    let id = running.enqueue(order("slow", r#"{"do":"sleep","ms":200}"#)).await;
    running.until_running(id).await;
    cut.hanging.store(true, Ordering::SeqCst);
    // Nothing fails meanwhile: this node registers, and leases are renewed.
    let hangs = |notice: &Notice| matches!(notice, Notice::StoreFailed { doing: "recording", why } if why.contains("no response"));
    running.until_notified("the record hangs", hangs).await;
    // Other calls that return do not hide it.
    let before = cut.registered.load(Ordering::SeqCst);
    while cut.registered.load(Ordering::SeqCst) < before + 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(running.host.health().store.is_err());
    assert!(!running.notices().iter().any(|notice| matches!(notice, Notice::StoreRecovered)));
    cut.hanging.store(false, Ordering::SeqCst);
    assert_eq!(running.finished(id).await.job.status.attempt, 1);
    let recovered = async {
        while running.host.health().store.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, recovered).await.expect("the store recovers");
}

fn steps(steps: &str) -> Request {
    let payload = format!(r#"{{"steps": {steps}, "key": "one"}}"#).into_bytes();
    Request { task: "villain-kv/do".to_owned(), payload, ..Request::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_reads_values_waits_until_the_store_is_back() {
    let cut = Cut::before(memory());
    let running = Setup::new().with(&["villain-kv"]).granting("villain-kv", "kv = true").start(cut.clone()).await;
    for query in [
        r#"[{"get": "a"}]"#,
        r#"[{"set": ["a", "1"]}]"#,
        r#"[{"keys": {"prefix": "", "after": null, "most": 9}}]"#,
        r#"[{"add": "n"}, {"add": "n"}]"#,
    ] {
        cut.kv_off.store(true, Ordering::SeqCst);
        let before = running.notices().len();
        let id = running.enqueue(steps(query)).await;
        let fails = async {
            let is_it =
                |notice: &Notice| matches!(notice, Notice::StoreFailed { doing, .. } if doing.contains("values"));
            while !running.notices()[before..].iter().any(is_it) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, fails).await.expect("the store fails");
        cut.kv_off.store(false, Ordering::SeqCst);
        let job = running.finished(id).await.job;
        let status = job.status;
        assert_eq!(
            (status.state.name(), status.attempt, status.failures.failed()),
            (StateName::Succeeded, 1, 0),
            "{query}: {:?}",
            job.report
        );
        let result = String::from_utf8_lossy(&job.result.unwrap()).into_owned();
        assert!(!result.contains("error"), "the guest got an error: {result}");
        // Otherwise the next failure, which is the same one, would not be reported.
        running.until_recovered(before).await;
    }
}

/// Time that goes by while the store is away is none that the job used up: not one that reads, nor one that writes.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_time_ends_while_it_waits_for_the_store_is_given_back_at_no_cost() {
    // Long enough that a busy machine has begun the attempt a second before its time ends.
    let brief = "[tasks.do]\ntimeout = \"6s\"\nretry = { attempts = 1 }";
    let setup = Setup::new()
        .with(&["villain-kv", "villain"])
        .granting("villain-kv", &format!("kv = true\n{brief}"))
        .granting("villain", brief);
    let reads = (steps(r#"[{"get": "a"}]"#), true);
    let writes = (order("do", r#"{"do":"flood-chunks","chunks":80,"bytes":65536}"#), false);
    for (request, reads) in [reads, writes] {
        let cut = Cut::before(memory());
        let running = setup.start(cut.clone()).await;
        let off = if reads { &cut.kv_off } else { &cut.records_off };
        off.store(true, Ordering::SeqCst);
        let id = running.enqueue(request).await;
        let given_back = |notice: &Notice| matches!(notice, Notice::AttemptEnded(ended) if ended.job == id && ended.kind == OutcomeKind::Interrupted);
        running.until_notified("it was given back", given_back).await;
        off.store(false, Ordering::SeqCst);
        let job = running.finished(id).await.job;
        assert_eq!(
            (job.status.state.name(), job.status.failures.failed()),
            (StateName::Succeeded, 0),
            "{:?}",
            job.report
        );
        assert!(job.status.attempt > 1);
        let ended = running.notices().into_iter().find(given_back).unwrap();
        let Notice::AttemptEnded(ended) = ended else { unreachable!() };
        assert!(ended.report.contains("waited for the store"), "{}", ended.report);
        running.host.stop_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_whose_time_ends_while_it_waits_for_the_store_has_not_failed() {
    let cut = Cut::before(memory());
    let running = Setup::new().with(&["villain-kv"]).granting("villain-kv", "kv = true").start(cut.clone()).await;
    cut.kv_off.store(true, Ordering::SeqCst);
    let payload = br#"{"steps": [{"get": "a"}]}"#.as_slice().into();
    let asked = Broadcast { topic: "kv.do".into(), payload, timeout: LONG, mode: Mode::All };
    let answer = running.host.broadcast(asked).unwrap().all().await.remove(0).answer;
    assert!(matches!(&answer, Answer::Skipped(why) if why.contains("the store")), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_store_refuses_leaves_the_host_ready() {
    let cut = Cut::before(memory());
    let running = Setup::new().with(&["villain"]).start(cut.clone()).await;
    cut.refusing.store(true, Ordering::SeqCst);
    let refused = running.host.enqueue(vec![order("slow", r#"{"do":"echo"}"#)]).await.unwrap_err();
    assert!(matches!(refused, EnqueueError::Store(StoreError::Refused(_))), "{refused:?}");
    assert!(running.host.health().store.is_ok());
    cut.refusing.store(false, Ordering::SeqCst);
    let id = running.enqueue(order("slow", r#"{"do":"echo"}"#)).await;
    assert_eq!(running.finished(id).await.job.status.state.name(), StateName::Succeeded);
}
