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
const ROUNDS: usize = 5;
/// `attempts.at-once` of our host: enough to run while a transaction takes the ends of as many, and claims others.
const AT_ONCE: u32 = 2000;
const GRAPHILE: &str = "graphile-worker@0.18.0";

fn main() {
    let server = Postgres::start(true);
    let script = install(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let address = server.address();
    // Other programs do not know of our schema.
    let plain = address.split('?').next().expect("something stands before it");
    let (mut without, mut with) = (Vec::new(), Vec::new());
    // In turns: whatever else the machine does meanwhile, it does to both.
    for _ in 0..ROUNDS {
        let ours = wharf(&address);
        let figure = |name| ours["figures"][name].as_f64().expect("the bench prints it");
        without.push((figure("jobs-without-key-per-second"), graphile(&server, &script, plain, 0)));
        with.push((figure("jobs-of-keys-per-second"), graphile(&server, &script, plain, KEYS)));
    }
    for (what, mut rounds) in [("without keys".to_owned(), without), (format!("{KEYS} keys, one at a time each"), with)]
    {
        rounds.sort_unstable_by(|one, other| (one.0 / one.1).total_cmp(&(other.0 / other.1)));
        let (ours, theirs) = rounds[ROUNDS / 2];
        let (least, max) = (rounds[0], rounds[ROUNDS - 1]);
        println!(
            "{what}: {ours:.0} jobs/s, graphile-worker {theirs:.0} jobs/s: {:.2} x ({:.2} to {:.2} in {ROUNDS} rounds)",
            ours / theirs,
            least.0 / least.1,
            max.0 / max.1
        );
    }
    println!(
        "{JOBS} jobs each; both wait for the disk at each commit; ours keeps each job with its result and what it cost, \
         graphile-worker deletes it"
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
        .args(["--jobs", &JOBS.to_string(), "--keys", &KEYS.to_string(), "--rounds", "1"])
        .output()
        .expect("the binary runs");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}
