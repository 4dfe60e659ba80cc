//! Durable jobs a second on PostgreSQL, beside graphile-worker on the same server: without keys, and with 10,000 of which
//! one job runs at a time each. Ours are those of `wharf bench keys`, in a fresh sandbox each; theirs run in the process.
//!
//! `cargo bench --workspace --bench beside`; installs graphile-worker from npm into the target folder.

#[path = "../harness/postgres.rs"]
#[expect(dead_code, reason = "it serves the tests, too")]
mod postgres;

use std::path::{Path, PathBuf};
use std::process::Command;

use postgres::Postgres;

const JOBS: usize = 20_000;
const KEYS: usize = 10_000;
const ROUNDS: usize = 3;
/// `attempts.at-once` of our host: theirs holds 500 jobs besides those that it runs.
const AT_ONCE: u32 = 1000;
const GRAPHILE: &str = "graphile-worker@0.18.0";

fn main() {
    let server = Postgres::start(true);
    let script = install(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let address = server.address();
    let ours = wharf(&address);
    // Other programs do not know of our schema.
    let plain = address.split('?').next().expect("something stands before it");
    for (what, keys, figure) in [
        ("without keys".to_owned(), 0, "jobs-without-key-per-second"),
        (format!("{KEYS} keys, one at a time each"), KEYS, "jobs-of-keys-per-second"),
    ] {
        let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| graphile(&server, &script, plain, keys)).collect();
        rounds.sort_unstable_by(f64::total_cmp);
        let theirs = rounds[ROUNDS / 2];
        let ours = ours["figures"][figure].as_f64().expect("the bench prints it");
        println!("{what}: {ours:.0} jobs/s, graphile-worker {theirs:.0} jobs/s: {:.2} x", ours / theirs);
    }
    println!(
        "{JOBS} jobs each, in the middle one of {ROUNDS} rounds; both wait for the disk at each commit; ours keeps each job \
         with its result and what it cost, graphile-worker deletes it"
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

fn graphile(server: &Postgres, script: &Path, address: &str, keys: usize) -> f64 {
    server.sql("DROP SCHEMA IF EXISTS graphile_worker CASCADE");
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

fn wharf(address: &str) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_wharf"))
        .args(["--set", &format!("attempts.at-once={AT_ONCE}"), "bench", "keys", "--json", "--store", address])
        .args(["--jobs", &JOBS.to_string(), "--keys", &KEYS.to_string(), "--rounds", &ROUNDS.to_string()])
        .output()
        .expect("the binary runs");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}
