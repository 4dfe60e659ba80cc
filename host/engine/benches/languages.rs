//! Measures what each language's `words` costs a host: its size, compiling it, and one attempt in a fresh sandbox, one
//! after the other, as a multiple of Rust's in the same run. Below those stand functions and programs that know nothing of the
//! contract.
//!
//! `cargo bench --workspace --bench languages`, or some of them: `… --bench languages -- words words-python`

use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_core::outcome::Outcome;
use wharf_core::shared_bytes::SharedBytes;
use wharf_engine::{AttemptEnd, AttemptHandle, AttemptLimits, Call, CallInput, Engine, Plugin};

mod ground;

use ground::{Deaf, engine, load, median};

/// The first plugin is the one that the others are compared with.
const PLUGINS: [&str; 12] = [
    "words",
    "words-c",
    "words-js",
    "words-ts",
    "words-go",
    "words-web",
    "words-python",
    "functions-js",
    "functions-python",
    "program",
    "program-c",
    "program-go",
];
/// The tasks that take the payload, in this order of preference: those that count words, and the one of a program.
const TASKS: [&str; 2] = ["count", "run"];
const ROUNDS: usize = 9;
/// Attempts of each plugin in each round: they are neighbours in time, so a busy machine is busy for all.
const ATTEMPTS: usize = 100;
const PAYLOAD: &str = r#"{"text": "one attempt in a fresh sandbox"}"#;

async fn attempt(engine: &Arc<Engine>, plugin: &Arc<Plugin>, payload: &SharedBytes) -> AttemptEnd {
    let tasks = &plugin.manifest.tasks;
    let task = TASKS.into_iter().find(|task| tasks.contains_key(*task)).expect("it has one of them");
    let input = CallInput::Job {
        id: "0000000000001".to_owned(),
        task: task.to_owned(),
        key: None,
        payload: payload.clone(),
        attempt: 1,
        tick: None,
    };
    let call = Call { input, limits: AttemptLimits::of(&tasks[task]) };
    let ended = engine.call(Arc::clone(plugin), call, Arc::new(Deaf), AttemptHandle::new()).await;
    assert!(matches!(ended.outcome, Outcome::Returned(_)), "{:?}", ended.outcome);
    ended
}

async fn timed_load(engine: &Arc<Engine>, name: &str, bytes: &Arc<[u8]>) -> (Arc<Plugin>, Duration) {
    let begun = Instant::now();
    let plugin = load(engine, name, Arc::clone(bytes)).await;
    (plugin, begun.elapsed())
}

fn main() {
    let runtime = ground::runtime();
    let dir = tempfile::tempdir().unwrap();
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let plugins: Vec<&str> =
        PLUGINS.into_iter().filter(|name| asked.is_empty() || asked.iter().any(|one| one == name)).collect();
    assert!(!plugins.is_empty(), "there are {}", PLUGINS.join(", "));
    let components: Vec<Arc<[u8]>> =
        plugins.iter().map(|name| std::fs::read(plugins::build(name).unwrap()).unwrap().into()).collect();
    let payload: SharedBytes = PAYLOAD.as_bytes().into();
    runtime.block_on(async {
        // Otherwise the first one would pay for the engine's own start.
        let (cold, warm) = (engine(dir.path()), engine(dir.path()));
        let mut loaded = Vec::new();
        for (name, bytes) in plugins.iter().zip(&components) {
            let (_, compiling) = timed_load(&cold, name, bytes).await;
            let (plugin, cached) = timed_load(&warm, name, bytes).await;
            loaded.push((plugin, compiling, cached));
        }
        let mut walls = vec![Vec::new(); plugins.len()];
        let mut memory = vec![0; plugins.len()];
        for round in 0..=ROUNDS {
            for (place, (plugin, ..)) in loaded.iter().enumerate() {
                let mut all = Vec::new();
                for _ in 0..ATTEMPTS {
                    let begun = Instant::now();
                    let ended = attempt(&warm, plugin, &payload).await;
                    all.push(begun.elapsed());
                    memory[place] = ended.usage.memory_peak_bytes;
                }
                // The first round warms the pools.
                if round > 0 {
                    walls[place].push(median(all));
                }
            }
        }
        let walls: Vec<Duration> = walls.into_iter().map(median).collect();
        println!(
            "{:<17}{:>11}{:>12}{:>12}{:>12}{:>9}{:>13}",
            "plugin", "size KiB", "compile ms", "cached ms", "attempt µs", "ratio", "memory KiB"
        );
        for (place, name) in plugins.iter().enumerate() {
            let (_, compiling, cached) = &loaded[place];
            println!(
                "{name:<17}{:>11}{:>12.0}{:>12.1}{:>12.0}{:>8.1}x{:>13}",
                components[place].len() / 1024,
                compiling.as_secs_f64() * 1e3,
                cached.as_secs_f64() * 1e3,
                walls[place].as_secs_f64() * 1e6,
                walls[place].as_secs_f64() / walls[0].as_secs_f64(),
                memory[place] / 1024,
            );
        }
    });
}
