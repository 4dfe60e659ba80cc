//! Tests suspects, which run alone and take turns with other jobs, and the node mark.

use super::*;
use crate::bounds;
use crate::lease::StartedSuspect;

fn suspect_after(job: u64, crashes: u32, now: Timestamp) -> LeasedJob {
    LeasedJob { crashes, ..leased(job, now) }
}

fn suspect(job: u64, now: Timestamp) -> LeasedJob {
    suspect_after(job, bounds::SUSPECT_CRASHES, now)
}

fn claim_of(leased: Vec<LeasedJob>) -> Input {
    Input::Claimed { leased, wake_at: None, short_of_room: false }
}

fn started(actions: &[Action]) -> Vec<u64> {
    let start = |action: &Action| match action {
        Action::Start { leased, .. } => Some(leased.lease.job.number()),
        _ => None,
    };
    actions.iter().filter_map(start).collect()
}

fn claims(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Claim { .. }))
}

fn mark(job: u64, alone: bool) -> Action {
    Action::Mark(NodeMark { draining: false, suspect: Some(StartedSuspect { job: id(job), attempt: 1, alone }) })
}

/// Returns a planner that has just claimed these jobs.
fn given(leased: Vec<LeasedJob>) -> (Planner, Vec<Action>) {
    let mut planner = planner(4);
    planner.decide(at(0.0));
    let actions = turn(&mut planner, claim_of(leased), at(0.0));
    (planner, actions)
}

/// Returns a planner with a claim in flight, whose leases (made by `long`) need no renewal during a test.
fn unhurried() -> Planner {
    let mut planner = Planner::new(PlannerSettings { capacity: 4, lease: 100 * LEASE, lease_margin: MARGIN });
    turn(&mut planner, Input::CatalogChanged { any_task: true }, at(0.0));
    planner
}

fn long(leased: LeasedJob) -> LeasedJob {
    let lease = Lease { until: leased.lease.until + 100 * LEASE, ..leased.lease };
    LeasedJob { lease, ..leased }
}

/// Returns a planner with a suspect that runs alone.
fn alone(crashes: u32) -> Planner {
    let (mut planner, actions) = given(vec![suspect_after(1, crashes, at(0.0))]);
    assert_eq!((started(&actions), actions.contains(&mark(1, true))), (vec![], true), "not before it is written down");
    assert_eq!(started(&turn(&mut planner, Input::Marked, at(0.0))), [1]);
    planner
}

#[test]
fn a_suspect_waits_until_other_jobs_have_ended_and_they_wait_until_it_has() {
    let (mut planner, actions) = given(vec![leased(1, at(0.0)), suspect(2, at(0.0))]);
    assert_eq!((started(&actions), planner.running()), (vec![1], 1));
    assert!(!claims(&turn(&mut planner, Input::Nudged, at(0.1))));
    let actions = turn(&mut planner, returned(1), at(0.2));
    assert_eq!((events(&actions).len(), actions.len()), (1, 1), "its end is not recorded yet: {actions:?}");
    assert_eq!(turn(&mut planner, stands(1), at(0.3)), [mark(2, true)]);
    assert_eq!(turn(&mut planner, Input::Tick, at(0.4)), []);
    let actions = turn(&mut planner, Input::Marked, at(0.5));
    assert_eq!((started(&actions), actions.len(), planner.running()), (vec![2], 1, 1));
    assert!(!claims(&turn(&mut planner, Input::Nudged, at(0.6))));
    let actions = turn(&mut planner, returned(2), at(0.7));
    assert_eq!((events(&actions).len(), claims(&actions)), (1, true));
}

