//! Recording: the events of jobs, from attempts and from operators.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::bounds;
use wharf_core::job::{Due, Entry, NewJob, State, StateName, Stream, UniqueToken};
use wharf_core::lease::Lease;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::OnConflict;
use wharf_core::outcome::OutcomeKind;
use wharf_core::shared_bytes::SharedBytes;
use wharf_store::Inserted;

use crate::stage::{
    COUNT, LEASE, LIST, SECOND, added, at_most, failed, ids, on_every_store, succeeded, task, trapped, usage,
};

#[test]
fn a_result_is_stored_with_its_usage() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        let leased = stage.claim_one().await;
        stage.pass(SECOND);
        let recorded = stage.succeed(&leased).await.unwrap();
        assert_eq!((recorded.state, recorded.cancel_requested), (StateName::Succeeded, false));
        let job = stage.seen(id).await.job;
        assert_eq!((job.result.as_deref(), job.usage), (Some(b"result".as_slice()), Some(usage())));
        assert_eq!((job.finished_at, job.report), (Some(stage.store.now()), None));
    });
}

#[test]
fn an_empty_result_is_a_result() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        stage.claim_one().await;
        let event = Event::Succeeded { attempt: 1, output: [].into(), children: vec![], changes: None, usage: usage() };
        stage.record(id, event).await.unwrap();
        assert_eq!(stage.seen(id).await.job.result.as_deref(), Some(b"".as_slice()));
    });
}

#[test]
fn a_failure_is_retried_after_its_delay() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        stage.claim_one().await;
        let retry_at = stage.clock_in(10);
        stage.record(id, failed(1, Some(10 * SECOND))).await.unwrap();
        let job = stage.seen(id).await.job;
        assert_eq!((job.status.failures.failed(), job.report), (1, Some(trapped())));
        assert_eq!(stage.claim_whole(1).await.wake_at, Some(retry_at));
        stage.pass(10 * SECOND);
        let again = stage.claim_one().await;
        assert_eq!((again.lease.attempt, again.failures.failed()), (2, 1));
        stage.record(id, failed(2, None)).await.unwrap();
        assert_eq!(stage.state(id).await, StateName::Failed);
    });
}

#[test]
fn a_released_job_costs_no_attempt_and_does_not_spin() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        stage.claim_one().await;
        stage
            .record(
                id,
                Event::Released { attempt: 1, report: trapped(), claimable_in: SECOND, usage: None, origin: None },
            )
            .await
            .unwrap();
        assert!(stage.claim(1).await.is_empty());
        stage.pass(SECOND);
        let again = stage.claim_one().await;
        assert_eq!((again.lease.attempt, again.failures.failed()), (2, 0));
        assert_eq!(stage.seen(id).await.job.usage, None, "nothing is known of the last attempt that ended");
    });
}

#[test]
fn events_are_numbered_without_gaps_over_attempts() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        stage.claim_one().await;
        let entries = vec![
            Entry::Chunk(b"chunk".as_slice().into()),
            Entry::Log { stream: Stream::Stdout, line: "out".into() },
            Entry::Log { stream: Stream::Stderr, line: "é".into() },
            Entry::LogDropped { lines: 12_345 },
            Entry::Progress { fraction: 0.1, note: "a tenth".to_owned() },
            Entry::Chunk(b"".as_slice().into()),
        ];
        stage.record(id, Event::Wrote { attempt: 1, entries: entries.clone() }).await.unwrap();
        stage.record(id, failed(1, Some(Duration::ZERO))).await.unwrap();
        stage.pass(SECOND);
        stage.claim_one().await;
        stage.record(id, Event::Wrote { attempt: 2, entries: entries[..2].to_vec() }).await.unwrap();
        let kept = stage.store.entries(id, 0, 100).await.unwrap();
        assert_eq!(kept.iter().map(|entry| entry.number).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
        assert_eq!(kept[..6].iter().map(|entry| entry.entry.clone()).collect::<Vec<_>>(), entries);
        assert_eq!((kept[6].attempt, kept[6].at), (2, stage.store.now()));
        assert_eq!(stage.store.entries(id, 6, 1).await.unwrap(), kept[6..7]);
        assert_eq!(stage.seen(id).await.entries, 8);
        assert_eq!(stage.record(id, Event::Wrote { attempt: 1, entries }).await, Err(Refusal::Stale));
    });
}

#[test]
fn children_are_enqueued_with_success_or_not_at_all() {
    on_every_store(|stage| async move {
        let parent = stage.add(COUNT, "").await;
        stage.claim_one().await;
        let child = stage.new_job(LIST, "");
        let twin = NewJob { token: Some("one".parse().unwrap()), ..stage.new_job(LIST, "") };
        let same = NewJob { id: stage.id(), ..twin.clone() };
        let children = vec![child.clone(), twin.clone(), same];
        let event = |attempt| Event::Succeeded {
            attempt,
            output: [].into(),
            children: children.clone(),
            changes: None,
            usage: usage(),
        };
        assert_eq!(stage.record(parent, event(2)).await, Err(Refusal::Stale));
        assert!(stage.claim(5).await.is_empty());
        let recorded = stage.record(parent, event(1)).await.unwrap();
        assert_eq!(recorded.children, [added(child.id), added(twin.id), Inserted::Duplicate { id: twin.id }]);
        assert_eq!(ids(&stage.claim(5).await), [child.id, twin.id]);
    });
}

