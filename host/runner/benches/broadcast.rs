//! What a live broadcast to 1,000 subscribers costs. `cargo bench --workspace --bench broadcast`.
//!
//! Subscribers that wait, against the same calls one after another and against native sleeps under one `join_all`;
//! subscribers that do nothing, against the engine called for each without a broadcast around it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use wharf_core::bounds;
use wharf_core::ids::NodeId;
use wharf_core::job::Stream;
use wharf_core::rollcall::{Answer, Mode, Reply};
use wharf_engine::{Allowance, Asked, Attending, Call, Compile, Control, Engine, GuestJob, Plugin};
use wharf_runner::{Broadcast, Host, Parts, Settings};
use wharf_store::{MemoryStore, SystemClock};

const SUBSCRIBERS: usize = 1000;
const WAIT: Duration = Duration::from_millis(100);
/// One after the other they take long: this many are measured, and the rest is taken to be like them.
const ONE_BY_ONE: usize = 20;
const ROUNDS: usize = 10;

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let plugins = dir.path().join("plugins");
    std::fs::create_dir(&plugins).expect("a folder");
    let villain = plugins::build("villain").expect("the villain is built");
    for n in 0..SUBSCRIBERS {
        std::fs::copy(&villain, plugins.join(format!("v{n:03}.wasm"))).expect("the villain is copied");
    }
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
        node: NodeId(1),
        plugins_dir: plugins,
        attempts: bounds::ATTEMPTS_DEFAULT,
        broadcasts: bounds::BROADCASTS_DEFAULT,
        lease: bounds::LEASE,
        lease_margin: bounds::LEASE_MARGIN,
        cancel_grace: bounds::CANCEL_GRACE,
        upkeep_interval: bounds::UPKEEP_INTERVAL,
        keep_finished: bounds::KEEP_FINISHED,
        rescan: Duration::from_secs(60),
        plugins: BTreeMap::new(),
    };
    let store = Arc::new(MemoryStore::open(Arc::new(SystemClock)));
    let parts = Parts { store, engine: Arc::clone(&engine) };
    let host = Host::start(parts, settings, |_| {}).await.expect("a host");
    host.ready().await;
    let called: Vec<Arc<Plugin>> = host.catalog().plugins().values().map(|loaded| Arc::clone(&loaded.plugin)).collect();
    assert_eq!(called.len(), SUBSCRIBERS);
    let before = resident_mib();
    waiting(&host, &engine, &called).await;
    println!("memory: {before:.0} MiB resident before, {:.0} MiB at most since", peak_mib());
    doing_nothing(&host, &engine, &called).await;
    host.stop_now().await;
}

async fn waiting(host: &Host, engine: &Arc<Engine>, called: &[Arc<Plugin>]) {
    let order = br#"{"do":"sleep","ms":100}"#;
    let mut broadcasts = Vec::new();
    let mut natives = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        join_all((0..SUBSCRIBERS).map(|_| tokio::time::sleep(WAIT))).await;
        natives.push(began.elapsed());
        broadcasts.push(broadcast(host, order).await);
    }
    let began = Instant::now();
    for plugin in &called[..ONE_BY_ONE] {
        call(engine, plugin, order).await;
    }
    let one_by_one = began.elapsed() * SUBSCRIBERS as u32 / ONE_BY_ONE as u32;
    let (broadcast, native) = (median(broadcasts.clone()), median(natives));
    println!("{SUBSCRIBERS} subscribers that wait {WAIT:?}, {ROUNDS} rounds:");
    println!(
        "  a broadcast           {broadcast:>10.1?} in the middle, {:.1?} at most",
        broadcasts.iter().max().expect("rounds")
    );
    println!("  native sleeps         {native:>10.1?}: {:.2} x", ratio(broadcast, native));
    println!(
        "  one after the other   {one_by_one:>10.1?}: {:.0} x as long (of {ONE_BY_ONE})",
        ratio(one_by_one, broadcast)
    );
}

async fn doing_nothing(host: &Host, engine: &Arc<Engine>, called: &[Arc<Plugin>]) {
    let order = br#"{"do":"echo"}"#;
    let (mut broadcasts, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        broadcasts.push(broadcast(host, order).await);
        let began = Instant::now();
        join_all(called.iter().map(|plugin| call(engine, plugin, order))).await;
        bare.push(began.elapsed());
    }
    let each = |rounds| median(rounds) / SUBSCRIBERS as u32;
    let (broadcast, bare) = (each(broadcasts), each(bare));
    println!("{SUBSCRIBERS} subscribers that do nothing, each costs:");
    println!("  in a broadcast        {broadcast:>10.1?}");
    println!("  called by the engine  {bare:>10.1?}: {:.2} x", ratio(broadcast, bare));
}

async fn broadcast(host: &Host, payload: &'static [u8]) -> Duration {
    let began = Instant::now();
    let asked = Broadcast {
        topic: "villain.bench".into(),
        payload: payload.into(),
        timeout: Duration::from_secs(60),
        mode: Mode::All,
    };
    let replies = host.broadcast(asked).expect("begun").all().await;
    let took = began.elapsed();
    let good = replies.iter().filter(|reply| matches!(reply.answer, Answer::Replied(_))).count();
    assert_eq!(good, SUBSCRIBERS, "everybody replies: {:?}", replies.first());
    took
}

async fn call(engine: &Arc<Engine>, plugin: &Arc<Plugin>, payload: &'static [u8]) {
    let receive = plugin.manifest.receive.as_ref().expect("it subscribes");
    let asked = Asked::Message { id: "1".into(), topic: "villain.bench".into(), payload: payload.into() };
    let call = Call { asked, allowance: Allowance::of(&receive.task) };
    let ended = engine.call(Arc::clone(plugin), call, Arc::new(Nobody), Control::new()).await;
    assert!(ended.outcome.report().is_empty(), "{:?}", ended.outcome);
}

/// Whom a call without a broadcast around it has to talk to.
struct Nobody;

impl Attending for Nobody {
    fn emit(&self, _: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn log(&self, _: Stream, _: String) {}
    fn log_dropped(&self, _: u64) {}
    fn progress(&self, _: f32, _: String) {}
    fn enqueue(&self, _: Vec<GuestJob>) -> Result<Vec<String>, String> {
        Err("not here".into())
    }
    fn broadcast(&self, _: String, _: Vec<u8>, _: Duration, _: Duration) -> BoxFuture<'_, Result<Vec<Reply>, String>> {
        Box::pin(std::future::ready(Err("not here".into())))
    }
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

fn resident_mib() -> f64 {
    status("VmRSS:")
}

fn peak_mib() -> f64 {
    status("VmHWM:")
}

/// A line of `/proc/self/status`, in MiB.
fn status(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("it is there");
    let kib: f64 = line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number");
    kib / 1024.0
}
