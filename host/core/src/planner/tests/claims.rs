//! Tests claims: when a node asks for jobs, and what it does with those that it gets.

use super::*;

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
fn a_node_that_is_short_of_room_claims_again_once_an_attempt_ends() {
    for short_of_room in [true, false] {
        let mut planner = planner(4);
        planner.decide(at(0.0));
        let leased = vec![leased(1, at(0.0))];
        turn(&mut planner, Input::Claimed { leased, wake_at: None, short_of_room }, at(0.0));
        let actions = turn(&mut planner, returned(1), at(0.1));
        assert_eq!(actions.iter().any(|action| matches!(action, Action::Claim { .. })), short_of_room);
    }
}

#[test]
fn a_delayed_job_is_claimed_when_it_is_due() {
    let mut planner = planner(1);
    planner.decide(at(0.0));
    turn(&mut planner, Input::Claimed { leased: Vec::new(), wake_at: Some(at(0.3)), short_of_room: false }, at(0.0));
    assert_eq!(planner.wake_at(), Some(at(0.3)));
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
fn the_next_claim_follows_at_once_while_jobs_are_due_and_within_the_poll_interval_otherwise() {
    let next = |jobs: &[u64], wake_at: Option<Timestamp>| {
        let mut planner = planner(4);
        planner.decide(at(0.0));
        let leased = jobs.iter().map(|job| leased(*job, at(5.0))).collect();
        planner.on(Input::Claimed { leased, wake_at, short_of_room: false }, at(5.0));
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
