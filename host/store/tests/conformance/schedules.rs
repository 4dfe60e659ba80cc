//! Schedules: rows that change under their versions, and firings that are all or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use wharf_core::audit::{ActKind, NewAct};
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::ids::{JobId, NodeId, ScheduleId};
use wharf_core::job::{NewJob, StateName};
use wharf_core::limits::OnConflict;
use wharf_core::schedule::{
    FiringTick, MissedPolicy, OverlapPolicy, Pause, Schedule, ScheduleFiring, ScheduleSource, ScheduleSpec,
    TickOutcome, Timing, tick_token,
};
use wharf_core::tick::JobTick;
use wharf_store::{ActFilter, ScheduleFired, ScheduleWrite, ScheduleWritten};

use crate::server::shared_address;
use crate::stage::{COUNT, LIST, SECOND, Stage, at_most, block_on, failed, on_every_store, task};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn id(name: &str) -> ScheduleId {
    name.parse().unwrap()
}

pub(crate) fn spec() -> ScheduleSpec {
    ScheduleSpec {
        task: task(COUNT),
        payload: b"{\"text\": \"a\"}".as_slice().into(),
        key: Some("acme".parse().unwrap()),
        priority: -3,
        timing: Timing::Every(MINUTE),
        missed: MissedPolicy::Latest,
        window: bounds::SCHEDULE_WINDOW_DEFAULT,
        overlap: OverlapPolicy::Allow,
        spread: Duration::ZERO,
        pause_after: None,
        tick_as: None,
    }
}

/// Returns a schedule whose first tick is now.
pub(crate) fn schedule(stage: &Stage, name: &str, spec: ScheduleSpec) -> Schedule {
    let now = stage.store.now();
    Schedule { next_at: Some(now), ..Schedule::new(id(name), spec, now) }
}

pub(crate) async fn write(stage: &Stage, schedule: &Schedule, expected: Option<u64>) -> ScheduleWritten {
    let write = ScheduleWrite { id: schedule.id.clone(), expected, schedule: Some(schedule.clone()), act: None };
    stage.store.write_schedules(vec![write]).await.unwrap().remove(0)
}

pub(crate) async fn add(stage: &Stage, name: &str, spec: ScheduleSpec) -> Schedule {
    let schedule = schedule(stage, name, spec);
    assert_eq!(write(stage, &schedule, None).await, ScheduleWritten::Written);
    schedule
}

/// Returns the firing of the next tick of a schedule, whose job has the token of the tick.
pub(crate) fn firing(stage: &Stage, schedule: &Schedule) -> ScheduleFiring {
    let tick = schedule.next_at.unwrap();
    let job = NewJob {
        token: tick_token(&schedule.id, tick),
        payload: schedule.spec.payload.clone(),
        ..stage.new_job(COUNT, "acme")
    };
    ScheduleFiring {
        id: schedule.id.clone(),
        version: schedule.version,
        open: schedule.open.clone(),
        ticks: vec![FiringTick { tick: Some(tick), job: Ok(job) }],
        missed: None,
        next_at: Some(tick + MINUTE),
        held: false,
        by: None,
    }
}

pub(crate) async fn fire(stage: &Stage, firing: ScheduleFiring) -> Option<ScheduleFired> {
    stage.store.fire_schedules(Arc::new(vec![firing]), stage.declared.clone()).await.unwrap().remove(0)
}

/// Fires the next tick of a schedule as it is stored.
pub(crate) async fn fire_next(stage: &Stage, name: &str) -> ScheduleFired {
    let schedule = stage.store.schedule(id(name)).await.unwrap().unwrap();
    fire(stage, firing(stage, &schedule)).await.unwrap()
}

fn job_of(fired: &ScheduleFired) -> JobId {
    fired.fired.ticks.last().unwrap().job.unwrap()
}

