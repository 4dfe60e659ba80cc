use std::collections::BTreeMap;

use super::*;

const MIB: u64 = 1 << 20;
const TOTAL: u64 = 256 * MIB;

fn age(number: u64) -> Age {
    Age { began: Duration::from_millis(number), number }
}

fn growth(bytes: u64, own: u64, since: Duration) -> Request {
    Request { of: MemoryUse::Attempts, bytes, own, since, releases: true }
}

#[test]
fn floors_and_what_each_use_can_have_fit_the_budget() {
    for total in [64 * MIB, TOTAL, 1 << 40, 0, 1, 1000] {
        let floors: u64 = MemoryUse::all().map(|each| each.floor(total)).sum();
        assert!(floors <= total / 4 + 1);
        for each in MemoryUse::all() {
            assert!(each.floor(total) <= each.most(total) && each.most(total) <= total, "{each:?} of {total}");
        }
        assert!(manifest_memory_max(total) <= MemoryUse::Attempts.most(total));
    }
    let names: std::collections::BTreeSet<usize> = MemoryUse::all().map(MemoryUse::index).collect();
    assert_eq!(names.len(), USES, "each has a place of its own");
}

#[test]
fn no_use_takes_the_floor_of_another() {
    for greedy in MemoryUse::all() {
        let mut ledger = Ledger::new(TOTAL);
        while ledger.take(greedy, MIB) {}
        for other in MemoryUse::all().filter(|other| *other != greedy) {
            assert!(ledger.free(other) >= other.floor(TOTAL), "{greedy:?} leaves {other:?} its floor");
        }
    }
}

#[test]
fn who_waits_is_served_by_age_and_holds_up_all_but_floors() {
    let mut ledger = Ledger::new(TOTAL);
    let most = MemoryUse::Attempts.most(TOTAL);
    assert!(ledger.take(MemoryUse::Attempts, most - 10 * MIB));
    ledger.wait(age(2), growth(20 * MIB, 0, Duration::ZERO));
    ledger.wait(age(1), growth(15 * MIB, 0, Duration::ZERO));
    assert_eq!(ledger.settle(Duration::ZERO), Settled::default());
    assert_eq!(ledger.free(MemoryUse::Attempts), 0, "nothing new starts before those that wait");
    assert!(ledger.take(MemoryUse::Requests, MIB), "a floor is there");
    ledger.give_back(MemoryUse::Attempts, 6 * MIB);
    assert_eq!(ledger.settle(Duration::ZERO).granted, [age(1)]);
    ledger.give_back(MemoryUse::Attempts, 30 * MIB);
    assert_eq!(ledger.settle(Duration::ZERO).granted, [age(2)]);
    assert_eq!(ledger.waiting(), 0);
}

#[test]
fn where_all_wait_the_youngest_is_released_and_only_it() {
    let mut ledger = Ledger::new(TOTAL);
    let most = MemoryUse::Attempts.most(TOTAL);
    assert!(ledger.take(MemoryUse::Attempts, most));
    for number in 1..=3 {
        ledger.open(age(number));
        ledger.wait(age(number), growth(MIB, most / 3, Duration::ZERO));
    }
    assert!(ledger.settle(Duration::ZERO).released.is_empty(), "others that run may end");
    assert_eq!(ledger.settle(ALL_WAIT_MAX).released, [age(3)]);
    assert!(ledger.settle(ALL_WAIT_MAX * 2).released.is_empty(), "it has not ended yet");
    ledger.withdraw(MemoryUse::Attempts, age(3));
    ledger.give_back(MemoryUse::Attempts, most / 3);
    ledger.close(age(3));
    assert_eq!(ledger.settle(ALL_WAIT_MAX * 3).granted, [age(1), age(2)]);
    assert_eq!(ledger.released(), 1);
}

