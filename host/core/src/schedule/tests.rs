use std::collections::BTreeMap;

use super::*;
use crate::author::Author;
use crate::job::{JobStatus, NewJob, State};
use crate::lease::Lease;
use crate::limits::OnConflict;
use crate::tick::JobTick;

const MINUTE: Duration = Duration::from_secs(60);
const NOON: Timestamp = Timestamp::from_millis(1_700_000_400_000);

fn every(interval: Duration) -> ScheduleSpec {
    ScheduleSpec {
        task: "report/build".parse().unwrap(),
        payload: b"{}".as_slice().into(),
        key: None,
        priority: 0,
        timing: Timing::Every(interval),
        missed: MissedPolicy::Latest,
        window: bounds::SCHEDULE_WINDOW_DEFAULT,
        overlap: OverlapPolicy::Allow,
        spread: Duration::ZERO,
        pause_after: None,
        tick_as: None,
    }
}

fn schedule(spec: ScheduleSpec) -> Schedule {
    let next_at = Some(NOON);
    Schedule { next_at, ..Schedule::new("nightly".parse().unwrap(), spec, NOON - MINUTE) }
}

fn due(schedule: &Schedule, now: Timestamp) -> Option<DueTicks> {
    let Timing::Every(interval) = schedule.spec.timing else { panic!("an interval") };
    due_ticks(schedule, now, &mut |after| Timing::next_of_interval(interval, after))
}

fn id(number: u64) -> JobId {
    JobId::from_number(number).unwrap()
}

fn job(number: u64) -> NewJob {
    let task: TaskName = "report/build".parse().unwrap();
    NewJob::ready(id(number), task, None, SharedBytes::default())
}

fn firing(schedule: &Schedule, ticks: u64) -> ScheduleFiring {
    let tick = |place| FiringTick { tick: Some(NOON + place as u32 * MINUTE), job: Ok(job(100 + place)) };
    ScheduleFiring {
        id: schedule.id.clone(),
        version: schedule.version,
        open: schedule.open.clone(),
        ticks: (0..ticks).map(tick).collect(),
        missed: None,
        next_at: Some(NOON + ticks as u32 * MINUTE),
        held: false,
        by: None,
    }
}

/// Fires as a store does that adds every job, and returns the result with the jobs that were cancelled.
fn fire(
    schedule: &Schedule,
    firing: &ScheduleFiring,
    statuses: &[Option<JobStatus>],
) -> (Fired, Vec<JobId>, Vec<JobId>) {
    let mut run = schedule.begin_firing(firing, statuses, NOON).unwrap();
    let (mut all_replaced, mut all_cancelled) = (Vec::new(), Vec::new());
    for place in 0..run.ticks() {
        match run.step(place) {
            TickStep::Skip(skip) => run.skipped(place, skip),
            TickStep::MakeRoom { replaced, cancelled } => {
                run.made_room(&replaced, &cancelled);
                all_replaced.extend(replaced);
                all_cancelled.extend(cancelled);
            }
            TickStep::Insert { replaced, cancelled } => {
                let id = firing.ticks[place].job.as_ref().unwrap().id;
                run.inserted(place, (&replaced, &cancelled), TickInserted::Added(id));
                all_replaced.extend(replaced);
                all_cancelled.extend(cancelled);
            }
        }
    }
    (run.end(), all_replaced, all_cancelled)
}

fn waiting() -> JobStatus {
    JobStatus::new(NOON)
}

fn running() -> JobStatus {
    let lease = Lease { job: id(1), attempt: 1, node: crate::ids::NodeId(7), until: NOON + MINUTE };
    JobStatus { state: State::Running { lease }, attempt: 1, ..waiting() }
}

fn ended(state: State) -> JobStatus {
    JobStatus { state, attempt: 1, ..waiting() }
}

