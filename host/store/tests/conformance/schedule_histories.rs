//! Random histories of schedules, which are the same on every store.

use wharf_core::ids::JobId;
use wharf_core::schedule::{MissedPolicy, OverlapPolicy, Schedule, ScheduleSpec, TickOutcome};

use crate::stage::{SECOND, Stage, block_on, failed};

use crate::schedules::{MINUTE, add, fire, firing, id, spec, write};

/// Random firings and changes on all stores at once: each store has the same schedules and jobs after each step as the one in
/// memory.
#[test]
fn random_histories_are_the_same_on_every_store() {
    use crate::stage::Kind;
    block_on(async {
        for seed in 0..6 {
            let mut ends: Vec<String> = Vec::new();
            for kind in [Kind::Memory, Kind::Sqlite, Kind::Postgres] {
                ends.push(history(&Stage::new(kind).await, seed).await);
            }
            assert_eq!(ends[0], ends[1], "SQLite, seed {seed}");
            assert_eq!(ends[0], ends[2], "PostgreSQL, seed {seed}");
        }
    });
}

async fn history(stage: &Stage, seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut numbers: Vec<JobId> = Vec::new();
    let mut text = String::new();
    let names = ["p", "q", "r"];
    for name in names {
        let overlap = OverlapPolicy::ALL[random.usize(0..4)];
        let missed = MissedPolicy::ALL[random.usize(0..3)];
        let pause_after = random.bool().then(|| random.u32(1..3));
        add(stage, name, ScheduleSpec { overlap, missed, pause_after, ..spec() }).await;
    }
    for _ in 0..60 {
        let stored = stage.store.schedule(id(names[random.usize(0..3)])).await.unwrap().unwrap();
        match random.u32(0..6) {
            0..=2 if stored.next_at.is_some() => {
                let mut decided = firing(stage, &stored);
                if random.bool() {
                    // Two ticks are caught up together.
                    let later = Schedule { next_at: decided.next_at, ..stored.clone() };
                    let second = firing(stage, &later);
                    decided.ticks.extend(second.ticks);
                    decided.next_at = second.next_at;
                }
                if random.u32(0..4) == 0 {
                    let last = decided.ticks[0].tick.unwrap() - MINUTE;
                    decided.missed = Some((random.u64(1..4), last, TickOutcome::Missed));
                }
                decided.held = random.bool();
                decided.version -= u64::from(random.u32(0..8) == 0);
                let fired = fire(stage, decided).await;
                numbers.extend(fired.iter().flat_map(|fired| &fired.fired.ticks).filter_map(|tick| tick.job));
                let outcomes = fired.map(|fired| {
                    let place = |id: &JobId| numbers.iter().position(|known| known == id);
                    let ticks: Vec<_> =
                        fired.fired.ticks.iter().map(|tick| (tick.outcome, tick.job.as_ref().map(place))).collect();
                    let changed: Vec<_> = fired.replaced.iter().chain(&fired.cancel_requested).map(place).collect();
                    let open: Vec<_> = fired.fired.schedule.open.iter().map(place).collect();
                    (ticks, changed, open, fired.fired.paused, fired.fired.schedule.failures)
                });
                text += &format!("{} {outcomes:?}\n", stored.id);
            }
            3 => {
                let leased = stage.claim(random.u32(1..3)).await;
                for leased in leased {
                    match random.u32(0..3) {
                        0 => _ = stage.succeed(&leased).await.unwrap(),
                        1 => _ = stage.record(leased.lease.job, failed(leased.lease.attempt, None)).await.unwrap(),
                        _ => {}
                    }
                }
            }
            4 => {
                let resumed = Schedule {
                    next_at: Some(stage.store.now()),
                    pause: None,
                    version: stored.version + 1,
                    ..stored.clone()
                };
                text += &format!("{:?}\n", write(stage, &resumed, Some(stored.version)).await);
            }
            _ => stage.pass(SECOND),
        }
    }
    let all: Vec<_> = stage
        .store
        .schedules(None, None, 10)
        .await
        .unwrap()
        .iter()
        .map(|schedule| {
            let counts = [schedule.fired, schedule.missed, schedule.skipped, schedule.version];
            let recent: Vec<_> = schedule.recent.iter().map(|tick| (tick.tick, tick.count, tick.outcome)).collect();
            (counts, schedule.next_at, schedule.last_tick, schedule.open.len(), recent)
        })
        .collect();
    format!("{text}{all:?}")
}
