//! The configuration of wasmtime: which features components may use, and where the memory of their sandboxes comes
//! from.

use serde::{Deserialize, Serialize};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, ResourcesRequired,
    WasmBacktraceDetails,
};
use wharf_core::bounds;

use crate::schedule::permits::PoolSizes;

/// Sandboxes of the pool besides those of attempts and broadcasts: loading calls `describe` in one.
pub(crate) const DESCRIBES_AT_ONCE: u32 = 4;
/// Maximum number of sandboxes without a pool: each maps its own memory, and the kernel's limit of mappings is reached
/// some thousands later.
const WITHOUT_POOL_MAX: u32 = 1000;

/// Slots of the pool for an ordinary sandbox. A component of any language has one or two memories and two tables;
/// each is address space that is reserved. Core instances are not: the pool only counts them, so that it may count as
/// many as there can be.
const MEMORIES_EACH: u32 = 2;
const TABLES_EACH: u32 = 4;

/// Number of ordinary sandboxes that the largest one counts as.
const LARGEST: u32 = sandboxes_for(bounds::MEMORIES_MAX as u32, bounds::TABLES_MAX as u32);

const fn sandboxes_for(memories: u32, tables: u32) -> u32 {
    let (by_memories, by_tables) = (memories.div_ceil(MEMORIES_EACH), tables.div_ceil(TABLES_EACH));
    let more = if by_memories > by_tables { by_memories } else { by_tables };
    if more > 1 { more } else { 1 }
}

/// Returns how many ordinary sandboxes one counts as that needs so much: so many permits are all the memories and tables
/// that wasmtime takes of the pool for it. The count is of the flattened component, in which each instance of a
/// component within it stands as often as it is made.
pub(crate) fn sandboxes_of(needed: Option<&ResourcesRequired>) -> u32 {
    // Only a component that imports core modules cannot be counted, and the host has none to offer.
    needed.map_or(LARGEST, |needed| sandboxes_for(needed.num_memories, needed.num_tables))
}

/// Returns how many bytes to reserve at its start for one sandbox that needs so much, and how many of those with which it begins
/// are not reserved. Of several memories only the largest is known, and the others are counted when they are made.
pub(crate) fn start_bytes_of(needed: Option<&ResourcesRequired>) -> (u64, u64) {
    let Some(needed) = needed else { return start_bytes(0, 0) };
    let elements = needed.max_initial_table_size.unwrap_or(0).saturating_mul(needed.num_tables.into());
    let initial = needed.max_initial_memory_size.unwrap_or(0).saturating_mul(WASM_PAGE_BYTES);
    start_bytes(initial, elements.saturating_mul(size_of::<usize>() as u64))
}

/// The unit of a memory's size.
const WASM_PAGE_BYTES: u64 = 64 * bounds::KIB;

fn start_bytes(initial: u64, of_tables: u64) -> (u64, u64) {
    let is_small = initial <= bounds::FIRST_PAGES_MAX;
    let reserved = if is_small { initial.min(bounds::FIRST_PAGES_RESERVED) } else { initial };
    (bounds::ATTEMPT_BYTES + of_tables + reserved, initial - reserved)
}

/// Returns the bytes that free sandboxes of the pool keep.
pub(crate) fn kept_bytes(engine: &Engine) -> u64 {
    engine.pooling_allocator_metrics().map_or(0, |metrics| metrics.unused_memory_bytes_resident() as u64)
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

/// Makes an engine for as many sandboxes at once as the permits allow: with a pool of that size, or of the largest
/// smaller size that can be had, or without a pool. What free sandboxes keep is bounded by the budget of memory.
///
/// # Errors
/// If wasmtime cannot run here at all.
pub(crate) fn pool(kind: EngineKind, permits: &PoolSizes, memory_budget: u64) -> wasmtime::Result<Pool> {
    let sandboxes = permits.sum();
    let mut sizes = vec![sandboxes, sandboxes / 4, 64];
    sizes.retain(|size| *size > 0 && *size <= sandboxes);
    sizes.dedup();
    for size in sizes {
        let mut config = config(kind);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(slots(&permits.within(size), memory_budget)));
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

/// The most bytes that a free sandbox keeps for the next attempt, whatever the budget.
const KEPT_BYTES_MAX: u64 = 2 * bounds::MIB;
/// A free sandbox may keep this many bytes, however small the budget is: what a small attempt writes to.
const KEPT_BYTES_MIN: u64 = 64 * bounds::KIB;

/// Returns how many bytes each of so many free sandboxes keeps, of a budget of `total`: all together a sixteenth of it.
fn kept_bytes_each(total: u64, sandboxes: u32) -> u64 {
    (total / 16 / u64::from(sandboxes.max(1))).clamp(KEPT_BYTES_MIN, KEPT_BYTES_MAX)
}

fn slots(permits: &PoolSizes, memory_budget: u64) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    let sandboxes = permits.sum() + DESCRIBES_AT_ONCE;
    // Even where there are few permits, the largest sandbox fits: it takes all of them.
    let ordinary = permits.sum_of_at_least(LARGEST) + DESCRIBES_AT_ONCE.max(LARGEST);
    pool.total_component_instances(sandboxes)
        .total_stacks(sandboxes)
        .total_core_instances(sandboxes * bounds::INSTANCES_MAX as u32)
        .total_memories(ordinary * MEMORIES_EACH)
        .total_tables(ordinary * TABLES_EACH)
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
        let kept_bytes = usize::try_from(kept_bytes_each(memory_budget, sandboxes)).unwrap_or(usize::MAX);
        pool.pagemap_scan(Enabled::Auto).linear_memory_keep_resident(kept_bytes).table_keep_resident(64 << 10);
    } else {
        pool.linear_memory_keep_resident(64 << 10).decommit_batch_size(16);
    }
    pool
}