#[test]
fn a_tick_in_time_is_fired_and_none_is_missed() {
    for missed in [MissedPolicy::Latest, MissedPolicy::None, MissedPolicy::All] {
        let schedule = schedule(ScheduleSpec { missed, ..every(MINUTE) });
        assert_eq!(due(&schedule, NOON - Duration::from_micros(1)), None);
        let now = due(&schedule, NOON + Duration::from_secs(59)).unwrap();
        let expected = DueTicks { fire: vec![NOON], next: Some(NOON + MINUTE), ..DueTicks::default() };
        assert_eq!(now, expected, "{missed:?}");
    }
}

#[test]
fn of_missed_ticks_each_policy_fires_its_own() {
    // Two hours without a host, with a tick each ten minutes, and a window of one hour.
    let now = NOON + 120 * MINUTE + 5 * MINUTE;
    let of = |missed| due(&schedule(ScheduleSpec { missed, ..every(10 * MINUTE) }), now).unwrap();
    let latest = NOON + 120 * MINUTE;
    assert_eq!((of(MissedPolicy::Latest).fire, of(MissedPolicy::Latest).missed), (vec![latest], 12));
    assert_eq!((of(MissedPolicy::None).fire, of(MissedPolicy::None).missed), (vec![], 13));
    let all = of(MissedPolicy::All);
    let expected: Vec<Timestamp> = (7..=12).map(|tick| NOON + tick * 10 * MINUTE).collect();
    assert_eq!((all.fire, all.missed, all.last_missed), (expected, 7, Some(NOON + 60 * MINUTE)));
    assert_eq!(all.next, Some(NOON + 130 * MINUTE));
}

#[test]
fn years_of_ticks_are_counted_up_to_a_bound_and_the_newest_are_fired() {
    let spec = ScheduleSpec { missed: MissedPolicy::All, ..every(Duration::from_secs(1)) };
    let now = NOON + Duration::from_secs(3 * 365 * 24 * 3600);
    let due = due(&schedule(spec), now).unwrap();
    assert_eq!(due.fire.len(), bounds::SCHEDULE_CATCH_UP_MAX);
    assert_eq!((due.fire.last(), due.next), (Some(&now), Some(now + Duration::from_secs(1))));
    assert!(due.missed >= bounds::SCHEDULE_TICKS_COUNTED);
}

#[test]
fn without_a_host_ticks_wait_as_long_as_they_would_be_caught_up() {
    let schedule = schedule(every(MINUTE));
    assert_eq!(due(&schedule, NOON + Duration::from_secs(5)).unwrap().without_host(), None);
    let later = due(&schedule, NOON + 3 * MINUTE).unwrap().without_host().unwrap();
    assert_eq!((later.fire, later.missed, later.next), (vec![], 3, Some(NOON + 3 * MINUTE)));
}

#[test]
fn the_spread_moves_all_ticks_by_one_length_that_depends_on_the_id() {
    let spread = Duration::from_secs(300);
    let (one, other) = ("nightly".parse().unwrap(), "daily".parse().unwrap());
    assert_eq!(offset(&one, spread), offset(&one, spread));
    assert_ne!(offset(&one, spread), offset(&other, spread));
    assert!(offset(&one, spread) < spread && offset(&one, Duration::ZERO).is_zero());
    let mut schedule = schedule(ScheduleSpec { spread, ..every(MINUTE) });
    schedule.reschedule(NOON, &mut |after| Timing::next_of_interval(MINUTE, after));
    let at = schedule.next_at.unwrap();
    assert!(at > NOON && at <= NOON + MINUTE, "the next tick is the first whose moment is to come");
    let due = due(&schedule, at).unwrap();
    assert_eq!(due.fire, [at - schedule.offset()]);
}

#[test]
fn a_firing_of_another_version_does_nothing() {
    let schedule = schedule(every(MINUTE));
    let firing = firing(&schedule, 1);
    let (fired, ..) = fire(&schedule, &firing, &[]);
    assert_eq!((fired.schedule.version, fired.schedule.fired), (schedule.version + 1, 1));
    assert_eq!((fired.schedule.open.as_slice(), fired.schedule.last_tick), ([id(100)].as_slice(), Some(NOON)));
    assert!(fired.schedule.begin_firing(&firing, &[], NOON).is_none());
}