#[test]
fn one_that_waits_behind_others_that_do_not_presses_after_a_while() {
    let mut ledger = Ledger::new(TOTAL);
    ledger.take_anyway(MemoryUse::Attempts, MemoryUse::Attempts.most(TOTAL));
    ledger.open(age(1));
    ledger.wait(age(1), growth(MIB, MIB, Duration::ZERO));
    assert_eq!(ledger.settle(PATIENCE / 2), Settled::default());
    assert_eq!(ledger.settle(PATIENCE).pressing, Some(age(1)));
    // Nobody released anything.
    assert_eq!(ledger.settle(PATIENCE_ALONE).released, [age(1)]);
}

#[test]
fn a_request_that_gives_up_by_itself_releases_nobody() {
    let mut ledger = Ledger::new(TOTAL);
    ledger.take_anyway(MemoryUse::Attempts, TOTAL);
    ledger.open(age(1));
    let body = Request { of: MemoryUse::Requests, releases: false, ..growth(4 * MIB, 0, Duration::ZERO) };
    ledger.wait(age(2), body);
    assert_eq!(ledger.settle(Duration::from_secs(60)), Settled::default());
    assert!(ledger.withdraw(MemoryUse::Requests, age(2)) && !ledger.withdraw(MemoryUse::Requests, age(2)));
}

#[test]
fn who_waits_for_the_cap_of_its_own_use_holds_up_nobody_else() {
    let mut ledger = Ledger::new(TOTAL);
    let most = MemoryUse::Readers.most(TOTAL);
    assert!(ledger.take(MemoryUse::Readers, most));
    let before = ledger.free(MemoryUse::Attempts);
    for number in 1..100 {
        let reader = Request { of: MemoryUse::Readers, releases: false, ..growth(MIB, 0, Duration::ZERO) };
        ledger.wait(age(number), reader);
    }
    assert_eq!(ledger.settle(Duration::ZERO), Settled::default());
    assert_eq!(ledger.free(MemoryUse::Attempts), before);
    ledger.wait(age(200), growth(before, 0, Duration::ZERO));
    assert_eq!(ledger.settle(Duration::ZERO).granted, [age(200)]);
    ledger.give_back(MemoryUse::Readers, 2 * MIB);
    assert_eq!(ledger.settle(Duration::ZERO).granted, [age(1), age(2)]);
}

#[test]
fn for_an_attempt_that_is_alone_kept_pages_do_not_count() {
    let most = MemoryUse::Attempts.most(TOTAL);
    let mut ledger = Ledger::new(TOTAL);
    ledger.set(MemoryUse::Kept, 16 * MIB);
    assert_eq!(ledger.free(MemoryUse::Attempts), most);
    assert!(ledger.take(MemoryUse::Attempts, most - 16 * MIB));
    ledger.wait(age(1), growth(16 * MIB, most - 16 * MIB, Duration::ZERO));
    assert_eq!(ledger.settle(Duration::ZERO).granted, [age(1)]);
    assert_eq!(ledger.free(MemoryUse::Attempts), 0);
}

/// Numbers that look random, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// An attempt of a simulation: it grows step by step to its size, and then ends.
#[derive(Clone, Copy)]
struct Growing {
    has: u64,
    size: u64,
    asked: Option<u64>,
}

