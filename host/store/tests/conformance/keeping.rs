//! Keeping: how long finished jobs stay, by how they ended and by task, and which stay because others need them.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::ids::JobId;
use wharf_core::job::{Batch, Lineage, NewJob, StateName};
use wharf_core::keep::{Keep, KeepRules};
use wharf_core::lifecycle::Event;
use wharf_core::time::Timestamp;
use wharf_store::{ExpiredJobs, JobFilter};

use crate::stage::{COUNT, LIST, SECOND, Stage, expired, failed, on_every_store, task};

async fn remaining(stage: &Stage) -> Vec<JobId> {
    let page = stage.store.jobs(JobFilter { max: 100, ..JobFilter::default() }).await.unwrap();
    page.jobs.iter().map(|job| job.id).rev().collect()
}

/// Adds a job and brings it to this state.
async fn finished(stage: &Stage, name: &str, state: StateName) -> JobId {
    let id = stage.add(name, "").await;
    match state {
        StateName::Cancelled => {
            stage.record(id, Event::CancelRequested).await.unwrap();
        }
        StateName::Failed => {
            let leased = stage.claim_one().await;
            stage.record(leased.lease.job, failed(1, None)).await.unwrap();
        }
        _ => {
            let leased = stage.claim_one().await;
            stage.succeed(&leased).await.unwrap();
        }
    }
    id
}

#[test]
fn jobs_are_kept_by_how_they_ended_and_by_task() {
    on_every_store(|stage| async move {
        let states = [StateName::Succeeded, StateName::Failed, StateName::Cancelled];
        let mut of_count = Vec::new();
        for state in states {
            of_count.push(finished(&stage, COUNT, state).await);
        }
        let of_list = finished(&stage, LIST, StateName::Succeeded).await;
        let of_all = Keep { succeeded: 10 * SECOND, failed: 30 * SECOND, cancelled: 20 * SECOND };
        let of_tasks = [(task(LIST), Keep { succeeded: 25 * SECOND, ..of_all })].into();
        let rules = Arc::new(KeepRules { of_all, of_tasks });
        let delete = async || {
            let all = ExpiredJobs { rules: rules.clone(), ..expired(stage.clock_in(1), 100) };
            stage.store.delete_expired(all).await.unwrap().deleted
        };
        stage.pass(9 * SECOND);
        assert_eq!(delete().await, 0);
        stage.pass(SECOND);
        assert_eq!((delete().await, remaining(&stage).await), (1, vec![of_count[1], of_count[2], of_list]));
        stage.pass(10 * SECOND);
        assert_eq!((delete().await, remaining(&stage).await), (1, vec![of_count[1], of_list]));
        stage.pass(5 * SECOND);
        assert_eq!((delete().await, remaining(&stage).await), (1, vec![of_count[1]]));
        stage.pass(5 * SECOND);
        assert_eq!((delete().await, remaining(&stage).await), (1, vec![]));
    });
}

#[test]
fn a_look_goes_on_behind_what_is_kept() {
    on_every_store(|stage| async move {
        let mut jobs = Vec::new();
        for number in 0..7 {
            let state = if number % 2 == 0 { StateName::Failed } else { StateName::Succeeded };
            jobs.push(finished(&stage, COUNT, state).await);
            if number > 2 {
                stage.pass(SECOND);
            }
        }
        let keep = Keep { failed: 1000 * SECOND, ..Keep::all(Duration::ZERO) };
        let rules = Arc::new(KeepRules { of_all: keep, ..KeepRules::default() });
        let (mut from, mut deleted, mut looks) = ((Timestamp::ZERO, None), 0, 0);
        loop {
            let part = ExpiredJobs { rules: rules.clone(), from, ..expired(stage.clock_in(1), 2) };
            let result = stage.store.delete_expired(part).await.unwrap();
            (deleted, looks) = (deleted + result.deleted, looks + 1);
            match result.next {
                Some(next) => from = next,
                None => break,
            }
        }
        assert_eq!((deleted, looks), (3, 4), "two jobs for each look, the last one alone");
        assert_eq!(remaining(&stage).await, [jobs[0], jobs[2], jobs[4], jobs[6]]);
    });
}

#[test]
fn a_job_stays_while_one_that_it_enqueued_or_its_broadcast_is_open() {
    on_every_store(|stage| async move {
        let parent = finished(&stage, COUNT, StateName::Succeeded).await;
        let lineage = Lineage { parent: Some(parent), generation: 1 };
        let child = NewJob { lineage, ..stage.new_job(LIST, "child") };
        stage.insert(child).await;
        let batch = Batch { id: stage.store.next_id().unwrap(), topic: "a.b".parse().unwrap() };
        let member = |stage: &Stage, key| NewJob { batch: Some(batch.clone()), ..stage.new_job(COUNT, key) };
        stage.insert(member(&stage, "one")).await;
        stage.insert(member(&stage, "two")).await;
        let of_count = |max| {
            let mut wish = stage.wish(max);
            wish.tasks = [(task(COUNT), crate::stage::group(COUNT))].into();
            wish
        };
        let first = stage.store.claim(of_count(1)).await.unwrap().leased.remove(0);
        stage.succeed(&first).await.unwrap();
        stage.pass(SECOND);
        assert_eq!(stage.delete_finished(stage.clock_in(1), 100).await.unwrap(), 0, "all are needed");

        let second = stage.store.claim(of_count(1)).await.unwrap().leased.remove(0);
        assert_eq!(stage.delete_finished(stage.clock_in(1), 100).await.unwrap(), 0, "the broadcast runs");
        stage.succeed(&second).await.unwrap();
        stage.pass(SECOND);
        assert_eq!(stage.delete_finished(stage.clock_in(1), 100).await.unwrap(), 2, "the broadcast is over");
        let child = stage.claim_one().await;
        stage.succeed(&child).await.unwrap();
        stage.pass(SECOND);
        assert_eq!(stage.delete_finished(stage.clock_in(1), 100).await.unwrap(), 2, "and so is the child");
    });
}

#[test]
fn a_job_that_was_retried_is_kept_from_its_new_end_on() {
    on_every_store(|stage| async move {
        let id = finished(&stage, COUNT, StateName::Failed).await;
        stage.pass(10 * SECOND);
        stage.record(id, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }).await.unwrap();
        assert_eq!(stage.delete_finished(stage.clock_in(1), 100).await.unwrap(), 0);
        let leased = stage.claim_one().await;
        stage.succeed(&leased).await.unwrap();
        let rules = Arc::new(KeepRules { of_all: Keep::all(10 * SECOND), ..KeepRules::default() });
        let delete = async || {
            let all = ExpiredJobs { rules: rules.clone(), ..expired(stage.clock_in(1), 100) };
            stage.store.delete_expired(all).await.unwrap().deleted
        };
        assert_eq!(delete().await, 0);
        stage.pass(10 * SECOND);
        assert_eq!(delete().await, 1, "it is still listed");
    });
}
