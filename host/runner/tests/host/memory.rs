//! The budget of memory: what was reserved for bytes stays so until the store has them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use wharf_core::budget::MemoryUse;
use wharf_core::ids::JobId;
use wharf_core::job::StateName;
use wharf_core::outcome::OutcomeKind;
use wharf_core::rollcall::{Answer, Mode};
use wharf_runner::{Broadcast, EnqueueError, Host, JobWaitReason, NoRoom, Notice, Request};
use wharf_store::StoreError;

use crate::cut_store::Cut;
use crate::setup::{LONG, Running, Setup, memory, order};

fn used(host: &Host, of: MemoryUse) -> u64 {
    host.budget().usage().used.iter().find(|(each, _)| *each == of).unwrap().1
}

/// A payload with so many values, for a task with a schema.
fn with_values(count: usize) -> Request {
    let payload = format!(r#"{{"text": "one two", "more": [{}0]}}"#, "0,".repeat(count));
    Request { task: "words/count".to_owned(), payload: payload.into_bytes(), ..Request::default() }
}

async fn until_given_back(host: &Host, of: MemoryUse) {
    let given_back = async {
        while used(host, of) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, given_back).await.expect("the room is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn room_for_a_payload_is_kept_until_the_store_returns_whoever_waits_for_it() {
    let cut = Cut::before(memory());
    let mut setup = Setup::new().with(&["villain"]);
    setup.write_timeout = Duration::from_millis(50);
    let running = setup.start(cut.clone()).await;
    let host = &running.host;
    cut.hanging.store(true, Ordering::SeqCst);
    let enqueue = || {
        let room = host.budget().reserve_anyway(MemoryUse::Requests, 1000);
        host.enqueue_with_room(vec![order("slow", r#"{"do":"echo"}"#)], Some(room))
    };
    let late = enqueue().await;
    assert!(matches!(late, Err(EnqueueError::Store(StoreError::Unknown(_)))), "{late:?}");
    assert_eq!(used(host, MemoryUse::Requests), 1000, "the store has the payload still");
    cut.hanging.store(false, Ordering::SeqCst);
    until_given_back(host, MemoryUse::Requests).await;
    enqueue().await.unwrap();
    until_given_back(host, MemoryUse::Requests).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_with_more_values_than_the_budget_can_hold_is_refused_before_it_is_parsed() {
    let running = Setup::new().with(&["words"]).start(memory()).await;
    let host = &running.host;
    let refused = host.enqueue(vec![with_values(15 << 20)]).await;
    let most = host.budget().most(MemoryUse::Parsing);
    assert!(
        matches!(refused, Err(EnqueueError::NoRoom(NoRoom::Ever { bytes, max })) if bytes > max && max == most),
        "{refused:?}"
    );
    let parsed = host.enqueue(vec![with_values(100_000)]).await;
    assert!(matches!(parsed, Err(EnqueueError::EnqueueRejection(_))), "the schema has no such member: {parsed:?}");
    assert_eq!(used(host, MemoryUse::Parsing), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_attempt_leaves_has_room_until_it_is_written() {
    let cut = Cut::before(memory());
    let running = Setup::new().with(&["villain"]).start(cut.clone()).await;
    cut.records_off.store(true, Ordering::SeqCst);
    let emits = running.enqueue(order("slow", r#"{"do":"flood-chunks","chunks":1,"bytes":500000}"#)).await;
    let returns = running.enqueue(order("slow", r#"{"do":"big-output","bytes":700000}"#)).await;
    for job in [emits, returns] {
        let ended = |notice: &Notice| matches!(notice, Notice::AttemptEnded(ended) if ended.job == job);
        running.until_notified("it ended", ended).await;
    }
    let unwritten = used(&running.host, MemoryUse::Unwritten);
    assert!((1_200_000..2_000_000).contains(&unwritten), "{unwritten}");
    cut.records_off.store(false, Ordering::SeqCst);
    running.finished(emits).await;
    running.finished(returns).await;
    until_given_back(&running.host, MemoryUse::Unwritten).await;
    until_given_back(&running.host, MemoryUse::Attempts).await;
}

const MIB: u64 = 1 << 20;

/// A host with a small budget, most of which one attempt may have.
fn small() -> Setup {
    let large = "receive.memory = '32MiB'\n[tasks]\ndo.memory = '200MiB'\nslow.memory = '200MiB'\n";
    let mut setup = Setup::new().with(&["villain"]).granting("villain", large);
    setup.memory_budget = 256 * MIB;
    setup
}

/// Waits until a job waits for this reason.
async fn until_waiting(running: &Running, job: JobId, wanted: &JobWaitReason) {
    let poll = async {
        while running.host.job(job).await.unwrap().unwrap().waiting.as_ref() != Some(wanted) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(LONG, poll).await;
    let view = running.host.job(job).await.unwrap().unwrap();
    found.unwrap_or_else(|_| panic!("it is not {wanted:?}: {:?}", view.waiting));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_room_says_so_and_runs_when_there_is_some() {
    let running = small().start(memory()).await;
    let budget = running.host.budget();
    let all = budget.reserve_anyway(MemoryUse::Attempts, budget.most(MemoryUse::Attempts));
    let job = running.enqueue(order("slow", r#"{"do":"echo"}"#)).await;
    until_waiting(&running, job, &JobWaitReason::NoMemory).await;
    drop(all);
    running.finished(job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_what_earlier_attempts_of_the_task_held() {
    let running = small().start(memory()).await;
    running.result(order("slow", r#"{"do":"hold-mib","mib":100}"#)).await;
    let budget = running.host.budget();
    // Room for a sandbox as it begins, and not for one that grows as the last did.
    let most = budget.reserve_anyway(MemoryUse::Attempts, budget.free(MemoryUse::Attempts) - 50 * MIB);
    let job = running.enqueue(order("slow", r#"{"do":"echo"}"#)).await;
    until_waiting(&running, job, &JobWaitReason::NoMemory).await;
    // A task of which nothing is known starts.
    running.result(order("do", r#"{"do":"echo"}"#)).await;
    drop(most);
    running.finished(job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_the_budget_can_never_hold_waits_and_says_so_and_the_others_run() {
    let setup = small().granting("villain", "[tasks]\nslow.memory = '900MiB'\n");
    let running = setup.start(memory()).await;
    let job = running.enqueue(order("slow", r#"{"do":"echo"}"#)).await;
    let most = wharf_core::budget::attempt_memory_max(256 * MIB);
    until_waiting(&running, job, &JobWaitReason::TooLarge { needs: 900 * MIB, most }).await;
    running.result(order("do", r#"{"do":"echo"}"#)).await;
    until_waiting(&running, job, &JobWaitReason::TooLarge { needs: 900 * MIB, most }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_all_wait_for_memory_all_end_and_none_pays_for_it() {
    let running = small().start(memory()).await;
    // One attempt each: one that counted would be the last.
    let jobs: Vec<_> = (0..4).map(|_| order("do", r#"{"do":"hoard-politely"}"#)).collect();
    let mut ids = Vec::new();
    for job in jobs {
        ids.push(running.enqueue(job).await);
    }
    for id in ids {
        let seen = running.finished(id).await;
        assert_eq!(seen.job.status.state.name(), StateName::Succeeded, "{:?}", seen.job.report);
    }
    let released =
        |notice: &Notice| matches!(notice, Notice::AttemptEnded(ended) if ended.kind == OutcomeKind::Interrupted);
    assert!(running.notices().iter().any(released), "four that each want three quarters of all wait for each other");
    until_given_back(&running.host, MemoryUse::Attempts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_without_room_is_skipped_and_says_so() {
    let running = small().start(memory()).await;
    let budget = running.host.budget();
    let broadcast = async |timeout: Duration| {
        let payload = br#"{"do":"echo"}"#.to_vec().into();
        let asked = Broadcast { topic: "villain.all".into(), payload, timeout, mode: Mode::All };
        running.host.broadcast(asked).unwrap().all().await.remove(0).answer
    };
    let of = MemoryUse::Broadcasts { depth: 1 };
    let all = budget.reserve_anyway(of, budget.most(of));
    let answer = broadcast(Duration::from_millis(200)).await;
    assert!(matches!(&answer, Answer::Skipped(why) if why.contains("budget of memory")), "{answer:?}");
    drop(all);
    // Attempts that take all there is leave broadcasts their floor.
    let attempts = budget.reserve_anyway(MemoryUse::Attempts, budget.most(MemoryUse::Attempts));
    let answer = broadcast(LONG).await;
    assert!(matches!(answer, Answer::Replied(_)), "{answer:?}");
    drop(attempts);
    until_given_back(&running.host, of).await;
}
