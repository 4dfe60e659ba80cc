//! How many sandboxes there may be at once: in shares, so that neither jobs nor broadcasts take each other's room,
//! and no broadcast waits for one that waits for it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wharf_core::bounds;

/// On whose account a sandbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PermitPool {
    Jobs,
    /// Subscribers: at depth 1 those that a broadcast of a job or of a person calls, at depth 2 those that a subscriber
    /// at depth 1 calls, and so on until `bounds::BROADCAST_DEPTH_MAX`.
    Broadcasts {
        depth: u32,
    },
}

/// The right to one sandbox, as long as this lives.
#[derive(Debug)]
pub struct Permit {
    _permits: OwnedSemaphorePermit,
}

pub(crate) struct PermitPools {
    jobs: Part,
    /// By depth.
    broadcasts: Vec<Part>,
}

/// One share. Whoever waits for it is served in the order of asking.
struct Part {
    size: u32,
    permits: Arc<Semaphore>,
}

/// What is wanted: the sandboxes of jobs, then those of broadcasts by depth.
pub(crate) struct Sizes(Vec<u32>);

impl Sizes {
    pub(crate) fn wanted(attempts: u32, broadcast_calls: u32) -> Sizes {
        let calls = broadcast_calls.clamp(1, bounds::BROADCAST_CALLS_MAX);
        let by_depth = (0..bounds::BROADCAST_DEPTH_MAX).map(|above| (calls >> above).max(1));
        Sizes([attempts.clamp(1, bounds::ATTEMPTS_MAX)].into_iter().chain(by_depth).collect())
    }

    pub(crate) fn sum(&self) -> u32 {
        self.0.iter().sum()
    }

    /// The same in proportion where there is less room; at least one each.
    pub(crate) fn within(&self, room: u32) -> Sizes {
        let sum = u64::from(self.sum());
        if u64::from(room) >= sum {
            return Sizes(self.0.clone());
        }
        let part = |size: &u32| u32::try_from(u64::from(*size) * u64::from(room) / sum).unwrap_or(*size).max(1);
        Sizes(self.0.iter().map(part).collect())
    }
}

impl PermitPools {
    pub(crate) fn new(sizes: &Sizes) -> PermitPools {
        let mut parts =
            sizes.0.iter().map(|size| Part { size: *size, permits: Arc::new(Semaphore::new(*size as usize)) });
        let jobs = parts.next().expect("`Sizes` begins with that of jobs");
        PermitPools { jobs, broadcasts: parts.collect() }
    }

    fn of(&self, share: PermitPool) -> &Part {
        match share {
            PermitPool::Jobs => &self.jobs,
            PermitPool::Broadcasts { depth } => {
                let deepest = self.broadcasts.len() - 1;
                &self.broadcasts[(depth.max(1) as usize - 1).min(deepest)]
            }
        }
    }

    pub(crate) fn size(&self, share: PermitPool) -> u32 {
        self.of(share).size
    }

    /// Waits for room for a sandbox that takes as much as `weight` ordinary ones.
    pub(crate) fn admit(&self, share: PermitPool, weight: u32) -> impl Future<Output = Permit> + Send + use<> {
        let part = self.of(share);
        let (permits, wanted) = (Arc::clone(&part.permits), weight.min(part.size));
        async move { Permit { _permits: permits.acquire_many_owned(wanted).await.expect("never closed") } }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn shares_shrink_in_proportion_and_none_is_empty() {
        let wanted = Sizes::wanted(256, 1024);
        assert_eq!(wanted.0, [256, 1024, 512, 256, 128]);
        assert_eq!(wanted.within(10_000).0, wanted.0);
        assert_eq!(wanted.within(wanted.sum() / 4).0, [64, 256, 128, 64, 32]);
        assert_eq!(wanted.within(64).0, [7, 30, 15, 7, 3]);
        assert_eq!(Sizes::wanted(1, 1).0, [1; 5]);
        assert!(Sizes::wanted(8000, 8000).sum() <= bounds::ATTEMPTS_MAX + 2 * bounds::BROADCAST_CALLS_MAX);
    }

    #[test]
    fn no_share_takes_another_s_room() {
        let shares = PermitPools::new(&Sizes::wanted(2, 2));
        let at = |depth| PermitPool::Broadcasts { depth };
        let all: Vec<Permit> = (0..2).map(|_| shares.admit(at(1), 1).now_or_never().expect("there is room")).collect();
        assert!(shares.admit(at(1), 1).now_or_never().is_none());
        assert!(shares.admit(PermitPool::Jobs, 2).now_or_never().is_some());
        for depth in 2..=bounds::BROADCAST_DEPTH_MAX {
            assert!(shares.admit(at(depth), 7).now_or_never().is_some(), "a large one takes all there is");
        }
        drop(all);
        assert!(shares.admit(at(1), 2).now_or_never().is_some());
    }
}
