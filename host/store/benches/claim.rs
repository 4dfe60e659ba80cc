//! What a claim costs with few and with many waiting jobs, and how many jobs go through the store in a second.
//!
//! `cargo bench -p wharf-store` prints the tables; `-- 1000 50000` those of claims with so many waiting,
//! `-- rate` that of jobs a second.
//! Every figure is of SQLite with `synchronous = FULL`: each round ends on the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_core::ids::{Group, JobId, NodeId, TaskName};
use wharf_core::job::{Leased, NewJob};
use wharf_core::key::Lane;
use wharf_core::lifecycle::Event;
use wharf_core::limits::{LimitTable, Limits, OnConflict};
use wharf_core::outcome::Bill;
use wharf_store::{Claim, SqliteStore, Store, SystemClock};

/// Jobs in one claim, and in one record.
const HANDFUL: u32 = 32;
const ROUNDS: usize = 1000;
const KEYS: usize = 100_000;

struct Bench {
    store: Arc<SqliteStore>,
    task: TaskName,
    declared: Arc<LimitTable>,
    keys: usize,
    next_key: usize,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(keys: usize, per_key: Option<u32>) -> Bench {
        let folder = tempfile::tempdir().expect("a folder for the bench");
        let store = SqliteStore::open(folder.path().join("bench.db"), Arc::new(SystemClock)).expect("a fresh store");
        let task: TaskName = "words/count".parse().expect("a task");
        let mut declared = LimitTable::default();
        declared.declare(Group::from(&task), Limits { per_key, total: None });
        Bench { store: Arc::new(store), task, declared: Arc::new(declared), keys, next_key: 0, _folder: folder }
    }

    fn new_job(&mut self) -> NewJob {
        // Strides through the keys, so that neighbours in time are none in the index.
        self.next_key = (self.next_key + 7919) % self.keys.max(1);
        let key = (self.keys > 0).then(|| format!("tenant-{}", self.next_key).parse().expect("a key"));
        NewJob {
            id: self.store.next_id(),
            task: self.task.clone(),
            lane: Lane { group: Group::from(&self.task), key },
            payload: br#"{"text":"the quick brown fox jumps over the lazy dog"}"#.as_slice().into(),
            priority: 0,
            due: None,
            token: None,
            on_conflict: OnConflict::Wait,
        }
    }

    fn jobs(&mut self, count: usize) -> Vec<NewJob> {
        (0..count).map(|_| self.new_job()).collect()
    }

    async fn fill(&mut self, waiting: usize) {
        for begin in (0..waiting).step_by(10_000) {
            let jobs = self.jobs((waiting - begin).min(10_000));
            self.store.insert(jobs, self.declared.clone()).await.expect("room for the bench");
        }
    }

    fn wish(&self, free: u32) -> Claim {
        Claim {
            node: NodeId(1),
            tasks: [(self.task.clone(), Group::from(&self.task))].into(),
            declared: self.declared.clone(),
            free,
            lease: Duration::from_secs(600),
        }
    }
}

fn ended(leased: &[Leased]) -> Vec<(JobId, Event)> {
    let event = |leased: &Leased| Event::Succeeded {
        attempt: leased.lease.attempt,
        output: br#"{"words":9}"#.to_vec(),
        children: vec![],
        bill: Bill::default(),
    };
    leased.iter().map(|leased| (leased.lease.job, event(leased))).collect()
}

/// Time that the threads of this process spent on a core, where the system says so: unlike the clock on the wall,
/// it does not grow when others use the machine.
fn on_core() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let spent = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
    Duration::from_nanos(spent.filter_map(|line| line.split(' ').next()?.parse::<u64>().ok()).sum())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The median times of a claim of a handful and of recording their ends, while about `waiting` jobs wait,
