//! Leases: renewed, expired, reclaimed.

use wharf_core::bounds;
use wharf_core::ids::{JobId, NodeId};
use wharf_core::job::{LeasedJob, State, StateName};
use wharf_core::lease::{Lease, NodeMark, StartedSuspect, is_suspect};
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::outcome::OutcomeKind;
use wharf_store::Renewed;

use crate::stage::{COUNT, LEASE, SECOND, Stage, at_most, ids, on_every_store, succeeded};

#[test]
fn a_renewed_lease_lasts_longer() {
    on_every_store(|stage| async move {
        stage.add(COUNT, "").await;
        let lease = stage.claim_one().await.lease;
        stage.pass(20 * SECOND);
        let longer = Lease { until: stage.store.now() + LEASE, ..lease };
        assert_eq!(stage.store.renew(vec![lease], LEASE).await.unwrap(), [Renewed::Renewed(longer)]);
        stage.pass(20 * SECOND);
        assert!(stage.store.reclaim(10).await.unwrap().is_empty());
        assert_eq!(stage.seen(lease.job).await.job.status.state, State::Running { lease: longer });
    });
}

#[test]
fn a_renewal_reports_the_request_to_cancel() {
    on_every_store(|stage| async move {
        stage.add(COUNT, "").await;
        let lease = stage.claim_one().await.lease;
        let recorded = stage.record(lease.job, Event::CancelRequested).await.unwrap();
        assert_eq!((recorded.state, recorded.cancel_requested), (StateName::Running, true));
        let longer = Lease { until: stage.store.now() + LEASE, ..lease };
        assert_eq!(stage.store.renew(vec![lease], LEASE).await.unwrap(), [Renewed::RenewedCancelRequested(longer)]);
    });
}

#[test]
fn an_expired_lease_is_reclaimed_and_its_job_retried() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        let first = stage.claim_one().await;
        stage.pass(LEASE - SECOND);
        assert!(stage.store.reclaim(10).await.unwrap().is_empty());
        stage.pass(SECOND);
        assert_eq!(stage.store.reclaim(10).await.unwrap(), [id]);
        let job = stage.seen(id).await.job;
        assert_eq!((job.status.crashes, job.status.failures.failed()), (1, 0));
        assert_eq!(job.report.unwrap().kind, OutcomeKind::Interrupted);
        let second = stage.claim_one().await;
        assert_eq!(second.lease.attempt, 2);
        assert_eq!(stage.store.renew(vec![first.lease], LEASE).await.unwrap(), [Renewed::Lost(first.lease)]);
        assert_eq!(stage.record(id, succeeded(1)).await, Err(Refusal::Stale));
    });
}

#[test]
fn a_job_that_crashes_its_host_repeatedly_fails() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        for crashes in 0..bounds::CRASHES_MAX {
            let leased = stage.claim_one().await;
            assert_eq!(leased.crashes, crashes);
            if is_suspect(crashes) {
                stage.store.set_node_mark(leased.lease.node, alone(&leased)).await.unwrap();
            }
            dies(&stage, id).await;
        }
        assert_eq!(stage.state(id).await, StateName::Failed);
        assert!(stage.claim(10).await.is_empty());
    });
}

fn alone(leased: &LeasedJob) -> NodeMark {
    let suspect = StartedSuspect { job: leased.lease.job, attempt: leased.lease.attempt, alone: true };
    NodeMark { draining: false, suspect: Some(suspect) }
}

/// Lets the lease of the only running job expire, as if its host had died.
async fn dies(stage: &Stage, id: JobId) {
    stage.pass(LEASE);
    assert_eq!(stage.store.reclaim(10).await.unwrap(), [id]);
}

