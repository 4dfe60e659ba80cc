//! Bulk operations: the steps that hosts take.

use std::time::Duration;

use wharf_core::audit::ActKind;
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::bulk::{BulkAct, BulkOperation, NewOperation, OperationState, OperationStep, Trial};
use wharf_core::find::JobQuery;
use wharf_core::ids::JobId;
use wharf_core::job::{Batch, Due, NewJob, State, StateName, WaitReason};
use wharf_core::lifecycle::Event;
use wharf_store::ActFilter;

use crate::stage::{COUNT, SECOND, Stage, failed, on_every_store, succeeded};

fn ann() -> Author {
    Author::token("ann").at_address("10.0.0.1")
}

fn new(stage: &Stage, act: BulkAct, text: &str) -> NewOperation {
    let query = JobQuery::parse(text, stage.store.now()).unwrap();
    NewOperation::at_once(stage.id(), act, query, ann())
}

async fn start(stage: &Stage, act: BulkAct, text: &str) -> BulkOperation {
    stage.store.start_operation(new(stage, act, text), stage.declared.clone()).await.unwrap().unwrap()
}

/// Returns the step that changes these jobs as they are now.
async fn step(stage: &Stage, operation: &BulkOperation, jobs: &[JobId], state: OperationState) -> OperationStep {
    let mut targets = Vec::new();
    for job in jobs {
        targets.push(operation.target(&stage.seen(*job).await.job));
    }
    let cursor = jobs.iter().min().copied();
    OperationStep { operation: operation.id, step: operation.step, targets, left_out: 0, cursor, state, reason: None }
}

async fn failed_jobs(stage: &Stage, count: usize) -> Vec<JobId> {
    let jobs = stage.add_many(COUNT, "a", count).await;
    for leased in stage.claim(count as u32).await {
        stage.record(leased.lease.job, failed(leased.lease.attempt, None)).await.unwrap();
    }
    jobs
}

#[test]
fn a_step_changes_its_jobs_and_moves_the_operation_once() {
    on_every_store(|stage| async move {
        let jobs = failed_jobs(&stage, 3).await;
        let operation = start(&stage, BulkAct::Retry, "state:failed").await;
        assert_eq!(stage.store.open_operations().await.unwrap(), std::slice::from_ref(&operation));
        let first = step(&stage, &operation, &jobs, OperationState::Running).await;
        // One moves on before the step is taken.
        stage.record(jobs[1], Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }).await.unwrap();
        stage.record(jobs[1], Event::CancelRequested).await.unwrap();
        let taken = stage.store.take_operation_step(first.clone()).await.unwrap().unwrap();
        assert_eq!(taken.changed, [jobs[0], jobs[2]]);
        assert_eq!((taken.operation.changed, taken.operation.skipped, taken.operation.step), (2, 1, 1));
        assert_eq!(stage.store.operation(operation.id).await.unwrap(), Some(taken.operation.clone()));
        for (job, state) in [(0, StateName::Waiting), (1, StateName::Cancelled), (2, StateName::Waiting)] {
            assert_eq!(stage.state(jobs[job]).await, state);
        }
        // Another host decided on the same step.
        assert_eq!(stage.store.take_operation_step(first).await.unwrap(), None);
        assert_eq!(stage.claim(10).await.len(), 2);

        let end = step(&stage, &taken.operation, &[], OperationState::Done).await;
        let done = stage.store.take_operation_step(end).await.unwrap().unwrap().operation;
        assert_eq!((done.state, done.ended_at), (OperationState::Done, Some(stage.store.now())));
        assert_eq!(stage.store.open_operations().await.unwrap(), []);
        assert_eq!(stage.store.cancel_operation(done.id, ann()).await.unwrap(), None, "it has ended");
    });
}

#[test]
fn an_operation_that_was_cancelled_takes_no_step() {
    on_every_store(|stage| async move {
        let ann = ann();
        let jobs = failed_jobs(&stage, 1).await;
        let operation = start(&stage, BulkAct::Retry, "state:failed").await;
        let decided = step(&stage, &operation, &jobs, OperationState::Running).await;
        let cancelled = stage.store.cancel_operation(operation.id, ann.clone()).await.unwrap().unwrap();
        assert_eq!(cancelled.state, OperationState::Cancelled);
        assert_eq!(stage.store.take_operation_step(decided).await.unwrap(), None);
        assert_eq!(stage.state(jobs[0]).await, StateName::Failed);
        assert_eq!(stage.store.cancel_operation(stage.id(), ann.clone()).await.unwrap(), None);

        let acts = stage.store.acts(ActFilter { max: 10, ..ActFilter::default() }).await.unwrap().acts;
        let seen: Vec<_> = acts.iter().map(|act| (act.kind, &act.author, act.target.clone())).collect();
        let id = operation.id.to_string();
        let expected = [ActKind::OperationCancelled, ActKind::OperationStarted].map(|kind| (kind, &ann, id.clone()));
        assert_eq!(seen, expected);
        assert_eq!(acts[1].detail, "retry where state:failed");
    });
}

