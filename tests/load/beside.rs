//! Compares durable jobs per second with graphile-worker on the same PostgreSQL server: without keys, and with 10,000 keys
//! of which each runs one job at a time. Wharf's jobs are those of `wharf bench keys`, each in a fresh sandbox;
//! graphile-worker's jobs run in its process.
//!
//! `cargo bench --workspace --bench beside`; installs graphile-worker from npm into the target folder.

#[path = "../harness/postgres.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod postgres;

use std::path::{Path, PathBuf};
use std::process::Command;

use postgres::Postgres;

const JOBS: usize = 20_000;
const KEYS: usize = 10_000;
const ROUNDS: usize = 5;
/// `attempts.at-once` of our host: enough attempts to keep it busy while a transaction records as many and claims others.
const AT_ONCE: u32 = 2000;
const GRAPHILE: &str = "graphile-worker@0.18.0";

fn main() {
    let server = Postgres::start(true);
    let script = install(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let address = server.address();
    // Without the parameters that name our schema, which other programs do not know.
    let plain = address.split('?').next().expect("split yields at least one part");
    let (mut without, mut with) = (Vec::new(), Vec::new());
    // In turns, so that other load on the machine affects both alike.
    for _ in 0..ROUNDS {
        let ours = wharf(&address);
        let figure = |name| ours["figures"][name].as_f64().expect("the benchmark prints it");
        without.push((figure("jobs-without-key-per-second"), graphile(&server, &script, plain, 0)));
        with.push((figure("jobs-of-keys-per-second"), graphile(&server, &script, plain, KEYS)));
    }
    for (what, mut rounds) in [("without keys".to_owned(), without), (format!("{KEYS} keys, one at a time each"), with)]
    {
        rounds.sort_unstable_by(|one, other| (one.0 / one.1).total_cmp(&(other.0 / other.1)));
        let (ours, theirs) = rounds[ROUNDS / 2];
        let (min, max) = (rounds[0], rounds[ROUNDS - 1]);
        println!(
            "{what}: {ours:.0} jobs/s, graphile-worker {theirs:.0} jobs/s: {:.2} x ({:.2} to {:.2} in {ROUNDS} rounds)",
            ours / theirs,
            min.0 / min.1,
            max.0 / max.1
        );
    }
    println!(
        "{JOBS} jobs each; both wait for the disk at each commit; ours stores each job with its result and resource usage, \
         graphile-worker deletes it"
    );
}

/// Installs graphile-worker next to a copy of the script that runs it, and returns the path of the copy.
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
        .expect("npm runs: install Node.js to compare with graphile-worker");
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
    let stdout = String::from_utf8_lossy(&output.stdout);
    let figure = stdout.lines().last().and_then(|line| line.trim().parse().ok());
    figure.unwrap_or_else(|| panic!("graphile-worker: {stdout}{}", String::from_utf8_lossy(&output.stderr)))
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