#[test]
fn the_mark_of_a_node_decides_if_its_end_counts_as_a_crash() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        let crashes = async || {
            let job = stage.seen(id).await.job;
            assert_eq!((job.status.state.name(), job.status.failures.failed()), (StateName::Waiting, 0));
            job.status.crashes
        };
        let draining = NodeMark { draining: true, suspect: None };
        // Another host drains.
        stage.store.set_node_mark(NodeId(8), draining).await.unwrap();
        for _ in 0..bounds::SUSPECT_CRASHES {
            stage.claim_one().await;
            dies(&stage, id).await;
        }
        assert_eq!(crashes().await, bounds::SUSPECT_CRASHES);
        // The job was not started as a suspect, and the host died of something else; also if it had started this job before.
        let leased = stage.claim_one().await;
        dies(&stage, id).await;
        stage.store.set_node_mark(leased.lease.node, alone(&leased)).await.unwrap();
        stage.claim_one().await;
        dies(&stage, id).await;
        assert_eq!(crashes().await, bounds::SUSPECT_CRASHES);
        // The job ran beside others, and was not the only one that may have killed the host.
        for more in 1..=bounds::CRASHES_MAX {
            let leased = stage.claim_one().await;
            let suspect = alone(&leased).suspect.map(|suspect| StartedSuspect { alone: false, ..suspect });
            stage.store.set_node_mark(leased.lease.node, NodeMark { draining: false, suspect }).await.unwrap();
            dies(&stage, id).await;
            assert_eq!(crashes().await, bounds::SUSPECT_CRASHES + more);
        }
        // The host was draining.
        let before = crashes().await;
        for _ in 0..3 {
            let leased = stage.claim_one().await;
            stage.store.set_node_mark(leased.lease.node, NodeMark { draining: true, ..alone(&leased) }).await.unwrap();
            dies(&stage, id).await;
        }
        assert_eq!(crashes().await, before);
        let report = stage.seen(id).await.job.report.unwrap();
        assert!(report.kind == OutcomeKind::Interrupted && report.text.contains("during its shutdown"), "{report:?}");
    });
}

#[test]
fn the_mark_of_a_node_is_deleted_long_after_it_can_matter() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        let draining = NodeMark { draining: true, suspect: None };
        stage.store.set_node_mark(NodeId(7), draining).await.unwrap();
        stage.claim_one().await;
        stage.pass(3 * 24 * 3600 * SECOND);
        stage.store.set_node_mark(NodeId(8), draining).await.unwrap();
        assert_eq!(stage.store.reclaim(10).await.unwrap(), [id]);
        assert_eq!(stage.seen(id).await.job.status.crashes, 0, "however late the lease is reclaimed");
        stage.pass(5 * 24 * 3600 * SECOND);
        stage.store.set_node_mark(NodeId(8), draining).await.unwrap();
        stage.claim_one().await;
        dies(&stage, id).await;
        assert_eq!(stage.seen(id).await.job.status.crashes, 1);
    });
}

#[test]
fn leases_are_reclaimed_in_batches_the_oldest_first() {
    on_every_store(|stage| async move {
        let mut order = Vec::new();
        for _ in 0..5 {
            stage.add(COUNT, "").await;
            order.push(stage.claim_one().await.lease.job);
            stage.pass(SECOND);
        }
        stage.pass(LEASE);
        assert_eq!(stage.store.reclaim(2).await.unwrap(), order[..2]);
        assert_eq!(stage.store.reclaim(9).await.unwrap(), order[2..]);
    });
}

#[test]
fn reclaimed_slots_are_all_free_at_once() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(3, 3));
        let jobs = stage.add_many(COUNT, "a", 9).await;
        assert_eq!(ids(&stage.claim(9).await), jobs[..3]);
        stage.pass(LEASE);
        assert_eq!(stage.store.reclaim(9).await.unwrap(), jobs[..3]);
        assert_eq!(stage.claim(9).await.len(), 3);
    });
}

#[test]
fn a_lease_that_does_not_exist_is_lost() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        let leased = stage.claim_one().await;
        stage.succeed(&leased).await.unwrap();
        let unknown = Lease { job: stage.id(), ..leased.lease };
        let answer = stage.store.renew(vec![leased.lease, unknown], LEASE).await.unwrap();
        assert_eq!(answer, [Renewed::Lost(leased.lease), Renewed::Lost(unknown)]);
        assert_eq!(stage.state(id).await, StateName::Succeeded);
    });
}