#[test]
fn each_policy_for_overlaps_treats_jobs_that_run_and_that_wait_as_it_says() {
    let of = |overlap, statuses: &[JobStatus]| {
        let open = (1..=statuses.len() as u64).map(id).collect();
        let schedule = Schedule { open, ..schedule(ScheduleSpec { overlap, ..every(MINUTE) }) };
        let statuses: Vec<_> = statuses.iter().copied().map(Some).collect();
        let (fired, replaced, cancelled) = fire(&schedule, &firing(&schedule, 1), &statuses);
        (fired.ticks[0].outcome, replaced, cancelled)
    };
    let waits = |overlap, statuses: &[JobStatus]| {
        let open = (1..=statuses.len() as u64).map(id).collect();
        let schedule = Schedule { open, ..schedule(ScheduleSpec { overlap, ..every(MINUTE) }) };
        let statuses: Vec<_> = statuses.iter().copied().map(Some).collect();
        let firing = firing(&schedule, 1);
        schedule.begin_firing(&firing, &statuses, NOON)?;
        let (fired, replaced, cancelled) = fire(&schedule, &firing, &statuses);
        assert_eq!((fired.ticks.len(), fired.schedule.fired, fired.schedule.next_at), (0, 0, Some(NOON)));
        Some((replaced, cancelled))
    };
    use OverlapPolicy as P;
    use TickOutcome as T;
    assert_eq!(of(P::Allow, &[running(), waiting()]), (T::Fired, vec![], vec![]));
    assert_eq!(of(P::Skip, &[running()]), (T::Overlap, vec![], vec![]));
    assert_eq!(of(P::Skip, &[ended(State::Succeeded)]), (T::Fired, vec![], vec![]));
    assert_eq!(of(P::QueueOne, &[waiting()]), (T::Fired, vec![id(1)], vec![]));
    assert_eq!(waits(P::QueueOne, &[running()]), None, "it stays due, and nothing changes");
    // A job that waits for another attempt has begun.
    let retrying = JobStatus { attempt: 1, ..waiting() };
    assert_eq!(waits(P::QueueOne, &[retrying]), None);
    assert_eq!(of(P::Replace, &[waiting(), retrying]), (T::Fired, vec![id(1), id(2)], vec![]));
    assert_eq!(waits(P::Replace, &[running(), waiting(), retrying]), Some((vec![id(2), id(3)], vec![id(1)])));
    assert_eq!(waits(P::Replace, &[JobStatus { cancel_requested: true, ..running() }]), None);
}

#[test]
fn a_tick_that_waits_for_a_job_gives_way_to_a_newer_one() {
    for overlap in [OverlapPolicy::QueueOne, OverlapPolicy::Replace] {
        let schedule = Schedule { open: vec![id(1)], ..schedule(ScheduleSpec { overlap, ..every(MINUTE) }) };
        let cancelled = Some(JobStatus { cancel_requested: true, ..running() });
        let (fired, ..) = fire(&schedule, &firing(&schedule, 3), &[cancelled]);
        assert_eq!((fired.schedule.next_at, fired.schedule.skipped), (Some(NOON + 2 * MINUTE), 2));
        let expected = (NOON + MINUTE, 2, TickOutcome::Overlap, Some(id(1)));
        let [tick] = fired.ticks.as_slice() else { panic!("{:?}", fired.ticks) };
        assert_eq!((tick.tick, tick.count, tick.outcome, tick.job), expected);
        // What was in no window while the job ran is no fault of a host.
        let missed = Some((7, NOON, TickOutcome::Missed));
        let firing = ScheduleFiring { missed, next_at: schedule.next_at, ..firing(&schedule, 0) };
        let (fired, ..) = fire(&schedule, &firing, &[cancelled]);
        assert_eq!((fired.schedule.missed, fired.schedule.skipped), (0, 7));
        assert_eq!(fired.schedule.version, schedule.version + 1);
    }
}

