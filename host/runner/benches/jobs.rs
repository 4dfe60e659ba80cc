//! Jobs a second of a whole host: enqueued, run in a fresh sandbox each, recorded. `cargo bench --workspace --bench jobs`.
//!
//! The memory store shows what the loop and the engine can carry; SQLite what is left of it when all is durable.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wharf_core::bounds;
use wharf_core::ids::NodeId;
use wharf_engine::{Compile, Engine};
use wharf_runner::{Host, Notice, Parts, Request, Settings};
use wharf_store::{MemoryStore, SqliteStore, Store, SystemClock};

const JOBS: usize = 20_000;
/// In one request.
const BATCH: usize = 1000;

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let plugins = dir.path().join("plugins");
    std::fs::create_dir(&plugins).expect("a folder");
    let villain = plugins::build("villain").expect("the villain is built");
    std::fs::copy(villain, plugins.join("villain.wasm")).expect("the villain is copied");
    let sqlite = || SqliteStore::open(dir.path().join("wharf.db"), Arc::new(SystemClock)).expect("a store");
    // The memory store looks at every lane in each claim, being made for clarity: with many keys it would measure itself.
    measure("memory", Arc::new(MemoryStore::open(Arc::new(SystemClock))), &plugins, 0).await;
    for keys in [0, 10_000] {
        measure("sqlite", Arc::new(sqlite()), &plugins, keys).await;
    }
}

async fn measure(name: &str, store: Arc<dyn Store>, plugins: &Path, keys: usize) {
    let engine = Engine::new(wharf_engine::Settings {
        attempts: bounds::ATTEMPTS_DEFAULT,
        broadcast_calls: bounds::BROADCAST_CALLS_DEFAULT,
        guest_threads: std::thread::available_parallelism().map_or(2, usize::from),
        cache_dir: Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"),
        compile: Compile::Here,
    })
    .expect("an engine");
    let settings = Settings {
        name: "here".to_owned(),
        version: "0".to_owned(),
        node: NodeId(fastrand::u64(1..)),
        plugins_dir: plugins.to_owned(),
        attempts: bounds::ATTEMPTS_DEFAULT,
        broadcasts: 8,
        lease: bounds::LEASE,
        lease_margin: bounds::LEASE_MARGIN,
        cancel_grace: bounds::CANCEL_GRACE,
        upkeep_interval: bounds::UPKEEP_INTERVAL,
        keep_finished: bounds::KEEP_FINISHED,
        rescan: Duration::from_secs(2),
        plugins: BTreeMap::new(),
    };
    let ended = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&ended);
    let tell = move |notice: &Notice| {
        if let Notice::JobEnded { .. } = notice {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    };
    let host = Host::start(Parts { store, engine }, settings, tell).await.expect("a host");
    host.ready().await;
    let began = Instant::now();
    for batch in 0..JOBS / BATCH {
        let request = |n: usize| Request {
            task: if keys == 0 { "villain/do".into() } else { "villain/keyed".into() },
            payload: format!(r#"{{"do":"echo","key":"k{}"}}"#, (batch * BATCH + n) % keys.max(1)).into_bytes(),
            ..Request::default()
        };
        host.enqueue((0..BATCH).map(request).collect()).await.expect("enqueued");
    }
    let enqueued = began.elapsed();
    while ended.load(Ordering::Relaxed) < JOBS as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed().as_secs_f64();
    let what = if keys == 0 { "no key".to_owned() } else { format!("{keys} keys, one at a time each") };
    println!("{name:>6}, {what}: {:.0} jobs/s ({JOBS} jobs; all enqueued after {enqueued:.1?})", JOBS as f64 / took);
    host.stop_now().await;
}
