//! One budget of bytes: whatever plugins and clients do, the host and the processes that compile stay within it, and all go on.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Client, Host, Setup, component, eventually, eventually_within};

const MIB: u64 = 1 << 20;
const BUDGET: u64 = 256 * MIB;
/// What a host takes besides its budget: its program and libraries, compiled code, the store's pages, sockets, and what its
/// allocator holds back; here with 42 plugins. host/docs/memory.md states it.
const OVERHEAD: u64 = 384 * MIB;
const SUBSCRIBERS: usize = 40;

/// Returns the resident bytes of a process and of its children, without those that they have given back and the kernel has not
/// taken yet: it takes these before anything else is short of memory.
fn resident(pid: i32) -> u64 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_tasks = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let all = std::iter::once(children).chain(of_tasks).collect::<Vec<_>>().join(" ");
    let pids: BTreeSet<i32> = all.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([pid]).collect();
    let of = |pid: i32| {
        let sums = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let sum = |name: &str| {
            let line = sums.lines().find(|line| line.starts_with(name))?;
            Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
        };
        Some(sum("Rss:")?.saturating_sub(sum("LazyFree:")?))
    };
    pids.into_iter().filter_map(of).sum()
}

/// Looks at the memory of a host until this is dropped.
struct Watch {
    peak: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn new(host: &Host) -> Watch {
        let (peak, done, pid) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)), host.pid());
        let (its_peak, its_done) = (Arc::clone(&peak), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            while !its_done.load(Ordering::Relaxed) {
                its_peak.fetch_max(resident(pid), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Watch { peak, done, thread: Some(thread) }
    }

    /// Returns the most since the last call, and says what it was for.
    fn peak(&self, what: &str) -> u64 {
        let peak = self.peak.swap(0, Ordering::Relaxed);
        println!("{what}: {} MiB", peak / MIB);
        peak
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn host() -> Host {
    let mut setup = Setup::default().plugin("words").plugin("villain");
    let mut settings = format!("[memory]\nbudget = \"{BUDGET}\"\n[jobs]\ngenerations-max = 3\n");
    settings.push_str(&grants("villain"));
    for number in 0..SUBSCRIBERS {
        let id = format!("s{number}");
        setup = setup.plugin_as("villain", &id);
        settings.push_str(&grants(&id));
    }
    setup.settings(&settings).start()
}

/// An operator's leave for a villain to grow to most of the budget.
fn grants(id: &str) -> String {
    format!(
        "[plugins.{id}.tasks]\ndo.memory = \"64MiB\"\nslow.memory = \"200MiB\"\n[plugins.{id}.receive]\nmemory = \"128MiB\"\n"
    )
}

fn post(client: &Client, task: &str, payload: &Value) -> String {
    let path = format!("/v1/jobs?task={task}");
    eventually_within(Duration::from_secs(120), "a job is taken", || {
        let reply = client.post_bytes(&path, "application/octet-stream", payload.to_string().as_bytes());
        let document = reply.json();
        // Room for requests comes back by itself.
        if document["code"] == "no-memory" {
            return None;
        }
        Some(document["id"].as_str().unwrap_or_else(|| panic!("{document}")).to_owned())
    })
}

fn neighbour(host: &Host) {
    let job = host.run("words/count", json!({ "text": "one two three" }));
    assert_eq!(job["state"], "succeeded", "{job}");
}

/// Waits until no job waits and none runs.
fn all_end(host: &Host) {
    eventually_within(Duration::from_secs(400), "all jobs end", || {
        let is_empty = |state: &str| {
            let page = host.client().get(&format!("/v1/jobs?state={state}&limit=1")).ok();
            page["jobs"].as_array().is_some_and(Vec::is_empty)
        };
        (is_empty("waiting") && is_empty("running")).then_some(())
    });
}

fn open(host: &Host, path: &str) -> TcpStream {
    let address = host.client().address().trim_start_matches("http://").to_owned();
    let mut stream = eventually("the host can be reached", || TcpStream::connect(&address).ok());
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes()).expect("a request");
    stream
}

#[test]
fn every_mix_of_what_takes_memory_stays_within_the_budget_and_all_jobs_end() {
    let host = host();
    let watch = Watch::new(&host);
    let client = host.client();
    neighbour(&host);
    let mut peaks = vec![("at rest", watch.peak("at rest"))];

    // Attempts that grow side by side to most of the budget.
    let grow = json!({ "do": "hold-mib", "mib": 190, "ms": 200 });
    let grown: Vec<String> = (0..6).map(|_| post(client, "villain/slow", &grow)).collect();
    neighbour(&host);
    all_end(&host);
    for job in &grown {
        assert_eq!(host.job(job)["state"], "succeeded", "{}", host.job(job));
    }
    peaks.push(("growing", watch.peak("growing")));

    // 30 MiB to 40 subscribers.
    let message = json!({ "do": "sleep", "ms": 50, "pad": "x".repeat(30 << 20) }).to_string();
    let replies =
        client.post_bytes("/v1/broadcasts/villain.all?timeout=20s", "application/octet-stream", message.as_bytes());
    let replies = replies.ok();
    assert_eq!(replies["replies"].as_array().map_or(0, Vec::len), SUBSCRIBERS + 1, "one from each: {replies}");
    neighbour(&host);
    peaks.push(("broadcast", watch.peak("broadcast")));

    // Large results, with readers that do not read, and followers of a flood that do not either.
    let output = json!({ "do": "big-output", "bytes": 32 << 20 });
    let results: Vec<String> = (0..5).map(|_| post(client, "villain/slow", &output)).collect();
    let flood = post(client, "villain/slow", &json!({ "do": "flood-chunks", "chunks": 40, "bytes": 1_000_000 }));
    all_end(&host);
    peaks.push(("large results", watch.peak("large results")));
    let paths = results.iter().cycle().take(40).map(|id| format!("/v1/jobs/{id}/result"));
    let mut readers: Vec<TcpStream> = paths.map(|path| open(&host, &path)).collect();
    readers.extend((0..100).map(|_| open(&host, &format!("/v1/jobs/{flood}/events"))));
    neighbour(&host);
    let grown: Vec<String> = (0..2).map(|_| post(client, "villain/slow", &grow)).collect();
    let mut beginnings = 0;
    for reader in &mut readers {
        let mut beginning = [0; 12];
        if reader.read_exact(&mut beginning).is_ok() && beginning.ends_with(b"200") {
            beginnings += 1;
        }
    }
    assert!(beginnings >= 40, "{beginnings} readers are served while they are slow");
    neighbour(&host);
    drop(readers);
    all_end(&host);
    for job in &grown {
        assert_eq!(host.job(job)["state"], "succeeded", "{}", host.job(job));
    }
    peaks.push(("readers", watch.peak("readers")));

    // Jobs that enqueue three of themselves, with 10 MiB each.
    let pad = "x".repeat(10 << 20);
    let bomb = json!({ "do": "breed", "count": 3, "pad": pad });
    let bombs: Vec<String> = (0..2).map(|_| post(client, "villain/slow", &bomb)).collect();
    neighbour(&host);
    all_end(&host);
    for bomb in &bombs {
        assert_eq!(host.job(bomb)["state"], "succeeded", "what it enqueued is another matter");
    }
    peaks.push(("job bombs", watch.peak("job bombs")));

    let metrics = String::from_utf8(client.get("/metrics").body).expect("text");
    assert!(metrics.contains(&format!("wharf_memory_budget_bytes {BUDGET}")), "{metrics}");
    for (what, peak) in peaks {
        let max = BUDGET + OVERHEAD;
        assert!(peak <= max, "{what}: {} MiB of {}", peak / MIB, max / MIB);
    }
}

/// Sandboxes that write to the pages with which they begin, and of which only few are reserved.
#[test]
fn first_pages_that_are_written_to_stay_within_the_budget_and_all_jobs_end() {
    let settings = format!("[memory]\nbudget = \"{BUDGET}\"\n[attempts]\nat-once = 1000\n");
    let host = Setup::default().plugin("words").plugin("villain").settings(&settings).start();
    let watch = Watch::new(&host);
    let client = host.client();
    neighbour(&host);
    watch.peak("at rest");
    // Sleepers that write to few pages all run side by side, although the memory they begin with is four times the budget.
    let sleep = json!({ "do": "sleep", "ms": 600_000 });
    let sleepers: Vec<String> = (0..900).map(|_| post(client, "villain/slow", &sleep)).collect();
    eventually_within(Duration::from_secs(120), "all sleepers run", || {
        let metrics = String::from_utf8(client.get("/metrics").body).expect("text");
        metrics.contains("\nwharf_attempts_running 900\n").then_some(())
    });
    let (budget, used) = (BUDGET, used_bytes(&host));
    assert!(used <= budget, "{} MiB", used / MIB);
    watch.peak("900 sleepers");
    for id in &sleepers {
        client.post(&format!("/v1/jobs/{id}/cancel"), &json!({})).ok();
    }
    all_end(&host);

    let fill = json!({ "do": "fill-stack", "kib": 900, "ms": 500 });
    let filled: Vec<String> = (0..900).map(|_| post(client, "villain/slow", &fill)).collect();
    neighbour(&host);
    all_end(&host);
    for job in &filled {
        assert_eq!(host.job(job)["state"], "succeeded", "{}", host.job(job));
    }
    // Free sandboxes keep 64 KiB each, and the budget is measured each 10 ms.
    let (peak, max) = (watch.peak("first pages"), BUDGET + OVERHEAD);
    assert!(peak <= max, "{} MiB of {}", peak / MIB, max / MIB);
    neighbour(&host);
}

/// Returns the bytes of the budget that are used, by the metrics.
fn used_bytes(host: &Host) -> u64 {
    let metrics = String::from_utf8(host.client().get("/metrics").body).expect("text");
    let used = metrics.lines().filter(|line| line.starts_with("wharf_memory_used_bytes{"));
    used.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn a_task_that_the_budget_can_never_hold_waits_and_says_so() {
    let settings = "[memory]\nbudget = \"256MiB\"\n[plugins.villain.tasks]\nslow.memory = \"900MiB\"\n";
    let host = Setup::default().plugin("villain").settings(settings).start();
    let note = "tasks.slow.memory: 900.0 MiB is more than one attempt can have of this host's budget";
    eventually("the log says so", || host.said().contains(note).then_some(()));
    let job = post(host.client(), "villain/slow", &json!({ "do": "echo" }));
    eventually("it says why it waits", || (host.job(&job)["wait"]["reason"] == "too-large").then_some(()));
    // The plugin's other tasks run.
    let other = host.run("villain/do", json!({ "do": "echo" }));
    assert_eq!(other["state"], "succeeded", "{other}");
    let file = component("words").display().to_string();
    let note = String::from_utf8(host.cli(&["check", &file]).output().expect("it runs").stdout).expect("text");
    assert!(note.contains("an eighth of this host's budget"), "{note}");
}