#[test]
fn suspects_follow_each_other_and_then_others_have_as_long_a_turn() {
    let mut planner = unhurried();
    let actions = turn(&mut planner, claim_of((1..=3).map(|job| long(suspect(job, at(0.0)))).collect()), at(0.0));
    assert_eq!(actions, [mark(1, true)]);
    assert_eq!(started(&turn(&mut planner, Input::Marked, at(0.0))), [1]);
    planner.on(returned(1), at(4.0));
    assert_eq!(events(&planner.decide(at(4.0))).len(), 1);
    assert_eq!(turn(&mut planner, stands(1), at(4.0)), [mark(2, true)]);
    assert_eq!(started(&turn(&mut planner, Input::Marked, at(4.0))), [2]);
    planner.on(returned(2), at(31.0));
    let actions = planner.decide(at(31.0));
    let given_back = |(job, event): &(u64, &Event)| {
        *job == 3 && matches!(event, Event::Released { claimable_in, .. } if *claimable_in > Duration::ZERO)
    };
    assert!(events(&actions).iter().any(given_back) && claims(&actions), "the turn of suspects is over: {actions:?}");
    planner.on(stands(2), at(31.0));
    let actions = turn(&mut planner, claim_of(vec![long(leased(4, at(31.0))), long(suspect(5, at(31.0)))]), at(31.0));
    assert!(claims(&actions), "and goes on to claim others: {actions:?}");
    assert_eq!(started(&actions), [4]);
    let Event::Released { claimable_in, report, .. } = events(&actions)[0].1 else { panic!("{actions:?}") };
    assert!(*claimable_in > Duration::ZERO && report.text.contains("it must run alone"), "{report:?}");
    // Other jobs have had as long a turn as the suspects.
    planner.on(returned(4), at(61.0));
    turn(&mut planner, stands(1), at(61.0));
    planner.on(stands(1), at(62.0));
    let actions = turn(&mut planner, claim_of(vec![long(suspect(5, at(62.0)))]), at(62.0));
    assert!(actions.contains(&mark(5, true)), "{actions:?}");
}

#[test]
fn a_node_that_does_not_become_idle_releases_suspects_and_waits_longer_the_next_time() {
    let mut planner = unhurried();
    planner.on(claim_of(vec![long(leased(1, at(0.0))), long(suspect(2, at(0.0)))]), at(0.0));
    assert_eq!(started(&planner.decide(at(0.0))), [1]);
    let mut now = 0.0;
    for patience in [10.0, 20.0, 40.0] {
        assert_eq!(planner.suspects_wake_at(), Some(at(now + patience)));
        assert!(!claims(&turn(&mut planner, Input::Nudged, at(now + patience - 0.1))));
        now += patience;
        let actions = turn(&mut planner, Input::Tick, at(now));
        let [(2, Event::Released { claimable_in, report, .. })] = events(&actions)[..] else { panic!("{actions:?}") };
        assert!(*claimable_in > Duration::ZERO && report.text.contains("too long"), "{report:?}");
        assert!(claims(&actions) && planner.running() == 1, "others are claimed again: {actions:?}");
        planner.on(stands(1), at(now));
        // Other jobs have had as long a turn.
        now += patience;
        planner.on(claim_of(vec![long(suspect(2, at(now)))]), at(now));
        let actions = planner.decide(at(now));
        assert_eq!((started(&actions), events(&actions)), (vec![], vec![]), "it is held back again");
    }
}

#[test]
fn one_that_does_no_harm_is_joined_once_that_is_written_and_is_alone_longer_after_each_crash() {
    for (crashes, length) in [(3, 30.0), (4, 120.0)] {
        let mut planner = alone(crashes);
        assert!(!claims(&turn(&mut planner, Input::Nudged, at(1.0))));
        assert!(planner.wake_at().unwrap() <= at(length));
        let lease = Lease { until: at(length) + LEASE, ..leased(1, at(0.0)).lease };
        turn(&mut planner, Input::Tick, at(length - 1.0));
        planner.on(Input::Renewed(vec![RenewResult::Renewed { lease, cancel_requested: false }]), at(length - 1.0));
        let actions = turn(&mut planner, Input::Tick, at(length));
        assert_eq!((actions.contains(&mark(1, false)), claims(&actions)), (true, false), "{actions:?}");
        let actions = turn(&mut planner, Input::MarkFailed, at(length));
        assert!(!claims(&actions), "a crash would still be taken for its own");
        let again = planner.wake_at().unwrap();
        assert!(again > at(length), "and no sooner than may help");
        assert!(turn(&mut planner, Input::Tick, again).contains(&mark(1, false)));
        assert!(claims(&turn(&mut planner, Input::Marked, again)));
        let actions = turn(&mut planner, claim_of(vec![leased(2, again)]), again);
        assert_eq!((started(&actions), planner.running()), (vec![2], 2));
    }
}

