//! Defects that other queues shipped, each as a test that would have caught it.

use wharf_core::job::{NewJob, StateName, WaitReason};
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::OnConflict;
use wharf_store::{Inserted, Renewed};

use crate::stage::{COUNT, LEASE, LIST, SECOND, added, at_most, failed, ids, on_every_store, succeeded, usage};

/// Solid Queue S1: a job that outlived its lease gave its permit to a second one, and on its end to a third. From then on, a
/// limit of one was a limit of two until the backlog was empty.
#[test]
fn solid_queue_s1_an_overlong_holder_does_not_raise_the_limit() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, None));
        stage.add_many(COUNT, "a", 4).await;
        let overlong = stage.claim_one().await;
        // However long the job takes, it has the only slot while it renews.
        for _ in 0..100 {
            stage.pass(LEASE / 3);
            assert!(matches!(stage.store.renew(vec![overlong.lease], LEASE).await.unwrap()[0], Renewed::Renewed(_)));
            assert!(stage.store.reclaim(10).await.unwrap().is_empty());
            assert!(stage.claim(10).await.is_empty());
        }
        // When it vanishes, the next one starts; its own late end frees no other slot.
        stage.pass(LEASE);
        assert_eq!(stage.store.reclaim(10).await.unwrap().len(), 1);
        let second = stage.claim_one().await;
        assert_eq!(stage.succeed(&overlong).await, Err(Refusal::Stale));
        assert!(stage.claim(10).await.is_empty());
        stage.succeed(&second).await.unwrap();
        assert_eq!(stage.claim(10).await.len(), 1);
    });
}

/// Solid Queue S2 (and its issue 456): the end of a job whose permit had been swept away woke no other job.
#[test]
fn solid_queue_s2_the_end_of_an_expired_holder_still_wakes_the_next() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, None));
        stage.add_many(COUNT, "a", 2).await;
        let holder = stage.claim_one().await;
        assert!(stage.claim(5).await.is_empty());
        // The lease has expired but was not reclaimed: the holder ends in time to report it itself.
        stage.pass(2 * LEASE);
        let mut nudges = stage.store.nudges();
        stage.succeed(&holder).await.unwrap();
        nudges.changed().await.unwrap();
        assert_eq!(stage.claim(5).await.len(), 1);
    });
}

/// Solid Queue S3: a permit that was lost between the end of a job and the signal was never freed while the key was busy.
#[test]
fn solid_queue_s3_no_permit_is_lost_to_a_host_that_dies() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(3, None));
        stage.add_many(COUNT, "a", 200).await;
        for _ in 0..20 {
            let running = stage.claim(10).await;
            assert_eq!(running.len(), 3);
            // One ends, one fails, one dies with its host.
            stage.succeed(&running[0]).await.unwrap();
            stage.record(running[1].lease.job, failed(running[1].lease.attempt, None)).await.unwrap();
            let next = stage.claim(10).await;
            assert_eq!(next.len(), 2, "the key stays busy");
            stage.pass(LEASE);
            assert_eq!(stage.store.reclaim(10).await.unwrap().len(), 3);
        }
    });
}

/// Solid Queue S4: with three live holders, one expiry let three more start.
#[test]
fn solid_queue_s4_one_expiry_frees_one_slot() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(3, None));
        stage.add_many(COUNT, "a", 9).await;
        let running = stage.claim(9).await;
        stage.pass(LEASE / 2);
        let leases = running[1..].iter().map(|leased| leased.lease).collect();
        stage.store.renew(leases, LEASE).await.unwrap();
        stage.pass(LEASE / 2);
        assert_eq!(stage.store.reclaim(9).await.unwrap(), [running[0].lease.job]);
        assert_eq!(stage.claim(9).await.len(), 1);
    });
}

/// Solid Queue S5: with ten slots free and 110 jobs blocked, one job was freed per pass of the maintenance.
#[test]
fn solid_queue_s5_recovery_fills_all_slots_in_one_pass() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(10, None));
        stage.add_many(COUNT, "a", 120).await;
        assert_eq!(stage.claim(50).await.len(), 10);
        stage.pass(LEASE);
        assert_eq!(stage.store.reclaim(50).await.unwrap().len(), 10);
        assert_eq!(stage.claim(50).await.len(), 10);
    });
}

/// Solid Queue 597 and 804: discard did not see jobs that were scheduled or blocked.
#[test]
fn solid_queue_discard_sees_waiting_jobs() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, None));
        let waiting = stage.add(COUNT, "a").await;
        let new = NewJob { on_conflict: OnConflict::Discard, ..stage.new_job(COUNT, "a") };
        assert_eq!(stage.insert(new).await, Inserted::Discarded { holders: vec![waiting] });
    });
}

/// River and pg-boss: a completion asked only "is it running?", so that the first attempt of a job could complete
/// its second one (the state is A, then B, then A again).
#[test]
fn river_and_pg_boss_a_completion_of_an_earlier_attempt_is_refused() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        let first = stage.claim_one().await;
        stage.pass(LEASE);
        stage.store.reclaim(1).await.unwrap();
        let second = stage.claim_one().await;
        assert_eq!(stage.state(id).await, StateName::Running);
        let child = stage.new_job(LIST, "");
        let late = Event::Succeeded {
            attempt: 1,
            output: b"old".as_slice().into(),
            children: vec![child.clone()],
            changes: None,
            usage: usage(),
        };
        assert_eq!(stage.record(id, late).await, Err(Refusal::Stale));
        assert_eq!(stage.record(id, failed(first.lease.attempt, None)).await, Err(Refusal::Stale));
        assert_eq!(stage.state(id).await, StateName::Running);
        assert_eq!(stage.store.job(child.id, stage.declared.clone()).await.unwrap(), None);
        stage.succeed(&second).await.unwrap();
        assert_eq!(stage.seen(id).await.job.result.as_deref(), Some(b"result".as_slice()));
    });
}