/// Runs attempts of random sizes side by side until all have ended. Returns how many were released.
fn simulate(seed: u64) -> u64 {
    let mut random = Numbers(seed);
    let mut ledger = Ledger::new(TOTAL);
    let most = MemoryUse::Attempts.most(TOTAL);
    let mut to_start: Vec<u64> = (0..40).map(|_| (1 + random.below(most / MIB)) * MIB).collect();
    let mut running: BTreeMap<Age, Growing> = BTreeMap::new();
    let (mut now, mut started) = (Duration::ZERO, 0);
    let mut steps = 0;
    while !to_start.is_empty() || !running.is_empty() {
        steps += 1;
        assert!(steps < 200_000, "seed {seed}: they wait for one another");
        now += Duration::from_millis(random.below(50));
        if let Some(size) = to_start.last().copied()
            && running.len() < 8
            && ledger.take(MemoryUse::Attempts, MIB)
        {
            to_start.pop();
            started += 1;
            running.insert(Age { began: now, number: started }, Growing { has: MIB, size, asked: None });
        }
        let ready: Vec<Age> = running.iter().filter(|(_, one)| one.asked.is_none()).map(|(age, _)| *age).collect();
        if !ready.is_empty() {
            let age = ready[random.below(ready.len() as u64) as usize];
            let one = running.get_mut(&age).unwrap();
            if one.has >= one.size {
                ledger.give_back(MemoryUse::Attempts, one.has);
                ledger.close(age);
                running.remove(&age);
            } else {
                let bytes = (1 + random.below(20)) * MIB;
                let bytes = bytes.min(one.size - one.has);
                ledger.open(age);
                if ledger.take(MemoryUse::Attempts, bytes) {
                    one.has += bytes;
                } else {
                    one.asked = Some(bytes);
                    ledger.wait(age, growth(bytes, one.has, now));
                }
            }
        }
        let settled = ledger.settle(now);
        for age in settled.granted {
            let one = running.get_mut(&age).unwrap();
            one.has += one.asked.take().unwrap();
        }
        let pressed = settled.pressing.and_then(|_| running.keys().next_back().copied());
        for age in settled.released.into_iter().chain(pressed) {
            let one = running.remove(&age).unwrap();
            ledger.withdraw(MemoryUse::Attempts, age);
            ledger.give_back(MemoryUse::Attempts, one.has);
            ledger.close(age);
            to_start.insert(0, one.size);
        }
        let held: u64 = running.values().map(|one| one.has).sum();
        assert_eq!(ledger.used(MemoryUse::Attempts), held, "seed {seed}");
        assert!(ledger.sum() <= ledger.total(), "seed {seed}");
    }
    ledger.released()
}

#[test]
fn in_any_history_all_attempts_end_within_the_budget() {
    let released: u64 = (1..=200).map(simulate).sum();
    assert!(released > 0, "some of them waited for one another");
}

#[test]
fn first_pages_count_only_where_they_are_measured_and_never_more_than_there_are() {
    let mut ledger = Ledger::new(TOTAL);
    assert!(ledger.take(MemoryUse::Attempts, 100 * MIB));
    ledger.take_anyway(MemoryUse::Compile, 20 * MIB);
    ledger.change_unseen(100 * MIB, 0);
    assert!(!ledger.is_at_risk(), "all that may be written to has room");
    ledger.change_unseen(900 * MIB, 0);
    assert!(ledger.is_at_risk());
    ledger.measured(90 * MIB);
    assert_eq!((ledger.used(MemoryUse::FirstPages), ledger.overdrawn()), (0, 0), "less is there than is reserved");
    ledger.measured(130 * MIB);
    assert_eq!((ledger.used(MemoryUse::FirstPages), ledger.overdrawn()), (30 * MIB, 0));
    assert!(ledger.free(MemoryUse::Attempts) <= TOTAL - 150 * MIB, "nobody else has it");
    ledger.measured(300 * MIB);
    assert_eq!(ledger.overdrawn(), 200 * MIB + 120 * MIB - TOTAL);
    assert_eq!(ledger.free(MemoryUse::Attempts), 0);
    ledger.change_unseen(0, 990 * MIB);
    ledger.measured(u64::MAX);
    assert_eq!((ledger.used(MemoryUse::FirstPages), ledger.overdrawn()), (10 * MIB, 0), "there are no more");
}

#[test]
fn the_youngest_are_released_and_the_oldest_never() {
    let held = |ages: &[u64]| ages.iter().map(|age| (*age, 10)).collect::<Vec<_>>();
    assert_eq!(to_release(held(&[3, 1, 4, 2]), 1), [4]);
    assert_eq!(to_release(held(&[3, 1, 4, 2]), 11), [4, 3]);
    assert_eq!(to_release(held(&[3, 1, 4, 2]), 1000), [4, 3, 2]);
    assert_eq!((to_release(held(&[1]), 1), to_release(held(&[]), 1)), (vec![], vec![]));
}