#[test]
fn waiting_and_running_jobs_are_cancelled() {
    on_every_store(|stage| async move {
        let jobs = stage.add_many(COUNT, "a", 2).await;
        assert_eq!(stage.claim_one().await.lease.job, jobs[0]);
        let delayed = NewJob { due: Some(Due::In(SECOND)), ..stage.new_job(COUNT, "a") };
        stage.insert(delayed.clone()).await;
        let operation = start(&stage, BulkAct::Cancel, "key:a").await;
        let all = [jobs[0], jobs[1], delayed.id];
        let taken = step(&stage, &operation, &all, OperationState::Running).await;
        let taken = stage.store.take_operation_step(taken).await.unwrap().unwrap();
        assert_eq!(taken.changed, all);
        assert!(stage.seen(jobs[0]).await.job.status.cancel_requested);
        for job in &all[1..] {
            assert_eq!(stage.state(*job).await, StateName::Cancelled);
        }
    });
}

#[test]
fn a_deleted_job_leaves_nothing_and_its_id_is_never_used_again() {
    on_every_store(|stage| async move {
        let new_job = |token: &str| NewJob {
            token: Some(token.parse().unwrap()),
            payload: vec![7; 5000].into(),
            ..stage.new_job(COUNT, "a")
        };
        let (one, two) = (new_job("one"), new_job("two"));
        stage.store.insert(vec![one.clone(), two.clone()], stage.declared.clone()).await.unwrap();
        stage.claim(2).await;
        let wrote = Event::Wrote { attempt: 1, entries: vec![wharf_core::job::Entry::LogDropped { lines: 1 }] };
        stage.record(one.id, wrote).await.unwrap();
        stage.record(one.id, succeeded(1)).await.unwrap();
        stage.record(two.id, failed(1, None)).await.unwrap();
        assert_eq!(stage.store.attempts(two.id).await.unwrap().len(), 1);
        let fingerprint = stage.seen(two.id).await.job.fingerprint.unwrap();
        let operation = start(&stage, BulkAct::Delete, "key:a").await;
        let targets = step(&stage, &operation, &[two.id, one.id], OperationState::Running).await;
        let taken = stage.store.take_operation_step(targets).await.unwrap().unwrap();
        assert_eq!(taken.changed, [two.id, one.id]);
        for job in [&one, &two] {
            assert_eq!(stage.store.job(job.id, stage.declared.clone()).await.unwrap(), None);
            assert_eq!(stage.store.entries(job.id, 0, 10).await.unwrap(), []);
            assert_eq!(stage.store.attempts(job.id).await.unwrap(), []);
            assert_eq!(stage.store.find_by_tokens(vec![job.unique_token().unwrap()]).await.unwrap(), [None]);
        }
        let group = stage.store.failure_details(fingerprint).await.unwrap().unwrap();
        assert_eq!((group.group.count, group.samples), (1, vec![]), "messages of single jobs go with them");
        assert_eq!(stage.delete_finished(stage.clock_in(60), 10).await.unwrap(), 0);
        assert!(stage.id() > two.id);
        // Its token is free again.
        let again = new_job("one");
        assert_eq!(stage.insert(again.clone()).await, crate::stage::added(again.id));
    });
}

#[test]
fn jobs_run_before_they_are_due() {
    on_every_store(|stage| async move {
        let delayed = NewJob { due: Some(Due::In(60 * SECOND)), ..stage.new_job(COUNT, "a") };
        stage.insert(delayed.clone()).await;
        assert!(matches!(stage.seen(delayed.id).await.why, Some(WaitReason::NotDue { .. })));
        let ready = stage.add(COUNT, "b").await;
        let operation = start(&stage, BulkAct::RunNow, "state:delayed").await;
        let taken = step(&stage, &operation, &[ready, delayed.id], OperationState::Running).await;
        assert_eq!(stage.store.take_operation_step(taken).await.unwrap().unwrap().changed, [ready, delayed.id]);
        let mut leased = crate::stage::ids(&stage.claim(10).await);
        leased.sort();
        let mut both = [ready, delayed.id];
        both.sort();
        assert_eq!(leased, both);
    });
}

