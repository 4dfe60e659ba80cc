//! How many jobs go through the store alone in a second: inserted, claimed and recorded, all three going on at once.
//!
//! `cargo bench --workspace --bench rate`. Every figure is of SQLite with `synchronous = FULL`. What each step costs with few
//! and many waiting is asked with `wharf bench backlog`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wharf_core::ids::{Group, JobId, NodeId, TaskName};
use wharf_core::job::{LeasedJob, NewJob};
use wharf_core::lifecycle::Event;
use wharf_core::limits::{LimitTable, Limits};
use wharf_core::outcome::Usage;
use wharf_core::room::Room;
use wharf_store::{Claim, Queue as _, SqliteStore, SystemClock};

struct Bench {
    store: Arc<SqliteStore>,
    task: TaskName,
    declared: Arc<LimitTable>,
    keys: usize,
    next_key: usize,
    /// Gone with the bench.
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(keys: usize, per_key: Option<u32>) -> Bench {
        let folder = tempfile::tempdir().expect("a folder for the bench");
        let store = Arc::new(opened(&folder));
        let task: TaskName = "words/count".parse().expect("a task");
        let mut declared = LimitTable::default();
        declared.declare(Group::from(&task), Limits { per_key, total: None });
        Bench { store, task, declared: Arc::new(declared), keys, next_key: 0, _folder: folder }
    }

    fn new_job(&mut self) -> NewJob {
        // Strides through the keys, so that neighbours in time are none in the index.
        self.next_key = (self.next_key + 7919) % self.keys.max(1);
        let key = (self.keys > 0).then(|| format!("tenant-{}", self.next_key).parse().expect("a key"));
        NewJob::ready(
            self.store.next_id().unwrap(),
            self.task.clone(),
            key,
            br#"{"text":"the quick brown fox jumps over the lazy dog"}"#.as_slice().into(),
        )
    }

    fn jobs(&mut self, count: usize) -> Vec<NewJob> {
        (0..count).map(|_| self.new_job()).collect()
    }

    fn wish(&self, free: u32) -> Claim {
        Claim {
            node: NodeId(1),
            tasks: [(self.task.clone(), Group::from(&self.task))].into(),
            declared: self.declared.clone(),
            free,
            room: Room::UNLIMITED,
            costs: Arc::default(),
            task_quotas: Vec::new(),
            lease: Duration::from_secs(600),
        }
    }
}

fn ended(leased: &[LeasedJob]) -> Vec<(JobId, Event)> {
    let event = |leased: &LeasedJob| Event::Succeeded {
        attempt: leased.lease.attempt,
        output: br#"{"words":9}"#.as_slice().into(),
        children: vec![],
        changes: None,
        usage: Usage::default(),
    };
    leased.iter().map(|leased| (leased.lease.job, event(leased))).collect()
}

fn opened(folder: &tempfile::TempDir) -> SqliteStore {
    SqliteStore::open(folder.path().join("bench.db"), Arc::new(SystemClock)).expect("a store for the bench")
}

/// Time that this process spent on a core: unlike the clock on the wall, it does not grow while others have the machine.
fn on_core() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
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
        recording.spawn(async move { store.record(Arc::new(ended(&leased))).await.expect("a record") });
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
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads for the bench");
    tokio.block_on(async {
        println!("insert -> claim -> record, all at once: jobs a second");
        for (name, keys, per_key) in [("no key", 0, None), ("10,000 keys, one each", 10_000, Some(1))] {
            for batch in [1, 500] {
                let (rate, core) = throughput(100_000, keys, per_key, batch).await;
                println!("{name:>24}, inserted by {batch:>3}: {rate:>9.0}, each {core:.1?} on a core");
            }
        }
    });
}
