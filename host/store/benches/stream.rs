//! How many jobs a second go through a store in PostgreSQL: enqueued by 1,000, claimed and recorded by as many as one host
//! has attempts at once, with nothing in between. Without keys, and with 10,000 of which one job runs at a time each.
//!
//! `cargo bench --workspace --bench stream`; `WHARF_TEST_POSTGRES` names a server, otherwise one is started.

#[path = "../../../tests/harness/postgres.rs"]
#[expect(dead_code, reason = "it serves the tests, too")]
mod postgres;

use std::sync::Arc;
use std::time::Instant;

use wharf_core::bounds;
use wharf_core::ids::{Group, JobId, NodeId, TaskName};
use wharf_core::job::{LeasedJob, NewJob};
use wharf_core::lifecycle::Event;
use wharf_core::limits::{LimitTable, Limits};
use wharf_core::outcome::Usage;
use wharf_core::room::Room;
use wharf_store::{Claim, PostgresStore, Queue as _};

const JOBS: usize = 20_000;
/// In one insert.
const BATCH: usize = 1000;
const KEYS: usize = 10_000;

fn main() {
    let server = match std::env::var("WHARF_TEST_POSTGRES") {
        Ok(address) if !address.is_empty() => Err(address),
        _ => Ok(postgres::Postgres::start(true)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    for keys in [0, KEYS] {
        let address = match &server {
            Ok(server) => server.address(),
            Err(_) => postgres::shared_address(),
        };
        let rate = runtime.block_on(measure(&address, keys));
        println!("{keys:>6} keys: {rate:.0} jobs/s through the store ({JOBS} jobs)");
    }
}

async fn measure(address: &str, keys: usize) -> f64 {
    let store = Arc::new(PostgresStore::open(address).await.expect("a store"));
    let task: TaskName = "words/count".parse().expect("a task");
    let mut declared = LimitTable::default();
    let per_key = (keys > 0).then_some(1);
    declared.declare(Group::from(&task), Limits { per_key, total: None });
    let declared = Arc::new(declared);
    let began = Instant::now();
    let enqueuing = {
        let (store, task, declared) = (Arc::clone(&store), task.clone(), Arc::clone(&declared));
        tokio::spawn(async move {
            for first in (0..JOBS).step_by(BATCH) {
                let jobs = (first..first + BATCH).map(|n| new_job(&store, &task, keys, n)).collect();
                store.insert(jobs, Arc::clone(&declared)).await.expect("an insert");
            }
        })
    };
    let claim = || Claim {
        node: NodeId(1),
        tasks: [(task.clone(), Group::from(&task))].into(),
        declared: Arc::clone(&declared),
        free: bounds::ATTEMPTS_DEFAULT,
        room: Room::UNLIMITED,
        costs: Arc::default(),
        task_quotas: Vec::new(),
        lease: bounds::LEASE,
    };
    let (mut done, mut ended) = (0, Vec::new());
    while done < JOBS {
        done += ended.len();
        let record = async { if ended.is_empty() { Ok(Vec::new()) } else { store.record(Arc::new(ended)).await } };
        let (recorded, claimed) = tokio::join!(record, store.claim(claim()));
        recorded.expect("a record");
        ended = claimed.expect("a claim").leased.iter().map(end).collect();
    }
    let rate = JOBS as f64 / began.elapsed().as_secs_f64();
    enqueuing.await.expect("all were enqueued");
    rate
}

fn new_job(store: &PostgresStore, task: &TaskName, keys: usize, n: usize) -> NewJob {
    let key = (keys > 0).then(|| format!("k{}", n % keys).parse().expect("a key"));
    NewJob::ready(store.next_id().unwrap(), task.clone(), key, br#"{"text":"the quick brown fox"}"#.as_slice().into())
}

fn end(leased: &LeasedJob) -> (JobId, Event) {
    let output = br#"{"words":4}"#.to_vec();
    let attempt = leased.lease.attempt;
    (
        leased.lease.job,
        Event::Succeeded {
            attempt,
            output: output.into(),
            children: Vec::new(),
            changes: None,
            usage: Usage::default(),
        },
    )
}