#[cfg(test)]
mod tests {
    use wasmtime::component::Component;

    use super::*;
    use crate::schedule::permits::{PermitPool, PermitPools};

    fn sandboxes_of(kind: EngineKind, name: &str) -> u32 {
        let bytes = std::fs::read(plugins::build(name).unwrap()).unwrap();
        let component = Component::new(&compiler(kind).unwrap(), &bytes).unwrap();
        super::sandboxes_of(component.resources_required().as_ref())
    }

    #[test]
    fn an_ordinary_plugin_takes_one_share_and_one_with_many_memories_more() {
        for name in ["words", "words-c", "words-go", "words-python", "thumbnail"] {
            assert_eq!(sandboxes_of(EngineKind::Sync, name), 1, "{name}");
        }
        // One component within another.
        assert_eq!(sandboxes_of(EngineKind::Async, "words-js"), 1);
        assert_eq!(sandboxes_of(EngineKind::Sync, "villain-memories"), 17_u32.div_ceil(MEMORIES_EACH));
    }

    #[test]
    fn of_what_a_small_component_begins_with_little_is_reserved_and_of_a_large_one_all() {
        let of = |kind, name| {
            let bytes = std::fs::read(plugins::build(name).unwrap()).unwrap();
            let component = Component::new(&compiler(kind).unwrap(), &bytes).unwrap();
            start_bytes_of(component.resources_required().as_ref())
        };
        let least = bounds::ATTEMPT_BYTES + bounds::FIRST_PAGES_RESERVED;
        // A stack of 1 MiB, and data.
        let (reserved, rest) = of(EngineKind::Sync, "words");
        assert!((least..least + 64 * bounds::KIB).contains(&reserved), "{reserved}");
        assert!((bounds::MIB - bounds::FIRST_PAGES_RESERVED..bounds::FIRST_PAGES_MAX).contains(&rest), "{rest}");
        let (reserved, rest) = of(EngineKind::Sync, "words-python");
        assert!(reserved > bounds::FIRST_PAGES_MAX && rest == 0, "{reserved}, {rest}");
        let large = bounds::FIRST_PAGES_MAX + 1;
        assert_eq!(start_bytes(large, 0), (bounds::ATTEMPT_BYTES + large, 0));
        assert_eq!(start_bytes(0, 80), (bounds::ATTEMPT_BYTES + 80, 0));
    }

    #[test]
    fn the_pool_has_what_all_permits_together_may_take() {
        assert_eq!(LARGEST, 16);
        for (attempts, calls) in [(256, 1024), (1, 1), (3, 40), (17, 9)] {
            let wanted = PoolSizes::wanted(attempts, calls);
            for sizes in [wanted.within(64), wanted] {
                for each in 1..=LARGEST {
                    let pools = PermitPools::new(&sizes);
                    let depths = (1..=bounds::BROADCAST_DEPTH_MAX).map(|depth| PermitPool::Broadcasts { depth });
                    let mut taken = Vec::new();
                    for pool in depths.chain([PermitPool::Jobs]) {
                        taken.extend(std::iter::from_fn(|| pools.try_admit(pool, each)));
                    }
                    assert!(taken.len() as u32 * each <= sizes.sum_of_at_least(LARGEST), "{each} each");
                }
            }
        }
    }
}