#[test]
fn a_job_in_place_of_others_waits_for_its_lane() {
    let tick = JobTick { tick: NOON, previous: None, missed: 0 };
    let discarding = NewJob { on_conflict: OnConflict::Discard, ..job(7) };
    let of =
        |overlap| schedule(ScheduleSpec { overlap, ..every(MINUTE) }).job_of_tick(discarding.clone(), tick).on_conflict;
    assert_eq!([OverlapPolicy::Replace, OverlapPolicy::QueueOne].map(of), [OnConflict::Wait; 2]);
    assert_eq!([OverlapPolicy::Allow, OverlapPolicy::Skip].map(of), [OnConflict::Discard; 2]);
}

#[test]
fn a_row_that_was_made_anew_has_no_version_of_the_old_one() {
    let old = schedule(every(MINUTE));
    let decided = firing(&old, 1);
    let new = Schedule { next_at: old.next_at, ..Schedule::new(old.id.clone(), every(2 * MINUTE), NOON) };
    assert!(old.begin_firing(&decided, &[], NOON).is_some());
    assert!(new.begin_firing(&decided, &[], NOON).is_none());
}

#[test]
fn of_ticks_alike_the_first_the_tenth_and_the_hundredth_are_told() {
    let told: Vec<u64> = (1..2000).filter(|in_a_row| is_told(*in_a_row, 1)).collect();
    assert_eq!(told, [1, 10, 100, 1000]);
    assert!(is_told(7, 7) && is_told(12, 5) && !is_told(12, 2));
}

#[test]
fn a_long_time_without_a_host_takes_few_looks_at_the_clock() {
    for (interval, window) in [(1, 7 * 24 * 3600), (1, 60), (60, 7 * 24 * 3600), (600, 3600)] {
        for missed in [MissedPolicy::Latest, MissedPolicy::None, MissedPolicy::All] {
            let (interval, window) = (Duration::from_secs(interval), Duration::from_secs(window));
            let schedule = schedule(ScheduleSpec { missed, window, ..every(interval) });
            let now = NOON + Duration::from_secs(400 * 24 * 3600);
            let mut looks = 0;
            let due = due_ticks(&schedule, now, &mut |after| {
                looks += 1;
                Timing::next_of_interval(interval, after)
            });
            let due = due.unwrap();
            assert!(looks < 5000, "{interval:?} {window:?} {missed:?}: {looks}");
            assert_eq!(due.fire.last(), Some(&now), "{interval:?} {window:?} {missed:?}");
            assert_eq!(due.next, Some(now + interval));
        }
    }
}

#[test]
fn ticks_that_are_caught_up_overlap_as_others_do() {
    let skip = schedule(ScheduleSpec { overlap: OverlapPolicy::Skip, ..every(MINUTE) });
    let outcomes = |fired: Fired| -> Vec<_> { fired.ticks.iter().map(|tick| tick.outcome).collect() };
    let expected = [TickOutcome::Fired, TickOutcome::Overlap, TickOutcome::Overlap];
    assert_eq!(outcomes(fire(&skip, &firing(&skip, 3), &[]).0), expected);
    let queue = schedule(ScheduleSpec { overlap: OverlapPolicy::QueueOne, ..every(MINUTE) });
    let (fired, replaced, _) = fire(&queue, &firing(&queue, 3), &[]);
    assert_eq!((replaced, fired.schedule.open), (vec![id(100), id(101)], vec![id(102)]));
}

#[test]
fn under_a_hold_one_job_waits_unless_all_ticks_count() {
    let of = |missed, statuses: &[Option<JobStatus>]| {
        let open = (1..=statuses.len() as u64).map(id).collect();
        let schedule = Schedule { open, ..schedule(ScheduleSpec { missed, ..every(MINUTE) }) };
        let firing = ScheduleFiring { held: true, ..firing(&schedule, 2) };
        fire(&schedule, &firing, statuses).0.ticks.iter().map(|tick| tick.outcome).collect::<Vec<_>>()
    };
    assert_eq!(of(MissedPolicy::Latest, &[]), [TickOutcome::Fired, TickOutcome::Held]);
    assert_eq!(of(MissedPolicy::Latest, &[Some(waiting())]), [TickOutcome::Held, TickOutcome::Held]);
    assert_eq!(of(MissedPolicy::All, &[Some(waiting())]), [TickOutcome::Fired, TickOutcome::Fired]);
}

