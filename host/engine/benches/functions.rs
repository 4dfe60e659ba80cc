//! Measures what types of a function's own cost: `functions` against `functions-contract`, which does the same by the contract and
//! serde, in turns; and the memory of one large call, as a multiple of the bytes that cross: with that of its sandbox, and without.
//!
//! `cargo bench --workspace --bench functions`

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use wharf_core::outcome::Outcome;
use wharf_core::shared_bytes::SharedBytes;
use wharf_engine::{AttemptEnd, AttemptHandle, AttemptLimits, Call, CallInput, Engine, Plugin};

mod ground;

use ground::{Deaf, engine, load};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 9;
/// The argument with which the bench starts itself to measure one call's memory.
const MEMORY: &str = "memory-of";
/// Bytes of the payload, and so of the result, of the calls whose memory is measured.
const LARGE: usize = 8 << 20;

/// A call that both plugins take, and how often each makes it in a round.
struct Case {
    name: &'static str,
    typed: &'static str,
    by_contract: &'static str,
    payload: SharedBytes,
    attempts: usize,
    /// The most that the ratio may be.
    max: f64,
}

fn row(id: usize) -> String {
    format!(
        r#"{{"id": {id}, "name": "row {id}", "score": 0.5, "level": "middle", "marks": ["read"], "seen-at": [{id}, "x"]}}"#
    )
}

fn rows(count: usize) -> SharedBytes {
    let mut text = r#"{"rows": ["#.to_owned();
    for id in 0..count {
        let _ = write!(text, "{}{}", if id == 0 { "" } else { ", " }, row(id));
    }
    (text + "]}").into_bytes().into()
}

fn bytes(count: usize) -> SharedBytes {
    let all: Vec<u8> = (0..count).map(|place| (place % 251) as u8).collect();
    format!(r#"{{"bytes": "{}"}}"#, BASE64_STANDARD.encode(all)).into_bytes().into()
}

fn cases() -> [Case; 3] {
    let small = format!(r#"{{"row": {}, "by": 1}}"#, row(7)).into_bytes();
    [
        Case {
            name: "a small record",
            typed: "move",
            by_contract: "move",
            payload: small.into(),
            attempts: 400,
            max: 1.3,
        },
        Case {
            name: "1 MiB of bytes",
            typed: "world.reverse",
            by_contract: "reverse",
            payload: bytes(1 << 20),
            attempts: 20,
            max: 1.5,
        },
        Case {
            name: "10,000 records",
            typed: "rows.reverse",
            by_contract: "reverse-rows",
            payload: rows(10_000),
            attempts: 20,
            max: 3.0,
        },
    ]
}

async fn attempt(engine: &Arc<Engine>, plugin: &Arc<Plugin>, task: &str, payload: &SharedBytes) -> AttemptEnd {
    let input = CallInput::Job {
        id: "0000000000001".to_owned(),
        task: task.to_owned(),
        key: None,
        payload: payload.clone(),
        attempt: 1,
        tick: None,
    };
    let call = Call { input, limits: AttemptLimits::of(&plugin.manifest.tasks[task]) };
    let ended = engine.call(Arc::clone(plugin), call, Arc::new(Deaf), AttemptHandle::new()).await;
    assert!(matches!(ended.outcome, Outcome::Returned(_)), "{task}: {:?}", ended.outcome);
    ended
}

async fn median(engine: &Arc<Engine>, plugin: &Arc<Plugin>, task: &str, case: &Case) -> Duration {
    let mut all = Vec::new();
    for _ in 0..case.attempts {
        let begun = Instant::now();
        attempt(engine, plugin, task, &case.payload).await;
        all.push(begun.elapsed());
    }
    ground::median(all)
}

/// Returns the memory of this process now, and the most since [`forget_most`], in bytes.
fn memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

fn forget_most() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

async fn built(engine: &Arc<Engine>, name: &str) -> Arc<Plugin> {
    load(engine, name, std::fs::read(plugins::build(name).unwrap()).unwrap()).await
}

/// The calls whose memory is measured.
fn large_calls() -> [(&'static str, &'static str, SharedBytes); 2] {
    [("bytes", "world.reverse", bytes(LARGE)), ("records", "rows.reverse", rows(LARGE / row(1000).len()))]
}

/// Prints the memory of one large call. The process does nothing else, and finds the compiled code and the payload in `folder`: so no
/// pages that were used before serve this call.
async fn measure_memory(name: &str, task: &str, folder: &Path) {
    let payload: SharedBytes = std::fs::read(folder.join(name)).unwrap().into();
    let engine = engine(folder);
    let typed = built(&engine, "functions").await;
    attempt(&engine, &typed, cases()[0].typed, &cases()[0].payload).await;
    let (before, _) = memory();
    forget_most();
    let ended = attempt(&engine, &typed, task, &payload).await;
    let (_, most) = memory();
    let Outcome::Returned(result) = &ended.outcome else { unreachable!("an attempt that fails is no measurement") };
    let all = most.saturating_sub(before);
    // At most so much of it is the guest's own memory.
    let of_host = all.saturating_sub(ended.usage.memory_peak_bytes);
    let mebibyte = f64::from(1 << 20);
    let crossing = (payload.len() + result.len()) as f64;
    println!(
        "{name:<24}{:>14.1}{:>14.1}{:>18.1}{:>10.2}x{:>18.1}{:>10.2}x   (at most 4 without the sandbox)",
        payload.len() as f64 / mebibyte,
        result.len() as f64 / mebibyte,
        all as f64 / mebibyte,
        all as f64 / crossing,
        of_host as f64 / mebibyte,
        of_host as f64 / crossing,
    );
}

fn main() {
    let runtime = ground::runtime();
    let dir = tempfile::tempdir().unwrap();
    let asked: Vec<String> = std::env::args().skip_while(|argument| argument != MEMORY).collect();
    runtime.block_on(async {
        if let [_, name, task, folder] = &asked[..] {
            return measure_memory(name, task, Path::new(folder)).await;
        }
        let engine = engine(dir.path());
        let typed = built(&engine, "functions").await;
        let by_contract = built(&engine, "functions-contract").await;
        println!("{:<24}{:>14}{:>14}{:>10}", "one attempt", "typed us", "contract us", "ratio");
        for case in cases() {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..=ROUNDS {
                let one = median(&engine, &typed, case.typed, &case).await;
                let other = median(&engine, &by_contract, case.by_contract, &case).await;
                // The first round warms the pools.
                if round > 0 {
                    ours.push(one);
                    theirs.push(other);
                }
            }
            let [one, other] = [ours, theirs].map(|all| ground::median(all).as_secs_f64() * 1e6);
            println!("{:<24}{one:>14.1}{other:>14.1}{:>9.2}x   (at most {})", case.name, one / other, case.max);
        }
        println!(
            "\n{:<24}{:>14}{:>14}{:>18}{:>11}{:>18}{:>11}",
            "one large call", "payload MiB", "result MiB", "with sandbox MiB", "ratio", "without MiB", "ratio"
        );
        for (name, task, payload) in large_calls() {
            std::fs::write(dir.path().join(name), &*payload).unwrap();
            let mut program = Command::new(std::env::current_exe().unwrap());
            assert!(program.args([MEMORY, name, task]).arg(dir.path()).status().unwrap().success(), "{name}");
        }
    });
}