/// and the mean time on a core that both take.
async fn claim_cost(waiting: usize, keys: usize, per_key: u32) -> (Duration, Duration, Duration) {
    let mut bench = Bench::new(keys, Some(per_key));
    bench.fill(waiting).await;
    let (mut claims, mut records, mut cores) = (Vec::new(), Vec::new(), Duration::ZERO);
    for _ in 0..ROUNDS {
        let core = on_core();
        let begin = Instant::now();
        let leased = bench.store.claim(bench.wish(HANDFUL)).await.expect("a claim").leased;
        claims.push(begin.elapsed());
        assert_eq!(leased.len(), HANDFUL as usize);
        let events = ended(&leased);
        let begin = Instant::now();
        bench.store.record(events).await.expect("a record");
        records.push(begin.elapsed());
        cores += on_core() - core;
        let jobs = bench.jobs(HANDFUL as usize);
        bench.store.insert(jobs, bench.declared.clone()).await.expect("an insert");
    }
    (median(claims), median(records), cores / ROUNDS as u32)
}

/// Jobs a second from insert to record, all three going on at once.
async fn throughput(total: usize, keys: usize, per_key: Option<u32>, batch: usize) -> (f64, Duration) {
    let mut bench = Bench::new(keys, per_key);
    let batches: Vec<Vec<NewJob>> = (0..total / batch).map(|_| bench.jobs(batch)).collect();
    let (begin, core) = (Instant::now(), on_core());
    let (store, declared) = (bench.store.clone(), bench.declared.clone());
    let enqueue = tokio::spawn(async move {
        let mut under_way = tokio::task::JoinSet::new();
        for jobs in batches {
            if under_way.len() >= 64 {
                under_way.join_next().await;
            }
            let (store, declared) = (store.clone(), declared.clone());
            under_way.spawn(async move { store.insert(jobs, declared).await.expect("an insert") });
        }
        under_way.join_all().await;
    });
    let mut nudges = bench.store.nudges();
    let mut recording = tokio::task::JoinSet::new();
    let mut started = 0;
    while started < total {
        let leased = bench.store.claim(bench.wish(256)).await.expect("a claim").leased;
        started += leased.len();
        if leased.is_empty() {
            nudges.changed().await.expect("the store is there");
            continue;
        }
        let store = bench.store.clone();
        recording.spawn(async move { store.record(ended(&leased)).await.expect("a record") });
        if recording.len() >= 4 {
            recording.join_next().await;
        }
    }
    recording.join_all().await;
    let rate = total as f64 / begin.elapsed().as_secs_f64();
    enqueue.await.expect("everything was enqueued");
    (rate, (on_core() - core) / total as u32)
}

fn main() {
    // Cargo itself adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let rate = arguments.iter().any(|argument| argument == "rate");
    let mut sizes: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    if arguments.is_empty() {
        sizes = vec![1_000, 100_000, 1_000_000];
    }
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads for the bench");
    tokio.block_on(async {
        let shapes = if sizes.is_empty() { 0 } else { 2 };
        for (name, spread, per_key) in
            [("all behind one key", false, HANDFUL), ("spread over 100,000 keys", true, 1)].into_iter().take(shapes)
        {
            println!("\n{name}: claim of {HANDFUL}, record of {HANDFUL}, medians of {ROUNDS}");
            println!("{:>12} {:>12} {:>12} {:>12} {:>12}", "waiting", "claim", "record", "both", "on a core");
            let mut both = Vec::new();
            for size in &sizes {
                let keys = if spread { KEYS.min(*size) } else { 1 };
                let (claim, record, core) = claim_cost(*size, keys, per_key).await;
                println!("{size:>12} {claim:>12.1?} {record:>12.1?} {:>12.1?} {core:>12.1?}", claim + record);
                both.push([claim + record, core].map(|time| time.as_secs_f64()));
            }
            let ratio = |of: usize| both[both.len() - 1][of] / both[0][of];
            println!(
                "ratio between the ends: {:.2} by the clock, {:.2} on a core (goal: at most 1.2)",
                ratio(0),
                ratio(1)
            );
        }
        if !rate && !arguments.is_empty() {
            return;
        }
        println!("\ninsert -> claim -> record, all at once: jobs a second");
        for (name, keys, per_key) in [("no key", 0, None), ("10,000 keys, one each", 10_000, Some(1))] {
            for batch in [1, 500] {
                let (rate, core) = throughput(100_000, keys, per_key, batch).await;
                println!("{name:>24}, inserted by {batch:>3}: {rate:>9.0}, each {core:.1?} on a core");
            }
        }
    });
}