#[test]
fn after_enough_failures_in_a_row_a_schedule_pauses_and_fires_nothing() {
    let spec = ScheduleSpec { pause_after: Some(2), ..every(MINUTE) };
    let with = |failures, status| {
        let schedule = Schedule { failures, open: vec![id(1)], ..schedule(spec.clone()) };
        fire(&schedule, &firing(&schedule, 1), &[Some(status)]).0
    };
    let once = with(0, ended(State::Failed));
    assert_eq!((once.paused, once.schedule.failures, once.schedule.fired), (false, 1, 1));
    let twice = with(1, ended(State::Failed));
    assert_eq!((twice.paused, twice.schedule.next_at, twice.schedule.fired), (true, None, 0));
    assert_eq!(twice.schedule.pause.clone().unwrap().reason, "its last 2 jobs have failed");
    assert_eq!(with(1, ended(State::Succeeded)).schedule.failures, 0);
    // The tick that finds it out is recorded.
    assert_eq!((twice.schedule.skipped, twice.ticks.len(), twice.ticks[0].outcome), (1, 1, TickOutcome::Paused));
}

#[test]
fn an_operators_run_has_no_tick_and_leaves_the_next_one_where_it_is() {
    let schedule =
        Schedule { open: vec![id(1)], ..schedule(ScheduleSpec { overlap: OverlapPolicy::Skip, ..every(MINUTE) }) };
    let ticks = vec![FiringTick { tick: None, job: Ok(job(100)) }];
    let firing = ScheduleFiring { ticks, next_at: None, by: Some(Author::anyone()), ..firing(&schedule, 0) };
    let (fired, ..) = fire(&schedule, &firing, &[Some(running())]);
    assert_eq!((fired.schedule.next_at, fired.schedule.last_tick), (schedule.next_at, None));
    // It is in the way of no tick, and counts as none.
    assert_eq!((fired.schedule.open.as_slice(), fired.schedule.fired, fired.ticks.len()), ([id(1)].as_slice(), 0, 0));
    assert_eq!((fired.schedule.recent.len(), fired.run.and_then(|run| run.job)), (0, Some(id(100))));
}

#[test]
fn a_pause_ends_by_itself_or_stays() {
    let mut next = |after| Timing::next_of_interval(MINUTE, after);
    let mut schedule = schedule(every(MINUTE));
    let pause = |until| Some(Pause { since: NOON, until, by: None, reason: String::new() });
    schedule.pause = pause(None);
    schedule.reschedule(NOON, &mut next);
    assert_eq!(schedule.next_at, None);
    schedule.pause = pause(Some(NOON + 5 * MINUTE));
    schedule.reschedule(NOON, &mut next);
    assert_eq!(schedule.next_at, Some(NOON + 5 * MINUTE), "a tick at the end of the pause counts");
    assert!(schedule.pause_at(NOON + 5 * MINUTE).is_none());
}

#[test]
fn another_payload_leaves_a_tick_due_and_other_times_do_not() {
    let mut schedule = schedule(every(MINUTE));
    let payload = ScheduleSpec { payload: b"[]".as_slice().into(), ..every(MINUTE) };
    assert!(!schedule.redefine(payload, NOON));
    assert_eq!(schedule.next_at, Some(NOON));
    assert!(schedule.redefine(every(2 * MINUTE), NOON));
    schedule.retired_at = Some(NOON);
    assert!(schedule.redefine(every(2 * MINUTE), NOON), "one that comes back");
}

