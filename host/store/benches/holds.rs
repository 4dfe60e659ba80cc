//! What ten thousand held keys cost an insert and a claim, and how long setting them takes, one after the other and a hundred at once.
//!
//! `cargo bench --workspace --bench holds`. `WHARF_BENCH_STORE=postgres://…` names a database in place of new files of SQLite; its schemas
//! `holds_beside` and `holds_free` are made, and must not exist.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use wharf_core::author::Author;
use wharf_core::hold::{HoldReason, NewHold};
use wharf_core::ids::{Group, NodeId, TaskName};
use wharf_core::job::{Due, LeasedJob, NewJob};
use wharf_core::lifecycle::Event;
use wharf_core::outcome::Usage;
use wharf_core::room::Room;
use wharf_store::{Claim, PostgresStore, SqliteStore, Store, StoreError, SystemClock};

const HELD: usize = 10_000;
const ROUNDS: usize = 200;
const BATCH: usize = 32;
/// Holds of one request that are on their way at once.
const AT_ONCE: usize = 100;

fn task() -> TaskName {
    "words/count".parse().expect("a task")
}

async fn opened(folder: &std::path::Path, name: &str) -> Arc<dyn Store> {
    match std::env::var("WHARF_BENCH_STORE") {
        Ok(address) => {
            let join = if address.contains('?') { '&' } else { '?' };
            let address = format!("{address}{join}schema=holds_{name}");
            Arc::new(PostgresStore::open(&address).await.expect("a store"))
        }
        Err(_) => {
            let file = folder.join(format!("{name}.db"));
            Arc::new(SqliteStore::open(&file, Arc::new(SystemClock)).expect("a store"))
        }
    }
}

async fn add(store: &dyn Store, keys: impl Iterator<Item = String>, due: Option<Due>) {
    let job = |key: String| {
        let key = Some(key.parse().expect("a key"));
        NewJob { due, ..NewJob::ready(store.next_id().expect("an ID"), task(), key, b"{}".as_slice().into()) }
    };
    store.insert(keys.map(job).collect(), Arc::default()).await.expect("an insert");
}

async fn hold(store: &dyn Store, key: usize) -> Result<(), StoreError> {
    let (by, reason) = (Author::anyone(), "why".parse::<HoldReason>().expect("a reason"));
    let scope = format!("key:held-{key}").parse().expect("a scope");
    let set = store.set_hold(NewHold { scope, length: None, reason, by }).await?;
    assert!(set.is_some(), "there is room for it");
    Ok(())
}

/// Adds jobs of keys that are not held, claims and ends them, and returns the times of the insert and of the claim.
async fn times(store: &dyn Store, round: usize) -> [Duration; 2] {
    let begin = Instant::now();
    add(store, (0..BATCH).map(|number| format!("free-{}", (round + number) % 100)), None).await;
    let insert = begin.elapsed();
    let claim = Claim {
        node: NodeId(1),
        tasks: [(task(), Group::from(&task()))].into(),
        declared: Arc::default(),
        free: BATCH as u32,
        room: Room::UNLIMITED,
        costs: Arc::default(),
        task_quotas: Vec::new(),
        lease: Duration::from_secs(600),
    };
    let begin = Instant::now();
    let leased = store.claim(claim).await.expect("a claim").leased;
    let claim = begin.elapsed();
    assert_eq!(leased.len(), BATCH);
    let ended = |leased: &LeasedJob| {
        let attempt = leased.lease.attempt;
        let (output, usage) = (b"{}".as_slice().into(), Usage::default());
        (leased.lease.job, Event::Succeeded { attempt, output, children: vec![], changes: None, usage })
    };
    store.record(Arc::new(leased.iter().map(ended).collect())).await.expect("a record");
    [insert, claim]
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Lets PostgreSQL tidy up after the holds, as it does by itself a minute later. SQLite has nothing to tidy.
async fn vacuum() {
    let Ok(address) = std::env::var("WHARF_BENCH_STORE") else { return };
    let (client, connection) = tokio_postgres::connect(&address, tokio_postgres::NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client.batch_execute("VACUUM (ANALYZE)").await.expect("a vacuum");
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder for the bench");
    let (beside, free) = (opened(folder.path(), "beside").await, opened(folder.path(), "free").await);
    // Waiting jobs of the keys, so that their lanes are there. In the other store they wait for their time, so that both stores have
    // as many.
    for chunk in 0..HELD / 500 {
        let keys = || (0..500).map(|number| format!("held-{}", chunk * 500 + number));
        add(&*beside, keys(), None).await;
        add(&*free, keys(), Some(Due::In(Duration::from_secs(86_400)))).await;
    }
    let (few, begin) = (HELD / 20, Instant::now());
    for key in 0..few {
        hold(&*beside, key).await.expect("a hold");
    }
    let one_by_one = begin.elapsed() / few as u32;
    let begin = Instant::now();
    let all = stream::iter(few..HELD).map(|key| hold(&*beside, key)).buffered(AT_ONCE);
    all.try_collect::<()>().await.expect("holds");
    let at_once = begin.elapsed() / (HELD - few) as u32;
    println!("a hold takes {one_by_one:.2?} one after the other, {at_once:.2?} with {AT_ONCE} at once");
    vacuum().await;
    // In turns: what else the machine does falls on both alike.
    let (mut held, mut without) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        held.push(times(&*beside, round).await);
        without.push(times(&*free, round).await);
    }
    for (place, what) in ["an insert", "a claim"].into_iter().enumerate() {
        let [held, without] = [&held, &without].map(|all| median(all.iter().map(|times| times[place]).collect()));
        let ratio = held.as_secs_f64() / without.as_secs_f64();
        println!(
            "{what} of {BATCH} jobs takes {held:.2?} beside {HELD} holds, {without:.2?} without one: {ratio:.2} x"
        );
    }
}
