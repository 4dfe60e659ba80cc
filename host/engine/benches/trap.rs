//! Measures what a trap costs, by the debug data of the component: names, lines of sources, hostile debug sections. As
//! a multiple of a trap of the same component without any, in the same run.
//!
//! `cargo bench --workspace --bench trap`

use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_core::outcome::Outcome;
use wharf_engine::{AttemptHandle, AttemptLimits, Call, CallInput, Engine, Plugin};

mod ground;

#[path = "../tests/sandbox/made.rs"]
mod made;

use ground::{Deaf, engine, load, median};
use made::{Made, inlined, line_program};

const ROUNDS: usize = 9;
/// Attempts of each plugin in each round: they are neighbours in time, so a busy machine is busy for all.
const TRAPS: usize = 200;
/// The number of frames in a report.
const FRAMES: usize = 20;

fn sides() -> Vec<(&'static str, Made)> {
    let named = |name: &dyn Fn(usize) -> String| (0..FRAMES).map(name).collect::<Vec<_>>();
    let nothing = || named(&|_| String::new());
    let unfolds = |_: usize| format!("_RINvC1a1b{}E", "TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTuuEuE".repeat(40));
    vec![
        ("no names", Made { names: nothing(), ..Made::default() }),
        ("names", Made { names: named(&|n| format!("_ZN5words7split{n:02}17h0123456789abcdefE")), ..Made::default() }),
        ("names and lines", Made { names: named(&|n| format!("split{n}")), custom: line_program(), ..Made::default() }),
        ("names of a megabyte", Made { names: named(&|_| "n".repeat(1_000_000)), ..Made::default() }),
        ("names that unfold", Made { names: named(&unfolds), ..Made::default() }),
        ("10,000 inlined calls", Made { names: nothing(), custom: inlined(10_000), ..Made::default() }),
    ]
}

async fn trap(engine: &Arc<Engine>, plugin: &Arc<Plugin>) {
    let input = CallInput::Job {
        id: "0000000000001".to_owned(),
        task: "do".to_owned(),
        key: None,
        payload: Vec::new().into(),
        attempt: 1,
        tick: None,
    };
    let call = Call { input, limits: AttemptLimits::of(&plugin.manifest.tasks["do"]) };
    let ended = engine.call(Arc::clone(plugin), call, Arc::new(Deaf), AttemptHandle::new()).await;
    assert!(matches!(ended.outcome, Outcome::Trapped(_)), "{:?}", ended.outcome);
}

fn main() {
    let runtime = ground::runtime();
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let engine = engine(dir.path());
        let mut loaded = Vec::new();
        for (name, made) in sides() {
            loaded.push((name, load(&engine, "evil", made.component()).await, Vec::new()));
        }
        for round in 0..=ROUNDS {
            for (_, plugin, walls) in &mut loaded {
                let mut all = Vec::new();
                for _ in 0..TRAPS {
                    let begun = Instant::now();
                    trap(&engine, plugin).await;
                    all.push(begun.elapsed());
                }
                // The first round warms the pools.
                if round > 0 {
                    walls.push(median(all));
                }
            }
        }
        let walls: Vec<Duration> = loaded.iter().map(|(.., walls)| median(walls.clone())).collect();
        println!("{:<24}{:>9}{:>8}", "what it says of itself", "µs", "ratio");
        for ((name, ..), wall) in loaded.iter().zip(&walls) {
            let ratio = wall.as_secs_f64() / walls[0].as_secs_f64();
            println!("{name:<24}{:>9.0}{ratio:>7.2}x", wall.as_secs_f64() * 1e6);
        }
    });
}