#[test]
fn a_schedule_remembers_its_last_ticks_and_counts_those_that_are_alike() {
    let mut schedule = schedule(every(MINUTE));
    let record = |tick, outcome| TickRecord { tick, count: 1, outcome, job: None, reason: "x".repeat(1000) };
    for tick in 0..5 {
        schedule.remember(record(NOON + tick * MINUTE, TickOutcome::NoHost));
    }
    assert_eq!((schedule.recent.len(), schedule.recent[0].count), (1, 5));
    assert_eq!(schedule.recent[0].reason.len(), bounds::SCHEDULE_REASON_BYTES_MAX);
    for tick in 0..40 {
        schedule.remember(record(NOON + tick * MINUTE, TickOutcome::Fired));
    }
    assert_eq!(schedule.recent.len(), bounds::SCHEDULE_TICKS_KEPT);
}

#[test]
fn the_token_of_a_tick_names_schedule_and_moment() {
    let token = tick_token(&"nightly".parse().unwrap(), Timestamp::from_millis(1_700_000_000_000)).unwrap();
    assert_eq!(token.as_str(), "schedule:nightly@2023-11-14T22:13:20Z");
    let longest = "x".repeat(bounds::NAME_BYTES_MAX).parse().unwrap();
    assert!(tick_token(&longest, Timestamp::from_micros(u64::MAX)).is_some());
    assert_eq!(schedule_of_token(&token), Some("nightly".parse().unwrap()));
    for other in ["nightly@2023-11-14T22:13:20Z", "schedule:nightly", "schedule:no id@x"] {
        assert_eq!(schedule_of_token(&other.parse().unwrap()), None, "{other}");
    }
}

#[test]
fn files_add_change_and_retire_and_never_undo_what_is_newer() {
    let id: ScheduleId = "nightly".parse().unwrap();
    let (one, other) = (every(MINUTE), every(2 * MINUTE));
    let file = |spec: Option<&ScheduleSpec>, at| FileSchedules {
        revision: Timestamp::from_millis(at),
        schedules: spec.map(|spec| (id.clone(), spec.clone())).into_iter().collect(),
    };
    let stored = |spec: &ScheduleSpec, source, at| StoredSchedule {
        source,
        revision: Timestamp::from_millis(at),
        ..StoredSchedule::from(&schedule(spec.clone()))
    };
    let has = |spec: &ScheduleSpec| vec![BTreeMap::from([(id.clone(), spec.digest())])];
    let of_file = |spec, at| stored(spec, ScheduleSource::File, at);
    let define = vec![SyncAct::Define(id.clone())];
    // It is new, or stands as it should.
    assert_eq!(sync(&file(Some(&one), 1), &[], &[]), define);
    assert_eq!(sync(&file(Some(&one), 1), &[of_file(&one, 1)], &[]), []);
    // A newer file changes it, and so does an older one where no live host has it as it is.
    assert_eq!(sync(&file(Some(&other), 2), &[of_file(&one, 1)], &has(&one)), define);
    assert_eq!(sync(&file(Some(&one), 1), &[of_file(&other, 2)], &[]), define);
    // An older file does not undo what a live host has.
    assert_eq!(sync(&file(Some(&one), 1), &[of_file(&other, 2)], &has(&other)), [SyncAct::Older(id.clone())]);
    // Nor does one that was written at the very same time: else two hosts would undo each other for ever.
    assert_eq!(sync(&file(Some(&one), 2), &[of_file(&other, 2)], &has(&other)), [SyncAct::Older(id.clone())]);
    // Only what no live host has is retired, and what the API made never is.
    assert_eq!(sync(&file(None, 2), &[of_file(&one, 1)], &has(&one)), []);
    assert_eq!(sync(&file(None, 2), &[of_file(&one, 1)], &[]), [SyncAct::Retire(id.clone())]);
    let of_api = stored(&one, ScheduleSource::Api, 0);
    assert_eq!(sync(&file(None, 2), std::slice::from_ref(&of_api), &[]), []);
    assert_eq!(sync(&file(Some(&other), 2), &[of_api], &[]), [SyncAct::OfApi(id.clone())]);
    // One that was retired comes back.
    let retired = StoredSchedule { is_retired: true, ..of_file(&one, 1) };
    assert_eq!(sync(&file(Some(&one), 1), std::slice::from_ref(&retired), &[]), define);
    assert_eq!(sync(&file(None, 1), &[retired], &[]), []);
}