#[test]
fn waiting_jobs_get_another_priority() {
    on_every_store(|stage| async move {
        let jobs = stage.add_many(COUNT, "a", 4).await;
        let delayed = NewJob { due: Some(Due::In(SECOND)), ..stage.new_job(COUNT, "a") };
        stage.insert(delayed.clone()).await;
        assert_eq!(stage.claim_one().await.lease.job, jobs[0]);
        let new = NewOperation { priority: 7, ..new(&stage, BulkAct::SetPriority, "key:a") };
        let operation = stage.store.start_operation(new, stage.declared.clone()).await.unwrap().unwrap();
        let raised = step(&stage, &operation, &[jobs[0], jobs[3], delayed.id], OperationState::Running).await;
        let taken = stage.store.take_operation_step(raised).await.unwrap().unwrap();
        assert_eq!((taken.changed, taken.operation.skipped), (vec![jobs[3], delayed.id], 1), "one runs");
        for (job, priority) in [(jobs[0], 0), (jobs[2], 0), (jobs[3], 7), (delayed.id, 7)] {
            assert_eq!(stage.seen(job).await.job.priority, priority);
        }
        assert_eq!(stage.claim_one().await.lease.job, jobs[3]);
        stage.pass(SECOND);
        assert_eq!(crate::stage::ids(&stage.claim(10).await), [delayed.id, jobs[1], jobs[2]]);
    });
}

#[test]
fn a_lower_priority_lets_other_lanes_go_first() {
    on_every_store(|stage| async move {
        let (low, other) = (stage.add(COUNT, "a").await, stage.add(COUNT, "b").await);
        stage.record(low, Event::PriorityChanged { priority: -1 }).await.unwrap();
        assert_eq!(stage.claim_one().await.lease.job, other);
        assert_eq!(stage.claim_one().await.lease.job, low);
    });
}

#[test]
fn only_finished_jobs_are_deleted() {
    on_every_store(|stage| async move {
        let (running, waiting) = (stage.add(COUNT, "a").await, stage.add(COUNT, "b").await);
        assert_eq!(stage.claim_one().await.lease.job, running);
        let operation = start(&stage, BulkAct::Delete, "plugin:words").await;
        let targets = step(&stage, &operation, &[waiting, running], OperationState::Done).await;
        let taken = stage.store.take_operation_step(targets).await.unwrap().unwrap();
        assert_eq!((taken.changed, taken.operation.skipped), (vec![], 2));
        assert_eq!(stage.state(running).await, StateName::Running);
        assert_eq!(stage.claim_one().await.lease.job, waiting);
    });
}

#[test]
fn a_durable_broadcast_counts_its_deleted_jobs() {
    on_every_store(|stage| async move {
        let batch = Batch { id: stage.id(), topic: "saved".parse().unwrap() };
        let mut jobs = Vec::new();
        for key in ["a", "b", "c"] {
            let job = NewJob { batch: Some(batch.clone()), ..stage.new_job(COUNT, key) };
            stage.insert(job.clone()).await;
            jobs.push(job.id);
        }
        let other = stage.add(COUNT, "d").await;
        for leased in stage.claim(4).await {
            stage.succeed(&leased).await.unwrap();
        }
        let deleted = async || stage.store.deleted_of_batch(batch.id).await.unwrap();
        assert_eq!(deleted().await, 0);
        let operation = start(&stage, BulkAct::Delete, "key:a,d").await;
        let targets = step(&stage, &operation, &[jobs[0], other], OperationState::Done).await;
        assert_eq!(stage.store.take_operation_step(targets).await.unwrap().unwrap().changed.len(), 2);
        assert_eq!(deleted().await, 1);
        assert_eq!(stage.delete_finished(stage.clock_in(60), 1).await.unwrap(), 1);
        assert_eq!(deleted().await, 2);
        assert_eq!(stage.delete_finished(stage.clock_in(60), 9).await.unwrap(), 1);
        assert_eq!(deleted().await, 0, "no job of it remains, and nothing is known of it");
    });
}

