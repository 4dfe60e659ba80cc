//! From a request to a result; limits, tokens, retries, children.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;
use wharf_core::author::Author;
use wharf_core::ids::{Group, JobId};
use wharf_core::job::StateName;
use wharf_core::limits::{Limits, Override};
use wharf_core::outcome::OutcomeKind;
use wharf_runner::{BadRequest, EnqueueError, EnqueueRejection, Enqueued, JobWaitReason, LimitError, Request};

use crate::setup::{Setup, memory, order};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_becomes_a_result_on_either_store() {
    let setup = Setup::new().with(&["words"]);
    for store in [setup.sqlite(), memory()] {
        let running = setup.start(store).await;
        let request =
            Request { task: "words/count".into(), payload: br#"{"text":"a b\nc"}"#.to_vec(), ..Request::default() };
        let totals = running.result(request).await;
        assert_eq!((&totals["lines"], &totals["words"]), (&json!(2), &json!(3)));
        let page = running.host.jobs(wharf_store::JobFilter { max: 10, ..Default::default() }).await.unwrap();
        assert!(page.jobs[0].usage.unwrap().cpu > Duration::ZERO);
        running.host.drain(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_of_a_batch_is_reported_and_nothing_is_added() {
    let running = Setup::new().with(&["words"]).start(memory()).await;
    let words = |payload: &str| Request {
        task: "words/count".into(),
        payload: payload.as_bytes().to_vec(),
        ..Request::default()
    };
    let batch = vec![
        words(r#"{"text":"fine"}"#),
        Request { task: "words/cont".into(), ..words("{}") },
        words(r#"{"texd":1}"#),
        Request { key: Some(String::new()), token: Some("x".repeat(300)), ..words(r#"{"text":"x"}"#) },
        Request { task: "Words".into(), ..words("{}") },
    ];
    let Err(EnqueueError::EnqueueRejection(EnqueueRejection::Requests(problems))) = running.host.enqueue(batch).await
    else {
        panic!("the batch was accepted")
    };
    let of = |index: usize| {
        problems.iter().filter(move |(i, _)| *i == index).map(|(_, problem)| problem).collect::<Vec<_>>()
    };
    assert!(of(0).is_empty());
    assert!(of(1)[0].to_string().ends_with("did you mean `words/count`?"), "{}", of(1)[0]);
    assert!(of(2)[0].to_string().contains("\"text\" is a required property"), "{}", of(2)[0]);
    assert!(matches!(of(3)[..], [BadRequest::BadToken(_), BadRequest::ParseKeyError(_)]), "{:?}", of(3));
    assert!(matches!(of(4)[..], [BadRequest::BadTask(_)]));
    assert!(running.host.backlog().await.unwrap().tasks.values().all(|of| (of.waiting, of.running) == (0, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_is_tried_again() {
    let running = Setup::new().with(&["villain"]).start(memory()).await;
    assert_eq!(running.result(order("retrying", r#"{"do":"fail-until","attempt":3}"#)).await, json!({"attempt": 3}));
    let id = running.enqueue(order("do", r#"{"do":"trap"}"#)).await;
    let job = running.finished(id).await.job;
    assert_eq!((job.status.state.name(), job.status.failures.failed()), (StateName::Failed, 1));
    assert_eq!(job.report.unwrap().kind, OutcomeKind::Trapped);
    running.host.retry(id, 1, Author::anyone()).await.unwrap();
    assert_eq!(running.finished(id).await.job.status.attempt, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_runs_one_after_the_other_and_lanes_run_side_by_side() {
    let running = Setup::new().with(&["villain"]).start(memory()).await;
    let nap = |key: &str| order("keyed", &format!(r#"{{"do":"sleep","ms":300,"key":"{key}"}}"#));
    let began = Instant::now();
    let ids = [running.enqueue(nap("a")).await, running.enqueue(nap("a")).await, running.enqueue(nap("b")).await];
    running.until_running(ids[0]).await;
    let second = running.host.job(ids[1]).await.unwrap().unwrap();
    let holder_named = matches!(&second.waiting, Some(JobWaitReason::Queue(wharf_core::job::WaitReason::LaneFull { limit: 1, holders })) if holders[0].0 == ids[0]);
    assert!(holder_named, "{:?}", second.waiting);
    let ended = join_all(ids.map(|id| running.finished(id))).await;
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(600), "two of one lane overlapped: {took:?}");
    let started = |i: usize| ended[i].job.started_at.unwrap();
    assert!(started(2) < started(1), "another lane waited for this one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_raised_acts_at_once() {
    let running = Setup::new().with(&["villain"]).start(memory()).await;
    let group: Group = "villain/keyed".parse().unwrap();
    let set =
        |per_key| Override { group: group.clone(), key: None, limits: Limits { per_key: Some(per_key), total: None } };
    running.host.set_limit(set(0), Author::anyone()).await.unwrap();
    let id = running.enqueue(order("keyed", r#"{"do":"echo","key":"a"}"#)).await;
    let view = running.host.job(id).await.unwrap().unwrap();
    assert_eq!(view.waiting, Some(JobWaitReason::Queue(wharf_core::job::WaitReason::Paused)));
    let shown = running.host.limits().await.unwrap().into_iter().find(|limits| limits.group == group).unwrap();
    assert_eq!((shown.declared.per_key, shown.in_force.per_key), (Some(1), Some(0)));
    running.host.set_limit(set(1), Author::anyone()).await.unwrap();
    running.finished(id).await;
    assert!(running.host.clear_limit(group.clone(), None, Author::anyone()).await.unwrap());
    assert!(!running.host.clear_limit(group.clone(), None, Author::anyone()).await.unwrap());
    let stranger = Override { group: "villain/keyd".parse().unwrap(), ..set(1) };
    let Err(LimitError::UnknownGroup { nearest, .. }) = running.host.set_limit(stranger, Author::anyone()).await else {
        panic!("a stranger was set")
    };
    assert_eq!(nearest.unwrap().as_str(), "villain/keyed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_token_returns_the_existing_job() {
    let running = Setup::new().with(&["villain"]).start(memory()).await;
    let request = || Request { token: Some("t".into()), ..order("do", r#"{"do":"echo"}"#) };
    let id = running.enqueue(request()).await;
    assert_eq!(running.host.enqueue(vec![request()]).await.unwrap(), [Enqueued::Duplicate(id)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn children_come_with_success_or_not_at_all() {
    let running = Setup::new().with(&["villain"]).start(memory()).await;
    let parent = |then: &str| {
        order(
            "do",
            &format!(
                r#"{{"do":"enqueue","children":[{{"task":"villain/do","payload":{{"do":"echo"}}}}],"then":"{then}"}}"#
            ),
        )
    };
    let ids = running.result(parent("return")).await;
    let child: JobId = ids[0].as_str().unwrap().parse().unwrap();
    assert_eq!(running.finished(child).await.job.status.state.name(), StateName::Succeeded);

    let failed = running.enqueue(parent("discard")).await;
    running.finished(failed).await;
    assert_eq!(
        running.host.jobs(wharf_store::JobFilter { max: 10, ..Default::default() }).await.unwrap().jobs.len(),
        3
    );

    let stranger = order("do", r#"{"do":"enqueue","children":[{"task":"villain/dont"}]}"#);
    let id = running.enqueue(stranger).await;
    let report = running.finished(id).await.job.report.unwrap().text;
    assert!(report.contains("did you mean `villain/do`?"), "{report}");
}