#[test]
fn one_that_was_retired_for_a_moment_misses_no_tick() {
    let spec = every(MINUTE);
    let retired = |at| Schedule { retired_at: Some(at), next_at: None, ..schedule(spec.clone()) };
    let (at, soon, late) = (NOON, NOON + MINUTE / 2, NOON + 2 * MINUTE);
    assert_eq!(retired(at).goes_on_after(&spec, soon), at);
    assert_eq!(retired(at).goes_on_after(&spec, late), late, "ticks of a retired schedule do not come");
    assert_eq!(retired(at).goes_on_after(&every(2 * MINUTE), soon), soon, "it had other times");
    assert_eq!(retired(late).goes_on_after(&spec, soon), soon, "the clock was set back");
    assert_eq!(schedule(spec.clone()).goes_on_after(&spec, soon), soon);
}

#[test]
fn ticks_that_are_caught_up_or_worked_out_anew_come_by_the_spread() {
    let spread = Duration::from_secs(50);
    let mut late = schedule(ScheduleSpec { spread, missed: MissedPolicy::All, ..every(MINUTE) });
    let offset = late.offset();
    assert!(!offset.is_zero() && offset < MINUTE, "{offset:?}");
    late.next_at = Some(NOON + offset);
    let moment = Duration::from_micros(1);
    // The third tick is not due a moment before its own time.
    for (now, fired) in [(NOON + 2 * MINUTE + offset - moment, 2), (NOON + 2 * MINUTE + offset, 3)] {
        let due = due(&late, now).expect("it is due");
        let nominal: Vec<Timestamp> = (0..fired).map(|minute| NOON + minute * MINUTE).collect();
        assert_eq!((due.fire, due.next), (nominal, Some(NOON + fired * MINUTE)));
    }
    // After a clock that was ahead.
    for (now, next) in [(NOON + offset - moment, NOON), (NOON + offset, NOON + MINUTE)] {
        late.reschedule(now, &mut |after| Timing::next_of_interval(MINUTE, after));
        assert_eq!(late.next_at, Some(next + offset));
    }
}

#[test]
fn a_tick_tells_the_one_before_and_how_many_were_missed() {
    let at = |minutes: u64| NOON + Duration::from_secs(60 * minutes);
    let record =
        |minutes, count, outcome| TickRecord { tick: at(minutes), count, outcome, job: None, reason: String::new() };
    let ticks = |schedule: &Schedule, fire: &[u64], missed| {
        let due = DueTicks { fire: fire.iter().map(|minutes| at(*minutes)).collect(), missed, ..DueTicks::default() };
        schedule.job_ticks(&due)
    };
    let new = schedule(every(MINUTE));
    assert_eq!(ticks(&new, &[1], 0), [JobTick { tick: at(1), previous: None, missed: 0 }]);
    let mut old = schedule(every(MINUTE));
    old.last_tick = Some(at(1));
    old.recent = vec![
        record(0, 4, TickOutcome::Missed),
        record(1, 1, TickOutcome::Fired),
        record(2, 1, TickOutcome::Overlap),
        record(4, 2, TickOutcome::NoHost),
    ];
    let expected = [
        JobTick { tick: at(10), previous: Some(at(1)), missed: 8 },
        JobTick { tick: at(11), previous: Some(at(10)), missed: 0 },
    ];
    assert_eq!(ticks(&old, &[10, 11], 5), expected, "skipped and missed ones, and those of this firing");
    old.last_tick = Some(at(60));
    assert_eq!(ticks(&old, &[10], 0)[0].previous, None, "the clock was ahead");
}
