//! Several nodes on one store, with time in our hands: one seed is one history, and the same seed is the same history again.
//!
//! The planner, the rules and the memory store are the real ones. What is played are the clock, the engine (attempts that
//! take as long as their script says) and everything that can go wrong between the three: see `faults`.
//! After each step `checkers` looks at what must hold whatever happens.

mod checkers;
mod faults;
mod ground;
mod node;
mod operations;
mod people;
mod schedules;
mod script;
mod world;

use faults::{Fault, Faults, Odds};
use world::World;

/// Histories in one run of the test; `SEED=123` runs one, and tells it step by step.
const SEEDS: u64 = 200;

#[test]
fn whatever_goes_wrong_limits_hold_and_every_job_ends() {
    if let Ok(text) = std::env::var("SEED") {
        let seed = text.parse().expect("SEED is a number");
        let world = World::new(seed, true).play();
        println!("{world}");
        return;
    }
    let mut seen = Faults::default();
    for seed in 0..SEEDS {
        let played = std::panic::catch_unwind(|| World::new(seed, false).play());
        match played {
            Ok(summary) => seen.add(&summary.faults),
            Err(panic) => {
                eprintln!(
                    "seed {seed} failed: SEED={seed} cargo lane-simulation whatever_goes_wrong -- --nocapture tells how"
                );
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{SEEDS} histories: {seen}");
    let never = seen.never();
    assert!(never.is_empty(), "these never happened, so that nothing was shown about them: {never:?}");
}

#[test]
fn of_jobs_beside_those_that_kill_their_nodes_none_is_failed() {
    let mut seen = Faults::default();
    for seed in 0..SEEDS {
        let played = std::panic::catch_unwind(|| World::with(seed, false, |_| Odds::only_killers()).play());
        match played {
            Ok(summary) => seen.add(&summary.faults),
            Err(panic) => {
                eprintln!("seed {seed} failed; SEED plays histories of another test: run this one again");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{SEEDS} histories: {seen}");
    for fault in [Fault::Killed, Fault::Suspect, Fault::Joined] {
        assert!(seen.seen(fault) > SEEDS, "{fault:?} hardly ever happened, so that little was shown: {seen}");
    }
}
