//! Claims: the order of jobs, and what a claim returns.

use std::collections::HashMap;
use std::sync::Arc;

use wharf_core::bounds;
use wharf_core::ids::{Group, NodeId};
use wharf_core::job::{Due, NewJob, State, StateName};
use wharf_core::lease::Lease;
use wharf_core::room::{Room, TaskCost};
use wharf_core::shared_bytes::SharedBytes;
use wharf_store::Claim;

use crate::stage::{COUNT, LEASE, LIST, MAKE, SECOND, at_most, ids, on_every_store, task};

#[test]
fn a_claim_returns_all_that_an_attempt_needs() {
    on_every_store(|stage| async move {
        let new = stage.new_job(COUNT, "acme");
        stage.insert(new.clone()).await;
        let enqueued = stage.store.now();
        stage.pass(SECOND);
        let leased = stage.claim_one().await;
        let now = stage.store.now();
        let lease = Lease { job: new.id, attempt: 1, node: NodeId(7), until: now + LEASE };
        assert_eq!(leased.lease, lease);
        assert_eq!((leased.task, leased.lane, leased.payload), (new.task, new.lane, new.payload));
        assert_eq!((leased.failures.failed(), leased.due, leased.claimed_at), (0, enqueued, now));
        let job = stage.seen(new.id).await.job;
        assert_eq!((job.status.state, job.started_at), (State::Running { lease }, Some(now)));
    });
}

#[test]
fn first_come_first_served_within_a_lane() {
    on_every_store(|stage| async move {
        let order = stage.add_many(COUNT, "acme", 5).await;
        let mut seen = ids(&stage.claim(2).await);
        seen.extend(ids(&stage.claim(9).await));
        assert_eq!(seen, order);
    });
}

#[test]
fn higher_priority_goes_first_across_lanes() {
    on_every_store(|stage| async move {
        let low = stage.add(COUNT, "a").await;
        let urgent = NewJob { priority: 9, ..stage.new_job(LIST, "b") };
        let behind_low = NewJob { priority: 5, ..stage.new_job(COUNT, "a") };
        stage.insert(urgent.clone()).await;
        stage.insert(behind_low.clone()).await;
        assert_eq!(ids(&stage.claim(3).await), [urgent.id, behind_low.id, low]);
    });
}

#[test]
fn lanes_take_turns() {
    on_every_store(|stage| async move {
        let a = stage.add_many(COUNT, "a", 4).await;
        let b = stage.add_many(COUNT, "b", 2).await;
        let c = stage.add_many(COUNT, "c", 1).await;
        assert_eq!(ids(&stage.claim(2).await), [a[0], b[0]]);
        assert_eq!(ids(&stage.claim(2).await), [c[0], a[1]]);
        assert_eq!(ids(&stage.claim(9).await), [b[1], a[2], a[3]]);
    });
}

#[test]
fn a_lane_with_many_jobs_does_not_delay_others() {
    on_every_store(|stage| async move {
        stage.add_many(COUNT, "crowd", 2000).await;
        stage.claim(1).await;
        let small = stage.add(COUNT, "small").await;
        assert!(ids(&stage.claim(2).await).contains(&small));
    });
}

#[test]
fn full_lanes_in_front_do_not_change_the_order() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(2, None));
        for lane in ["f1", "f2", "f3"] {
            stage.add_many(COUNT, lane, 4).await;
        }
        assert_eq!(stage.claim(6).await.len(), 6);
        let a = stage.add_many(COUNT, "a", 2).await;
        let b = stage.add_many(COUNT, "b", 2).await;
        // Behind three full lanes: still one of each, not two of the first.
        assert_eq!(ids(&stage.claim(2).await), [a[0], b[0]]);
        assert_eq!(ids(&stage.claim(9).await), [a[1], b[1]]);
    });
}

#[test]
fn tasks_of_one_lane_are_served_in_the_order_they_came() {
    on_every_store(|stage| async move {
        let stage = stage.sharing("shared").limit("shared", at_most(None, None));
        let mut order = Vec::new();
        for name in [COUNT, LIST, MAKE, COUNT, LIST] {
            order.push(stage.add(name, "acme").await);
        }
        assert_eq!(ids(&stage.claim(5).await), order);
    });
}

#[test]
fn only_tasks_that_the_node_has_are_claimed() {
    on_every_store(|stage| async move {
        let other = stage.add(LIST, "").await;
        let mine = stage.add(COUNT, "").await;
        let mut wish = stage.wish(10);
        wish.tasks = [(task(COUNT), Group::from(&task(COUNT)))].into();
        assert_eq!(ids(&stage.store.claim(wish).await.unwrap().leased), [mine]);
        assert_eq!(stage.state(other).await, StateName::Waiting);
    });
}

#[test]
fn a_task_that_moved_to_another_group_still_starts() {
    on_every_store(|stage| async move {
        let old = stage.add(COUNT, "acme").await;
        let stage = stage.sharing("shared").limit("shared", at_most(1, 1));
        let new = stage.add(COUNT, "acme").await;
        let mut started = ids(&stage.claim(5).await);
        started.sort();
        assert_eq!(started, [old, new]);
    });
}

