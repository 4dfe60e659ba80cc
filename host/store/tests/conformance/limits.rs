//! Limits: the number of jobs that run at once, per key and in total, and limits that change while jobs run.

use std::sync::Arc;

use wharf_core::author::Author;
use wharf_core::ids::JobId;
use wharf_core::job::{Due, NewJob, WaitReason};
use wharf_core::lifecycle::Event;
use wharf_core::limits::{LimitTable, Limits, Override};

use crate::stage::{COUNT, LIST, SECOND, Stage, at_most, failed, group, ids, on_every_store};

async fn set(stage: &Stage, name: &str, key: Option<&str>, limits: Limits) {
    let key = key.map(|key| key.parse().unwrap());
    stage.store.set_override(Override { group: group(name), key, limits }, Author::anyone()).await.unwrap();
}

#[test]
fn a_lane_runs_no_more_jobs_than_its_limit() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(2, None));
        stage.add_many(COUNT, "a", 5).await;
        stage.add_many(COUNT, "b", 1).await;
        let first = stage.claim(10).await;
        assert_eq!(first.len(), 3);
        assert!(stage.claim(10).await.is_empty());
        let of_a = first.iter().find(|leased| leased.lane.key == Some("a".parse().unwrap())).unwrap();
        stage.succeed(of_a).await.unwrap();
        assert_eq!(stage.claim(10).await.len(), 1);
    });
}

#[test]
fn jobs_without_a_key_share_one_lane() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, None));
        stage.add_many(COUNT, "", 3).await;
        assert_eq!(stage.claim(10).await.len(), 1);
    });
}

#[test]
fn a_group_runs_no_more_jobs_than_its_limit() {
    on_every_store(|stage| async move {
        let stage = stage.sharing("shared").limit("shared", at_most(2, 3));
        for key in ["a", "b", "c"] {
            stage.add_many(COUNT, key, 2).await;
            stage.add_many(LIST, key, 2).await;
        }
        let running = stage.claim(20).await;
        assert_eq!(running.len(), 3);
        stage.succeed(&running[0]).await.unwrap();
        assert_eq!(stage.claim(20).await.len(), 1);
    });
}

#[test]
fn every_end_of_an_attempt_frees_its_slot() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, 1));
        stage.add_many(COUNT, "a", 6).await;
        let later = 3600 * SECOND;
        let endings: [fn(u32, std::time::Duration) -> Event; 5] = [
            |attempt, _| crate::stage::succeeded(attempt),
            |attempt, _| failed(attempt, None),
            |attempt, later| failed(attempt, Some(later)),
            |attempt, later| Event::Released {
                attempt,
                report: crate::stage::trapped(),
                claimable_in: later,
                usage: None,
                origin: None,
            },
            |attempt, _| Event::Cancelled { attempt, usage: crate::stage::usage(), origin: None },
        ];
        for ending in endings {
            let leased = stage.claim_one().await;
            assert!(stage.claim(5).await.is_empty());
            stage.record(leased.lease.job, ending(leased.lease.attempt, later)).await.unwrap();
        }
        stage.claim_one().await;
    });
}

#[test]
fn raising_a_limit_acts_on_the_next_claim() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, 2));
        stage.add_many(COUNT, "a", 9).await;
        assert_eq!(stage.claim(9).await.len(), 1);
        set(&stage, COUNT, None, at_most(5, None)).await;
        assert_eq!(stage.claim(9).await.len(), 1, "the group's total still applies");
        set(&stage, COUNT, None, at_most(5, 9)).await;
        assert_eq!(stage.claim(9).await.len(), 3);
        set(&stage, COUNT, Some("a"), at_most(6, None)).await;
        assert_eq!(stage.claim(9).await.len(), 1);
        assert_eq!(stage.store.overrides().await.unwrap().len(), 2);
    });
}