#[test]
fn a_parked_suspect_can_be_cancelled_lost_and_released_by_a_drain() {
    let quota_reached = || given(vec![leased(1, at(0.0)), suspect(2, at(0.0))]).0;
    let mut planner = quota_reached();
    let actions = turn(&mut planner, Input::CancelRequested(id(2)), at(1.0));
    assert!(matches!(events(&actions)[..], [(2, Event::Cancelled { .. })]), "{actions:?}");
    assert!(claims(&actions), "nobody waits to be alone any more");

    let mut planner = quota_reached();
    turn(&mut planner, Input::Tick, at(10.0 - 0.001));
    let lost = Input::Renewed(vec![RenewResult::Lost(leased(2, at(0.0)).lease)]);
    let actions = turn(&mut planner, lost, at(10.0 - 0.001));
    assert!(actions.contains(&Action::Dropped(attempt(2))) && claims(&actions), "{actions:?}");

    let mut planner = quota_reached();
    let actions = turn(&mut planner, Input::Drain { until: at(9.0) }, at(1.0));
    assert!(matches!(events(&actions)[..], [(2, Event::Released { .. })]), "{actions:?}");
    planner.on(returned(1), at(2.0));
    planner.on(stands(1), at(2.0));
    planner.decide(at(2.0));
    assert!(turn(&mut planner, stands(1), at(2.1)).contains(&Action::Stopped));

    // Its cancellation was requested while its claim was in flight.
    let mut planner = super::planner(4);
    planner.decide(at(0.0));
    planner.on(Input::CancelRequested(id(2)), at(0.1));
    let actions = turn(&mut planner, claim_of(vec![suspect(2, at(0.1))]), at(0.1));
    assert!(matches!(events(&actions)[..], [(2, Event::Cancelled { .. })]), "{actions:?}");
}

#[test]
fn a_drain_is_marked_at_once_and_in_one_mark_for_all_jobs() {
    let mut planner = running(&[1, 2]);
    let draining = Action::Mark(NodeMark { draining: true, suspect: None });
    assert_eq!(turn(&mut planner, Input::Drain { until: at(5.0) }, at(1.0)), std::slice::from_ref(&draining));
    assert_eq!(turn(&mut planner, Input::MarkFailed, at(1.0)), []);
    let again = planner.wake_at().unwrap();
    assert!(again > at(1.0) && again < at(2.0));
    assert_eq!(turn(&mut planner, Input::Tick, again), [draining]);
    assert_eq!(turn(&mut planner, Input::Marked, again), []);
    assert_eq!(turn(&mut planner, Input::Drain { until: at(5.0) }, at(1.5)), [], "said once");

    let mut idle = planner_without_jobs();
    assert_eq!(turn(&mut idle, Input::Drain { until: at(5.0) }, at(1.0)), [Action::Stopped], "of nothing");
}

fn planner_without_jobs() -> Planner {
    let mut planner = planner(4);
    planner.decide(at(0.0));
    turn(&mut planner, claim_of(Vec::new()), at(0.0));
    planner
}

#[test]
fn a_clock_that_is_set_back_delays_no_suspect_for_long() {
    let (mut planner, _) = given(vec![leased(1, at(0.0)), suspect(2, at(0.0))]);
    let early = Timestamp::from_millis(5);
    turn(&mut planner, Input::Tick, early);
    assert!(planner.suspects_wake_at().unwrap() <= early + Duration::from_secs(10));
    let mut planner = alone(bounds::SUSPECT_CRASHES);
    turn(&mut planner, Input::Tick, early);
    assert!(planner.suspects_wake_at().unwrap() <= early + Duration::from_secs(30));
}

