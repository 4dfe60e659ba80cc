//! Tests the planner by scripts of inputs and expected actions. The simulation covers combinations of faults.

use std::time::Duration;

use super::*;
use crate::ids::{Group, NodeId};
use crate::key::Lane;

mod claims;
mod records;
mod leases;
mod drains;
mod suspects;

const LEASE: Duration = Duration::from_secs(30);
const MARGIN: Duration = Duration::from_secs(3);

fn at(seconds: f64) -> Timestamp {
    Timestamp::ZERO + Duration::from_secs(1000) + Duration::from_secs_f64(seconds)
}

fn planner(capacity: u32) -> Planner {
    let mut planner = Planner::new(PlannerSettings { capacity, lease: LEASE, lease_margin: MARGIN });
    planner.on(Input::CatalogChanged { any_task: true }, at(0.0));
    planner
}

fn id(number: u64) -> JobId {
    JobId::from_number(number).unwrap()
}

fn attempt(job: u64) -> AttemptId {
    AttemptId { job: id(job), number: 1 }
}

fn leased(job: u64, now: Timestamp) -> LeasedJob {
    let task: crate::ids::TaskName = "p/t".parse().unwrap();
    LeasedJob {
        lease: Lease { job: id(job), attempt: 1, node: NodeId(1), until: now + LEASE },
        lane: Lane { group: Group::from(&task), key: None },
        task,
        payload: [].into(),
        batch: None,
        generation: 0,
        failures: FailureCount::NONE,
        crashes: 0,
        due: now,
        claimed_at: now,
        tick: None,
    }
}

/// Runs one turn with one input.
fn turn(planner: &mut Planner, input: Input, now: Timestamp) -> Vec<Action> {
    planner.on(input, now);
    planner.decide(now)
}

fn claimed(jobs: impl IntoIterator<Item = u64>, now: Timestamp) -> Input {
    Input::Claimed {
        leased: jobs.into_iter().map(|job| leased(job, now)).collect(),
        wake_at: None,
        short_of_room: false,
    }
}

fn ended(job: u64, outcome: Outcome) -> Input {
    let retry = RetryPolicy { attempts: 3, backoff_min: Duration::from_secs(1), backoff_max: Duration::from_secs(60) };
    let (usage, children) = (Usage::default(), Vec::new());
    Input::FinishedAttempt(Box::new(FinishedAttempt {
        attempt: attempt(job),
        outcome,
        usage,
        origin: None,
        children,
        changes: None,
        retry,
        jitter: 0.0,
    }))
}

fn returned(job: u64) -> Input {
    ended(job, Outcome::Returned(Vec::new()))
}

fn stands(count: usize) -> Input {
    Input::Recorded(vec![RecordResult::Recorded { cancel_requested: false }; count])
}

/// Returns a planner with four slots that runs these jobs.
fn running(jobs: &[u64]) -> Planner {
    let mut planner = planner(4);
    assert_eq!(planner.decide(at(0.0)), [Action::Claim { free: 4 }]);
    let actions = turn(&mut planner, claimed(jobs.iter().copied(), at(0.0)), at(0.0));
    assert_eq!(actions.iter().filter(|action| matches!(action, Action::Start { .. })).count(), jobs.len());
    planner
}

fn events(actions: &[Action]) -> Vec<(u64, &Event)> {
    let records = actions.iter().filter_map(|action| match action {
        Action::Record(events) => Some(events),
        _ => None,
    });
    records.flatten().map(|(job, event)| (job.number(), event)).collect()
}

/// Returns a planner with one slot, which runs job 1 and so does not claim.
fn full() -> Planner {
    let mut planner = planner(1);
    planner.decide(at(0.0));
    assert_eq!(turn(&mut planner, claimed([1], at(0.0)), at(0.0)).len(), 1);
    planner
}

fn wrote(job: u64, text: &str) -> Input {
    Input::Wrote { attempt: attempt(job), entry: Entry::Chunk(text.as_bytes().into()) }
}

fn recorded(result: RecordResult) -> Input {
    Input::Recorded(vec![result])
}

fn stops(actions: &[Action]) -> Vec<(u64, Interruption)> {
    let stop = |action: &Action| match action {
        Action::Stop { attempt, why, .. } => Some((attempt.job.number(), *why)),
        _ => None,
    };
    actions.iter().filter_map(stop).collect()
}
