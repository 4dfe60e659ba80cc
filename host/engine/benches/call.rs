//! One `words` attempt in a fresh sandbox, through `Engine::call`, against the floor: the same component in bare wasmtime
//! with the same settings, instantiated, called and dropped. Both in one run, in turns.
//!
//! The third figure is the floor handed to other threads and back, as the engine must do it to keep guests apart
//! from the host's own work: what is above it is the engine's.
//!
//! `cargo bench --workspace --bench call`

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;
use wasmtime::component::{Component, HasSelf, Linker, Resource, ResourceTable};
use wasmtime::{
    Config, Enabled, Engine as Wasmtime, InstanceAllocationStrategy, PoolingAllocationConfig, Store, StoreLimits,
    StoreLimitsBuilder, WasmBacktraceDetails,
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wharf_core::bounds;
use wharf_core::outcome::Outcome;
use wharf_core::shared_bytes::SharedBytes;
use wharf_engine::{AttemptHandle, AttemptLimits, Call, CallInput, Engine, Plugin};

mod ground;

use ground::{Deaf, engine, load};

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "handler-plugin",
    imports: { default: trappable },
    exports: { default: async },
});

use exports::wharf::plugin::handler::Job;
use wharf::plugin::{attempt, broadcasts, jobs, types};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IN_FLIGHT: usize = 64;
const ATTEMPTS: usize = 12_800;
const ROUNDS: usize = 9;
const PAYLOAD: &str = r#"{"text": "one attempt in a fresh sandbox"}"#;

/// The data of the floor's store: the minimum that the component needs.
struct Floor {
    wasi: WasiCtx,
    table: ResourceTable,
    limits: StoreLimits,
}

impl WasiView for Floor {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl types::Host for Floor {}

impl attempt::Host for Floor {
    fn emit(&mut self, chunk: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
        drop(chunk);
        Ok(Ok(()))
    }
    fn progress(&mut self, _: f32, _: String) -> wasmtime::Result<()> {
        Ok(())
    }
    fn cancelled(&mut self) -> wasmtime::Result<bool> {
        Ok(false)
    }
    fn remaining_ms(&mut self) -> wasmtime::Result<u64> {
        Ok(0)
    }
}

impl jobs::Host for Floor {
    fn enqueue(&mut self, _: Vec<Resource<jobs::NewJob>>) -> wasmtime::Result<Result<Vec<String>, String>> {
        Ok(Ok(Vec::new()))
    }
}

impl broadcasts::Host for Floor {
    fn broadcast(&mut self, _: String, _: Vec<u8>, _: u64) -> wasmtime::Result<Result<Vec<broadcasts::Reply>, String>> {
        Ok(Ok(Vec::new()))
    }
}

impl jobs::HostNewJob for Floor {
    fn new(&mut self, _: String, _: Vec<u8>) -> wasmtime::Result<Resource<jobs::NewJob>> {
        Ok(Resource::new_own(0))
    }
    fn key(&mut self, _: Resource<jobs::NewJob>, _: String) -> wasmtime::Result<()> {
        Ok(())
    }
    fn delay_ms(&mut self, _: Resource<jobs::NewJob>, _: u64) -> wasmtime::Result<()> {
        Ok(())
    }
    fn priority(&mut self, _: Resource<jobs::NewJob>, _: i32) -> wasmtime::Result<()> {
        Ok(())
    }
    fn token(&mut self, _: Resource<jobs::NewJob>, _: String) -> wasmtime::Result<()> {
        Ok(())
    }
    fn drop(&mut self, _: Resource<jobs::NewJob>) -> wasmtime::Result<()> {
        Ok(())
    }
}

/// The configuration of `wasmtime_config.rs`.
fn floor(component: &[u8]) -> HandlerPluginPre<Floor> {
    let mut pool = PoolingAllocationConfig::new();
    let n = bounds::ATTEMPTS_DEFAULT + 2 * bounds::BROADCAST_CALLS_DEFAULT;
    pool.total_component_instances(n)
        .total_stacks(n)
        .total_core_instances(n * bounds::INSTANCES_MAX as u32)
        .total_memories(n * 2)
        .total_tables(n * 4);
    pool.max_memories_per_module(bounds::MEMORIES_MAX as u32).max_tables_per_module(bounds::TABLES_MAX as u32);
    pool.table_elements(bounds::TABLE_ELEMENTS_MAX)
        .max_memory_size(bounds::MEMORY_BYTES_MAX as usize)
        .max_unused_warm_slots(100);
    pool.max_core_instance_size(4 << 20).max_component_instance_size(4 << 20);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Auto).linear_memory_keep_resident(2 << 20).table_keep_resident(64 << 10);
    } else {
        pool.linear_memory_keep_resident(64 << 10).decommit_batch_size(16);
    }
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        .wasm_memory64(false)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config.max_wasm_stack(bounds::WASM_STACK_BYTES).async_stack_size(bounds::ASYNC_STACK_BYTES);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = Wasmtime::new(&config).unwrap();
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
    HandlerPlugin::add_to_linker::<Floor, HasSelf<Floor>>(&mut linker, |floor| floor).unwrap();
    HandlerPluginPre::new(linker.instantiate_pre(&Component::new(&engine, component).unwrap()).unwrap()).unwrap()
}

