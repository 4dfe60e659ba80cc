//! Enqueueing: tokens, delays, and what happens when a lane is full.

use wharf_core::job::{Batch, Due, NewJob, StateName, Token};
use wharf_core::lifecycle::Event;
use wharf_core::limits::OnConflict;
use wharf_core::outcome::OutcomeKind;
use wharf_store::Inserted;

use crate::stage::{COUNT, LIST, SECOND, at_most, ids, on_every_store, usage};

#[test]
fn a_job_is_stored_unchanged() {
    on_every_store(|stage| async move {
        let token: Token = "order-66".parse().unwrap();
        let due = stage.clock_in(5);
        let batch = Batch { id: stage.id(), topic: "document.saved".parse().unwrap() };
        let new = NewJob {
            priority: -3,
            due: Some(Due::At(due)),
            token: Some(token.clone()),
            batch: Some(batch.clone()),
            ..stage.new_job(COUNT, "acme")
        };
        stage.insert(new.clone()).await;
        let job = stage.seen(new.id).await.job;
        assert_eq!((job.id, &job.task, &job.lane, &job.payload), (new.id, &new.task, &new.lane, &new.payload));
        assert_eq!((job.priority, job.token, job.enqueued_at), (-3, Some(token), stage.store.now()));
        assert_eq!(job.batch, Some(batch.clone()));
        assert_eq!((job.status.attempt, job.started_at, job.finished_at, job.result), (0, None, None, None));
        stage.pass(5 * SECOND);
        assert_eq!(stage.claim_one().await.batch, Some(batch));
    });
}

#[test]
fn a_payload_may_be_empty_or_large() {
    on_every_store(|stage| async move {
        let large: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        for payload in [Vec::new(), large] {
            let new = NewJob { payload: payload.clone().into(), ..stage.new_job(COUNT, "") };
            stage.insert(new.clone()).await;
            assert_eq!(*stage.seen(new.id).await.job.payload, *payload);
            assert_eq!(*stage.claim_one().await.payload, *payload);
        }
    });
}

#[test]
fn a_known_token_returns_the_existing_job() {
    on_every_store(|stage| async move {
        let with_token = |task: &str| NewJob { token: Some("t".parse().unwrap()), ..stage.new_job(task, "") };
        let (first, second, other_task) = (with_token(COUNT), with_token(COUNT), with_token(LIST));
        let id = first.id;
        let answers =
            stage.store.insert(vec![first, second, other_task.clone()], stage.declared.clone()).await.unwrap();
        assert_eq!(answers[1], Inserted::Duplicate { id });
        assert_eq!(answers[2], crate::stage::added(other_task.id));
        // Also after the job has finished, until it is deleted.
        let leased = stage.claim_one().await;
        stage.succeed(&leased).await.unwrap();
        assert_eq!(stage.insert(with_token(COUNT)).await, Inserted::Duplicate { id });
        stage.pass(SECOND);
        stage.delete_finished(stage.store.now(), 10).await.unwrap();
        assert!(matches!(stage.insert(with_token(COUNT)).await, Inserted::Added { .. }));
    });
}

#[test]
fn a_token_of_one_key_is_not_that_of_another() {
    on_every_store(|stage| async move {
        let with_token = |key: &str| NewJob { token: Some("t".parse().unwrap()), ..stage.new_job(COUNT, key) };
        let jobs: Vec<NewJob> = ["", "a", "b"].map(with_token).to_vec();
        let declared = || stage.declared.clone();
        let first = stage.store.insert(jobs.clone(), declared()).await.unwrap();
        assert!(first.iter().all(|one| matches!(one, Inserted::Added { .. })), "{first:?}");
        let again = stage.store.insert(["b", "", "a"].map(with_token).to_vec(), declared()).await.unwrap();
        let ids = [2, 0, 1].map(|index: usize| Inserted::Duplicate { id: jobs[index].id });
        assert_eq!(again, ids);
        let of = jobs.iter().map(|job| job.unique_token().unwrap()).collect();
        let found = stage.store.find_by_tokens(of).await.unwrap();
        assert!(found.iter().eq(jobs.iter().map(|job| Some(job.id)).collect::<Vec<_>>().iter()));
    });
}

