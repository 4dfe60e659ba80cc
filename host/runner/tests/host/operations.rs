//! Bulk operations whose steps fail.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wharf_core::author::Author;
use wharf_core::bulk::{BulkAct, BulkOperation, OperationState};
use wharf_core::find::JobQuery;
use wharf_core::ids::JobId;
use wharf_core::job::StateName;
use wharf_runner::{Notice, OperationRequest, Request};
use wharf_store::{Queue as _, Store};

use crate::cut_store::Cut;
use crate::setup::{LONG, Running, Setup, memory, order};

async fn delayed(running: &Running) -> JobId {
    running.enqueue(Request { delay: Some(LONG), ..order("slow", r#"{"do":"echo"}"#) }).await
}

async fn cancel_all(running: &Running, store: &Cut) -> BulkOperation {
    let request = OperationRequest {
        act: BulkAct::Cancel,
        query: JobQuery::parse("plugin:villain", store.now()).unwrap(),
        author: Author::anyone(),
        token: None,
        trial: None,
        spread: Duration::ZERO,
        attempts: None,
        priority: None,
    };
    running.host.start_operation(request).await.unwrap().operation
}

async fn until_ended(running: &Running) -> BulkOperation {
    let is_end = |notice: &Notice| matches!(notice, Notice::OperationEnded { .. });
    running.until_notified("the operation ended", is_end).await;
    let ended = running.notices().into_iter().find_map(|notice| match notice {
        Notice::OperationEnded { operation } => Some(*operation),
        _ => None,
    });
    ended.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_whose_step_always_fails_halts_with_the_error() {
    let cut = Cut::before(memory());
    let running = Setup::new().with(&["villain"]).start(cut.clone() as Arc<dyn Store>).await;
    let job = delayed(&running).await;
    cut.steps_fail.store(true, Ordering::SeqCst);
    let started = cancel_all(&running, &cut).await;
    let ended = until_ended(&running).await;
    assert_eq!((ended.id, ended.state, ended.changed), (started.id, OperationState::Halted, 0));
    let reason = ended.reason.unwrap();
    assert!(reason.contains("5 times") && reason.contains("a row is damaged"), "{reason}");
    assert_eq!(running.host.health().store, Ok(()), "the store works for all else");
    assert!(!running.notices().iter().any(|notice| matches!(notice, Notice::StoreFailed { .. })));
    assert_eq!(running.host.job(job).await.unwrap().unwrap().seen.job.status.state.name(), StateName::Waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_goes_on_when_the_store_is_back() {
    let cut = Cut::before(memory());
    let running = Setup::new().with(&["villain"]).start(cut.clone() as Arc<dyn Store>).await;
    let job = delayed(&running).await;
    cancel_all(&running, &cut).await;
    cut.off.store(true, Ordering::SeqCst);
    running.until_notified("the store failed", |notice| matches!(notice, Notice::StoreFailed { .. })).await;
    cut.off.store(false, Ordering::SeqCst);
    assert_eq!(until_ended(&running).await.state, OperationState::Done);
    assert_eq!(running.finished(job).await.job.status.state.name(), StateName::Cancelled);
}