async fn at_the_floor(pre: &HandlerPluginPre<Floor>) {
    let limits = StoreLimitsBuilder::new().memory_size(64 << 20).build();
    let mut store =
        Store::new(pre.engine(), Floor { wasi: WasiCtx::builder().build(), table: ResourceTable::new(), limits });
    store.limiter(|floor| &mut floor.limits);
    store.set_epoch_deadline(u64::MAX / 2);
    let instance = pre.instantiate_async(&mut store).await.unwrap();
    let job = Job { id: "0000000000001".into(), task: "count".into(), key: None, payload: PAYLOAD.into(), attempt: 1 };
    instance.wharf_plugin_handler().call_handle(&mut store, &job).await.unwrap().unwrap();
}

async fn through_the_engine(engine: &Arc<Engine>, plugin: &Arc<Plugin>, payload: &SharedBytes) {
    let call = Call {
        input: CallInput::Job {
            id: "0000000000001".to_owned(),
            task: "count".to_owned(),
            key: None,
            payload: payload.clone(),
            attempt: 1,
            tick: None,
        },
        limits: AttemptLimits::of(&plugin.manifest.tasks["count"]),
    };
    let ended = engine.call(Arc::clone(plugin), call, Arc::new(Deaf), AttemptHandle::new()).await;
    assert!(matches!(ended.outcome, Outcome::Returned(_)), "{:?}", ended.outcome);
}

/// Wall time and processor time of one attempt.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap())
}

fn measure(attempts: usize, run: impl FnOnce()) -> Cost {
    let (wall, before) = (Instant::now(), cpu());
    run();
    let count = u32::try_from(attempts).unwrap();
    Cost { wall: wall.elapsed() / count, cpu: (cpu() - before) / count }
}

fn in_flight<F: Future<Output = ()> + Send + 'static>(
    runtime: &Runtime,
    at_once: usize,
    attempts: usize,
    one: impl Fn() -> F,
) {
    let each = attempts / at_once;
    let lanes: Vec<_> = (0..at_once).map(|_| (0..each).map(|_| one()).collect::<Vec<_>>()).collect();
    runtime.block_on(async {
        let running = lanes.into_iter().map(|lane| {
            tokio::spawn(async move {
                for attempt in lane {
                    attempt.await;
                }
            })
        });
        join_all(running).await.into_iter().for_each(|ended| ended.unwrap());
    });
}

fn median(costs: &[Cost]) -> Cost {
    let of = |part: fn(&Cost) -> Duration| ground::median(costs.iter().map(part).collect());
    Cost { wall: of(|cost| cost.wall), cpu: of(|cost| cost.cpu) }
}

fn main() {
    let component: Arc<[u8]> = std::fs::read(plugins::build("words").unwrap()).unwrap().into();
    let runtime = ground::runtime();
    let others = ground::runtime();
    let cache = tempfile::tempdir().unwrap();
    let pre = Arc::new(floor(&component));
    let (engine, plugin) = runtime.block_on(async {
        let engine = engine(cache.path());
        let plugin = load(&engine, "words", component).await;
        (engine, plugin)
    });
    let payload: SharedBytes = PAYLOAD.as_bytes().into();

    for (name, at_once, attempts) in [("one after the other", 1, ATTEMPTS / 8), ("64 in flight", IN_FLIGHT, ATTEMPTS)] {
        let (mut floors, mut handed, mut engines) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let bare = measure(attempts, || {
                in_flight(&runtime, at_once, attempts, || {
                    let pre = Arc::clone(&pre);
                    async move { at_the_floor(&pre).await }
                });
            });
            let across = measure(attempts, || {
                in_flight(&runtime, at_once, attempts, || {
                    let (pre, others) = (Arc::clone(&pre), others.handle().clone());
                    async move { others.spawn(async move { at_the_floor(&pre).await }).await.unwrap() }
                });
            });
            let ours = measure(attempts, || {
                in_flight(&runtime, at_once, attempts, || {
                    let (engine, plugin, payload) = (Arc::clone(&engine), Arc::clone(&plugin), payload.clone());
                    async move { through_the_engine(&engine, &plugin, &payload).await }
                });
            });
            // The first round warms the pools.
            if round > 0 {
                floors.push(bare);
                handed.push(across);
                engines.push(ours);
            }
        }
        let bare = median(&floors);
        println!("{name}");
        for (what, cost) in [("bare", bare), ("bare, on other threads", median(&handed)), ("engine", median(&engines))]
        {
            let ratio = |of: fn(&Cost) -> Duration| of(&cost).as_secs_f64() / of(&bare).as_secs_f64();
            let (wall, cpu) = (ratio(|cost| cost.wall), ratio(|cost| cost.cpu));
            println!("  {what:<24}{:>8.1?}  x {wall:.2}   of processor {:>8.1?}  x {cpu:.2}", cost.wall, cost.cpu);
        }
    }
}