/// Deletion by an operator and deletion by age go through the same jobs in opposite orders: neither waits for the other in a
/// circle, and each job counts once.
#[test]
fn an_operator_deletes_what_is_deleted_by_age_at_the_same_time() {
    on_every_store(|stage| async move {
        for _ in 0..4 {
            let jobs = stage.add_many(COUNT, "a", 300).await;
            while let leased @ [_, ..] = &stage.claim(100).await[..] {
                for leased in leased {
                    stage.succeed(leased).await.unwrap();
                }
            }
            stage.pass(SECOND);
            let mut operation = start(&stage, BulkAct::Delete, "key:a").await;
            let mut steps = Vec::new();
            for chunk in jobs.rchunks(50) {
                let chunk: Vec<JobId> = chunk.iter().rev().copied().collect();
                steps.push(step(&stage, &operation, &chunk, OperationState::Running).await);
                operation.step += 1;
            }
            let before = stage.clock_in(60);
            let by_age = async {
                let mut deleted = 0;
                for _ in 0..20 {
                    deleted += stage.delete_finished(before, 37).await.unwrap();
                }
                deleted
            };
            let by_operator = async {
                let mut changed = 0;
                for step in steps {
                    changed += stage.store.take_operation_step(step).await.unwrap().unwrap().changed.len() as u32;
                }
                changed
            };
            let (by_age, by_operator) = futures_util::future::join(by_age, by_operator).await;
            assert_eq!(by_age + by_operator, 300, "{by_age} by age, {by_operator} by the operator");
            assert_eq!(
                stage.store.cancel_operation(operation.id, ann()).await.unwrap().unwrap().changed,
                by_operator.into()
            );
        }
    });
}

#[test]
fn a_retried_job_waits_for_its_part_of_the_spread() {
    on_every_store(|stage| async move {
        let jobs = failed_jobs(&stage, 4).await;
        let new = NewOperation { spread: 1000 * SECOND, ..new(&stage, BulkAct::Retry, "state:failed") };
        let operation = stage.store.start_operation(new, stage.declared.clone()).await.unwrap().unwrap();
        let targets = step(&stage, &operation, &jobs, OperationState::Running).await;
        let delays: Vec<Duration> = targets.targets.iter().map(|target| target.delay).collect();
        stage.store.take_operation_step(targets).await.unwrap().unwrap();
        for (job, delay) in jobs.iter().zip(delays) {
            let due = stage.store.now() + delay;
            assert_eq!(stage.seen(*job).await.job.status.state, State::Waiting { due });
        }
        assert_eq!(stage.claim(10).await.len(), 0);
        stage.pass(1000 * SECOND);
        assert_eq!(stage.claim(10).await.len(), 4);
    });
}

