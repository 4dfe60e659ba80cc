//! The jobs of a bulk operation: those that met its filter when it began, whatever has changed since.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::audit::ActKind;
use wharf_core::author::Author;
use wharf_core::bulk::{BulkAct, BulkOperation, NewOperation, OperationState};
use wharf_core::find::JobQuery;
use wharf_core::hold::{HoldLength, HoldReason, HoldScope, NewHold};
use wharf_core::ids::JobId;
use wharf_core::job::{Due, NewJob};
use wharf_core::lifecycle::Event;
use wharf_core::limits::Override;
use wharf_store::{FindPage, FindRequest};

use crate::stage::{COUNT, Kind, LIST, MAKE, SECOND, Stage, at_most, block_on, failed, group, on_every_store};

const HOUR: Duration = Duration::from_secs(3600);

async fn start(stage: &Stage, filter: &str) -> BulkOperation {
    let new = NewOperation {
        id: stage.id(),
        act: BulkAct::Cancel,
        query: JobQuery::parse(filter, stage.store.now()).unwrap(),
        author: Author::anyone(),
        token: None,
        trial: None,
        spread: Duration::ZERO,
        attempts: 1,
        priority: 0,
    };
    stage.store.start_operation(new, stage.declared.clone()).await.unwrap().unwrap()
}

/// Returns the jobs that an operation is about by now, a page of at most `max` at a time, and how many of those that it came upon have
/// moved on.
async fn pages(stage: &Stage, operation: &BulkOperation, max: u32) -> (Vec<JobId>, u64) {
    let (mut jobs, mut moved_on, mut after) = (Vec::new(), 0, None);
    loop {
        let new = FindRequest::new(Arc::new(operation.query().unwrap()), Arc::default(), max);
        let find = FindRequest { as_of: Some(operation.as_of()), after, time: Duration::MAX, ..new };
        let page: FindPage = stage.store.find(find).await.unwrap();
        jobs.extend(page.jobs.iter().map(|job| job.id));
        moved_on += page.moved_on;
        after = page.next;
        if after.is_none() {
            return (jobs, moved_on);
        }
    }
}

async fn jobs(stage: &Stage, operation: &BulkOperation) -> Vec<JobId> {
    let (jobs, moved_on) = pages(stage, operation, 1000).await;
    assert_eq!(pages(stage, operation, 1).await, (jobs.clone(), moved_on), "{}", operation.filter);
    jobs
}

async fn hold(stage: &Stage, scope: &str, length: Option<Duration>) {
    let length = length.map(HoldLength::For);
    let hold = NewHold { scope: scope.parse().unwrap(), length, reason: HoldReason::default(), by: Author::anyone() };
    stage.store.set_hold(hold).await.unwrap();
}

async fn release(stage: &Stage, scope: &str) {
    let scope: HoldScope = scope.parse().unwrap();
    stage.store.release_hold(scope, Author::anyone()).await.unwrap().unwrap();
}

#[test]
fn holds_limits_and_running_jobs_of_the_start_decide_why_jobs_waited() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, None));
        let paused = Override { group: group(MAKE), key: None, limits: at_most(0, None) };
        stage.store.set_override(paused.clone(), Author::anyone()).await.unwrap();
        // Of key a one runs and one is blocked; those of b and c would be ready.
        let a = stage.add_many(COUNT, "a", 2).await;
        assert_eq!(stage.claim_one().await.lease.job, a[0]);
        let (b, c) = (stage.add(COUNT, "b").await, stage.add(COUNT, "c").await);
        let (make, list) = (stage.add(MAKE, "").await, stage.add(LIST, "x").await);
        hold(&stage, "key:b", None).await;
        hold(&stage, "task:words/list", Some(SECOND)).await;
        hold(&stage, "all", Some(SECOND)).await;
        release(&stage, "all").await;

        let mut started = Vec::new();
        for filter in ["state:held", "state:blocked", "state:ready", "state:ready,held,blocked,running"] {
            started.push(start(&stage, filter).await);
        }
        let check = async |changes: &str| {
            let expected = [vec![list, b], vec![make, a[1]], vec![c], vec![list, make, c, b, a[1], a[0]]];
            for (operation, expected) in started.iter().zip(expected) {
                assert_eq!(jobs(&stage, operation).await, expected, "{} {changes}", operation.filter);
            }
        };
        check("at once").await;
        stage.pass(2 * SECOND);
        check("after one hold has ended").await;
        release(&stage, "key:b").await;
        hold(&stage, "key:c", None).await;
        hold(&stage, "group:thumbnail/make", None).await;
        let open = Override { limits: at_most(None, None), ..paused };
        stage.store.set_override(open, Author::anyone()).await.unwrap();
        check("after holds and limits have changed").await;
        stage.add_many(COUNT, "c", 2).await;
        check("after others have come").await;

        // The lane of key a opens, and its next job starts: neither is as it was.
        stage.record(a[0], failed(1, None)).await.unwrap();
        assert_eq!(stage.claim(9).await.len(), 3, "of a, of b and the one of the task that was held");
        for (operation, expected) in started.iter().zip([vec![], vec![make], vec![c], vec![make, c]]) {
            assert_eq!(jobs(&stage, operation).await, expected, "{} after some have moved on", operation.filter);
        }
    });
}

