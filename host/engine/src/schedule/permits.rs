//! Limits how many sandboxes there are at once, by pools of permits: jobs and broadcasts do not take each other's
//! permits, and a broadcast never waits for one that waits for it. A permit also has the bytes that are reserved for its
//! sandbox in the budget of memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wharf_core::bounds;
use wharf_core::budget::MemoryUse;

use crate::schedule::budget::{Budget, Reservation};

/// The pool that a sandbox's permit is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PermitPool {
    /// Attempts of jobs.
    Jobs,
    /// Subscribers. At depth 1 are those that a broadcast of a job or of a client calls, at depth 2 those that a
    /// subscriber at depth 1 calls, and so on up to [`bounds::BROADCAST_DEPTH_MAX`].
    Broadcasts {
        /// The depth, from 1.
        depth: u32,
    },
}

impl PermitPool {
    /// Returns what the memory of its sandboxes is used for.
    pub(crate) fn memory_use(self) -> MemoryUse {
        match self {
            PermitPool::Jobs => MemoryUse::Attempts,
            PermitPool::Broadcasts { depth } => MemoryUse::Broadcasts { depth },
        }
    }
}

/// A permit for one sandbox, as long as it lives.
#[derive(Debug)]
pub struct Permit {
    _permits: OwnedSemaphorePermit,
    /// The use of the sandbox's memory.
    pub(crate) of: MemoryUse,
    /// The bytes that are reserved for the sandbox.
    pub(crate) reserved: u64,
    /// Bytes of the memory with which it begins that it may have besides.
    pub(crate) first_pages: u64,
    /// They are reserved as long as this lives; `None` if another part of the host has reserved them.
    _memory: Option<Reservation>,
}

impl Permit {
    /// Returns the permit with bytes that the caller has reserved for its sandbox, and gives back when that has ended.
    /// `first_pages` is what the sandbox may have besides, of the memory with which it begins: the caller counts it as unreserved.
    #[must_use]
    pub fn with_reserved(self, bytes: u64, first_pages: u64) -> Permit {
        Permit { reserved: bytes, first_pages, ..self }
    }
}

/// The cost of a sandbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SandboxCost {
    /// The number of ordinary sandboxes that it counts as.
    pub(crate) weight: u32,
    /// The bytes that it takes at its start.
    pub(crate) bytes: u64,
}

/// The permits of all pools.
pub(crate) struct PermitPools {
    jobs: PoolPermits,
    /// Indexed by depth, from 1.
    broadcasts: Vec<PoolPermits>,
}

/// The permits of one pool. Waiters are served in the order in which they came.
struct PoolPermits {
    size: u32,
    permits: Arc<Semaphore>,
}

/// The sizes of all pools: that of jobs, then those of broadcasts by depth.
pub(crate) struct PoolSizes(Vec<u32>);

impl PoolSizes {
    /// Returns the sizes that the settings ask for, within the bounds.
    pub(crate) fn wanted(attempts: u32, broadcast_calls: u32) -> PoolSizes {
        let calls = broadcast_calls.clamp(1, bounds::BROADCAST_CALLS_MAX);
        let by_depth = (0..bounds::BROADCAST_DEPTH_MAX).map(|above| (calls >> above).max(1));
        PoolSizes([attempts.clamp(1, bounds::ATTEMPTS_MAX)].into_iter().chain(by_depth).collect())
    }

    /// Returns the number of sandboxes in all pools.
    pub(crate) fn sum(&self) -> u32 {
        self.0.iter().sum()
    }

    /// Returns the number of sandboxes in all pools, if each had this many at least.
    pub(crate) fn sum_of_at_least(&self, least: u32) -> u32 {
        self.0.iter().map(|size| (*size).max(least)).sum()
    }

    /// Returns sizes that fit into `sandboxes` in all: the same where they do, else smaller in proportion, but at least
    /// one each.
    pub(crate) fn within(&self, sandboxes: u32) -> PoolSizes {
        let sum = u64::from(self.sum());
        if u64::from(sandboxes) >= sum {
            return PoolSizes(self.0.clone());
        }
        let pool = |size: &u32| u32::try_from(u64::from(*size) * u64::from(sandboxes) / sum).unwrap_or(*size).max(1);
        PoolSizes(self.0.iter().map(pool).collect())
    }
}

