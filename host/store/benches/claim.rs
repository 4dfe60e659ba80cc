//! What a claim costs with few and with many waiting jobs, and how many jobs go through the store in a second.
//!
//! `cargo bench --workspace --bench claim` prints the tables; `-- 1000 50000` those of claims with so many waiting,
//! `-- rate` that of jobs a second.
//! Every figure is of SQLite with `synchronous = FULL`: each round ends on the disk.
//!
//! Stores of all sizes are filled first and opened anew, so that nothing of the filling is left to do, and then take
//! turns: whatever else the machine does slows all of them alike. As many jobs are inserted as were taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wharf_core::ids::{Group, JobId, NodeId, TaskName};
use wharf_core::job::{Leased, NewJob};
use wharf_core::key::Lane;
use wharf_core::lifecycle::Event;
use wharf_core::limits::{LimitTable, Limits, OnConflict};
use wharf_core::outcome::Bill;
use wharf_store::{Claim, SqliteStore, Store, SystemClock};

/// Jobs in one claim, and in one record.
const HANDFUL: u32 = 32;
/// Rounds of a claim, a record and an insert, before they count and while they do: enough for the log to be copied back
/// once in the latter.
const WARM_UP: usize = 100;
const ROUNDS: usize = 600;
/// Rounds of one store before it is the next one's turn.
const TURN: usize = 20;
/// Jobs behind one key where there are many keys, whatever waits: the ends differ in size, and in nothing else.
const EACH: usize = 10;

struct Bench {
    store: Arc<SqliteStore>,
    task: TaskName,
    declared: Arc<LimitTable>,
    keys: usize,
    next_key: usize,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new(keys: usize, per_key: Option<u32>) -> Bench {
        let folder = tempfile::tempdir().expect("a folder for the bench");
        let store = Arc::new(opened(&folder));
        let task: TaskName = "words/count".parse().expect("a task");
        let mut declared = LimitTable::default();
        declared.declare(Group::from(&task), Limits { per_key, total: None });
        Bench { store, task, declared: Arc::new(declared), keys, next_key: 0, folder }
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
            batch: None,
        }
    }

    fn jobs(&mut self, count: usize) -> Vec<NewJob> {
        (0..count).map(|_| self.new_job()).collect()
    }

    /// A store with so many jobs waiting, closed and opened since: its log is copied back and its cache empty.
    async fn filled(waiting: usize, keys: usize, per_key: u32) -> Bench {
        let mut bench = Bench::new(keys, Some(per_key));
        for begin in (0..waiting).step_by(10_000) {
            let jobs = bench.jobs((waiting - begin).min(10_000));
            bench.store.insert(jobs, bench.declared.clone()).await.expect("room for the bench");
        }
        let Bench { store, task, declared, keys, next_key, folder } = bench;
        drop(store);
        Bench { store: Arc::new(opened(&folder)), task, declared, keys, next_key, folder }
    }

    /// A claim of a handful, the record of their ends, and as many new jobs.
    async fn round(&mut self, spent: &mut Spent) {
        let (begin, core) = (Instant::now(), on_core());
        let leased = self.store.claim(self.wish(HANDFUL)).await.expect("a claim").leased;
        spent.claims.push(begin.elapsed());
        assert_eq!(leased.len(), HANDFUL as usize);
        let events = ended(&leased);
        let begin = Instant::now();
        self.store.record(events).await.expect("a record");
        spent.records.push(begin.elapsed());
        spent.core_without_insert += on_core() - core;
        let jobs = self.jobs(HANDFUL as usize);
        self.store.insert(jobs, self.declared.clone()).await.expect("an insert");
        spent.core += on_core() - core;
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

fn opened(folder: &tempfile::TempDir) -> SqliteStore {
    SqliteStore::open(folder.path().join("bench.db"), Arc::new(SystemClock)).expect("a store for the bench")
}

/// What the rounds of one store took.
#[derive(Default)]
struct Spent {
    claims: Vec<Duration>,
    records: Vec<Duration>,
    core_without_insert: Duration,
    core: Duration,
}

/// Time that this process spent on a core: unlike the clock on the wall, it does not grow while others have the machine.
fn on_core() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Prints what claims cost while so many jobs wait, and how much more that is at the last size than at the first.
async fn claim_costs(name: &str, sizes: &[usize], keys: impl Fn(usize) -> usize, per_key: u32) {
    println!("\n{name}: claims of {HANDFUL} by the clock (medians of {ROUNDS}), jobs on a core (means)");
    println!("{:>12} {:>12} {:>12} {:>16} {:>16}", "waiting", "claim", "record", "claim + record", "with insert");
    let mut stores = Vec::new();
    for size in sizes {
        let mut bench = Bench::filled(*size, keys(*size), per_key).await;
        let mut warm_up = Spent::default();
        for _ in 0..WARM_UP {
            bench.round(&mut warm_up).await;
        }
        stores.push((bench, Spent::default()));
    }
    for _ in 0..ROUNDS / TURN {
        for (bench, spent) in &mut stores {
            for _ in 0..TURN {
                bench.round(spent).await;
            }
        }
    }
    let mut costs = Vec::new();
    for (size, (_, spent)) in sizes.iter().zip(stores) {
        let jobs = ROUNDS as u32 * HANDFUL;
        let (claim, record) = (median(spent.claims), median(spent.records));
        let (without, with) = (spent.core_without_insert / jobs, spent.core / jobs);
        println!("{size:>12} {claim:>12.1?} {record:>12.1?} {without:>16.2?} {with:>16.2?}");
        costs.push([claim + record, without, with].map(|time| time.as_secs_f64()));
    }
    let ratio = |of: usize| costs[costs.len() - 1][of] / costs[0][of];
    println!(
        "ratio between the ends: {:.2} by the clock; on a core {:.2}, with insert {:.2} (goal: at most 1.2)",
        ratio(0),
        ratio(1),
        ratio(2)
    );
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
        if !sizes.is_empty() {
            claim_costs("all behind one key", &sizes, |_| 1, HANDFUL).await;
            let spread = format!("spread over keys, {EACH} jobs behind each");
            claim_costs(&spread, &sizes, |size| size.div_ceil(EACH), 1).await;
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