#[test]
fn a_row_keeps_all_of_a_schedule() {
    on_every_store(|stage| async move {
        let now = stage.store.now();
        let cron = Timing::Cron { expression: "*/5 3 * * MON".to_owned(), zone: "Europe/Berlin".to_owned() };
        let rich = ScheduleSpec {
            timing: cron,
            missed: MissedPolicy::All,
            window: 90 * SECOND,
            overlap: OverlapPolicy::QueueOne,
            spread: 7 * SECOND,
            pause_after: Some(5),
            tick_as: Some("/at/tick".parse().unwrap()),
            payload: b"\0\xff not JSON".as_slice().into(),
            ..spec()
        };
        let pause = Pause { since: now, until: Some(now + MINUTE), by: Some("ann".into()), reason: "ä \"x\"".into() };
        let first = Schedule {
            source: ScheduleSource::File,
            revision: now - MINUTE,
            version: 9,
            author: Some("host:box".to_owned()),
            last_tick: Some(now - SECOND),
            open: vec![stage.id(), stage.id()],
            failures: 2,
            pause: Some(pause),
            retired_at: Some(now),
            fired: 1 << 40,
            missed: 3,
            skipped: 4,
            next_at: None,
            ..schedule(&stage, "rich", rich)
        };
        let bare = Schedule { spec: ScheduleSpec { key: None, ..spec() }, ..schedule(&stage, "bare", spec()) };
        for schedule in [&first, &bare] {
            assert_eq!(write(&stage, schedule, None).await, ScheduleWritten::Written);
            assert_eq!(stage.store.schedule(schedule.id.clone()).await.unwrap().as_ref(), Some(schedule));
        }
        assert_eq!(stage.store.schedules(None, None, 10).await.unwrap(), [bare.clone(), first.clone()]);
        assert_eq!(stage.store.schedules(None, Some(id("bare")), 10).await.unwrap(), std::slice::from_ref(&first));
        assert_eq!(stage.store.schedules(None, None, 1).await.unwrap(), [bare]);
        assert_eq!(stage.store.schedules(Some(ScheduleSource::File), None, 10).await.unwrap(), [first]);
        assert_eq!(stage.store.schedule(id("none")).await.unwrap(), None);
    });
}

#[test]
fn who_saw_another_version_writes_nothing() {
    on_every_store(|stage| async move {
        let first = add(&stage, "nightly", spec()).await;
        assert_eq!(write(&stage, &first, None).await, ScheduleWritten::Stale, "it exists");
        let (one, two) = (Some(first.version), Some(first.version + 1));
        let second = Schedule { version: first.version + 1, fired: 7, ..first.clone() };
        assert_eq!(write(&stage, &second, one).await, ScheduleWritten::Written);
        assert_eq!(write(&stage, &second, one).await, ScheduleWritten::Stale);
        let act = || Some(NewAct::of_schedule(Author::token("ann"), ActKind::ScheduleRemoved, &first, ""));
        let delete = |expected| ScheduleWrite { id: id("nightly"), expected, schedule: None, act: act() };
        let written = stage.store.write_schedules(vec![delete(one), delete(two)]).await.unwrap();
        assert_eq!(written, [ScheduleWritten::Stale, ScheduleWritten::Written]);
        assert_eq!(stage.store.schedule(id("nightly")).await.unwrap(), None);
        let acts = stage.store.acts(ActFilter { max: 10, ..ActFilter::default() }).await.unwrap().acts;
        assert_eq!(acts.len(), 1, "what was not written is no act");
        assert_eq!((acts[0].kind, acts[0].target.as_str()), (ActKind::ScheduleRemoved, "nightly"));
        assert_eq!(acts[0].detail, "words/count at every 1m");
    });
}

#[test]
fn writes_of_one_call_see_each_other_and_one_that_is_stale_keeps_no_other_from_being_written() {
    on_every_store(|stage| async move {
        let (one, other) = (schedule(&stage, "one", spec()), schedule(&stage, "other", spec()));
        let write = |schedule: &Schedule, expected| ScheduleWrite {
            id: schedule.id.clone(),
            expected,
            schedule: Some(schedule.clone()),
            act: None,
        };
        let changed = Schedule { version: one.version + 1, ..one.clone() };
        let delete = ScheduleWrite { id: one.id.clone(), expected: Some(changed.version), schedule: None, act: None };
        let writes = vec![
            write(&one, None),
            write(&one, None),
            write(&changed, Some(one.version)),
            write(&other, Some(7)),
            write(&other, None),
            delete,
            write(&one, None),
        ];
        let results = stage.store.write_schedules(writes).await.unwrap();
        let (written, stale) = (ScheduleWritten::Written, ScheduleWritten::Stale);
        assert_eq!(results, [written, stale, written, stale, written, written, written]);
        let stored = stage.store.schedules(None, None, 10).await.unwrap();
        assert_eq!(stored, [one, other]);
    });
}

