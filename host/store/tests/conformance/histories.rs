//! Random histories: the same operations on the memory store, a SQLite store and a PostgreSQL store. Results and all that can be
//! read are compared after each step, until every operation and every possible result has occurred.
//!
//! A failure prints its seed; `SEED=... cargo test -p wharf-store histories` repeats that history and prints each step.

mod bulk;
mod operation;
mod occurred;
mod snapshot;
mod world;

use std::collections::BTreeSet;

use fastrand::Rng;

use crate::stage::block_on;
use operation::Operation;
use world::World;

const STEPS: usize = 120;
const HISTORIES_MIN: usize = 8;
/// Many more histories than needed: what has not occurred by then can't occur.
const HISTORIES_MAX: usize = 300;

/// What has to occur: operations, conflicts, refusals, results, wait reasons. A regression of a failure takes five steps in their
/// order: it has a test of its own.
const WANTED: &[&str] = &[
    "insert",
    "inserted with changes",
    "values kept",
    "value taken away",
    "changes refused",
    "claim",
    "record",
    "renew",
    "mark",
    "reclaim",
    "delete finished",
    "set override",
    "set hold",
    "operation started",
    "operation changed jobs",
    "operation skipped jobs",
    "operation deleted jobs",
    "operation gave priorities",
    "operation step refused",
    "operation cancelled",
    "left out by an operation",
    "taken by an operation that asks why jobs wait",
    "operations deleted",
    "deleted of a broadcast",
    "act on a job",
    "act on a job refused",
    "deleted acts",
    "released",
    "released nothing",
    "failure state set",
    "no such failure",
    "deleted failures",
    "announced",
    "deleted holds",
    "time passes",
    "crash",
    "added",
    "known",
    "discarded",
    "replaced waiting",
    "asked running to end",
    "child added",
    "child known",
    "child discarded",
    "refused: unknown",
    "refused: stale",
    "refused: finished succeeded",
    "refused: finished failed",
    "refused: finished cancelled",
    "refused: not waiting",
    "refused: not finished waiting",
    "refused: not finished running",
    "refused: not finished succeeded",
    "event: wrote",
    "event: succeeded",
    "event: failed",
    "event: released",
    "event: cancelled",
    "event: lease expired",
    "event: cancel asked",
    "event: replaced",
    "event: retry asked",
    "event: run asked",
    "event: priority changed",
    "held",
    "held and asked to end",
    "lost",
    "why: not due",
    "why: held",
    "why: lane full",
    "why: group full",
    "why: paused",
    "why: in turn",
    "leased",
    "leased nothing",
    "held back",
    "short of room",
    "overtook",
    "wakes later",
    "reclaimed",
    "forgot",
];

/// Prints how to repeat a history that failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat this history with SEED={}", self.0);
        }
    }
}

/// The stack of a history, in bytes: without optimisation, the futures of all operations take more than a test has.
const STACK_BYTES: usize = 64 << 20;

#[test]
fn every_store_does_what_the_memory_store_does() {
    let histories = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run_histories).unwrap();
    histories.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn run_histories() {
    let mut occurred = BTreeSet::new();
    if let Some(seed) = std::env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a number")) {
        run_history(seed, true, &mut occurred);
        return;
    }
    let missing = |occurred: &BTreeSet<_>| WANTED.iter().copied().filter(|w| !occurred.contains(w)).collect::<Vec<_>>();
    for lived in 0..HISTORIES_MAX {
        if lived >= HISTORIES_MIN && missing(&occurred).is_empty() {
            return;
        }
        if lived % 10 == 9 {
            eprintln!("after {lived} histories these have not occurred: {:?}", missing(&occurred));
        }
        run_history(fastrand::u64(..), false, &mut occurred);
    }
    panic!("these never occurred in {HISTORIES_MAX} histories: {:?}", missing(&occurred));
}

fn run_history(seed: u64, prints: bool, occurred: &mut BTreeSet<&'static str>) {
    let _seed = Seed(seed);
    block_on(async {
        let mut rng = Rng::with_seed(seed);
        let mut world = World::new().await;
        for step in 0..STEPS {
            let operation = Operation::draw(&mut rng, &world);
            if prints {
                eprintln!("{step}: {operation:?}");
            }
            world.perform(operation, occurred).await;
            world.compare(occurred).await;
        }
        world.check().await;
    });
}
