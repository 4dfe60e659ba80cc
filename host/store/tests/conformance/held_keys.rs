//! What ten thousand held keys cost a claim. Ignored, since it measures; run it alone and optimised:
//! `cargo test --release --workspace --test conformance -- --ignored held_keys --nocapture`.

use std::time::{Duration, Instant};

use wharf_core::hold::{HoldReason, NewHold};

use crate::stage::{COUNT, Kind, Stage, block_on};

const HELD: usize = 10_000;
const ROUNDS: usize = 200;
const BATCH: u32 = 32;

/// Adds jobs of keys that are not held, claims and ends them, and returns the time of the claim.
async fn claim_time(stage: &Stage, round: usize) -> Duration {
    let jobs = (0..BATCH).map(|number| stage.new_job(COUNT, &format!("free-{}", (round + number as usize) % 100)));
    stage.store.insert(jobs.collect(), stage.declared.clone()).await.unwrap();
    let begin = Instant::now();
    let leased = stage.claim(BATCH).await;
    let time = begin.elapsed();
    assert_eq!(leased.len(), BATCH as usize);
    for leased in &leased {
        stage.succeed(leased).await.unwrap();
    }
    time
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

async fn set_hold(stage: &Stage, key: usize) {
    let by = wharf_core::author::Author::anyone();
    let reason = "why".parse::<HoldReason>().unwrap();
    let hold = NewHold { scope: format!("key:held-{key}").parse().unwrap(), length: None, reason, by };
    assert!(stage.store.set_hold(hold).await.unwrap().is_some());
}

#[test]
#[ignore = "it measures and prints, and checks no time: run it alone, optimised"]
fn measure_claims_beside_ten_thousand_held_keys() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        block_on(async {
            let stage = Stage::new(kind).await;
            // Waiting jobs of the keys, so that their lanes are there.
            for chunk in 0..HELD / 500 {
                let jobs = (0..500).map(|number| stage.new_job(COUNT, &format!("held-{}", chunk * 500 + number)));
                stage.store.insert(jobs.collect(), stage.declared.clone()).await.unwrap();
            }
            set_hold(&stage, 0).await;
            let begin = Instant::now();
            for key in 1..HELD {
                set_hold(&stage, key).await;
            }
            let setting = begin.elapsed();
            // In turns: what else the machine does falls on both alike.
            let (free, mut held, mut without) = (Stage::new(kind).await, Vec::new(), Vec::new());
            for round in 0..ROUNDS {
                held.push(claim_time(&stage, round).await);
                without.push(claim_time(&free, round).await);
            }
            let (held, without) = (median(held), median(without));
            let ratio = held.as_secs_f64() / without.as_secs_f64();
            println!(
                "{HELD} holds set in {setting:?}; a claim of {BATCH} jobs takes {held:?} beside them, {without:?} without a \
                 hold: {ratio:.2} x"
            );
        });
    }
}