#[test]
fn a_firing_sets_the_next_moment_and_inserts_the_job_once() {
    on_every_store(|stage| async move {
        let first = add(&stage, "nightly", spec()).await;
        let due = stage.store.due_schedules(None, 10).await.unwrap();
        assert_eq!((due.due.as_slice(), due.next_at), ([first.clone()].as_slice(), None));
        let decided = firing(&stage, &first);
        let fired = fire(&stage, decided.clone()).await.unwrap();
        let job = stage.seen(job_of(&fired)).await.job;
        assert_eq!((&job.task, &job.payload), (&first.spec.task, &first.spec.payload));
        assert_eq!(job.token, tick_token(&first.id, first.next_at.unwrap()));
        let stored = stage.store.schedule(id("nightly")).await.unwrap().unwrap();
        assert_eq!(stored, fired.fired.schedule);
        assert_eq!((stored.fired, stored.version, stored.last_tick), (1, first.version + 1, first.next_at));
        assert_eq!((stored.open.as_slice(), stored.next_at), ([job.id].as_slice(), Some(stage.clock_in(60))));
        // Another host decided on the same firing.
        assert_eq!(fire(&stage, decided).await, None);
        let due = stage.store.due_schedules(None, 10).await.unwrap();
        assert_eq!((due.due.len(), due.next_at), (0, Some(stage.clock_in(60))));
        assert_eq!(stage.claim(10).await.len(), 1);
    });
}

#[test]
fn a_tick_whose_token_is_known_has_no_second_job() {
    on_every_store(|stage| async move {
        let first = add(&stage, "nightly", spec()).await;
        let fired = fire_next(&stage, "nightly").await;
        // The clock was ahead, and the next moment is worked out anew.
        let version = first.version + 2;
        let again = Schedule { version, ..Schedule { next_at: first.next_at, ..fired.fired.schedule.clone() } };
        assert_eq!(write(&stage, &again, Some(version - 1)).await, ScheduleWritten::Written);
        let twice = fire_next(&stage, "nightly").await;
        let tick = twice.fired.ticks.last().unwrap();
        assert_eq!((tick.outcome, tick.job), (TickOutcome::Duplicate, Some(job_of(&fired))));
        assert_eq!((twice.fired.schedule.fired, twice.fired.schedule.skipped), (1, 1));
        assert_eq!(stage.claim(10).await.len(), 1);
    });
}

/// Ends a running job.
pub(crate) async fn end(stage: &Stage, job: JobId) {
    let attempt = stage.seen(job).await.job.status.attempt;
    let (output, usage) = (b"".as_slice().into(), crate::stage::usage());
    let end = wharf_core::lifecycle::Event::Succeeded { attempt, output, children: vec![], changes: None, usage };
    stage.record(job, end).await.unwrap();
}