/// graphile-worker and Oban: a completion named the job and nothing else.
#[test]
fn graphile_and_oban_a_completion_needs_the_attempt() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        stage.claim_one().await;
        stage.pass(LEASE);
        stage.store.reclaim(1).await.unwrap();
        // No attempt runs: the late writer neither completes nor deletes the job.
        assert_eq!(stage.record(id, succeeded(1)).await, Err(Refusal::Stale));
        assert_eq!(stage.state(id).await, StateName::Waiting);
        assert_eq!(stage.claim_one().await.lease.attempt, 2);
    });
}

/// Inngest 4766: a lease shorter than the time to its first renewal let a second holder in.
#[test]
fn inngest_4766_a_lease_over_before_its_renewal_lets_nobody_overlap() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, None));
        stage.add_many(COUNT, "a", 2).await;
        let mut wish = stage.wish(5);
        wish.lease = SECOND;
        let first = stage.store.claim(wish).await.unwrap().leased.remove(0);
        stage.pass(10 * SECOND);
        // The lease has expired but was not reclaimed: it still counts, and a renewal in time keeps it.
        assert!(stage.claim(5).await.is_empty());
        assert!(matches!(stage.store.renew(vec![first.lease], LEASE).await.unwrap()[0], Renewed::Renewed(_)));
        stage.pass(10 * SECOND);
        assert!(stage.store.reclaim(5).await.unwrap().is_empty());
        assert!(stage.claim(5).await.is_empty());
        // The lease was reclaimed first: the renewal reports it as lost, and attempts never overlap in the store.
        stage.pass(LEASE);
        stage.store.reclaim(5).await.unwrap();
        assert_eq!(stage.store.renew(vec![first.lease], LEASE).await.unwrap(), [Renewed::Lost(first.lease)]);
        assert_eq!(stage.claim(5).await.len(), 1);
    });
}

/// Hatchet 4778: slots were assigned in the order of inserts, while rows became visible in the order of commits.
#[test]
fn hatchet_4778_ids_that_arrive_out_of_order_break_no_limit() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(2, None));
        let (a, b, c, d) = (
            stage.new_job(COUNT, "k"),
            stage.new_job(COUNT, "k"),
            stage.new_job(COUNT, "k"),
            stage.new_job(COUNT, "k"),
        );
        // The later IDs are inserted first, and take the slots.
        stage.insert(c.clone()).await;
        stage.insert(d.clone()).await;
        assert_eq!(ids(&stage.claim(9).await), [c.id, d.id]);
        stage.insert(a.clone()).await;
        stage.insert(b.clone()).await;
        assert!(stage.claim(9).await.is_empty(), "an earlier ID gives no right to a taken slot");
        stage.record(d.id, succeeded(1)).await.unwrap();
        assert_eq!(ids(&stage.claim(9).await), [a.id]);
        assert!(stage.claim(9).await.is_empty());
    });
}

/// DBOS 1272 and BullMQ 3929: a counter of holders became wrong and blocked or leaked its key forever.
#[test]
fn dbos_and_bullmq_only_the_holders_count() {
    on_every_store(|stage| async move {
        let stage = stage.sharing("shared").limit("shared", at_most(2, 3));
        for round in 0..30u32 {
            stage.add(COUNT, "a").await;
            stage.add(LIST, "a").await;
            let running = stage.claim(9).await;
            assert_eq!(running.len(), 2, "in round {round}");
            // Each ends twice, in every way: the second end is refused and must not free a second slot.
            for leased in &running {
                let attempt = leased.lease.attempt;
                let id = leased.lease.job;
                let event = match round % 3 {
                    0 => succeeded(attempt),
                    1 => failed(attempt, None),
                    _ => Event::Cancelled { attempt, usage: usage(), origin: None },
                };
                stage.record(id, event.clone()).await.unwrap();
                assert_eq!(stage.record(id, event).await, Err(Refusal::Stale));
            }
            assert!(stage.store.stats().await.unwrap().groups.is_empty());
        }
        // Deleting finished jobs while others wait takes no slot.
        stage.pass(SECOND);
        stage.delete_finished(stage.store.now(), 500).await.unwrap();
        for key in ["a", "b", "c"] {
            stage.add_many(COUNT, key, 3).await;
        }
        assert_eq!(stage.claim(9).await.len(), 3);
    });
}

/// Solid Queue 476: jobs were blocked while hosts were idle. A waiting job must say which jobs it waits for.
#[test]
fn solid_queue_476_a_blocked_job_names_who_blocks_it() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, None));
        let (holder, blocked) = (stage.new_job(COUNT, "a"), stage.new_job(COUNT, "a"));
        assert_eq!(stage.insert(holder.clone()).await, added(holder.id));
        assert_eq!(stage.insert(blocked.clone()).await, added(blocked.id));
        let since = stage.claim_one().await.claimed_at;
        let why = WaitReason::LaneFull { limit: 1, holders: vec![(holder.id, since)] };
        assert_eq!(stage.seen(blocked.id).await.why, Some(why));
    });
}
