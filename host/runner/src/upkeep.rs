//! Ends the leases of dead nodes, and deletes old jobs, old acts, old failure groups, and holds and operations that have ended.
//! The normal path never waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::ids::JobId;
use wharf_store::StoreError;

use crate::failed_jobs::FailedJobs;
use crate::follow::Followers;
use crate::notice::{Listener, Notice};
use crate::store_health::WatchedStore;

/// Number of rounds in the length of a lease: an expired lease is found within one of them.
const ROUNDS_PER_LEASE: u32 = 3;

/// The upkeep of a host, in rounds.
pub(crate) struct Upkeep {
    pub(crate) store: WatchedStore,
    pub(crate) followers: Arc<Followers>,
    pub(crate) listener: Listener,
    /// Takes the jobs whose leases had expired: some have failed by that.
    pub(crate) failed: FailedJobs,
    /// The length of a lease.
    pub(crate) lease: Duration,
    /// Interval at which finished jobs are deleted.
    pub(crate) interval: Duration,
    /// Time for which finished jobs are kept.
    pub(crate) keep_finished: Duration,
}

/// Result of one round.
#[derive(Debug, Default)]
struct Round {
    reclaimed: Vec<JobId>,
    deleted: u64,
}

impl Upkeep {
    /// Runs rounds until the host stops. The first one deletes old jobs at once. Expired leases are looked up as often as
    /// they may expire, which is cheap; old jobs once per interval.
    pub(crate) async fn run(self, stopping: CancellationToken) {
        // A failure was reported by the call; the next round tries again.
        let _ = stopping.run_until_cancelled(self.run_once(Some(self.keep_finished))).await;
        let pause = (self.lease / ROUNDS_PER_LEASE).min(self.interval);
        let mut deleted_at = Instant::now();
        while stopping.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let due = deleted_at.elapsed() >= self.interval;
            if self.run_once(due.then_some(self.keep_finished)).await.is_ok() && due {
                deleted_at = Instant::now();
            }
        }
    }

    /// Runs one round, which deletes jobs that finished longer than `keep` ago; none if `keep` is `None`.
    ///
    /// # Errors
    ///
    /// Returns the store's error. What was done before stays done.
    pub(crate) async fn run_once(&self, keep: Option<Duration>) -> Result<(), StoreError> {
        let started = Instant::now();
        let mut done = Round::default();
        let round = async {
            self.reclaim(&mut done).await?;
            match keep {
                Some(keep) => {
                    self.delete_finished(keep, &mut done).await?;
                    self.delete_ended_holds().await?;
                    self.delete_old_acts().await?;
                    self.delete_old_failures().await?;
                    self.delete_ended_operations().await
                }
                None => Ok(()),
            }
        };
        let result = self.store.call_slow("upkeep", round).await;
        for job in &done.reclaimed {
            self.followers.wake(*job);
            self.failed.reclaimed(*job).await;
        }
        if keep.is_some() || !done.reclaimed.is_empty() {
            let (reclaimed, deleted) = (done.reclaimed.len() as u64, done.deleted);
            self.listener.notify(&Notice::Upkeep { reclaimed, deleted, took: started.elapsed() });
        }
        result
    }

    /// Ends every expired lease, in batches, so that no transaction is long.
    async fn reclaim(&self, done: &mut Round) -> Result<(), StoreError> {
        loop {
            let reclaimed = self.store.reclaim(bounds::UPKEEP_BATCH).await?;
            let last = reclaimed.len() < bounds::UPKEEP_BATCH as usize;
            done.reclaimed.extend(reclaimed);
            if last {
                return Ok(());
            }
        }
    }

    /// Deletes every bulk operation that ended long ago, in batches.
    async fn delete_ended_operations(&self) -> Result<(), StoreError> {
        let before = self.store.now() - bounds::OPERATIONS_KEPT;
        while self.store.delete_ended_operations(before, bounds::UPKEEP_BATCH).await? == bounds::UPKEEP_BATCH {}
        Ok(())
    }

    /// Deletes every hold that has ended, in batches.
    async fn delete_ended_holds(&self) -> Result<(), StoreError> {
        while self.store.delete_ended_holds(bounds::UPKEEP_BATCH).await? == bounds::UPKEEP_BATCH {}
        Ok(())
    }

    /// Deletes every act that is older than `bounds::AUDIT_KEPT`, in batches.
    async fn delete_old_acts(&self) -> Result<(), StoreError> {
        let before = self.store.now() - bounds::AUDIT_KEPT;
        while self.store.delete_acts(before, bounds::UPKEEP_BATCH).await? == bounds::UPKEEP_BATCH {}
        Ok(())
    }

    /// Deletes every failure group that failed last too long ago, in batches.
    async fn delete_old_failures(&self) -> Result<(), StoreError> {
        let before = self.store.now() - bounds::KEEP_FAILURE_GROUPS;
        while self.store.delete_failures(before, bounds::UPKEEP_BATCH).await? == bounds::UPKEEP_BATCH {}
        Ok(())
    }

    /// Deletes every job that finished longer than `keep` ago, in batches.
    async fn delete_finished(&self, keep: Duration, done: &mut Round) -> Result<(), StoreError> {
        let before = self.store.now() - keep;
        loop {
            let deleted = self.store.delete_finished(before, bounds::UPKEEP_BATCH).await?;
            done.deleted += u64::from(deleted);
            if deleted < bounds::UPKEEP_BATCH {
                return Ok(());
            }
        }
    }
}