#[test]
fn overlapping_ticks_are_skipped_wait_or_replace_as_their_policy_says() {
    on_every_store(|stage| async move {
        add(&stage, "skip", ScheduleSpec { overlap: OverlapPolicy::Skip, ..spec() }).await;
        let running = job_of(&fire_next(&stage, "skip").await);
        stage.claim_one().await;
        for skipped in 1..3 {
            let fired = fire_next(&stage, "skip").await;
            assert_eq!((fired.fired.ticks[0].outcome, job_of(&fired)), (TickOutcome::Overlap, running));
            assert_eq!(fired.fired.schedule.skipped, skipped);
        }
        end(&stage, running).await;

        for overlap in [OverlapPolicy::QueueOne, OverlapPolicy::Replace] {
            let name = overlap.as_str();
            add(&stage, name, ScheduleSpec { overlap, ..spec() }).await;
            // A job that has not begun gives way to the next one.
            let waiting = job_of(&fire_next(&stage, name).await);
            let fired = fire_next(&stage, name).await;
            assert_eq!(fired.replaced, [waiting]);
            let running = job_of(&fired);
            assert_eq!(stage.claim_one().await.lease.job, running);

            // While one runs, the tick stays due, and no second one can be claimed although nothing limits the lane.
            let before = fired.fired.schedule;
            let held = fire(&stage, firing(&stage, &before)).await;
            let stored = stage.store.schedule(id(name)).await.unwrap().unwrap();
            assert_eq!((stored.next_at, stored.fired), (before.next_at, 2));
            assert!(stage.claim(10).await.is_empty(), "{name}");
            let requested = stage.seen(running).await.job.status.cancel_requested;
            match overlap {
                OverlapPolicy::QueueOne => assert_eq!((held, requested, &stored), (None, false, &before)),
                _ => assert_eq!((held.unwrap().cancel_requested, requested), (vec![running], true)),
            }
            // Asked again, nothing changes.
            assert_eq!(fire(&stage, firing(&stage, &stored)).await, None);

            // A newer tick takes its place, and has its job once the one that ran has ended.
            let mut both = firing(&stage, &stored);
            let newer =
                FiringTick { tick: Some(stored.next_at.unwrap() + MINUTE), job: Ok(stage.new_job(COUNT, "acme")) };
            both.ticks.push(newer);
            let fired = fire(&stage, both).await.unwrap();
            let tick = &fired.fired.ticks[0];
            assert_eq!(
                (tick.outcome, tick.job, fired.fired.schedule.skipped),
                (TickOutcome::Overlap, Some(running), 1)
            );
            assert_eq!(fired.fired.schedule.next_at, Some(stored.next_at.unwrap() + MINUTE));
            end(&stage, running).await;
            let last = job_of(&fire_next(&stage, name).await);
            assert_eq!(stage.claim_one().await.lease.job, last);
            end(&stage, last).await;
        }
    });
}

#[test]
fn the_job_of_a_tick_that_replaces_others_is_not_discarded_for_them() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, None));
        for overlap in [OverlapPolicy::QueueOne, OverlapPolicy::Replace] {
            let name = overlap.as_str();
            add(&stage, name, ScheduleSpec { overlap, ..spec() }).await;
            let discarding = |schedule: &Schedule| {
                let mut decided = firing(&stage, schedule);
                let (tick, job) = (decided.ticks[0].tick.unwrap(), decided.ticks[0].job.clone().unwrap());
                let job = NewJob { on_conflict: OnConflict::Discard, ..job };
                let tick = JobTick { tick, previous: None, missed: 0 };
                decided.ticks[0].job = Ok(schedule.job_of_tick(job, tick));
                decided
            };
            let stored = async || stage.store.schedule(id(name)).await.unwrap().unwrap();
            // The lane is full: somebody else's job runs in it.
            let other = stage.add(COUNT, "acme").await;
            assert_eq!(stage.claim_one().await.lease.job, other);
            let first = fire(&stage, discarding(&stored().await)).await.unwrap();
            let second = fire(&stage, discarding(&stored().await)).await.unwrap();
            assert_eq!(second.replaced, [job_of(&first)]);
            assert_eq!(second.fired.ticks[0].outcome, TickOutcome::Fired);
            assert_eq!(stage.state(job_of(&second)).await, StateName::Waiting);
            end(&stage, other).await;
            assert_eq!(stage.claim_one().await.lease.job, job_of(&second));
            end(&stage, job_of(&second)).await;
        }
    });
}

#[test]
fn every_attempt_of_a_job_has_its_tick_and_other_jobs_have_none() {
    on_every_store(|stage| async move {
        let scheduled = add(&stage, "nightly", spec()).await;
        let mut decided = firing(&stage, &scheduled);
        let tick = decided.ticks[0].tick.unwrap();
        let expected = JobTick { tick, previous: Some(tick - 3 * MINUTE), missed: 2 };
        let job = decided.ticks[0].job.clone().unwrap();
        decided.ticks[0].job = Ok(scheduled.job_of_tick(job, expected));
        let id = job_of(&fire(&stage, decided).await.unwrap());
        for retry in [Some(Duration::ZERO), None] {
            let leased = stage.claim_one().await;
            assert_eq!(leased.tick.as_deref(), Some(&expected));
            assert_eq!(stage.store.job_summary(id).await.unwrap().unwrap().tick.as_deref(), Some(&expected));
            stage.record(id, failed(leased.lease.attempt, retry)).await.unwrap();
        }
        stage.add(LIST, "other").await;
        assert_eq!(stage.claim_one().await.tick, None);
    });
}