#[test]
fn a_job_that_comes_to_meet_the_filter_is_not_taken() {
    on_every_store(|stage| async move {
        let later = NewJob { due: Some(Due::In(10 * SECOND)), ..stage.new_job(COUNT, "a") };
        let delayed = later.id;
        stage.insert(later).await;
        let others = stage.add_many(COUNT, "b", 4).await;
        let claimed = stage.claim(4).await;
        assert_eq!(claimed.len(), 4);
        stage.record(others[0], failed(1, Some(10 * SECOND))).await.unwrap();
        stage.record(others[1], failed(1, None)).await.unwrap();
        let mut started = Vec::new();
        for filter in ["state:retrying", "state:delayed,retrying", "state:running", "state:waiting", "text:unreachable"]
        {
            started.push(start(&stage, filter).await);
        }
        let all = start(&stage, "state:waiting,running").await;
        stage.pass(SECOND);
        // One that ran comes back, one that had ended is retried, and one is released.
        stage.record(others[2], failed(1, Some(10 * SECOND))).await.unwrap();
        stage.record(others[1], Event::RetryRequested { delay: 10 * SECOND, attempts: 1 }).await.unwrap();
        let report = crate::stage::trapped();
        let released = Event::Released { attempt: 1, report, claimable_in: HOUR, usage: None, origin: None };
        stage.record(others[3], released).await.unwrap();
        let expected = [
            (vec![others[0]], 3),
            (vec![others[0], delayed], 3),
            (vec![], 0),
            (vec![others[0], delayed], 3),
            (vec![others[0]], 3),
        ];
        for (operation, expected) in started.iter().zip(&expected) {
            assert_eq!(pages(&stage, operation, 1000).await, *expected, "{}", operation.filter);
            assert_eq!(pages(&stage, operation, 1).await, *expected, "{}, one at a time", operation.filter);
        }
        let unfinished = (vec![others[3], others[2], others[0], delayed], 1);
        assert_eq!(pages(&stage, &all, 1000).await, unfinished, "an unfinished job stays one");

        // All become due: those that waited then are taken, though they are ready by now.
        stage.pass(HOUR);
        for (operation, expected) in started.iter().zip(&expected) {
            assert_eq!(pages(&stage, operation, 1000).await, *expected, "{} when all are due", operation.filter);
        }
        assert_eq!(stage.claim(1).await.len(), 1);
        let (left, _) = pages(&stage, &started[1], 1000).await;
        assert_eq!(left.len(), 1, "one that started has moved on");
    });
}

#[test]
fn a_job_says_when_it_came_back_to_wait_and_when_it_was_retried() {
    on_every_store(|stage| async move {
        let job = stage.add(COUNT, "a").await;
        let moments = async || {
            let job = stage.seen(job).await.job;
            (job.requeued_at, job.retried_at)
        };
        stage.claim_one().await;
        assert_eq!(moments().await, (None, None));
        stage.pass(SECOND);
        let failed_at = stage.store.now();
        stage.record(job, failed(1, Some(Duration::ZERO))).await.unwrap();
        assert_eq!(moments().await, (Some(failed_at), None));
        stage.pass(SECOND);
        stage.claim_one().await;
        stage.record(job, failed(2, None)).await.unwrap();
        assert_eq!(moments().await, (Some(failed_at), None), "a final end keeps it");
        stage.pass(SECOND);
        let retried_at = stage.store.now();
        stage.record(job, Event::RetryRequested { delay: Duration::ZERO, attempts: 2 }).await.unwrap();
        assert_eq!(moments().await, (Some(retried_at), Some(retried_at)));
        stage.pass(SECOND);
        let lease = stage.claim_one().await.lease;
        stage.pass(2 * crate::stage::LEASE);
        let expired_at = stage.store.now();
        assert_eq!(stage.store.reclaim(9).await.unwrap(), [lease.job]);
        assert_eq!(moments().await, (Some(expired_at), Some(retried_at)));

        // A job that is cancelled before it ever ran can be retried, too.
        let other = stage.add(LIST, "b").await;
        stage.record(other, Event::CancelRequested).await.unwrap();
        stage.record(other, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }).await.unwrap();
        let seen = stage.seen(other).await.job;
        assert_eq!((seen.requeued_at, seen.retried_at), (Some(expired_at), Some(expired_at)));
    });
}

#[test]
fn what_an_operation_began_with_is_forgotten_when_it_ends() {
    on_every_store(|stage| async move {
        let held = stage.add(COUNT, "a").await;
        hold(&stage, "key:a", None).await;
        let [one, two] = [start(&stage, "state:held").await, start(&stage, "state:held").await];
        release(&stage, "key:a").await;
        assert_eq!(jobs(&stage, &one).await, [held]);
        stage.store.take_operation_step(one.step_to(OperationState::Done, None)).await.unwrap().unwrap();
        stage.store.cancel_operation(two.id, Author::anyone()).await.unwrap().unwrap();
        for operation in [one, two] {
            assert_eq!(jobs(&stage, &operation).await, [], "nothing tells that its job was held");
        }
        let acts = stage.store.acts(wharf_store::ActFilter { max: 9, ..Default::default() }).await.unwrap().acts;
        assert!(acts.iter().any(|act| act.kind == ActKind::OperationCancelled));
    });
}

/// A host that opens the store later goes on with the jobs of the start.
#[test]
fn another_host_knows_the_jobs_of_the_start() {
    block_on(async {
        let stage = Stage::new(Kind::Sqlite).await;
        let held = stage.add(COUNT, "a").await;
        hold(&stage, "plugin:words", None).await;
        let operation = start(&stage, "state:held").await;
        release(&stage, "plugin:words").await;
        let Stage { store, clock, declared, tasks, folder } = stage;
        drop(store);
        let store = wharf_store::SqliteStore::open(folder.path().join("wharf.db"), clock.clone()).unwrap();
        let stage = Stage { store: Arc::new(store), clock, declared, tasks, folder };
        assert_eq!(jobs(&stage, &operation).await, [held]);
    });
}