#[test]
fn operations_are_listed_bounded_and_deleted() {
    on_every_store(|stage| async move {
        let trial = Some(Trial { jobs: 5, within: 600 * SECOND });
        let hostile = new(&stage, BulkAct::Retry, r#"text:"'; DROP TABLE jobs; \" é""#);
        let new_trial = NewOperation { trial, spread: 7 * SECOND, ..hostile };
        let first = stage.store.start_operation(new_trial, stage.declared.clone()).await.unwrap().unwrap();
        assert_eq!((first.state, first.trial), (OperationState::Trying, trial));
        assert_eq!(stage.store.operation(first.id).await.unwrap(), Some(first.clone()));
        for number in 1..bounds::OPERATIONS_OPEN_MAX {
            start(&stage, BulkAct::Cancel, &format!("key:a{number}")).await;
        }
        let more = new(&stage, BulkAct::Cancel, "key:a");
        assert_eq!(stage.store.start_operation(more.clone(), stage.declared.clone()).await.unwrap(), None);
        let all = stage.store.operations(None, 1000).await.unwrap();
        assert_eq!(all.len(), bounds::OPERATIONS_OPEN_MAX as usize);
        assert!(all.is_sorted_by(|one, other| one.id > other.id));
        let page = stage.store.operations(Some(all[1].id), 2).await.unwrap();
        assert_eq!(page, all[2..4]);

        stage.store.cancel_operation(first.id, ann()).await.unwrap().unwrap();
        assert!(stage.store.start_operation(more, stage.declared.clone()).await.unwrap().is_some());
        assert_eq!(stage.store.delete_ended_operations(stage.store.now(), 10).await.unwrap(), 0);
        assert_eq!(stage.store.delete_ended_operations(stage.clock_in(1), 10).await.unwrap(), 1);
        assert_eq!(stage.store.operation(first.id).await.unwrap(), None);
    });
}

#[test]
fn an_operation_that_has_ended_is_an_act_with_its_count() {
    on_every_store(|stage| async move {
        let jobs = failed_jobs(&stage, 3).await;
        let operation = start(&stage, BulkAct::Delete, "state:failed").await;
        let first = step(&stage, &operation, &jobs[1..], OperationState::Running).await;
        let open = stage.store.take_operation_step(first).await.unwrap().unwrap().operation;
        let mut last = step(&stage, &open, &jobs[..1], OperationState::Done).await;
        last.left_out = 4;
        let done = stage.store.take_operation_step(last).await.unwrap().unwrap().operation;
        assert_eq!((done.changed, done.skipped), (3, 4));
        let acts = stage.store.acts(ActFilter { max: 10, ..ActFilter::default() }).await.unwrap().acts;
        let seen: Vec<_> = acts.iter().map(|act| (act.kind, act.count, act.author.name())).collect();
        assert_eq!(seen, [(ActKind::OperationEnded, 3, Some("ann")), (ActKind::OperationStarted, 0, Some("ann"))]);
        assert_eq!(acts[0].detail, "done, 4 skipped: delete where state:failed");
    });
}

#[test]
fn a_start_with_a_token_that_is_sent_twice_begins_one_operation() {
    on_every_store(|stage| async move {
        let with = |token: &str, author: Author, act: BulkAct| NewOperation {
            token: Some(token.parse().unwrap()),
            author,
            ..new(&stage, act, "state:failed")
        };
        let start_it =
            async |new: NewOperation| stage.store.start_operation(new, stage.declared.clone()).await.unwrap().unwrap();
        let first = start_it(with("nightly \u{0} é", ann(), BulkAct::Retry)).await;
        assert_eq!(first.token, Some("nightly \u{0} é".parse().unwrap()));
        assert_eq!(stage.store.operation(first.id).await.unwrap(), Some(first.clone()));
        stage.pass(SECOND);
        assert_eq!(start_it(with("nightly \u{0} é", ann(), BulkAct::Retry)).await, first);
        assert_eq!(start_it(with("nightly \u{0} é", ann(), BulkAct::Delete)).await, first, "the token decides");
        let bob = start_it(with("nightly \u{0} é", Author::token("bob"), BulkAct::Retry)).await;
        let nobody = start_it(with("nightly \u{0} é", Author::anyone(), BulkAct::Retry)).await;
        assert!(
            bob.id != first.id && nobody.id != first.id && nobody.id != bob.id,
            "each author has tokens of their own"
        );
        assert_eq!(start_it(with("nightly \u{0} é", Author::anyone(), BulkAct::Retry)).await, nobody);
        let acts = stage.store.acts(ActFilter { max: 10, ..ActFilter::default() }).await.unwrap().acts;
        assert_eq!(acts.len(), 3, "a start that was known was none");
        // Without a token each start is meant.
        let meant = [start(&stage, BulkAct::Retry, "key:a").await, start(&stage, BulkAct::Retry, "key:a").await];
        assert_ne!(meant[0].id, meant[1].id);
        // The token counts for as long as the operation is kept.
        let cancelled = stage.store.cancel_operation(first.id, ann()).await.unwrap().unwrap();
        assert_eq!(start_it(with("nightly \u{0} é", ann(), BulkAct::Retry)).await, cancelled);
        stage.pass(SECOND);
        assert_eq!(stage.store.delete_ended_operations(stage.store.now(), 10).await.unwrap(), 1);
        assert_ne!(start_it(with("nightly \u{0} é", ann(), BulkAct::Retry)).await.id, first.id);
    });
}

#[test]
fn an_operation_says_what_it_waits_for_until_it_goes_on() {
    on_every_store(|stage| async move {
        let jobs = failed_jobs(&stage, 1).await;
        let operation = start(&stage, BulkAct::Retry, "state:failed").await;
        let waits = operation.step_to(operation.state, Some("it waits".to_owned()));
        let waiting = stage.store.take_operation_step(waits).await.unwrap().unwrap().operation;
        assert_eq!((waiting.state, waiting.reason.as_deref()), (OperationState::Running, Some("it waits")));
        assert_eq!(stage.store.open_operations().await.unwrap(), std::slice::from_ref(&waiting));
        let next = step(&stage, &waiting, &jobs, OperationState::Running).await;
        let taken = stage.store.take_operation_step(next).await.unwrap().unwrap();
        assert_eq!((taken.operation.reason, taken.changed), (None, jobs));
    });
}