#[test]
fn lowering_a_limit_lets_running_jobs_finish() {
    on_every_store(|stage| async move {
        stage.add_many(COUNT, "a", 9).await;
        let running = stage.claim(4).await;
        set(&stage, COUNT, None, at_most(2, None)).await;
        assert!(stage.claim(9).await.is_empty());
        for leased in &running[..2] {
            stage.succeed(leased).await.unwrap();
            assert!(stage.claim(9).await.is_empty());
        }
        stage.succeed(&running[2]).await.unwrap();
        assert_eq!(stage.claim(9).await.len(), 1);
        // Removing the override removes the limit.
        set(&stage, COUNT, None, Limits::default()).await;
        assert!(stage.store.overrides().await.unwrap().is_empty());
        assert_eq!(stage.claim(9).await.len(), 4);
    });
}

#[test]
fn a_limit_of_zero_is_a_pause() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "a").await;
        set(&stage, COUNT, Some("a"), at_most(0, None)).await;
        assert!(stage.claim(9).await.is_empty());
        assert_eq!(stage.seen(id).await.why, Some(WaitReason::Paused));
        set(&stage, COUNT, Some("a"), Limits::default()).await;
        set(&stage, COUNT, None, at_most(None, 0)).await;
        assert!(stage.claim(9).await.is_empty());
        assert_eq!(stage.seen(id).await.why, Some(WaitReason::Paused));
        set(&stage, COUNT, None, Limits::default()).await;
        assert_eq!(ids(&stage.claim(9).await), [id]);
    });
}

#[test]
fn limits_that_a_manifest_changes_apply_without_an_override() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, None));
        stage.add_many(COUNT, "a", 3).await;
        assert_eq!(stage.claim(9).await.len(), 1);
        let mut wish = stage.wish(9);
        wish.declared = Arc::new(LimitTable::default());
        assert_eq!(stage.store.claim(wish).await.unwrap().leased.len(), 2);
    });
}

#[test]
fn an_insert_with_other_limits_does_not_leave_a_lane_closed() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(2, None));
        stage.add_many(COUNT, "a", 4).await;
        let running = stage.claim(9).await;
        let mut lower = LimitTable::default();
        lower.declare(group(COUNT), at_most(1, None));
        stage.store.insert(vec![stage.new_job(COUNT, "a")], Arc::new(lower)).await.unwrap();
        stage.succeed(&running[0]).await.unwrap();
        assert_eq!(stage.claim(9).await.len(), 1);
    });
}

#[test]
fn a_waiting_job_has_its_wait_reason() {
    on_every_store(|stage| async move {
        let stage = stage.sharing("shared").limit("shared", at_most(1, 2));
        let since = stage.store.now();
        let why = |id: JobId| {
            let stage = &stage;
            async move { stage.seen(id).await.why }
        };
        let a = stage.add(COUNT, "a").await;
        assert_eq!(why(a).await, Some(WaitReason::InTurn));
        stage.claim_one().await;
        assert_eq!(why(a).await, None);
        stage.pass(SECOND);
        let second_of_a = stage.add(COUNT, "a").await;
        assert_eq!(why(second_of_a).await, Some(WaitReason::LaneFull { limit: 1, holders: vec![(a, since)] }));
        let b = stage.add(LIST, "b").await;
        stage.claim_one().await;
        let c = stage.add(COUNT, "c").await;
        let holders = vec![(a, since), (b, since + SECOND)];
        assert_eq!(why(c).await, Some(WaitReason::GroupFull { limit: 2, holders }));
        let until = stage.clock_in(60);
        let delayed = NewJob { due: Some(Due::At(until)), ..stage.new_job(COUNT, "c") };
        stage.insert(delayed.clone()).await;
        assert_eq!(why(delayed.id).await, Some(WaitReason::NotDue { until }));
    });
}

#[test]
fn all_free_slots_are_filled_at_once() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(10, None));
        stage.add_many(COUNT, "a", 110).await;
        assert_eq!(stage.claim(200).await.len(), 10);
    });
}
