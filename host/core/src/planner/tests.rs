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
        generation: 0,
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
        now = now + STORE_RETRY_MAX;
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
        let wake_at = planner.wake_at().unwrap();
        assert!(wake_at > now, "a node that has nothing to do sleeps");
        now = wake_at;
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

#[test]
fn a_claim_that_fails_is_repeated_after_a_delay_that_doubles_up_to_a_bound() {
    let mut planner = planner(4);
    let mut now = at(0.0);
    let mut fail = |planner: &mut Planner| {
        assert_eq!(planner.decide(now), [Action::Claim { free: 4 }]);
        assert_eq!(turn(planner, Input::ClaimFailed, now), [], "not at once");
        let next = planner.wake_at().unwrap();
        let delay = next.since(now).as_millis();
        now = next;
        delay
    };
    let delays: Vec<u128> = (0..8).map(|_| fail(&mut planner)).collect();
    assert_eq!(delays, [50, 100, 200, 400, 800, 1600, 2000, 2000]);

    // One that succeeds ends the delays.
    assert_eq!(planner.decide(now), [Action::Claim { free: 4 }]);
    planner.on(claimed([], now), now);
    let next = now + POLL;
    assert_eq!(planner.wake_at(), Some(next));
    assert_eq!(planner.decide(next), [Action::Claim { free: 4 }]);
    turn(&mut planner, Input::ClaimFailed, next);
    assert_eq!(planner.wake_at(), Some(next + STORE_RETRY_MIN));
}