#[test]
fn a_job_without_a_token_is_never_a_duplicate_whatever_its_id() {
    on_every_store(|stage| async move {
        let first = stage.new_job(COUNT, "");
        stage.insert(first.clone()).await;
        let mut ids = vec![first.id];
        let rules = [OnConflict::Wait, OnConflict::Discard, OnConflict::ReplaceWaiting, OnConflict::CancelRunning];
        for on_conflict in rules {
            let same = || NewJob { id: first.id, on_conflict, payload: b"other".as_slice().into(), ..first.clone() };
            // Also twice in one request.
            for answer in stage.store.insert(vec![same(), same()], stage.declared.clone()).await.unwrap() {
                let Inserted::Added { id, .. } = answer else { panic!("{answer:?}") };
                assert_eq!(*stage.seen(id).await.job.payload, *b"other");
                ids.push(id);
            }
        }
        // A job with a token that no other job has is no duplicate either.
        let token = NewJob { token: Some("new".parse().unwrap()), ..first.clone() };
        let Inserted::Added { id, .. } = stage.insert(token.clone()).await else { panic!("its token is new") };
        assert_eq!(stage.insert(token).await, Inserted::Duplicate { id });
        ids.push(id);
        assert_eq!(*stage.seen(first.id).await.job.payload, *b"payload");
        let leased = stage.claim(100).await;
        assert_eq!(crate::stage::ids(&leased), ids, "each exists once");

        let child = NewJob { payload: b"child".as_slice().into(), ..first.clone() };
        let children = vec![child.clone(), child];
        let succeeded = Event::Succeeded { attempt: 1, output: [].into(), children, changes: None, usage: usage() };
        let recorded = stage.record(first.id, succeeded).await.unwrap();
        for answer in recorded.children {
            let Inserted::Added { id, .. } = answer else { panic!("{answer:?}") };
            assert!(!ids.contains(&id) && *stage.seen(id).await.job.payload == *b"child");
            ids.push(id);
        }
        assert_eq!(stage.state(first.id).await, StateName::Succeeded);
    });
}

#[test]
fn a_full_lane_discards_jobs_of_tasks_that_discard() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(2, None));
        let discarding = || NewJob { on_conflict: OnConflict::Discard, ..stage.new_job(COUNT, "acme") };
        let running = stage.add(COUNT, "acme").await;
        stage.claim_one().await;
        // A running job has one slot; the next job takes the other one, although it only waits.
        let Inserted::Added { id: waiting, .. } = stage.insert(discarding()).await else { panic!("a slot was free") };
        assert_eq!(stage.insert(discarding()).await, Inserted::Discarded { holders: vec![running, waiting] });
        // Another key is another lane.
        let elsewhere = NewJob { on_conflict: OnConflict::Discard, ..stage.new_job(COUNT, "other") };
        assert!(matches!(stage.insert(elsewhere).await, Inserted::Added { .. }));
    });
}

#[test]
fn discarding_counts_delayed_jobs() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, None));
        let delayed = NewJob { due: Some(Due::At(stage.clock_in(60))), ..stage.new_job(COUNT, "acme") };
        stage.insert(delayed.clone()).await;
        let new = NewJob { on_conflict: OnConflict::Discard, ..stage.new_job(COUNT, "acme") };
        assert_eq!(stage.insert(new).await, Inserted::Discarded { holders: vec![delayed.id] });
    });
}

#[test]
fn a_new_job_replaces_the_waiting_ones() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, None));
        let running = stage.add(COUNT, "acme").await;
        stage.claim_one().await;
        let waiting = stage.add(COUNT, "acme").await;
        let delayed = NewJob { due: Some(Due::At(stage.clock_in(60))), ..stage.new_job(COUNT, "acme") };
        stage.insert(delayed.clone()).await;
        let new = NewJob { on_conflict: OnConflict::ReplaceWaiting, ..stage.new_job(COUNT, "acme") };
        let replaced = vec![waiting, delayed.id];
        assert_eq!(stage.insert(new.clone()).await, Inserted::Added { id: new.id, replaced, cancel_requested: vec![] });
        assert_eq!(stage.state(running).await, StateName::Running);
        let gone = stage.seen(waiting).await.job;
        assert_eq!(gone.status.state.name(), StateName::Cancelled);
        assert_eq!(gone.report.unwrap().kind, OutcomeKind::Cancelled);
        assert_eq!(gone.finished_at, Some(stage.store.now()));
    });
}

#[test]
fn a_new_job_cancels_as_many_running_ones_as_it_needs() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(2, None));
        let running = stage.add_many(COUNT, "acme", 2).await;
        assert_eq!(ids(&stage.claim(5).await), running);
        let pushing = || NewJob { on_conflict: OnConflict::CancelRunning, ..stage.new_job(COUNT, "acme") };
        let first = pushing();
        let asked = vec![running[0]];
        let answer = stage.insert(first.clone()).await;
        assert_eq!(answer, Inserted::Added { id: first.id, replaced: vec![], cancel_requested: asked });
        assert!(stage.seen(running[0]).await.job.status.cancel_requested);
        assert_eq!(stage.seen(running[0]).await.job.report, None, "it has not ended yet");
        // The next job replaces the waiting one, and needs no other job to end.
        let second = pushing();
        let answer = stage.insert(second.clone()).await;
        assert_eq!(answer, Inserted::Added { id: second.id, replaced: vec![first.id], cancel_requested: vec![] });
    });
}

#[test]
fn there_is_no_conflict_without_a_limit() {
    on_every_store(|stage| async move {
        for rule in [OnConflict::Discard, OnConflict::ReplaceWaiting, OnConflict::CancelRunning] {
            let new = NewJob { on_conflict: rule, ..stage.new_job(COUNT, "acme") };
            assert_eq!(stage.insert(new.clone()).await, crate::stage::added(new.id));
        }
    });
}

#[test]
fn ids_grow_and_are_never_used_twice() {
    on_every_store(|stage| async move {
        let first = stage.id();
        stage.pass(SECOND);
        let second = stage.id();
        assert!(first < second && second < stage.id());
    });
}
