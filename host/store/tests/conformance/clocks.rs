//! Clocks that are set, and answers that are late: nothing waits for a moment of a clock that has gone, and nothing is early.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_core::job::{Due, NewJob, WaitReason};
use wharf_core::lifecycle::Event;
use wharf_store::{PostgresStore, Queue as _, Renewed};

use crate::proxy::Proxy;
use crate::server::{Postgres, shared_address};
use crate::stage::{COUNT, LEASE, LIST, SECOND, Stage, block_on, failed, ids, on_every_store, trapped};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn what_is_given_back_after_the_clock_was_set_back_waits_as_long_as_it_should() {
    on_every_store(|stage| async move {
        let jobs = stage.add_many(COUNT, "", 3).await;
        let leased = stage.claim(3).await;
        let delayed = NewJob { due: Some(Due::In(2 * SECOND)), ..stage.new_job(COUNT, "") };
        stage.clock.set_back(HOUR);
        stage.insert(delayed.clone()).await;
        let released =
            Event::Released { attempt: 1, report: trapped(), claimable_in: Duration::ZERO, usage: None, origin: None };
        stage.record(jobs[0], released).await.unwrap();
        stage.record(jobs[1], failed(1, Some(SECOND))).await.unwrap();
        assert_eq!(ids(&stage.claim(3).await), jobs[..1]);
        stage.pass(SECOND);
        assert_eq!(ids(&stage.claim(3).await), jobs[1..2]);
        stage.pass(SECOND);
        assert_eq!(ids(&stage.claim(3).await), [delayed.id]);
        // And who runs goes on.
        assert!(matches!(stage.store.renew(vec![leased[2].lease], LEASE).await.unwrap()[..], [Renewed::Renewed(_)]));
        stage.succeed(&leased[2]).await.unwrap();
    });
}

#[test]
fn what_is_ready_stays_so_when_the_clock_is_set_back() {
    on_every_store(|stage| async move {
        let ready = stage.add(COUNT, "").await;
        let delayed = NewJob { due: Some(Due::At(stage.clock_in(1))), ..stage.new_job(LIST, "") };
        stage.insert(delayed.clone()).await;
        stage.clock.set_back(HOUR);
        assert_eq!(stage.seen(ready).await.why, Some(WaitReason::InTurn));
        assert!(matches!(stage.seen(delayed.id).await.why, Some(WaitReason::NotDue { .. })));
        assert_eq!(ids(&stage.claim(3).await), [ready]);
    });
}

#[test]
fn a_lease_of_a_clock_that_has_gone_ends_as_soon_as_any_other() {
    block_on(async {
        let stage = Stage::at(&shared_address()).await;
        let jobs = stage.add_many(COUNT, "", 2).await;
        let leased = stage.claim(2).await;
        stage.clock.set_back(HOUR);
        // Both hosts have the time to renew theirs; one of them is gone.
        assert!(stage.store.reclaim(9).await.unwrap().is_empty());
        stage.pass(LEASE / 3);
        assert!(matches!(stage.store.renew(vec![leased[1].lease], LEASE).await.unwrap()[..], [Renewed::Renewed(_)]));
        stage.pass(LEASE / 3);
        assert!(stage.store.reclaim(9).await.unwrap().is_empty());
        stage.pass(LEASE / 3);
        assert_eq!(stage.store.reclaim(9).await.unwrap(), jobs[..1]);
        stage.succeed(&leased[1]).await.unwrap();
    });
}

#[test]
fn a_late_answer_is_not_taken_for_a_clock_that_was_set_back() {
    let server = Postgres::start(false);
    block_on(async {
        let way = Proxy::before(server.dir(), &server.address());
        let store = Arc::new(PostgresStore::open(way.address()).await.unwrap());
        let stage = Stage { store: store.clone(), ..Stage::at(&server.address()).await };
        let (before, began) = (store.now(), Instant::now());
        way.hold_at_lock();
        let late = async {
            while !way.is_held() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // Shorter than the server keeps its locks for it: it goes on with the late answer.
            tokio::time::sleep(SECOND * 3 / 2).await;
            way.hold(false);
        };
        tokio::join!(stage.add(COUNT, ""), late);
        let (after, passed) = (store.now(), began.elapsed());
        assert!(
            after >= before + passed - Duration::from_millis(50),
            "it went back: {before:?}, {after:?}, {passed:?}"
        );
    });
}
