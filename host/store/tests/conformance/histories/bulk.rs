//! Bulk operations of a history: their beginnings, their steps on random jobs, and their ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use wharf_core::bulk::{BulkAct, BulkOperation, NewOperation, OperationState, OperationStep, Trial};
use wharf_core::find::JobQuery;
use wharf_core::ids::JobId;
use wharf_core::job::Job;
use wharf_core::limits::LimitTable;
use wharf_store::{FindRequest, Queue as _, Store};

use super::operation::{Operation, author, one_of};
use super::world::World;
use crate::stage::SECOND;

/// Filters about all that changes while an operation is open.
const FILTERS: [&str; 9] = [
    "key:a",
    "state:held",
    "state:ready,blocked",
    "state:blocked key:a",
    "state:retrying,delayed",
    "state:running,held",
    "state:waiting,running",
    "state:failed,cancelled",
    "outcome:trapped",
];

/// The jobs that met an operation's filter when it began, and all that existed then.
#[derive(Debug)]
pub(super) struct Start {
    met: BTreeSet<JobId>,
    jobs: BTreeMap<JobId, Job>,
}

impl Start {
    /// Sees the start of an operation on a store on which nothing has happened since.
    pub(super) async fn see(store: &dyn Store, operation: &BulkOperation, declared: &Arc<LimitTable>) -> Start {
        let query = JobQuery::default();
        let all = FindRequest { time: Duration::MAX, ..FindRequest::new(Arc::new(query), declared.clone(), 1000) };
        let query = Arc::new(operation.query().unwrap());
        let met = store.find(FindRequest { query, ..all.clone() }).await.unwrap();
        let jobs = store.find(all).await.unwrap();
        assert_eq!((met.next, jobs.next), (None, None));
        let met = met.jobs.iter().map(|job| job.id).collect();
        Start { met, jobs: jobs.jobs.into_iter().map(|job| (job.id, job)).collect() }
    }

    /// Checks the jobs that an operation is about by now: none that did not meet its filter at the start, and all that did and have not
    /// moved on.
    pub(super) fn check(&self, operation: &BulkOperation, found: &[JobId], now: &[Job]) {
        let found: BTreeSet<JobId> = found.iter().copied().collect();
        let strange: Vec<_> = found.difference(&self.met).map(|id| self.jobs.get(id)).collect();
        assert!(strange.is_empty(), "{operation:?} takes jobs that did not meet its filter: {strange:#?}");
        let moves = |job: &Job| {
            let state = job.status.state.name();
            let steps = [job.started_at, job.finished_at, job.requeued_at, job.retried_at];
            (state, job.status.attempt, steps)
        };
        for job in now.iter().filter(|job| self.met.contains(&job.id) && !found.contains(&job.id)) {
            assert_ne!(moves(job), moves(&self.jobs[&job.id]), "{operation:?} leaves {job:?} out");
            let is_still_unfinished =
                !job.status.state.name().is_final() && job.retried_at == self.jobs[&job.id].retried_at;
            assert!(
                operation.filter != "state:waiting,running" || !is_still_unfinished,
                "{operation:?} leaves {job:?} out"
            );
        }
    }
}

/// Returns the jobs that an operation is about by now, and how many of those that it came upon have moved on.
pub(super) async fn find(store: &dyn Store, operation: &BulkOperation) -> (Vec<JobId>, u64) {
    let new = FindRequest::new(Arc::new(operation.query().unwrap()), Arc::default(), 1000);
    let find = FindRequest { as_of: Some(operation.as_of()), time: Duration::MAX, ..new };
    let page = store.find(find).await.unwrap();
    assert_eq!(page.next, None);
    (page.jobs.iter().map(|job| job.id).collect(), page.moved_on)
}

/// Returns a step of a bulk operation, or the beginning of one if none is open.
pub(super) fn step_or_start(rng: &mut Rng, world: &World) -> Operation {
    if world.open.is_empty() { start(rng, world) } else { Operation::TakeStep(step(rng, world)) }
}

pub(super) fn start(rng: &mut Rng, world: &World) -> Operation {
    let (now, filter) = (world.oracle.now(), one_of(rng, &FILTERS));
    Operation::StartBulk(Box::new(NewOperation {
        id: world.oracle.next_id().unwrap(),
        act: one_of(rng, &BulkAct::ALL),
        query: JobQuery::parse(filter, now).unwrap(),
        author: author(rng),
        token: (rng.u32(..2) == 0).then(|| one_of(rng, &["a", "b"]).parse().unwrap()),
        trial: (rng.u32(..4) == 0).then_some(Trial { jobs: 2, within: 10 * SECOND }),
        spread: one_of(rng, &[Duration::ZERO, 3 * SECOND]),
        attempts: rng.u32(1..3),
        priority: one_of(rng, &[-5, 0, 5]),
    }))
}

pub(super) fn cancel(rng: &mut Rng, world: &World) -> Operation {
    match world.open.is_empty() {
        true => start(rng, world),
        false => Operation::CancelBulk(one_of(rng, &world.open).id, author(rng)),
    }
}

/// Returns a step on random jobs: mostly as they are, sometimes as they were a step of the history ago.
fn step(rng: &mut Rng, world: &World) -> OperationStep {
    let operation: BulkOperation = one_of(rng, &world.open);
    let from = if rng.u32(..4) == 0 { &world.jobs_before } else { &world.jobs };
    let jobs: Vec<Job> = from.iter().filter(|_| rng.u32(..4) == 0).take(5).cloned().collect();
    let next = if rng.u32(..3) > 0 { jobs.last().map(|job| job.id) } else { None };
    let mut step = operation.step_on(&jobs, rng.u64(..2), next);
    if rng.u32(..8) == 0 {
        // It was decided before another one.
        step.step = step.step.wrapping_sub(1);
    }
    if rng.u32(..10) == 0 {
        (step.state, step.reason) = (OperationState::Halted, Some("why \u{0}".replace('\0', "not")));
    }
    step
}