#[test]
fn a_child_may_take_the_slot_of_its_parent() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, None));
        let parent = stage.add(COUNT, "a").await;
        stage.claim_one().await;
        let child = NewJob { on_conflict: OnConflict::Discard, ..stage.new_job(COUNT, "a") };
        let second = NewJob { on_conflict: OnConflict::Discard, ..stage.new_job(COUNT, "a") };
        let children = vec![child.clone(), second];
        let event = Event::Succeeded { attempt: 1, output: [].into(), children, changes: None, usage: usage() };
        let recorded = stage.record(parent, event).await.unwrap();
        assert_eq!(recorded.children, [added(child.id), Inserted::Discarded { holders: vec![child.id] }]);
    });
}

/// The ID of a child was handed out before: it must lead to a job that says why the child was not enqueued.
#[test]
fn a_child_that_is_not_enqueued_exists_as_cancelled_and_says_why() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, None));
        let known = NewJob { token: Some("one".parse().unwrap()), ..stage.new_job(LIST, "") };
        stage.insert(known.clone()).await;
        let parent = stage.add(COUNT, "a").await;
        let waiting = stage.add(COUNT, "b").await;
        assert_eq!(ids(&stage.claim(3).await), [known.id, parent, waiting]);
        let same = NewJob { id: stage.store.next_id().unwrap(), ..known.clone() };
        let full = NewJob { on_conflict: OnConflict::Discard, ..stage.new_job(COUNT, "b") };
        let twice = NewJob { token: Some("two".parse().unwrap()), ..stage.new_job(LIST, "") };
        let again = NewJob { id: stage.store.next_id().unwrap(), ..twice.clone() };
        let replaced = NewJob { on_conflict: OnConflict::ReplaceWaiting, ..stage.new_job(COUNT, "c") };
        let replacing = NewJob { id: stage.store.next_id().unwrap(), ..replaced.clone() };
        let children = [&same, &full, &twice, &again, &replaced, &replacing].map(Clone::clone).to_vec();
        let event = Event::Succeeded { attempt: 1, output: [].into(), children, changes: None, usage: usage() };
        let recorded = stage.record(parent, event).await.unwrap();
        assert_eq!(recorded.children[0], Inserted::Duplicate { id: known.id });
        assert_eq!(recorded.children[1], Inserted::Discarded { holders: vec![waiting] });
        assert_eq!(recorded.children[3], Inserted::Duplicate { id: twice.id });

        for (child, why) in [
            (&same, format!("the job was not enqueued: job {} has the same token", known.id)),
            (&full, format!("the slots are used by {waiting}")),
            (&again, format!("the job was not enqueued: job {} has the same token", twice.id)),
            (&replaced, "replaced by a newer job of the same key".to_owned()),
        ] {
            let job = stage.seen(child.id).await.job;
            let report = job.report.expect("it says why");
            assert_eq!((job.status.state, report.kind), (State::Cancelled, OutcomeKind::Cancelled));
            assert!(report.text.contains(&why), "{}", report.text);
            assert_eq!((&job.payload, job.finished_at), (&child.payload, Some(stage.store.now())));
            assert_eq!((job.token, job.status.attempt, job.started_at), (None, 0, None));
        }
        let of_token = |token: &str| UniqueToken { token: token.parse().unwrap(), ..known.unique_token().unwrap() };
        let other_task = UniqueToken { task: task(COUNT), ..of_token("one") };
        let other_key = UniqueToken { key: Some("z".parse().unwrap()), ..of_token("one") };
        let of = vec![of_token("two"), of_token("three"), of_token("one"), other_task, other_key];
        assert_eq!(stage.store.find_by_tokens(of).await.unwrap(), [Some(twice.id), None, Some(known.id), None, None]);
        assert_eq!(ids(&stage.claim(9).await), [twice.id, replacing.id], "none of the others runs");

        // An operator may retry it all the same. It is deleted like any other.
        assert_eq!(
            stage.record(full.id, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }).await.unwrap().state,
            StateName::Waiting
        );
        stage.pass(LEASE);
        assert_eq!(stage.delete_finished(stage.store.now(), 9).await.unwrap(), 4);
        assert_eq!(stage.store.job(same.id, stage.declared.clone()).await.unwrap(), None);
    });
}

#[test]
fn jobs_inserted_with_changes_exist_under_their_ids_even_if_written_twice() {
    on_every_store(|stage| async move {
        let known = NewJob { token: Some("one".parse().unwrap()), ..stage.new_job(LIST, "") };
        stage.insert(known.clone()).await;
        let same = NewJob { id: stage.store.next_id().unwrap(), ..known.clone() };
        for _ in 0..2 {
            let left = stage.store.insert_with_changes(vec![same.clone()], stage.declared.clone(), None).await.unwrap();
            assert_eq!(left, [Inserted::Duplicate { id: known.id }]);
            assert_eq!(stage.state(same.id).await, StateName::Cancelled);
        }
        // A plain insert returns the duplicate, and writes nothing under the new ID.
        let other = NewJob { id: stage.store.next_id().unwrap(), ..known.clone() };
        assert_eq!(stage.insert(other.clone()).await, Inserted::Duplicate { id: known.id });
        assert_eq!(stage.store.job(other.id, stage.declared.clone()).await.unwrap(), None);
    });
}