impl PermitPools {
    pub(crate) fn new(sizes: &PoolSizes) -> PermitPools {
        let mut pools =
            sizes.0.iter().map(|size| PoolPermits { size: *size, permits: Arc::new(Semaphore::new(*size as usize)) });
        let jobs = pools.next().expect("`PoolSizes` starts with that of jobs");
        PermitPools { jobs, broadcasts: pools.collect() }
    }

    fn of(&self, pool: PermitPool) -> &PoolPermits {
        match pool {
            PermitPool::Jobs => &self.jobs,
            PermitPool::Broadcasts { depth } => {
                let deepest = self.broadcasts.len() - 1;
                &self.broadcasts[(depth.max(1) as usize - 1).min(deepest)]
            }
        }
    }

    /// Returns the number of sandboxes in a pool.
    pub(crate) fn size(&self, pool: PermitPool) -> u32 {
        self.of(pool).size
    }

    /// Returns how many ordinary sandboxes of a pool are free.
    pub(crate) fn free(&self, pool: PermitPool) -> u32 {
        u32::try_from(self.of(pool).permits.available_permits()).unwrap_or(u32::MAX)
    }

    /// Returns a permit for a sandbox that counts as `weight` ordinary ones, if these are free now and nobody waits for
    /// them.
    pub(crate) fn try_admit(&self, pool: PermitPool, weight: u32) -> Option<Permit> {
        let (of, pool) = (pool.memory_use(), self.of(pool));
        let permits = Arc::clone(&pool.permits).try_acquire_many_owned(weight.min(pool.size));
        Some(Permit { _permits: permits.ok()?, of, reserved: 0, first_pages: 0, _memory: None })
    }

    /// Waits for a permit for a sandbox, and for the bytes that it takes at its start.
    pub(crate) fn admit(
        &self,
        budget: &Budget,
        pool: PermitPool,
        cost: SandboxCost,
    ) -> impl Future<Output = Permit> + Send + use<> {
        let (of, pool, budget) = (pool.memory_use(), self.of(pool), budget.clone());
        let (permits, wanted) = (Arc::clone(&pool.permits), cost.weight.min(pool.size));
        async move {
            let _permits = permits.acquire_many_owned(wanted).await.expect("never closed");
            let memory = budget.reserve_patiently(of, cost.bytes).await;
            Permit { _permits, of, reserved: memory.bytes(), first_pages: 0, _memory: Some(memory) }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn shares_shrink_in_proportion_and_none_is_empty() {
        let wanted = PoolSizes::wanted(256, 1024);
        assert_eq!(wanted.0, [256, 1024, 512, 256, 128]);
        assert_eq!(wanted.within(10_000).0, wanted.0);
        assert_eq!(wanted.within(wanted.sum() / 4).0, [64, 256, 128, 64, 32]);
        assert_eq!(wanted.within(64).0, [7, 30, 15, 7, 3]);
        assert_eq!(PoolSizes::wanted(1, 1).0, [1; 5]);
        assert!(PoolSizes::wanted(8000, 8000).sum() <= bounds::ATTEMPTS_MAX + 2 * bounds::BROADCAST_CALLS_MAX);
    }

    #[tokio::test]
    async fn no_pool_takes_another_s_permits() {
        let pools = PermitPools::new(&PoolSizes::wanted(2, 2));
        let budget = Budget::new(1 << 30);
        let admit = |pool, weight| pools.admit(&budget, pool, SandboxCost { weight, bytes: 1 << 20 }).now_or_never();
        let at = |depth| PermitPool::Broadcasts { depth };
        let all: Vec<Permit> = (0..2).map(|_| admit(at(1), 1).expect("a permit is free")).collect();
        assert!(admit(at(1), 1).is_none());
        assert!(admit(PermitPool::Jobs, 2).is_some());
        for depth in 2..=bounds::BROADCAST_DEPTH_MAX {
            assert!(admit(at(depth), 7).is_some(), "a large one takes all there is");
        }
        assert_eq!(budget.usage().used.iter().map(|(_, bytes)| bytes).sum::<u64>(), 2 << 20);
        drop(all);
        assert!(admit(at(1), 2).is_some());
        assert_eq!(budget.usage().used.iter().map(|(_, bytes)| bytes).sum::<u64>(), 0);
    }
}
