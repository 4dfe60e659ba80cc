//! Whether the loop that runs jobs turns, as a watchdog asks.

use std::time::Duration;

use wharf_runner::Enqueued;

use crate::setup::{LONG, Setup, memory, order};

/// Time after which a loop counts as hung. A loop that turns needs far less.
const HUNG: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_loop_that_hangs_does_not_say_that_it_turns() {
    let running = Setup::new().with(&["villain"]).start(memory()).await;
    assert!(running.host.turned().await);
    // The loop tells that it starts the attempt, and waits there. So does the request that enqueues the job, once it is in the store.
    let held = running.hold_notices();
    let host = running.host.clone();
    let enqueued = tokio::spawn(async move { host.enqueue(vec![order("do", r#"{"do":"echo"}"#)]).await });
    let hangs = async { while tokio::time::timeout(HUNG, running.host.turned()).await.is_ok() {} };
    tokio::time::timeout(LONG, hangs).await.expect("the loop hangs");
    assert!(running.host.health().alive, "it has not ended");
    drop(held);
    assert!(tokio::time::timeout(LONG, running.host.turned()).await.expect("it turns again"));
    let Enqueued::Added(job) = enqueued.await.unwrap().unwrap().remove(0) else { panic!("the job was not added") };
    running.finished(job).await;
    running.host.drain(Duration::ZERO).await;
    assert!(!running.host.turned().await, "it has ended");
}