#[test]
fn a_firing_of_a_row_that_was_removed_does_not_fire_the_one_that_was_made_since() {
    on_every_store(|stage| async move {
        let old = add(&stage, "nightly", spec()).await;
        let decided = firing(&stage, &old);
        let delete = ScheduleWrite { id: id("nightly"), expected: Some(old.version), schedule: None, act: None };
        assert_eq!(stage.store.write_schedules(vec![delete]).await.unwrap(), [ScheduleWritten::Written]);
        stage.pass(SECOND);
        let new = add(&stage, "nightly", ScheduleSpec { priority: 9, ..spec() }).await;
        assert_eq!(fire(&stage, decided).await, None);
        assert_eq!(stage.store.schedule(id("nightly")).await.unwrap(), Some(new));
    });
}

#[test]
fn a_full_lane_discards_the_job_of_a_tick_and_the_schedule_remembers_it() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, None));
        add(&stage, "nightly", spec()).await;
        let in_the_way = stage.add(COUNT, "acme").await;
        let stored = stage.store.schedule(id("nightly")).await.unwrap().unwrap();
        let mut decided = firing(&stage, &stored);
        if let Ok(job) = &mut decided.ticks[0].job {
            job.on_conflict = OnConflict::Discard;
        }
        let fired = fire(&stage, decided).await.unwrap();
        let tick = &fired.fired.ticks[0];
        assert_eq!((tick.outcome, tick.job), (TickOutcome::LaneFull, Some(in_the_way)));
        assert_eq!(stage.store.schedule(id("nightly")).await.unwrap().unwrap().recent, std::slice::from_ref(tick));
    });
}

#[test]
fn failures_in_a_row_pause_a_schedule_with_an_act() {
    on_every_store(|stage| async move {
        add(&stage, "nightly", ScheduleSpec { pause_after: Some(2), ..spec() }).await;
        for _ in 0..2 {
            fire_next(&stage, "nightly").await;
            let leased = stage.claim_one().await;
            stage.record(leased.lease.job, failed(leased.lease.attempt, None)).await.unwrap();
        }
        let paused = fire_next(&stage, "nightly").await;
        assert!(paused.fired.paused);
        assert_eq!((paused.fired.ticks.len(), paused.fired.ticks[0].outcome), (1, TickOutcome::Paused));
        assert_eq!(paused.fired.schedule.next_at, None);
        assert_eq!(stage.claim(10).await.len(), 0);
        let acts = stage.store.acts(ActFilter { max: 10, ..ActFilter::default() }).await.unwrap().acts;
        assert_eq!((acts.len(), acts[0].kind), (1, ActKind::SchedulePaused));
        assert_eq!(stage.store.due_schedules(None, 10).await.unwrap().due, []);
    });
}

#[test]
fn an_operators_run_is_an_act_and_moves_nothing() {
    on_every_store(|stage| async move {
        let first = add(&stage, "nightly", spec()).await;
        let mut decided = firing(&stage, &first);
        (decided.ticks[0].tick, decided.next_at, decided.by) = (None, None, Some(Author::token("ann")));
        let fired = fire(&stage, decided).await.unwrap();
        assert_eq!(fired.fired.schedule.next_at, first.next_at);
        let acts = stage.store.acts(ActFilter { max: 10, ..ActFilter::default() }).await.unwrap().acts;
        assert_eq!((acts[0].kind, acts[0].author.name()), (ActKind::ScheduleRun, Some("ann")));
        let run = fired.fired.run.as_ref().and_then(|run| run.job).unwrap();
        assert!(acts[0].detail.contains(&run.to_string()));
        assert_eq!((fired.fired.schedule.fired, fired.fired.schedule.open.len()), (0, 0), "it is no tick");
    });
}

