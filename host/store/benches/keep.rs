//! How large a store grows through which a million jobs go while few of them are kept.
//!
//! `cargo bench --workspace --bench keep [-- postgres://ADDRESS]`. SQLite by default, in a temporary folder; on PostgreSQL the tables
//! are those of the address's schema, which should be new. Jobs are inserted, claimed and recorded a thousand at a time, and all
//! but the last two thousand are deleted every ten thousand jobs. Each line says how many jobs went through, how many are there, and
//! how large the store is: a store that reuses its space stops growing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_core::ids::{Group, JobId, NodeId, TaskName};
use wharf_core::job::{LeasedJob, NewJob};
use wharf_core::keep::{Keep, KeepRules};
use wharf_core::lifecycle::Event;
use wharf_core::limits::LimitTable;
use wharf_core::outcome::Usage;
use wharf_core::room::Room;
use wharf_core::time::Timestamp;
use wharf_store::{Claim, ExpiredJobs, PostgresStore, SqliteStore, Store, SystemClock};

const JOBS: usize = 1_000_000;
const CHUNK: usize = 1000;
const DELETED_EVERY: usize = 10_000;
const LINE_EVERY: usize = 50_000;

fn new_job(store: &dyn Store, task: &TaskName) -> NewJob {
    NewJob::ready(
        store.next_id().expect("an ID"),
        task.clone(),
        None,
        br#"{"text":"the quick brown fox jumps over the lazy dog"}"#.as_slice().into(),
    )
}

fn ended(leased: &LeasedJob) -> (JobId, Event) {
    let event = Event::Succeeded {
        attempt: leased.lease.attempt,
        output: br#"{"words":9}"#.as_slice().into(),
        children: vec![],
        changes: None,
        usage: Usage::default(),
    };
    (leased.lease.job, event)
}

/// Deletes what finished before the last two chunks.
async fn delete(store: &dyn Store, before: Timestamp) -> u64 {
    let rules = Arc::new(KeepRules { of_all: Keep::all(Duration::ZERO), ..KeepRules::default() });
    let (mut from, mut deleted) = ((Timestamp::ZERO, None), 0);
    loop {
        let jobs = ExpiredJobs { rules: rules.clone(), from, before, max: wharf_core::bounds::UPKEEP_BATCH };
        let result = store.delete_expired(jobs).await.expect("deleted");
        deleted += u64::from(result.deleted);
        match result.next {
            Some(next) => from = next,
            None => return deleted,
        }
    }
}

async fn run(store: Arc<dyn Store>) {
    let task: TaskName = "words/count".parse().expect("a task");
    let declared = Arc::new(LimitTable::default());
    let started = Instant::now();
    let (mut deleted, mut before_last) = (0, store.now());
    for done in (CHUNK..=JOBS).step_by(CHUNK) {
        let jobs = (0..CHUNK).map(|_| new_job(&*store, &task)).collect();
        store.insert(jobs, declared.clone()).await.expect("inserted");
        let claim = Claim {
            node: NodeId(1),
            tasks: [(task.clone(), Group::from(&task))].into(),
            declared: declared.clone(),
            free: CHUNK as u32,
            room: Room::UNLIMITED,
            costs: Arc::default(),
            task_quotas: Vec::new(),
            lease: Duration::from_secs(600),
        };
        let leased = store.claim(claim).await.expect("claimed").leased;
        assert_eq!(leased.len(), CHUNK);
        store.record(Arc::new(leased.iter().map(ended).collect())).await.expect("recorded");
        if done % DELETED_EVERY == DELETED_EVERY - 2 * CHUNK {
            before_last = store.now();
        }
        if done % DELETED_EVERY == 0 {
            deleted += delete(&*store, before_last).await;
        }
        if done % LINE_EVERY == 0 {
            let size = store.size().await.expect("a size");
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            println!(
                "{done:>8} jobs, {:>6} there: {:>7.1} MiB, log {:>6.1} MiB, {:.0} s",
                done as u64 - deleted,
                mib(size.bytes),
                mib(size.log_bytes.unwrap_or_default()),
                started.elapsed().as_secs_f64()
            );
        }
    }
}

#[tokio::main]
async fn main() {
    match std::env::args().find(|argument| argument.starts_with("postgres://")) {
        Some(address) => run(Arc::new(PostgresStore::open(&address).await.expect("the database"))).await,
        None => {
            let folder = tempfile::tempdir().expect("a folder for the bench");
            let file = folder.path().join("wharf.db");
            run(Arc::new(SqliteStore::open(file, Arc::new(SystemClock)).expect("a store"))).await;
        }
    }
}
