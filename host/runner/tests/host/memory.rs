//! The budget of memory: what was reserved for bytes stays so until the store has them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use wharf_core::budget::MemoryUse;
use wharf_runner::{EnqueueError, Host, NoRoom, Notice, Request};
use wharf_store::StoreError;

use crate::setup::{LONG, Setup, memory, order};
use crate::store_failures::Cut;

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