#[test]
fn a_parked_suspect_whose_lease_is_no_longer_trusted_is_released_and_never_started() {
    let (mut planner, _) = given(vec![leased(1, at(0.0)), suspect(2, at(0.0))]);
    let actions = turn(&mut planner, Input::Tick, at(27.0));
    let [(2, Event::Released { claimable_in, report, .. })] = events(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!((claimable_in, report.text.as_str()), (&Duration::ZERO, crate::lease::LEASE_LOST));
    assert_eq!(stops(&actions), [(1, Interruption::LeaseLost)]);

    // Its mark is stored too late.
    let (mut planner, _) = given(vec![suspect(1, at(0.0))]);
    let actions = turn(&mut planner, Input::Marked, at(27.0));
    assert_eq!((started(&actions), events(&actions).len()), (vec![], 1));
}

#[test]
fn a_suspect_that_runs_long_does_not_use_up_the_idle_time_of_the_next() {
    let mut planner = unhurried();
    turn(&mut planner, claim_of((1..=2).map(|job| long(suspect(job, at(0.0)))).collect()), at(0.0));
    assert_eq!(started(&turn(&mut planner, Input::Marked, at(0.0))), [1]);
    planner.on(returned(1), at(12.0));
    assert_eq!(events(&planner.decide(at(12.0))).len(), 1, "the second one stays parked: the node was idle before");
    assert_eq!(turn(&mut planner, stands(1), at(12.0)), [mark(2, true)]);
    assert_eq!(started(&turn(&mut planner, Input::Marked, at(12.1))), [2]);
}

#[test]
fn a_node_with_suspects_wakes_for_their_times_and_for_nothing_else() {
    let mut planner = unhurried();
    turn(&mut planner, claim_of((1..=2).map(|job| long(suspect(job, at(0.0)))).collect()), at(0.0));
    assert_eq!(planner.suspects_wake_at(), Some(at(10.0)), "it waits to become idle");
    turn(&mut planner, Input::Marked, at(0.0));
    assert_eq!(planner.suspects_wake_at(), Some(at(30.0)), "the first suspect is alone until then");
    planner.on(returned(1), at(4.0));
    planner.decide(at(4.0));
    assert_eq!(planner.suspects_wake_at(), Some(at(30.0)), "the next one waits until the turn of suspects ends");
    assert_eq!(turn(&mut planner, stands(1), at(4.0)), [mark(2, true)]);
    assert_eq!(planner.mark_wakes_at(), None, "the mark is being stored");
    turn(&mut planner, Input::Marked, at(4.0));
    assert_eq!((planner.mark_wakes_at(), planner.suspects_wake_at()), (None, Some(at(34.0))));
    assert_eq!(turn(&mut planner, Input::Tick, at(34.0)), [mark(2, false)]);
    assert_eq!(planner.suspects_wake_at(), None, "the mark decides when others join");
    assert!(claims(&turn(&mut planner, Input::Marked, at(34.1))));
    assert_eq!((planner.mark_wakes_at(), planner.suspects_wake_at()), (None, None));
}

#[test]
fn a_mark_that_could_not_be_stored_is_repeated_after_a_delay_that_a_success_ends() {
    let mut planner = running(&[1]);
    turn(&mut planner, Input::Drain { until: at(5.0) }, at(1.0));
    let mut now = at(1.0);
    for delay in [50, 100, 200] {
        assert_eq!(turn(&mut planner, Input::MarkFailed, now), []);
        let again = now + Duration::from_millis(delay);
        assert_eq!((planner.mark_wakes_at(), planner.decide(again - Duration::from_micros(1))), (Some(again), vec![]));
        assert!(matches!(planner.decide(again)[..], [Action::Mark(_)]));
        now = again;
    }
    turn(&mut planner, Input::Marked, now);
    assert_eq!(turn(&mut planner, Input::MarkFailed, now), [], "no mark is being stored");
    assert_eq!(planner.mark_wakes_at(), None);
}
