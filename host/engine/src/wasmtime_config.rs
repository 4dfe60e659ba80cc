//! The configuration of wasmtime: which features components may use, and where the memory of their sandboxes comes
//! from.

use serde::{Deserialize, Serialize};
use wasmtime::component::Component;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};
use wharf_core::bounds;

/// Sandboxes of the pool besides those of attempts and broadcasts: loading calls `describe` in one.
pub(crate) const DESCRIBES_AT_ONCE: u32 = 4;
/// Maximum number of sandboxes without a pool: each maps its own memory, and the kernel's limit of mappings is reached
/// some thousands later.
const WITHOUT_POOL_MAX: u32 = 1000;

/// Core instances of an ordinary sandbox in the pool: a component has about four core instances and two tables, one of
/// an interpreted language has more.
const INSTANCES_EACH: u32 = 8;
const MEMORIES_EACH: u32 = 2;
const TABLES_EACH: u32 = 4;

/// Returns how many ordinary sandboxes one of this component counts as, so that an attempt of a component with many
/// memories takes as many permits as it takes slots.
pub(crate) fn weight(component: &Component, core_instances: u32) -> u32 {
    let (memories, tables) =
        component.resources_required().map_or((bounds::MEMORIES_MAX as u32, bounds::TABLES_MAX as u32), |needed| {
            (needed.num_memories, needed.num_tables)
        });
    let shares =
        [memories.div_ceil(MEMORIES_EACH), tables.div_ceil(TABLES_EACH), core_instances.div_ceil(INSTANCES_EACH)];
    shares.into_iter().max().unwrap_or(1).max(1)
}

/// Which of the two engines a component needs. Component-model concurrency costs each call some microseconds and is the
/// younger part of wasmtime, so that only components which need it get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum EngineKind {
    Sync,
    Async,
}

impl EngineKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            EngineKind::Sync => "sync",
            EngineKind::Async => "async",
        }
    }
}

/// A wasmtime engine and how many sandboxes it takes at once.
pub(crate) struct Pool {
    pub(crate) engine: Engine,
    pub(crate) sandboxes: u32,
    pub(crate) pooled: bool,
}

/// Makes an engine for up to `sandboxes` at once: with a pool of that size, or of the largest smaller size that can be
/// had, or without a pool.
///
/// # Errors
/// If wasmtime cannot run here at all.
pub(crate) fn pool(kind: EngineKind, sandboxes: u32) -> wasmtime::Result<Pool> {
    let mut sizes = vec![sandboxes, sandboxes / 4, 64];
    sizes.retain(|size| *size > 0 && *size <= sandboxes);
    sizes.dedup();
    for size in sizes {
        let mut config = config(kind);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(slots(size + DESCRIBES_AT_ONCE)));
        match Engine::new(&config) {
            Ok(engine) => return Ok(Pool { engine, sandboxes: size, pooled: true }),
            Err(error) => tracing::warn!(sandboxes = size, "could not reserve a sandbox pool of this size: {error:#}"),
        }
    }
    Ok(Pool { engine: compiler(kind)?, sandboxes: sandboxes.min(WITHOUT_POOL_MAX), pooled: false })
}

/// Makes an engine for compiling: its code runs on the pooled engine of the same kind.
pub(crate) fn compiler(kind: EngineKind) -> wasmtime::Result<Engine> {
    Engine::new(&config(kind))
}

/// Everything here that changes compiled code must be the same for compiling and running.
fn config(kind: EngineKind) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(kind == EngineKind::Async)
        .wasm_memory64(false)
        // A component's own debug information is read at load and never at a trap: see `inspect::strip` and
        // `inspect::line_table`.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .max_wasm_stack(bounds::WASM_STACK_BYTES)
        .async_stack_size(bounds::ASYNC_STACK_BYTES);
    config
}

fn slots(sandboxes: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    // Even where there are few sandboxes, the largest one fits.
    pool.total_component_instances(sandboxes)
        .total_stacks(sandboxes)
        .total_core_instances((sandboxes * INSTANCES_EACH).max(bounds::INSTANCES_MAX as u32))
        .total_memories((sandboxes * MEMORIES_EACH).max(bounds::MEMORIES_MAX as u32))
        .total_tables((sandboxes * TABLES_EACH).max(bounds::TABLES_MAX as u32))
        .max_memories_per_module(bounds::MEMORIES_MAX as u32)
        .max_tables_per_module(bounds::TABLES_MAX as u32)
        .table_elements(bounds::TABLE_ELEMENTS_MAX)
        .max_core_instance_size(4 << 20)
        .max_component_instance_size(4 << 20)
        .max_memory_size(bounds::MEMORY_BYTES_MAX as usize)
        .max_unused_warm_slots(1024);
    // Pages that an attempt touched stay with the slot and are zeroed for the next one. With the kernel's help only
    // those that were written are zeroed; without it all are, which pays off for few pages only.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Auto).linear_memory_keep_resident(2 << 20).table_keep_resident(64 << 10);
    } else {
        pool.linear_memory_keep_resident(64 << 10).decommit_batch_size(16);
    }
    pool
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::contract_check;

    #[test]
    fn an_ordinary_plugin_takes_one_share_and_one_with_many_memories_more() {
        let weight_of = |name: &str| {
            let bytes = std::fs::read(plugins::build(name).unwrap()).unwrap();
            let component = Component::new(&compiler(EngineKind::Sync).unwrap(), &bytes).unwrap();
            weight(&component, contract_check::inspect(&bytes).core_instances)
        };
        assert_eq!((weight_of("words"), weight_of("thumbnail")), (1, 1));
        assert_eq!(weight_of("villain-memories"), 17_u32.div_ceil(MEMORIES_EACH));
    }
}
