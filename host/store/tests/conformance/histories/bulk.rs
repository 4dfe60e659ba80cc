//! Bulk operations of a history: their beginnings, their steps on random jobs, and their ends.

use std::time::Duration;

use fastrand::Rng;
use wharf_core::bulk::{BulkAct, BulkOperation, NewOperation, OperationState, OperationStep, Trial};
use wharf_core::find::JobQuery;
use wharf_core::job::Job;
use wharf_store::Queue as _;

use super::operation::{Operation, author, one_of};
use super::world::World;
use crate::stage::SECOND;

/// Returns a step of a bulk operation, or the beginning of one if none is open.
pub(super) fn step_or_start(rng: &mut Rng, world: &World) -> Operation {
    if world.open.is_empty() { start(rng, world) } else { Operation::TakeStep(step(rng, world)) }
}

pub(super) fn start(rng: &mut Rng, world: &World) -> Operation {
    let now = world.oracle.now();
    Operation::StartBulk(Box::new(NewOperation {
        id: world.oracle.next_id().unwrap(),
        act: one_of(rng, &BulkAct::ALL),
        query: JobQuery::parse("key:a", now).unwrap(),
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
    let mut step = operation.step_on(&jobs, next);
    if rng.u32(..8) == 0 {
        // It was decided before another one.
        step.step = step.step.wrapping_sub(1);
    }
    if rng.u32(..10) == 0 {
        (step.state, step.reason) = (OperationState::Halted, Some("why \u{0}".replace('\0', "not")));
    }
    step
}