#[test]
fn a_waiting_job_is_cancelled_at_once() {
    on_every_store(|stage| async move {
        let delayed = NewJob { due: Some(Due::At(stage.clock_in(60))), ..stage.new_job(COUNT, "") };
        stage.insert(delayed.clone()).await;
        for id in [stage.add(COUNT, "").await, delayed.id] {
            assert_eq!(stage.record(id, Event::CancelRequested).await.unwrap().state, StateName::Cancelled);
            assert_eq!(stage.record(id, Event::CancelRequested).await, Err(Refusal::Finished(StateName::Cancelled)));
            assert_eq!(stage.seen(id).await.job.report.unwrap().kind, OutcomeKind::Cancelled);
        }
        assert!(stage.claim(5).await.is_empty());
    });
}

#[test]
fn a_cancelled_job_is_not_retried_after_it_failed() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        stage.claim_one().await;
        stage.record(id, Event::CancelRequested).await.unwrap();
        let recorded = stage.record(id, failed(1, Some(Duration::ZERO))).await.unwrap();
        assert_eq!(recorded.state, StateName::Cancelled);
    });
}

#[test]
fn a_finished_job_is_retried_on_request() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        stage.claim_one().await;
        assert_eq!(
            stage.record(id, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }).await,
            Err(Refusal::NotFinished(StateName::Running))
        );
        stage.record(id, failed(1, None)).await.unwrap();
        stage.pass(SECOND);
        assert_eq!(
            stage.record(id, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }).await.unwrap().state,
            StateName::Waiting
        );
        assert_eq!(
            stage.record(id, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }).await,
            Err(Refusal::NotFinished(StateName::Waiting))
        );
        assert_eq!(stage.seen(id).await.job.finished_at, None);
        let again = stage.claim_one().await;
        assert_eq!((again.lease.attempt, again.failures.failed(), again.due), (2, 0, stage.store.now()));
        stage.succeed(&again).await.unwrap();
        assert_eq!(
            stage.record(id, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }).await,
            Err(Refusal::NotFinished(StateName::Succeeded))
        );
    });
}

#[test]
fn a_refused_event_does_not_affect_the_others() {
    on_every_store(|stage| async move {
        let (a, b) = (stage.add(COUNT, "").await, stage.add(COUNT, "").await);
        stage.claim(2).await;
        let unknown = stage.id();
        let events = vec![(a, succeeded(1)), (unknown, succeeded(1)), (a, succeeded(1)), (b, succeeded(1))];
        let answers = stage.store.record(Arc::new(events)).await.unwrap();
        let states: Vec<_> = answers.into_iter().map(|answer| answer.map(|recorded| recorded.state)).collect();
        let done = Ok(StateName::Succeeded);
        assert_eq!(states, [done, Err(Refusal::Unknown), Err(Refusal::Stale), done]);
    });
}

#[test]
fn no_event_leases_a_job_past_the_limits() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        let node = wharf_core::ids::NodeId(1);
        let lease = Lease { job: id, attempt: 1, node, until: stage.clock_in(9) };
        assert_eq!(stage.record(id, Event::Claimed { lease }).await, Err(Refusal::Stale));
        assert_eq!(stage.state(id).await, StateName::Waiting);
    });
}

/// Stores keep payloads and results in different places and ways by their size.
#[test]
fn payloads_and_results_of_every_size_come_back_as_they_were() {
    const KIB: usize = bounds::KIB as usize;
    let bytes = |size: usize, seed: usize| -> SharedBytes {
        let bytes: Vec<u8> = (0..size).map(|index| (index * 31 + index / 251 + seed) as u8).collect();
        bytes.into()
    };
    on_every_store(|stage| async move {
        for size in [0, 1, KIB, KIB + 1, 64 * KIB - 1, 64 * KIB, 1024 * KIB, 4096 * KIB, 4096 * KIB + 1] {
            let (payload, output) = (bytes(size, 1), bytes(size, 2));
            let job = NewJob { payload: payload.clone(), ..stage.new_job(COUNT, "") };
            let id = job.id;
            stage.insert(job).await;
            assert!(stage.seen(id).await.job.payload == payload, "{size} while it waits");
            let leased = stage.claim_one().await;
            assert!(leased.payload == payload, "{size} when it is claimed");
            let (attempt, usage) = (leased.lease.attempt, usage());
            let end = Event::Succeeded { attempt, output: output.clone(), children: vec![], changes: None, usage };
            stage.record(id, end).await.unwrap();
            let seen = stage.seen(id).await.job;
            assert!(seen.payload == payload && seen.result.as_ref() == Some(&output), "{size} after its end");
        }
    });
}
