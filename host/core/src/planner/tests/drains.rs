//! Tests drains: what a node that stops waits for, and when it gives up.

use super::*;

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
fn a_node_that_an_operator_drains_goes_on_and_claims_again_when_it_is_resumed() {
    let mut planner = running(&[1]);
    let actions = turn(&mut planner, Input::SetDrained(true), at(1.0));
    assert_eq!(actions, [Action::Mark(NodeMark { draining: true, suspect: None })]);
    turn(&mut planner, Input::Marked, at(1.0));
    assert!(planner.is_draining() && !planner.is_stopping());
    assert_eq!(stops(&turn(&mut planner, Input::Tick, at(2.0))), [], "what runs goes on");
    assert_eq!(events(&turn(&mut planner, returned(1), at(2.1))).len(), 1);
    assert_eq!(turn(&mut planner, stands(1), at(2.2)), [], "no claim, and no end");
    assert_eq!(turn(&mut planner, Input::Nudged, at(500.0)), []);
    assert_eq!(planner.wake_at(), None);
    let actions = turn(&mut planner, Input::SetDrained(false), at(501.0));
    assert_eq!(actions, [Action::Mark(NodeMark::default()), Action::Claim { free: 4 }]);
    assert!(!planner.is_draining());
}

#[test]
fn a_drained_node_releases_what_its_last_claim_brings() {
    let mut planner = planner(4);
    planner.decide(at(0.0));
    turn(&mut planner, Input::SetDrained(true), at(0.5));
    let actions = turn(&mut planner, claimed([1], at(0.0)), at(0.6));
    assert!(matches!(events(&actions)[..], [(1, Event::Released { .. })]), "{actions:?}");
    assert_eq!(planner.running(), 0);
}

#[test]
fn a_drained_node_stops_as_any_other_and_is_not_resumed_then() {
    let mut planner = running(&[1]);
    turn(&mut planner, Input::SetDrained(true), at(1.0));
    turn(&mut planner, Input::Marked, at(1.0));
    turn(&mut planner, Input::Drain { until: at(5.0) }, at(2.0));
    assert_eq!(turn(&mut planner, Input::SetDrained(false), at(2.5)), [], "the mark stays, and nothing is claimed");
    assert!(planner.is_draining());
    assert_eq!(stops(&turn(&mut planner, Input::Tick, at(5.0))), [(1, Interruption::Drain)]);
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
