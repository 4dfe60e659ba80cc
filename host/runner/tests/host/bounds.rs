//! What no plugin gets past: jobs that enqueue more and more of themselves, and checks of payloads that take for ever.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use wharf_core::ids::JobId;
use wharf_core::job::{Job, Lineage, StateName};
use wharf_engine::PayloadError;
use wharf_runner::{BadRequest, EnqueueError, EnqueueRejection, Request};
use wharf_store::JobFilter;

use crate::setup::{LONG, Running, Setup, memory, order};

impl Running {
    /// Waits for a job that has failed, and returns it.
    async fn one_failed(&self) -> Job {
        let filter = JobFilter { state: Some(StateName::Failed), max: 1, ..JobFilter::default() };
        let poll = async {
            loop {
                if let Some(job) = self.host.jobs(filter.clone()).await.unwrap().jobs.pop() {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, poll).await.expect("a job fails")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_enqueues_two_of_itself_meets_the_bound_of_waiting_jobs() {
    const MAX: u64 = 40;
    let setup = Setup::new().with(&["villain", "words"]).granting("villain", "waiting-max = 40");
    for store in [setup.sqlite(), memory()] {
        let running = setup.start(Arc::clone(&store)).await;
        running.enqueue(order("do", r#"{"do":"breed","count":2}"#)).await;
        let report = running.one_failed().await.report.unwrap().text;
        assert!(report.contains("jobs of plugin `villain` wait and 2 would be added; the limit is 40"), "{report}");
        // Clients are told as well, and others go on.
        let full = async {
            loop {
                match running.host.enqueue(vec![order("do", r#"{"do":"breed","count":2}"#)]).await {
                    Err(EnqueueError::QueueFull(full)) => return full,
                    Err(other) => panic!("{other}"),
                    Ok(_) => {}
                }
                // Jobs of attempts that end at this moment may not be counted yet.
                let waiting = store.waiting_jobs().await.unwrap().into_values().sum::<u64>();
                assert!(waiting <= MAX + 2 * 32, "{waiting} wait");
            }
        };
        let full = tokio::time::timeout(LONG, full).await.expect("a client is refused");
        assert_eq!((full.plugin.to_string().as_str(), full.max), ("villain", MAX));
        let text = br#"{"text":"a b"}"#.to_vec();
        let totals = running.result(Request { task: "words/count".into(), payload: text, ..Request::default() }).await;
        assert_eq!(totals["words"], json!(2));
        running.host.drain(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_enqueues_itself_ends_with_the_last_generation() {
    let running = Setup::new().with(&["villain"]).granting("villain", "generations-max = 3").start(memory()).await;
    let first = running.enqueue(order("do", r#"{"do":"breed","count":1}"#)).await;
    let last = running.one_failed().await;
    assert!(
        last.report.unwrap().text.contains("would be generation 4 of jobs that enqueue one another; the limit is 3")
    );
    let mut jobs = running.host.jobs(JobFilter { max: 10, ..JobFilter::default() }).await.unwrap().jobs;
    jobs.reverse();
    let lineage: Vec<(Option<JobId>, u32)> =
        jobs.iter().map(|job| (job.lineage.parent, job.lineage.generation)).collect();
    let expected = [(None, 0), (Some(first), 1), (Some(jobs[1].id), 2), (Some(jobs[2].id), 3)];
    assert_eq!(lineage, expected);

    // One that goes on later may do so for ever.
    let later = r#"{"do":"enqueue","children":[{"task":"villain/do","payload":{"do":"echo"},"delay-ms":60000}]}"#;
    let parent = running.enqueue(order("do", later)).await;
    let ids: Vec<String> = serde_json::from_slice(&running.finished(parent).await.job.result.unwrap()).unwrap();
    let child = running.host.job(ids[0].parse().unwrap()).await.unwrap().unwrap().seen.job;
    assert_eq!(child.lineage, Lineage { parent: Some(parent), generation: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_takes_too_many_checks_is_refused_and_a_large_check_is_made_apart() {
    let parts = vec!["{}"; 2_500].join(",");
    let schema = format!(r#"{{"items":{{"allOf":[{parts}]}}}}"#);
    let setup =
        Setup::new().with(&["villain"]).granting("villain", &format!("tasks.frugal.payload-schema = '{schema}'"));
    let running = setup.start(memory()).await;
    let numbers = |count: usize| format!("[1{}]", ",1".repeat(count - 1));
    let refused = running.host.enqueue(vec![order("frugal", &numbers(100_000))]).await.unwrap_err();
    let EnqueueError::EnqueueRejection(EnqueueRejection::Requests(problems)) = refused else { panic!("{refused}") };
    assert!(
        matches!(problems[..], [(0, BadRequest::PayloadError(PayloadError::TooManyChecks { .. }))]),
        "{problems:?}"
    );
    // Each of them is within its bound.
    let many = vec![order("frugal", &numbers(1_500)); 100];
    let refused = running.host.enqueue(many).await.unwrap_err();
    assert!(matches!(refused, EnqueueError::EnqueueRejection(EnqueueRejection::TooManyChecks { .. })), "{refused}");

    // A guest has the same bounds, and waits.
    let child = |count: usize| {
        order(
            "do",
            &format!(r#"{{"do":"enqueue","children":[{{"task":"villain/frugal","payload":{}}}]}}"#, numbers(count)),
        )
    };
    let ids = running.result(child(100)).await;
    running.host.job(ids[0].as_str().unwrap().parse().unwrap()).await.unwrap().expect("it was enqueued");
    let refused = running.enqueue(child(10_000)).await;
    let report = running.finished(refused).await.job.report.unwrap().text;
    assert!(report.contains("the check against the task's schema may take"), "{report}");
}