#[test]
fn due_schedules_come_in_the_order_of_their_moments_page_by_page() {
    on_every_store(|stage| async move {
        let now = stage.store.now();
        let at = |seconds: u32| now - seconds * SECOND;
        for (name, next_at) in [("a", at(5)), ("b", at(9)), ("c", at(5)), ("d", now + SECOND), ("e", now + 9 * SECOND)]
        {
            let schedule = Schedule { next_at: Some(next_at), ..schedule(&stage, name, spec()) };
            assert_eq!(write(&stage, &schedule, None).await, ScheduleWritten::Written);
        }
        let paused = Schedule { next_at: None, ..schedule(&stage, "f", spec()) };
        assert_eq!(write(&stage, &paused, None).await, ScheduleWritten::Written);
        let names = |due: &[Schedule]| -> Vec<String> { due.iter().map(|one| one.id.to_string()).collect() };
        let first = stage.store.due_schedules(None, 2).await.unwrap();
        assert_eq!((names(&first.due), first.next_at), (vec!["b".to_owned(), "a".to_owned()], Some(now + SECOND)));
        let after = Some((first.due[1].next_at.unwrap(), first.due[1].id.clone()));
        assert_eq!(names(&stage.store.due_schedules(after, 2).await.unwrap().due), ["c"]);
    });
}

#[test]
fn schedules_of_a_clock_that_was_ahead_are_found() {
    on_every_store(|stage| async move {
        let ahead = Schedule { moved_at: stage.clock_in(3600), ..schedule(&stage, "ahead", spec()) };
        assert_eq!(write(&stage, &ahead, None).await, ScheduleWritten::Written);
        add(&stage, "nightly", spec()).await;
        assert_eq!(stage.store.schedules_ahead(10).await.unwrap(), [ahead]);
        stage.pass(Duration::from_secs(3600));
        assert_eq!(stage.store.schedules_ahead(10).await.unwrap(), []);
    });
}

#[test]
fn the_files_of_nodes_are_kept_until_they_are_gone() {
    on_every_store(|stage| async move {
        let file = |names: &[&str]| -> BTreeMap<ScheduleId, u64> {
            names.iter().zip(u64::MAX - 9..).map(|(name, digest)| (id(name), digest)).collect()
        };
        let set = async |node, file, gone: &[u64]| {
            let gone = gone.iter().copied().map(NodeId).collect();
            stage.store.set_schedule_file(NodeId(node), file, gone).await.unwrap();
        };
        set(u64::MAX, file(&["a", "b"]), &[]).await;
        set(2, file(&["b"]), &[]).await;
        set(2, file(&["c"]), &[9]).await;
        let mut files = stage.store.schedule_files().await.unwrap();
        files.sort();
        assert_eq!(files, [(NodeId(2), file(&["c"])), (NodeId(u64::MAX), file(&["a", "b"]))]);
        set(2, file(&[]), &[u64::MAX]).await;
        assert_eq!(stage.store.schedule_files().await.unwrap(), []);
    });
}

#[test]
fn of_two_hosts_that_fire_at_once_one_does() {
    block_on(async {
        let address = shared_address();
        let (one, other) = (Stage::at(&address).await, Stage::at(&address).await);
        let first = add(&one, "race", spec()).await;
        for round in 0..20 {
            let stored = one.store.schedule(id("race")).await.unwrap().unwrap();
            let (first, second) =
                futures_util::future::join(fire(&one, firing(&one, &stored)), fire(&other, firing(&other, &stored)))
                    .await;
            assert_eq!([&first, &second].iter().filter(|fired| fired.is_some()).count(), 1, "in round {round}");
        }
        let stored = other.store.schedule(id("race")).await.unwrap().unwrap();
        assert_eq!((stored.fired, stored.version), (20, first.version + 20));
        let jobs = one.store.jobs(wharf_store::JobFilter { max: 100, ..Default::default() }).await.unwrap().jobs;
        let of_race =
            jobs.iter().filter(|job| job.token.as_ref().is_some_and(|token| token.as_str().contains("race@")));
        assert_eq!(of_race.count(), 20);
    });
}
