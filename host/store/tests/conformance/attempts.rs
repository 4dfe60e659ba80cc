//! Attempts that ended without a result stay with their job.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::attempt::{Attempt, AttemptOrigin, dropped_count};
use wharf_core::bounds;
use wharf_core::ids::{JobId, NodeId};
use wharf_core::job::StateName;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::outcome::{OutcomeKind, Report};

use crate::stage::{COUNT, LEASE, LIST, SECOND, Stage, failed, on_every_store, succeeded, trapped, usage};

fn origin() -> Option<Arc<AttemptOrigin>> {
    Some(Arc::new(AttemptOrigin::new("here:7070", "1.2.0", "abc")))
}

impl Stage {
    async fn attempts(&self, id: JobId) -> Vec<Attempt> {
        self.store.attempts(id).await.unwrap()
    }

    /// Has a job attempted once more, which fails.
    async fn fail_once(&self, id: JobId) {
        let leased = self.claim_one().await;
        assert_eq!(leased.lease.job, id);
        self.record(id, failed(leased.lease.attempt, Some(Duration::ZERO))).await.unwrap();
    }
}

#[test]
fn an_attempt_that_fails_stays_with_its_node_its_plugin_its_times_and_its_usage() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        let began = stage.store.now();
        stage.claim_one().await;
        stage.pass(SECOND);
        let report = Report { kind: OutcomeKind::Failed, text: "no \u{0} \nsuch".to_owned() };
        let event = Event::Failed {
            attempt: 1,
            report: report.clone(),
            retry_in: Some(Duration::ZERO),
            usage: usage(),
            origin: origin(),
        };
        stage.record(id, event).await.unwrap();
        let [attempt] = &stage.attempts(id).await[..] else { panic!("one attempt ended") };
        assert_eq!((attempt.began, attempt.ended), (Some(began), stage.store.now()));
        assert_eq!((attempt.end.number, attempt.end.node), (1, NodeId(7)));
        assert_eq!((&attempt.end.origin, &attempt.end.report), (&origin(), &report));
        assert_eq!((attempt.end.usage, attempt.end.first_line()), (Some(usage()), "no \u{0} "));
        // A result needs no record of its own, and takes none away.
        stage.succeed(&stage.claim_one().await).await.unwrap();
        assert_eq!(stage.attempts(id).await.len(), 1);
    });
}

#[test]
fn a_job_that_succeeds_at_once_or_never_ran_has_no_attempts() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        stage.succeed(&stage.claim_one().await).await.unwrap();
        let waiting = stage.add(LIST, "").await;
        stage.record(waiting, Event::CancelRequested).await.unwrap();
        for none in [id, waiting, stage.id()] {
            assert_eq!(stage.attempts(none).await, []);
        }
    });
}

#[test]
fn an_attempt_that_was_given_back_or_cancelled_or_ended_with_its_host_stays_too() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        stage.claim_one().await;
        let given_back = Event::Released {
            attempt: 1,
            report: trapped(),
            claimable_in: Duration::ZERO,
            usage: Some(usage()),
            origin: origin(),
        };
        stage.record(id, given_back).await.unwrap();
        stage.claim_one().await;
        stage.pass(LEASE);
        assert_eq!(stage.store.reclaim(10).await.unwrap(), [id]);
        stage.claim_one().await;
        stage.record(id, Event::Cancelled { attempt: 3, usage: usage(), origin: origin() }).await.unwrap();
        let [given_back, crashed, cancelled] = &stage.attempts(id).await[..] else { panic!("three attempts ended") };
        assert_eq!((given_back.end.usage, &given_back.end.origin), (Some(usage()), &origin()));
        // Of a host that is gone only the lease is known.
        assert_eq!((crashed.end.node, &crashed.end.origin, crashed.end.usage), (NodeId(7), &None, None));
        assert_eq!(crashed.end.report.kind, OutcomeKind::Interrupted);
        assert_eq!(cancelled.end.report.kind, OutcomeKind::Cancelled);
    });
}

#[test]
fn the_usage_of_a_job_is_that_of_all_its_attempts() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        for _ in 0..2 {
            stage.fail_once(id).await;
        }
        stage.claim_one().await;
        let given_back =
            Event::Released { attempt: 3, report: trapped(), claimable_in: Duration::ZERO, usage: None, origin: None };
        stage.record(id, given_back).await.unwrap();
        let twice = usage().plus(&usage());
        assert_eq!(stage.seen(id).await.job.usage, Some(twice));
        stage.succeed(&stage.claim_one().await).await.unwrap();
        let thrice = twice.plus(&usage());
        assert_eq!((thrice.cpu, thrice.memory_peak_bytes, thrice.out_bytes), (6 * SECOND, 4, 18));
        assert_eq!(stage.seen(id).await.job.usage, Some(thrice));
    });
}

#[test]
fn of_many_attempts_the_oldest_and_the_newest_stay() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        for _ in 0..30 {
            stage.fail_once(id).await;
        }
        let kept = stage.attempts(id).await;
        let numbers: Vec<u32> = kept.iter().map(|attempt| attempt.end.number).collect();
        let expected: Vec<u32> =
            (1..=bounds::ATTEMPTS_KEPT_OLDEST).chain(31 - bounds::ATTEMPTS_KEPT_NEWEST..=30).collect();
        assert_eq!((numbers, dropped_count(&kept)), (expected, 5));
    });
}

#[test]
fn an_attempt_keeps_the_beginning_of_a_long_report() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        stage.claim_one().await;
        let report = Report { kind: OutcomeKind::Trapped, text: "x".repeat(bounds::REPORT_BYTES_MAX as usize) };
        let event = Event::Failed { attempt: 1, report: report.clone(), retry_in: None, usage: usage(), origin: None };
        stage.record(id, event).await.unwrap();
        let kept = stage.attempts(id).await.remove(0).end.report.text;
        assert!(kept.len() == bounds::ATTEMPT_REPORT_BYTES_MAX && kept.ends_with("x ..."));
        assert_eq!(stage.seen(id).await.job.report, Some(report), "the job itself has it whole");
    });
}

#[test]
fn an_end_that_is_refused_leaves_no_attempt() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        stage.claim_one().await;
        assert_eq!(stage.record(id, failed(2, None)).await, Err(Refusal::Stale));
        assert_eq!(stage.attempts(id).await, []);
        stage.record(id, failed(1, None)).await.unwrap();
        assert_eq!(stage.record(id, failed(1, None)).await, Err(Refusal::Stale));
        assert_eq!(stage.attempts(id).await.len(), 1);
    });
}

#[test]
fn attempts_stay_over_a_retry_and_go_with_their_job() {
    on_every_store(|stage| async move {
        let (id, other) = (stage.add(COUNT, "a").await, stage.add(COUNT, "b").await);
        for leased in stage.claim(2).await {
            stage.record(leased.lease.job, failed(1, None)).await.unwrap();
        }
        stage.pass(SECOND);
        stage.record(id, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }).await.unwrap();
        stage.claim_one().await;
        assert_eq!(stage.attempts(id).await.len(), 1);
        stage.record(id, succeeded(2)).await.unwrap();
        assert_eq!(stage.state(id).await, StateName::Succeeded);
        assert_eq!(stage.attempts(id).await.len(), 1, "what failed before stays");
        stage.pass(SECOND);
        assert_eq!(stage.delete_finished(stage.store.now(), 10).await.unwrap(), 2);
        assert_eq!((stage.attempts(id).await, stage.attempts(other).await), (vec![], vec![]));
    });
}
