//! The jobs of a bulk operation: those that met its filter when it began, whatever has changed since.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::audit::ActKind;
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::bulk::{BulkAct, BulkOperation, NewOperation, OperationState};
use wharf_core::find::JobQuery;
use wharf_core::hold::{HoldLength, HoldReason, HoldScope, NewHold};
use wharf_core::ids::JobId;
use wharf_core::job::{Due, NewJob, StateName};
use wharf_core::lifecycle::Event;
use wharf_core::limits::Override;
use wharf_store::{FindPage, FindRequest};

use crate::stage::{COUNT, Kind, LIST, MAKE, SECOND, Stage, at_most, block_on, failed, group, on_every_store};

const HOUR: Duration = Duration::from_secs(3600);

async fn start(stage: &Stage, filter: &str) -> BulkOperation {
    try_start(stage, filter).await.unwrap()
}

async fn try_start(stage: &Stage, filter: &str) -> Option<BulkOperation> {
    let new = NewOperation::at_once(
        stage.id(),
        BulkAct::Cancel,
        JobQuery::parse(filter, stage.store.now()).unwrap(),
        Author::anyone(),
    );
    stage.store.start_operation(new, stage.declared.clone()).await.unwrap()
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
            (vec![others[0]], 1),
            (vec![others[0], delayed], 1),
            (vec![], 0),
            (vec![others[0], delayed], 1),
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

/// Holds are kept when they change: by each way in which one can.
#[test]
fn a_hold_that_changes_stays_in_force_at_the_start() {
    on_every_store(|stage| async move {
        let keys = ["set", "released", "ended", "replaced", "later", "over"];
        let mut jobs_of = Vec::new();
        for key in keys {
            jobs_of.push(stage.add(COUNT, key).await);
        }
        hold(&stage, "key:over", Some(SECOND)).await;
        stage.pass(2 * SECOND);
        hold(&stage, "key:set", None).await;
        hold(&stage, "key:released", None).await;
        hold(&stage, "key:ended", Some(SECOND)).await;
        hold(&stage, "key:replaced", Some(SECOND)).await;
        let [one, two] = [start(&stage, "state:held").await, start(&stage, "state:held").await];
        let ready = start(&stage, "state:ready").await;
        stage.pass(Duration::from_micros(1));
        // Twice, so that the second change does not take the place of what the first one kept.
        for length in [None, Some(HOUR)] {
            hold(&stage, "key:replaced", length).await;
            hold(&stage, "key:later", length).await;
            hold(&stage, "key:over", length).await;
        }
        release(&stage, "key:released").await;
        hold(&stage, "key:released", None).await;
        stage.pass(2 * SECOND);
        assert!(stage.store.delete_ended_holds(9).await.unwrap() >= 1);
        let held = vec![jobs_of[3], jobs_of[2], jobs_of[1], jobs_of[0]];
        assert_eq!(jobs(&stage, &one).await, held);
        assert_eq!(jobs(&stage, &ready).await, [jobs_of[5], jobs_of[4]]);
        stage.store.cancel_operation(one.id, Author::anyone()).await.unwrap().unwrap();
        assert_eq!(jobs(&stage, &two).await, held, "the end of another one takes nothing away");
        assert_eq!(jobs(&stage, &one).await, []);
    });
}

#[test]
fn few_operations_at_once_ask_why_jobs_wait() {
    on_every_store(|stage| async move {
        for _ in 0..bounds::OPERATIONS_OPEN_WITH_HOLDS_MAX {
            start(&stage, "state:held").await;
        }
        assert_eq!(try_start(&stage, "state:ready").await, None);
        assert!(try_start(&stage, "state:delayed").await.is_some(), "it keeps no holds");
        let first = stage.store.open_operations().await.unwrap().remove(0);
        stage.store.cancel_operation(first.id, Author::anyone()).await.unwrap().unwrap();
        assert!(try_start(&stage, "state:ready").await.is_some());
    });
}

/// Of an operation that lost what it began with nobody knows the jobs: none is taken for one that nothing kept waiting.
#[test]
fn an_operation_that_lost_what_it_began_with_takes_no_job() {
    block_on(async {
        let stage = Stage::new(Kind::Sqlite).await;
        stage.add(COUNT, "a").await;
        let operation = start(&stage, "state:ready").await;
        let other = rusqlite::Connection::open(stage.file()).unwrap();
        other.busy_timeout(10 * SECOND).unwrap();
        other.execute("DELETE FROM operation_waits", []).unwrap();
        let new = FindRequest::new(Arc::new(operation.query().unwrap()), Arc::default(), 9);
        let error = stage.store.find(FindRequest { as_of: Some(operation.as_of()), ..new }).await.unwrap_err();
        assert!(error.to_string().contains("cancel it, and start another one"), "{error}");
    });
}

/// A job is cancelled and retried between the moment when a step found it and the moment when it is taken.
#[test]
fn a_job_that_was_retried_since_it_was_found_is_not_changed() {
    on_every_store(|stage| async move {
        let job = stage.add(COUNT, "a").await;
        let operation = start(&stage, "state:waiting").await;
        let step = operation.step_on(&[stage.seen(job).await.job], 0, None);
        stage.pass(SECOND);
        stage.record(job, Event::CancelRequested).await.unwrap();
        stage.record(job, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }).await.unwrap();
        let taken = stage.store.take_operation_step(step).await.unwrap().unwrap();
        assert_eq!((taken.changed.len(), taken.operation.skipped), (0, 1));
        assert_eq!(stage.state(job).await, StateName::Waiting);
    });
}

/// On PostgreSQL the events of one transaction have one moment: none of them lies between what is kept and the jobs.
#[test]
fn a_start_beside_other_writes_keeps_what_the_jobs_tell() {
    block_on(async {
        let stage = Stage::new(Kind::Postgres).await.limit(COUNT, at_most(1, None));
        for _ in 0..20 {
            stage.add(COUNT, "a").await;
            let lease = stage.claim_one().await.lease;
            let released = Event::Released {
                attempt: lease.attempt,
                report: crate::stage::trapped(),
                claimable_in: Duration::ZERO,
                usage: None,
                origin: None,
            };
            let (recorded, operation) = tokio::join!(stage.record(lease.job, released), start(&stage, "state:blocked"));
            recorded.unwrap();
            let blocked = jobs(&stage, &operation).await;
            assert!(!blocked.contains(&lease.job), "its own slot does not block it");
            stage.store.cancel_operation(operation.id, Author::anyone()).await.unwrap().unwrap();
            stage.record(lease.job, Event::CancelRequested).await.unwrap();
        }
    });
}
