//! Tests records: events of attempts are recorded in order, in limited calls, and again if the store fails.

use super::*;
use crate::outcome::Failure;

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
fn a_job_that_cannot_start_is_claimable_again_after_a_delay_that_doubles_each_time() {
    let delay = |number: u32, failures: u32| {
        let mut planner = planner(1);
        planner.decide(at(0.0));
        let mut job = leased(1, at(0.0));
        job.lease.attempt = number;
        job.failures = (0..failures).fold(FailureCount::NONE, |count, _| count.plus_one());
        turn(&mut planner, Input::Claimed { leased: vec![job], wake_at: None, short_of_room: false }, at(0.0));
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
