//! Durable jobs a second on PostgreSQL, beside graphile-worker on the same server: without keys, and with 10,000 of which
//! one job runs at a time each. Ours run in a fresh sandbox each, theirs in the process.
//!
//! `cargo bench --workspace --bench beside`; installs graphile-worker from npm into the target folder.

#[path = "../harness/postgres.rs"]
#[expect(dead_code, reason = "it serves the tests, too")]
mod postgres;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postgres::Postgres;
use wharf_core::bounds;
use wharf_core::ids::NodeId;
use wharf_engine::{Compile, Engine};
use wharf_runner::{Host, Notice, Parts, Request, Settings};
use wharf_store::SystemClock;

const JOBS: usize = 20_000;
/// In one request.
const BATCH: usize = 1000;
const KEYS: usize = 10_000;
/// `attempts.at-once` of our host: theirs holds 500 jobs besides those that it runs.
const AT_ONCE: u32 = 1000;
const GRAPHILE: &str = "graphile-worker@0.18.0";

fn main() {
    let server = Postgres::start(true);
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let script = install(scratch);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    for keys in [0, KEYS] {
        let address = server.address();
        // Other programs do not know of our schema.
        let plain = address.split('?').next().expect("something stands before it");
        let theirs = graphile(&script, plain, keys);
        let ours = runtime.block_on(wharf(scratch, &address, keys));
        let what = if keys == 0 { "without keys".to_owned() } else { format!("{keys} keys, one at a time each") };
        println!(
            "{what}: {ours:.0} jobs/s, graphile-worker {theirs:.0} jobs/s: {:.2} x ({JOBS} jobs each)",
            ours / theirs
        );
        server.sql("DROP SCHEMA IF EXISTS graphile_worker CASCADE");
    }
    println!(
        "both wait for the disk at each commit; ours keeps each job with its result and what it cost, graphile-worker deletes it"
    );
}

/// Puts graphile-worker beside a copy of the script that runs it.
fn install(scratch: &Path) -> PathBuf {
    let dir = scratch.join("graphile");
    std::fs::create_dir_all(&dir).expect("a folder");
    let script = dir.join("graphile.mjs");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/load/graphile.mjs");
    std::fs::copy(source, &script).expect("the script can be copied");
    let installed = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--silent", "--prefix"])
        .arg(&dir)
        .arg(GRAPHILE)
        .status()
        .expect("npm runs: install Node.js to measure beside graphile-worker");
    assert!(installed.success(), "npm could not install {GRAPHILE}");
    script
}

fn graphile(script: &Path, address: &str, keys: usize) -> f64 {
    let output = Command::new("node")
        .arg(script)
        .args([address, &JOBS.to_string(), &keys.to_string()])
        .current_dir(script.parent().expect("it is in a folder"))
        .output()
        .expect("node runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let figure = said.lines().last().and_then(|line| line.trim().parse().ok());
    figure.unwrap_or_else(|| panic!("graphile-worker: {said}{}", String::from_utf8_lossy(&output.stderr)))
}

async fn wharf(scratch: &Path, address: &str, keys: usize) -> f64 {
    let dir = tempfile::tempdir().expect("a folder");
    let villain = plugins::build("villain").expect("the villain is built");
    std::fs::copy(villain, dir.path().join("villain.wasm")).expect("the villain is copied");
    let engine = Engine::new(wharf_engine::Settings {
        attempts: AT_ONCE,
        broadcast_calls: bounds::BROADCAST_CALLS_DEFAULT,
        guest_threads: std::thread::available_parallelism().map_or(2, usize::from),
        cache_dir: scratch.join("compiled"),
        compile: Compile::Here,
    })
    .expect("an engine");
    let settings = Settings {
        node: NodeId(fastrand::u64(1..)),
        name: "here".to_owned(),
        version: "0".to_owned(),
        plugins_dir: dir.path().to_owned(),
        attempts: AT_ONCE,
        broadcasts: 8,
        lease: bounds::LEASE,
        lease_margin: bounds::LEASE_MARGIN,
        write_patience: bounds::WRITE_PATIENCE,
        cancel_grace: bounds::CANCEL_GRACE,
        upkeep_interval: bounds::UPKEEP_INTERVAL,
        keep_finished: bounds::KEEP_FINISHED,
        rescan: Duration::from_secs(2),
        plugins: BTreeMap::new(),
    };
    let ended = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&ended);
    let tell = move |notice: &Notice| {
        if let Notice::JobEnded { .. } = notice {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    };
    let store = wharf_store::open(address, Arc::new(SystemClock)).await.expect("a store");
    let host = Host::start(Parts { store, engine }, settings, tell).await.expect("a host");
    host.ready().await;
    let began = Instant::now();
    for batch in 0..JOBS / BATCH {
        let request = |n: usize| Request {
            task: if keys == 0 { "villain/do".into() } else { "villain/keyed".into() },
            payload: format!(r#"{{"do":"echo","key":"k{}"}}"#, (batch * BATCH + n) % keys.max(1)).into_bytes(),
            ..Request::default()
        };
        host.enqueue((0..BATCH).map(request).collect()).await.expect("enqueued");
    }
    while ended.load(Ordering::Relaxed) < JOBS as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed().as_secs_f64();
    host.stop_now().await;
    JOBS as f64 / took
}
