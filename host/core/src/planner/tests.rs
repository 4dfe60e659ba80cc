//! Tests the planner by scripts of inputs and expected actions. The simulation covers combinations of faults.

use std::time::Duration;

use super::*;
use crate::ids::{Group, NodeId};
use crate::key::Lane;
use crate::outcome::Failure;

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
        failures: 0,
        crashes: 0,
        due: now,
        claimed_at: now,
    }
}

/// Runs one turn with one input.
fn turn(planner: &mut Planner, input: Input, now: Timestamp) -> Vec<Action> {
    planner.on(input, now);
    planner.decide(now)
}

fn claimed(jobs: impl IntoIterator<Item = u64>, now: Timestamp) -> Input {
    Input::Claimed { leased: jobs.into_iter().map(|job| leased(job, now)).collect(), wake_at: None }
}

fn ended(job: u64, outcome: Outcome) -> Input {
    let retry = RetryPolicy { attempts: 3, backoff_min: Duration::from_secs(1), backoff_max: Duration::from_secs(60) };
    let (usage, children) = (Usage::default(), Vec::new());
    Input::FinishedAttempt(Box::new(FinishedAttempt {
        attempt: attempt(job),
        outcome,
        usage,
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

#[test]
fn nothing_is_claimed_without_a_task_or_while_a_claim_is_in_flight() {
    let mut planner = Planner::new(PlannerSettings { capacity: 2, lease: LEASE, lease_margin: MARGIN });
    assert_eq!(turn(&mut planner, Input::Nudged, at(0.0)), []);
    assert_eq!(planner.wake_at(), None);
    let actions = turn(&mut planner, Input::CatalogChanged { any_task: true }, at(0.0));
    assert_eq!(actions, [Action::Claim { free: 2 }]);
    assert_eq!(turn(&mut planner, Input::Nudged, at(0.1)), []);
    // The nudge may be about work that came after the claim, so the node claims again.
    assert_eq!(turn(&mut planner, claimed([], at(0.1)), at(0.1)), [Action::Claim { free: 2 }]);
    assert_eq!(turn(&mut planner, claimed([], at(0.2)), at(0.2)), []);
    assert_eq!(planner.wake_at(), Some(at(1.2)), "polling is the truth");
    assert_eq!(turn(&mut planner, Input::Tick, at(1.2)), [Action::Claim { free: 2 }]);
}

#[test]
fn a_delayed_job_is_claimed_when_it_is_due() {
    let mut planner = planner(1);
    planner.decide(at(0.0));
    turn(&mut planner, Input::Claimed { leased: Vec::new(), wake_at: Some(at(0.3)) }, at(0.0));
    assert_eq!(planner.wake_at(), Some(at(0.3)));
}

#[test]
fn attempts_that_end_together_are_recorded_together_and_slots_are_claimed_in_the_same_turn() {
    let mut planner = running(&[1, 2, 3, 4]);
    for job in [1, 2, 3] {
        planner.on(returned(job), at(1.0));
    }
    let actions = planner.decide(at(1.0));
    assert_eq!(events(&actions).len(), 3);
    assert_eq!(actions[1..], [Action::Claim { free: 3 }]);
    assert_eq!(planner.running(), 1);
    // The next end waits for the record call in flight.
    assert_eq!(turn(&mut planner, returned(4), at(1.1)), []);
    assert_eq!(events(&turn(&mut planner, stands(3), at(1.2))).len(), 1);
}

#[test]
fn entries_are_recorded_before_the_end_of_their_attempt_even_if_the_store_fails() {
    let mut planner = running(&[1]);
    let chunk = |text: &str| Entry::Chunk(text.as_bytes().into());
    let wrote = |text: &str| Input::Wrote { attempt: attempt(1), entry: chunk(text) };
    let actions = turn(&mut planner, wrote("a"), at(1.0));
    let Some(Action::Record(first)) = actions.into_iter().next() else { panic!("not recorded") };
    planner.on(wrote("b"), at(1.1));
    planner.on(returned(1), at(1.1));
    let actions = turn(&mut planner, Input::RecordFailed(first), at(1.2));
    assert_eq!(events(&actions), [], "not at once");
    let wake_at = planner.wake_at().unwrap();
    let actions = turn(&mut planner, Input::Tick, wake_at);
    let Event::Wrote { entries, .. } = events(&actions)[0].1 else { panic!("the end came first") };
    assert_eq!(entries[..], [chunk("a"), chunk("b")]);
    assert!(matches!(events(&actions)[1], (1, Event::Succeeded { .. })));
}

#[test]
fn an_end_is_kept_until_it_is_recorded_or_refused() {
    let mut planner = running(&[1]);
    planner.on(returned(1), at(1.0));
    let mut now = at(1.0);
    for _ in 0..20 {
        let record = planner.decide(now).into_iter().find(|action| matches!(action, Action::Record(_)));
        let Some(Action::Record(kept)) = record else { panic!("not tried again") };
        planner.on(Input::RecordFailed(kept), now);
        now = now + BACKOFF_MAX;
    }
    let actions = planner.decide(now);
    assert!(matches!(events(&actions)[0], (1, Event::Succeeded { .. })));
    planner.on(Input::Recorded(vec![RecordResult::Refused(Refusal::Stale)]), now);
    assert_eq!(events(&planner.decide(now)), [], "refused is over");
}

#[test]
fn leases_are_renewed_at_a_third_and_trust_follows_what_was_confirmed() {
    let mut planner = running(&[1]);
    let mut now = at(0.0);
    let renewed_at = loop {
        now = planner.wake_at().unwrap().max(now);
        let actions = turn(&mut planner, Input::Tick, now);
        if actions.iter().any(|action| matches!(action, Action::Claim { .. })) {
            planner.on(claimed([], now), now);
        }
        if let Some(Action::Renew(leases)) = actions.iter().find(|action| matches!(action, Action::Renew(_))) {
            assert_eq!(leases.len(), 1);
            break now;
        }
        assert!(now < at(11.0), "no renewal within a third of the lease");
    };
    let lease = Lease { until: renewed_at + Duration::from_secs(1) + LEASE, ..leased(1, at(0.0)).lease };
    let held = Input::Renewed(vec![RenewResult::Renewed { lease, cancel_requested: true }]);
    let actions = turn(&mut planner, held, renewed_at + Duration::from_secs(2));
    let until = renewed_at + LEASE - MARGIN;
    assert_eq!(actions[..2], [Action::Trust { attempt: attempt(1), until }, Action::RequestCancel(attempt(1))]);
}

#[test]
fn an_attempt_whose_lease_is_not_confirmed_is_stopped_and_a_lost_one_records_nothing() {
    let mut planner = running(&[1, 2]);
    planner.on(returned(2), at(1.0));
    planner.decide(at(1.0));
    let stop = |actions: &[Action]| {
        actions
            .iter()
            .any(|a| matches!(a, Action::Stop { attempt: a, why: Interruption::LeaseLost, .. } if *a == attempt(1)))
    };
    assert!(!stop(&turn(&mut planner, Input::Tick, at(26.9))));
    assert!(stop(&turn(&mut planner, Input::Tick, at(29.9))));

    let mut planner = running(&[1]);
    turn(&mut planner, Input::Tick, at(10.0));
    let lost = Input::Renewed(vec![RenewResult::Lost(leased(1, at(0.0)).lease)]);
    assert!(stop(&turn(&mut planner, lost, at(10.0))));
    let wrote = Input::Wrote { attempt: attempt(1), entry: Entry::LogDropped { lines: 1 } };
    assert_eq!(events(&turn(&mut planner, wrote, at(10.1))), []);
    let actions = turn(&mut planner, returned(1), at(10.2));
    assert_eq!((events(&actions), actions.contains(&Action::Dropped(attempt(1)))), (Vec::new(), true));
}

#[test]
fn a_job_whose_claim_returned_too_late_is_released() {
    let mut planner = planner(4);
    planner.decide(at(0.0));
    let actions = turn(&mut planner, claimed([1], at(0.0)), at(27.5));
    assert!(matches!(events(&actions)[..], [(1, Event::Released { .. })]), "{actions:?}");
    assert_eq!(planner.running(), 0);
}

#[test]
fn a_request_to_cancel_is_not_lost_while_a_claim_is_in_flight() {
    let mut planner = planner(4);
    planner.decide(at(0.0));
    planner.on(Input::CancelRequested(id(1)), at(0.1));
    let actions = turn(&mut planner, claimed([1, 2], at(0.1)), at(0.1));
    assert_eq!(actions.iter().filter(|action| **action == Action::RequestCancel(attempt(1))).count(), 1);
    assert_eq!(turn(&mut planner, Input::CancelRequested(id(1)), at(0.2)), [], "asked once");
    let actions = turn(&mut planner, ended(1, Outcome::Interrupted(Interruption::Drain, String::new())), at(1.0));
    assert!(matches!(events(&actions)[..], [(1, Event::Cancelled { .. })]), "given back is cancelled: {actions:?}");
}

#[test]
fn failures_follow_the_policy_and_jobs_that_cannot_start_do_not_spin() {
    let mut planner = running(&[1, 2, 3]);
    planner.on(ended(1, Outcome::Failed(Failure::Retry("no".into()))), at(1.0));
    planner.on(ended(2, Outcome::Failed(Failure::Discard("no".into()))), at(1.0));
    planner.on(ended(3, Outcome::Interrupted(Interruption::Host, "no room".into())), at(1.0));
    let actions = planner.decide(at(1.0));
    let [
        (1, Event::Failed { retry_in: Some(retry_in), .. }),
        (2, Event::Failed { retry_in: None, .. }),
        (3, Event::Released { claimable_in, .. }),
    ] = events(&actions)[..]
    else {
        panic!("{actions:?}")
    };
    assert!(!retry_in.is_zero() && !claimable_in.is_zero());
}

#[test]
fn a_drain_waits_stops_releases_and_ends() {
    let mut planner = running(&[1, 2]);
    let actions = turn(&mut planner, Input::Drain { until: at(5.0) }, at(1.0));
    assert!(matches!(actions[..], [Action::Mark(NodeMark { draining: true, .. })]), "{actions:?}");
    planner.on(Input::Marked, at(1.1));
    let actions = turn(&mut planner, returned(1), at(2.0));
    assert_eq!(events(&actions).len(), 1);
    assert_eq!(turn(&mut planner, stands(1), at(2.0)), [], "no claim");
    let wake_at = planner.wake_at().unwrap();
    assert!(wake_at <= at(5.0));
    let actions = turn(&mut planner, Input::Tick, at(5.0));
    assert!(matches!(actions[..], [Action::Stop { why: Interruption::Drain, .. }]), "{actions:?}");
    let actions = turn(&mut planner, ended(2, Outcome::Interrupted(Interruption::Drain, String::new())), at(5.1));
    assert!(matches!(events(&actions)[..], [(2, Event::Released { .. })]));
    assert_eq!(turn(&mut planner, stands(1), at(5.2)), [Action::Stopped]);
    assert_eq!(turn(&mut planner, Input::Nudged, at(5.3)), [], "said once");
}

#[test]
fn a_drain_without_a_store_ends_when_all_leases_have_expired() {
    let mut planner = running(&[1]);
    turn(&mut planner, Input::Drain { until: at(1.0) }, at(0.5));
    turn(&mut planner, Input::Tick, at(1.0));
    let actions = turn(&mut planner, ended(1, Outcome::Interrupted(Interruption::Drain, String::new())), at(1.1));
    assert_eq!(events(&actions).len(), 1, "and no answer ever comes");
    assert!(!turn(&mut planner, Input::Tick, at(30.0)).contains(&Action::Stopped));
    assert!(planner.wake_at().unwrap() <= at(31.0));
    assert!(turn(&mut planner, Input::Tick, at(31.0)).contains(&Action::Stopped));
}

#[test]
fn a_clock_that_is_set_back_delays_nothing_for_long() {
    let mut planner = running(&[1]);
    let early = Timestamp::from_millis(5);
    turn(&mut planner, Input::Tick, early);
    assert!(planner.wake_at().unwrap() <= early + Duration::from_secs(3));

    let mut planner = running(&[1]);
    turn(&mut planner, Input::Drain { until: at(5.0) }, at(1.0));
    turn(&mut planner, Input::Tick, early);
    let actions = turn(&mut planner, Input::Tick, early + Duration::from_secs(4));
    assert!(
        actions.iter().any(|action| matches!(action, Action::Stop { .. })),
        "the drain has its patience: {actions:?}"
    );
}

#[test]
fn no_lease_is_trusted_longer_than_its_length_whatever_the_clock_does() {
    let mut planner = running(&[1]);
    let actions = turn(&mut planner, Input::Tick, at(12.0));
    let [Action::Renew(leases)] = &actions[1..] else { panic!("{actions:?}") };
    // The store granted it until then, and its clock was set back before the result arrived.
    let held = RenewResult::Renewed { lease: Lease { until: at(12.0) + LEASE, ..leases[0] }, cancel_requested: false };
    let now = Timestamp::from_millis(5_000);
    let actions = turn(&mut planner, Input::Renewed(vec![held]), now);
    let until = actions.iter().find_map(|action| match action {
        Action::Trust { until, .. } => Some(*until),
        _ => None,
    });
    assert_eq!(until, Some(now + LEASE - MARGIN), "{actions:?}");
}
