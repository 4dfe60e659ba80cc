//! Measures an idle host with ten plugins: memory, CPU time, and the time until it is ready.
//!
//! `cargo bench --workspace --bench load`

#[path = "../harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the harness serves the tests, too")]
mod harness;

use std::time::{Duration, Instant};

use harness::Setup;

const PLUGINS: usize = 10;
const IDLE: Duration = Duration::from_secs(10);

/// Returns the number on a line of `/proc/PID/status`: KiB for memory.
fn status_kib(pid: i32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the host runs, on Linux");
    let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

/// Returns the CPU time of a process so far, in ticks of 10 ms.
fn cpu_ticks(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the host runs, on Linux");
    let after_name = text.rsplit(')').next().expect("a name in parentheses");
    let fields: Vec<u64> =
        after_name.split_whitespace().skip(11).take(2).map(|n| n.parse().expect("a number")).collect();
    fields.iter().sum()
}

fn main() {
    let setup = (0..PLUGINS).fold(Setup::default(), |setup, n| setup.plugin_as("words", &format!("words-{n}")));
    // The first start compiles the plugins. The second one is what users see every day.
    let mut host = setup.start();
    host.terminate();
    let start = Instant::now();
    host.start();
    while !host.is_ready() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let ready = start.elapsed();
    let before = cpu_ticks(host.pid());
    std::thread::sleep(IDLE);
    let busy = cpu_ticks(host.pid()) - before;
    println!("an idle host with {PLUGINS} plugins");
    println!(
        "  ready after           {:>8.0} ms (from the start of the process, compiled code from the cache)",
        ready.as_secs_f64() * 1e3
    );
    println!("  resident memory       {:>8.1} MiB", status_kib(host.pid(), "VmRSS") as f64 / 1024.0);
    println!("  of it not from files  {:>8.1} MiB", status_kib(host.pid(), "RssAnon") as f64 / 1024.0);
    println!("  threads               {:>8}", status_kib(host.pid(), "Threads"));
    println!(
        "  CPU time              {:>8.2} % of one core over {} s",
        busy as f64 / IDLE.as_secs_f64(),
        IDLE.as_secs()
    );
}
