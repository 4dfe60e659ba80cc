//! Tests leases: they are renewed in time, and an attempt whose lease is not confirmed is stopped.

use super::*;

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
fn a_clock_that_is_set_back_delays_nothing_for_long() {
    let mut planner = running(&[1]);
    let early = Timestamp::from_millis(5);
    turn(&mut planner, Input::Tick, early);
    assert!(planner.wake_at().unwrap() <= early + Duration::from_secs(3));

    let mut planner = running(&[1]);
    turn(&mut planner, Input::Drain { until: at(5.0) }, at(1.0));
    turn(&mut planner, Input::Tick, early);
    let actions = turn(&mut planner, Input::Tick, early + Duration::from_secs(4));
    assert!(actions.iter().any(|action| matches!(action, Action::Stop { .. })), "the drain timeout holds: {actions:?}");
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