#[test]
fn a_record_call_that_fails_is_repeated_after_a_delay_and_not_before() {
    let mut planner = full();
    let actions = turn(&mut planner, wrote(1, "a"), at(0.5));
    let [Action::Record(sent)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(turn(&mut planner, Input::RecordFailed(sent.clone()), at(0.5)), []);
    let again = at(0.5) + STORE_RETRY_MIN;
    assert_eq!(planner.wake_at(), Some(again));
    assert_eq!(turn(&mut planner, wrote(1, "b"), again - Duration::from_micros(1)), []);
    let actions = planner.decide(again);
    let [(1, Event::Wrote { entries, .. })] = events(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(entries.len(), 2);
    assert_eq!(turn(&mut planner, stands(1), again), []);
    assert_eq!(events(&turn(&mut planner, wrote(1, "c"), again)).len(), 1, "after a success there is no delay");
}

#[test]
fn what_comes_during_a_record_call_waits_for_its_result_without_a_timer() {
    let mut planner = full();
    let lease_check = planner.wake_at();
    turn(&mut planner, wrote(1, "a"), at(0.1));
    assert_eq!(turn(&mut planner, wrote(1, "b"), at(0.2)), []);
    assert_eq!(planner.wake_at(), lease_check);
    assert_eq!(events(&turn(&mut planner, stands(1), at(0.3))).len(), 1);
}

#[test]
fn a_record_call_carries_a_limited_number_of_events_and_the_others_follow() {
    let mut planner = planner(3000);
    planner.decide(at(0.0));
    turn(&mut planner, claimed(1..=2001, at(0.0)), at(0.0));
    (1..=2001).for_each(|job| planner.on(returned(job), at(0.5)));
    assert_eq!(events(&planner.decide(at(0.5))).len(), 2000);
    assert_eq!(events(&turn(&mut planner, stands(2000), at(0.6))).len(), 1);
}

#[test]
fn a_record_call_carries_a_limited_number_of_bytes_but_always_one_event() {
    let mut planner = running(&[1, 2, 3]);
    let mib = |job: u64, count: usize| Input::Wrote {
        attempt: attempt(job),
        entry: Entry::Chunk(vec![0; count << 20].into()),
    };
    [(1, 9), (2, 4), (3, 4)].into_iter().for_each(|(job, count)| planner.on(mib(job, count), at(0.1)));
    let jobs = |actions: &[Action]| events(actions).iter().map(|(job, _)| *job).collect::<Vec<_>>();
    assert_eq!(jobs(&planner.decide(at(0.1))), [1]);
    planner.on(mib(1, 1), at(0.2));
    assert_eq!(jobs(&turn(&mut planner, stands(1), at(0.2))), [2, 3], "8 MiB are reached");
    assert_eq!(jobs(&turn(&mut planner, stands(2), at(0.3))), [1]);
}

#[test]
fn a_recorded_entry_leaves_its_attempt_running_unless_the_store_says_otherwise() {
    let result_of = |result: RecordResult| {
        let mut planner = full();
        turn(&mut planner, wrote(1, "a"), at(0.1));
        let actions = turn(&mut planner, recorded(result), at(0.2));
        assert_eq!(planner.running(), 1);
        (actions, events(&turn(&mut planner, wrote(1, "b"), at(0.3))).len())
    };
    assert_eq!(result_of(RecordResult::Recorded { cancel_requested: false }), (vec![], 1));
    assert_eq!(
        result_of(RecordResult::Recorded { cancel_requested: true }),
        (vec![Action::RequestCancel(attempt(1))], 1)
    );
    let (actions, more) = result_of(RecordResult::Refused(Refusal::Stale));
    assert_eq!((stops(&actions), more), (vec![(1, Interruption::LeaseLost)], 0), "the job is another node's");
}

#[test]
fn events_that_could_not_be_recorded_of_a_lost_attempt_are_dropped() {
    let mut planner = full();
    turn(&mut planner, Input::Tick, at(10.0));
    let actions = turn(&mut planner, wrote(1, "a"), at(10.0));
    let [Action::Record(sent)] = &actions[..] else { panic!("{actions:?}") };
    let lost = Input::Renewed(vec![RenewResult::Lost(leased(1, at(0.0)).lease)]);
    assert_eq!(stops(&turn(&mut planner, lost, at(10.1))), [(1, Interruption::LeaseLost)]);
    planner.on(Input::RecordFailed(sent.clone()), at(10.2));
    assert_eq!(events(&planner.decide(at(10.2) + STORE_RETRY_MIN)), []);
}

#[test]
fn a_freed_slot_is_claimed_at_once_only_if_the_last_claim_left_jobs_behind() {
    let claims = |jobs: &[u64]| {
        let mut planner = running(jobs);
        let actions = turn(&mut planner, returned(1), at(0.5));
        assert_eq!(events(&actions).len(), 1);
        actions[1..].to_vec()
    };
    assert_eq!(claims(&[1, 2, 3, 4]), [Action::Claim { free: 1 }], "there may be more");
    assert_eq!(claims(&[1, 2, 3]), [], "the queue is empty, and a nudge tells when it is not");
}

#[test]
fn a_job_that_cannot_start_is_claimable_again_after_a_delay_that_doubles_each_time() {
    let delay = |number: u32, failures: u32| {
        let mut planner = planner(1);
        planner.decide(at(0.0));
        let mut job = leased(1, at(0.0));
        (job.lease.attempt, job.failures) = (number, failures);
        turn(&mut planner, Input::Claimed { leased: vec![job], wake_at: None }, at(0.0));
        let end = ended(1, Outcome::Interrupted(Interruption::Host, "no memory".into()));
        let Input::FinishedAttempt(mut finished) = end else { unreachable!() };
        finished.attempt.number = number;
        let actions = turn(&mut planner, Input::FinishedAttempt(finished), at(0.1));
        let [(1, Event::Released { claimable_in, .. })] = events(&actions)[..] else { panic!("{actions:?}") };
        claimable_in.as_millis()
    };
    assert_eq!([1, 2, 3].map(|number| delay(number, 0)), [500, 1000, 2000]);
    assert_eq!(delay(4, 3), 500, "its failed attempts did start");
    assert_eq!(delay(100, 0), 64_000, "but never much longer than a minute");
}

#[test]
fn ends_that_cannot_be_recorded_take_no_slot_until_they_are_as_many_as_the_slots() {
    let mut planner = planner(2);
    assert_eq!(planner.decide(at(0.0)), [Action::Claim { free: 2 }]);
    turn(&mut planner, claimed([1, 2], at(0.0)), at(0.0));
    assert_eq!(turn(&mut planner, Input::Nudged, at(0.1)), [], "all slots are taken");
    planner.on(returned(1), at(0.1));
    planner.on(returned(2), at(0.1));
    let actions = planner.decide(at(0.1));
    assert_eq!((events(&actions).len(), &actions[1..]), (2, &[Action::Claim { free: 2 }][..]));
    // The record call does not return.
    turn(&mut planner, claimed([3, 4], at(0.2)), at(0.2));
    planner.on(returned(3), at(0.2));
    planner.on(returned(4), at(0.2));
    assert_eq!((planner.decide(at(0.2)), planner.running()), (vec![], 0));
    let actions = turn(&mut planner, stands(2), at(0.3));
    assert_eq!((events(&actions).len(), &actions[1..]), (2, &[Action::Claim { free: 2 }][..]));
}

#[test]
fn the_next_claim_follows_at_once_while_jobs_are_due_and_within_the_poll_interval_otherwise() {
    let next = |jobs: &[u64], wake_at: Option<Timestamp>| {
        let mut planner = planner(4);
        planner.decide(at(0.0));
        planner.on(Input::Claimed { leased: jobs.iter().map(|job| leased(*job, at(5.0))).collect(), wake_at }, at(5.0));
        planner.wake_at().unwrap().max(at(5.0))
    };
    assert_eq!(next(&[1], Some(at(4.0))), at(5.0));
    assert_eq!(next(&[], Some(at(4.0))), at(5.001), "one that leased nothing is not repeated in a loop");
    assert_eq!(next(&[], Some(at(5.5))), at(5.5));
    assert_eq!((next(&[], Some(at(60.0))), next(&[], None)), (at(6.0), at(6.0)), "polling is the truth");
}

#[test]
fn a_node_whose_last_task_is_gone_claims_nothing() {
    let mut planner = planner(4);
    planner.decide(at(0.0));
    planner.on(claimed([], at(0.0)), at(0.0));
    assert_eq!(turn(&mut planner, Input::CatalogChanged { any_task: false }, at(0.1)), []);
    assert_eq!((turn(&mut planner, Input::Nudged, at(9.0)), planner.wake_at()), (vec![], None));
}

#[test]
fn leases_are_checked_at_a_twelfth_and_renewed_at_the_last_check_before_a_third() {
    let mut planner = full();
    for check in [2.5, 5.0] {
        assert_eq!(planner.wake_at(), Some(at(check)));
        assert_eq!(turn(&mut planner, Input::Tick, at(check)), []);
    }
    assert_eq!(planner.wake_at(), Some(at(7.5)));
    assert_eq!(turn(&mut planner, Input::Tick, at(7.5)), [Action::Renew(vec![leased(1, at(0.0)).lease])]);
    assert_eq!(turn(&mut planner, Input::Tick, at(10.0)), [], "one renewal at a time");
    assert_eq!(turn(&mut planner, Input::RenewFailed, at(11.0)), []);
    assert!(matches!(turn(&mut planner, Input::Tick, at(12.5))[..], [Action::Renew(_)]), "the next check repeats it");
}

#[test]
fn an_attempt_is_stopped_at_the_first_check_within_the_margin_and_once() {
    let mut planner = full();
    let mut now = at(0.0);
    let stopped_at = loop {
        let wake_at = planner.wake_at().unwrap();
        assert!(wake_at > now, "a node that has nothing to do sleeps");
        now = wake_at;
        let actions = turn(&mut planner, Input::Tick, now);
        if stops(&actions) == [(1, Interruption::LeaseLost)] {
            break now;
        }
        assert!(now < at(30.0), "another node may start the job");
        planner.on(Input::RenewFailed, now);
    };
    assert_eq!(stopped_at, at(27.5));
    assert_eq!(stops(&turn(&mut planner, Input::Tick, at(30.0))), []);
    // The renewal arrives after all: it is too late to go on.
    let lease = Lease { until: at(60.0), ..leased(1, at(0.0)).lease };
    assert_eq!(
        turn(&mut planner, Input::Renewed(vec![RenewResult::Renewed { lease, cancel_requested: false }]), at(30.1)),
        []
    );
    turn(&mut planner, Input::Tick, at(40.0));
    assert_eq!(turn(&mut planner, Input::Renewed(vec![RenewResult::Lost(lease)]), at(40.1)), []);
}

#[test]
fn an_attempt_that_has_ended_keeps_its_lease_until_its_end_is_recorded() {
    let mut planner = full();
    assert_eq!(events(&turn(&mut planner, returned(1), at(0.1))).len(), 1);
    planner.on(Input::Tick, at(7.5));
    let actions = planner.decide(at(7.5));
    assert!(actions.contains(&Action::Renew(vec![leased(1, at(0.0)).lease])), "{actions:?}");
    let lease = Lease { until: at(37.5), ..leased(1, at(0.0)).lease };
    let held = Input::Renewed(vec![RenewResult::Renewed { lease, cancel_requested: true }]);
    assert_eq!(turn(&mut planner, held, at(7.6)), [], "there is nothing left to trust or to cancel");
    assert_eq!(stops(&turn(&mut planner, Input::Tick, at(60.0))), [], "nor to stop");
}

#[test]
fn a_lease_that_ended_with_its_attempts_own_end_is_not_a_lost_one() {
    let mut planner = running(&[1, 2]);
    turn(&mut planner, Input::Tick, at(10.0));
    planner.on(returned(1), at(10.1));
    planner.on(wrote(2, "a"), at(10.1));
    assert_eq!(events(&planner.decide(at(10.1))).len(), 2);
    let lost = |job: u64| RenewResult::Lost(leased(job, at(0.0)).lease);
    let actions = turn(&mut planner, Input::Renewed(vec![lost(1), lost(2)]), at(10.2));
    assert_eq!(stops(&actions), [(2, Interruption::LeaseLost)]);
    assert!(!actions.contains(&Action::Dropped(attempt(1))), "the result of the record call decides: {actions:?}");
}

#[test]
fn leases_are_renewed_soon_after_the_clock_was_set_back() {
    let mut planner = full();
    let early = Timestamp::from_millis(5);
    assert_eq!(turn(&mut planner, Input::Tick, early), []);
    let check = planner.wake_at().unwrap();
    assert_eq!(check, early + LEASE / 12);
    assert!(matches!(turn(&mut planner, Input::Tick, check)[..], [Action::Renew(_)]), "their age is not known");
}

#[test]
fn a_backoff_is_no_longer_than_its_bound_after_the_clock_was_set_back() {
    let mut planner = planner(1);
    planner.decide(at(0.0));
    planner.on(Input::ClaimFailed, at(0.0));
    let early = Timestamp::from_millis(5);
    assert_eq!(planner.decide(early), []);
    assert_eq!(planner.wake_at(), Some(early + STORE_RETRY_MAX));
}

#[test]
fn a_request_to_cancel_reaches_each_attempt_once_and_no_other_job() {
    let mut planner = running(&[1, 2]);
    assert_eq!(turn(&mut planner, Input::CancelRequested(id(2)), at(0.1)), [Action::RequestCancel(attempt(2))]);
    assert_eq!(turn(&mut planner, Input::CancelRequested(id(2)), at(0.2)), []);
    assert_eq!(turn(&mut planner, Input::CancelRequested(id(3)), at(0.2)), [], "it is not here, nor on its way");
    assert_eq!(turn(&mut planner, returned(1), at(0.3)).len(), 1);
    assert_eq!(turn(&mut planner, Input::CancelRequested(id(1)), at(0.4)), [], "it has ended");
}

#[test]
fn a_drain_waits_for_the_claim_in_flight_and_releases_what_it_brings() {
    let mut planner = planner(4);
    assert!(!planner.is_draining());
    planner.decide(at(0.0));
    let actions = turn(&mut planner, Input::Drain { until: at(1.0) }, at(0.5));
    assert_eq!(actions, [Action::Mark(NodeMark { draining: true, suspect: None })], "the claim may bring jobs");
    assert!(planner.is_draining());
    turn(&mut planner, Input::Marked, at(0.5));
    assert_eq!(planner.wake_at(), Some(at(31.0)), "then all leases have expired");
    let actions = turn(&mut planner, claimed([1], at(0.0)), at(0.6));
    let [(1, Event::Released { claimable_in, .. })] = events(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!((actions.len(), *claimable_in, planner.running()), (1, Duration::ZERO, 0));
    assert_eq!(turn(&mut planner, stands(1), at(0.7)), [Action::Stopped]);
    assert_eq!(planner.wake_at(), None);
}

#[test]
fn a_drain_waits_for_the_record_call_in_flight() {
    let mut planner = full();
    turn(&mut planner, Input::Tick, at(10.0));
    turn(&mut planner, wrote(1, "a"), at(10.0));
    let lost = Input::Renewed(vec![RenewResult::Lost(leased(1, at(0.0)).lease)]);
    turn(&mut planner, lost, at(10.1));
    planner.on(Input::Drain { until: at(20.0) }, at(10.2));
    planner.on(returned(1), at(10.2));
    let actions = planner.decide(at(10.2));
    assert!(actions.contains(&Action::Dropped(attempt(1))) && !actions.contains(&Action::Stopped), "{actions:?}");
    assert!(turn(&mut planner, recorded(RecordResult::Refused(Refusal::Stale)), at(10.3)).contains(&Action::Stopped));
}

#[test]
fn the_end_of_a_drain_stops_attempts_at_its_time_and_not_at_the_next_check_of_leases() {
    let mut planner = full();
    turn(&mut planner, Input::Drain { until: at(3.0) }, at(0.5));
    turn(&mut planner, Input::Marked, at(0.5));
    assert_eq!(stops(&turn(&mut planner, Input::Tick, at(2.6))), []);
    assert_eq!(planner.wake_at(), Some(at(3.0)));
    assert_eq!(stops(&turn(&mut planner, Input::Tick, at(3.0))), [(1, Interruption::Drain)]);
    assert!(planner.wake_at().unwrap() > at(3.0), "it waits for the attempt without a loop");
    // A second request may only shorten it.
    let mut planner = full();
    turn(&mut planner, Input::Drain { until: at(3.0) }, at(0.5));
    turn(&mut planner, Input::Drain { until: at(9.0) }, at(0.5));
    assert_eq!(stops(&turn(&mut planner, Input::Drain { until: at(2.0) }, at(2.0))), [(1, Interruption::Drain)]);
}

#[test]
fn a_drain_that_waits_only_for_the_store_has_nothing_to_do_at_its_time() {
    let mut planner = full();
    turn(&mut planner, Input::Drain { until: at(1.0) }, at(0.5));
    turn(&mut planner, Input::Marked, at(0.5));
    assert_eq!(events(&turn(&mut planner, returned(1), at(0.6))).len(), 1);
    assert_eq!(turn(&mut planner, Input::Tick, at(1.0)), []);
    assert!(planner.wake_at().unwrap() > at(1.0));
}