#[test]
fn delayed_jobs_wait_until_they_are_due() {
    on_every_store(|stage| async move {
        let (soon, late) = (stage.clock_in(5), stage.clock_in(9));
        let first = NewJob { due: Some(Due::At(soon)), ..stage.new_job(COUNT, "") };
        let second = NewJob { due: Some(Due::At(late)), ..stage.new_job(COUNT, "") };
        stage.insert(second.clone()).await;
        stage.insert(first.clone()).await;
        let claimed = stage.claim_whole(5).await;
        assert_eq!((claimed.leased.len(), claimed.wake_at), (0, Some(soon)));
        stage.pass(5 * SECOND);
        let claimed = stage.claim_whole(5).await;
        assert_eq!((ids(&claimed.leased), claimed.wake_at), (vec![first.id], Some(late)));
        assert_eq!(claimed.leased[0].due, soon);
        stage.pass(9 * SECOND);
        let claimed = stage.claim_whole(5).await;
        assert_eq!((ids(&claimed.leased), claimed.wake_at), (vec![second.id], None));
    });
}

#[test]
fn many_jobs_that_become_due_at_once_are_claimed_in_parts() {
    on_every_store(|stage| async move {
        let due = Some(Due::At(stage.clock_in(1)));
        let count = wharf_core::bounds::PROMOTE_BATCH as usize + 10;
        let jobs: Vec<NewJob> = (0..count).map(|_| NewJob { due, ..stage.new_job(COUNT, "") }).collect();
        stage.store.insert(jobs, stage.declared.clone()).await.unwrap();
        stage.pass(SECOND);
        let claimed = stage.claim_whole(count as u32).await;
        assert_eq!(claimed.leased.len(), wharf_core::bounds::PROMOTE_BATCH as usize);
        assert_eq!(claimed.wake_at, Some(stage.store.now()), "more of them are due: claim again at once");
        assert_eq!(stage.claim(count as u32).await.len(), 10);
    });
}

#[test]
fn nothing_is_claimed_without_free_slots() {
    on_every_store(|stage| async move {
        stage.add(COUNT, "").await;
        assert!(stage.claim(0).await.is_empty());
        assert_eq!(stage.claim(1).await.len(), 1);
    });
}

#[test]
fn one_claim_leases_a_bounded_number_of_bytes() {
    on_every_store(|stage| async move {
        let large: SharedBytes = vec![7; bounds::PAYLOAD_BYTES_MAX as usize].into();
        let mut jobs = Vec::new();
        for payload in [&large, &large, &b"small".as_slice().into(), &large] {
            let job = NewJob { payload: payload.clone(), ..stage.new_job(COUNT, "") };
            jobs.push(job.id);
            stage.insert(job).await;
        }
        let first = stage.claim_whole(9).await;
        assert_eq!(ids(&first.leased), jobs[..2], "the small one does not overtake the large one");
        assert_eq!(first.wake_at, Some(stage.store.now()), "more can be claimed at once");
        let second = stage.claim_whole(9).await;
        assert_eq!((ids(&second.leased), second.wake_at), (jobs[2..].to_vec(), None));
        assert!(first.leased.iter().all(|leased| leased.payload == large));
    });
}

#[test]
fn a_task_without_quota_does_not_delay_others() {
    on_every_store(|stage| async move {
        let counts = stage.add_many(COUNT, "a", 3).await;
        let lists = stage.add_many(LIST, "a", 2).await;
        let more = stage.add(COUNT, "b").await;
        let within = |room: u32| Claim { task_quotas: vec![(task(COUNT), room)], ..stage.wish(9) };
        let claim = async |room| stage.store.claim(within(room)).await.unwrap();
        let none = claim(0).await;
        assert_eq!((ids(&none.leased), none.quota_reached), (lists, true));
        let first = claim(2).await;
        assert_eq!((ids(&first.leased), first.quota_reached), (vec![counts[0], more], true));
        let rest = claim(9).await;
        assert_eq!((ids(&rest.leased), rest.quota_reached), (counts[1..].to_vec(), false));
    });
}

#[test]
fn a_job_for_which_there_is_no_room_keeps_its_turn_and_others_overtake_it() {
    on_every_store(|stage| async move {
        let heavy = stage.add(LIST, "a").await;
        let light = stage.add_many(COUNT, "a", 9).await;
        let total = TaskCost { sandboxes: 8, bytes: 1000 };
        let costs: Arc<HashMap<_, _>> = Arc::new([(task(LIST), TaskCost { sandboxes: 2, bytes: 600 })].into());
        let claim = async |sandboxes, bytes, overtaking| {
            let room = Room { total, free: TaskCost { sandboxes, bytes }, overtaking };
            let claim = Claim { room, costs: Arc::clone(&costs), ..stage.wish(9) };
            let claimed = stage.store.claim(claim).await.unwrap();
            (ids(&claimed.leased), claimed.short_of_room, claimed.overtook)
        };
        assert_eq!(claim(1, 1000, TaskCost::NOTHING).await, (vec![light[0]], true, 1), "one sandbox is not enough");
        assert_eq!(claim(1, 1000, TaskCost::ORDINARY).await, (vec![], true, 0), "one overtakes already");
        assert_eq!(claim(3, 600, TaskCost::NOTHING).await, (vec![light[1]], true, 1), "its payload does not fit");
        let (started, short_of_room, overtook) = claim(4, 700, TaskCost::ORDINARY).await;
        assert_eq!(
            (started, short_of_room, overtook),
            (vec![heavy, light[2], light[3]], true, 0),
            "it has kept its turn"
        );
        assert_eq!(claim(0, 1000, TaskCost::NOTHING).await, (vec![], true, 0));
        assert_eq!(claim(8, 1000, TaskCost::NOTHING).await, (light[4..].to_vec(), false, 0));
    });
}
