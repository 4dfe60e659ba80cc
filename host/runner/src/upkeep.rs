//! Ends the leases of dead nodes, and deletes old jobs, old acts, old failure groups, and holds and operations that have ended.
//! The normal path never waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::clock_watch::ClockWatch;
use wharf_core::ids::JobId;
use wharf_core::keep::KeepWalks;
use wharf_store::{ExpiredJobs, JobFilter, StoreError};

use crate::failed_jobs::FailedJobs;
use crate::follow::Followers;
use crate::notice::{Listener, Notice};
use crate::plugin_view::PluginIndex;
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
    /// The settings say how long finished jobs are kept.
    pub(crate) plugins: Arc<PluginIndex>,
    pub(crate) walks: KeepWalks,
    pub(crate) clock: ClockWatch,
    pub(crate) started: Instant,
}

/// Result of one round.
#[derive(Debug, Default)]
struct Round {
    reclaimed: Vec<JobId>,
    deleted: u64,
}

impl Upkeep {
    /// Runs rounds until the host stops. The first one deletes old jobs at once. Expired leases are looked up as often as they may expire,
    /// which is cheap; old jobs once per interval.
    pub(crate) async fn run(mut self, stopping: CancellationToken) {
        // A failure was reported by the call; the next round tries again.
        let _ = stopping.run_until_cancelled(self.run_once(true)).await;
        let pause = (self.lease / ROUNDS_PER_LEASE).min(self.interval);
        let mut deleted_at = Instant::now();
        while stopping.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let due = deleted_at.elapsed() >= self.interval;
            if self.run_once(due).await.is_ok() && due {
                deleted_at = Instant::now();
            }
        }
    }

    /// Runs one round, which deletes what is old if `deletes` and the clock is not doubted.
    ///
    /// # Errors
    ///
    /// Returns the store's error. What was done before stays done.
    pub(crate) async fn run_once(&mut self, deletes: bool) -> Result<(), StoreError> {
        let started = Instant::now();
        let (mut done, mut walks, mut clock) =
            (Round::default(), std::mem::take(&mut self.walks), std::mem::take(&mut self.clock));
        let round = async {
            self.reclaim(&mut done).await?;
            if !deletes || !self.believes(&mut clock).await? {
                return Ok(());
            }
            self.delete_expired(&mut walks, &mut done).await?;
            self.delete_ended_holds().await?;
            self.delete_old_acts().await?;
            self.delete_old_failures().await?;
            self.delete_ended_operations().await
        };
        let result = self.store.call_slow("upkeep", round).await;
        (self.walks, self.clock) = (walks, clock);
        for job in &done.reclaimed {
            self.followers.wake(*job);
            self.failed.reclaimed(*job);
        }
        if deletes || !done.reclaimed.is_empty() {
            let (reclaimed, deleted) = (done.reclaimed.len() as u64, done.deleted);
            self.listener.notify(&Notice::Upkeep { reclaimed, deleted, took: started.elapsed() });
        }
        result
    }

    /// Returns true if the clock is believed, so that what is old by it may be deleted. A clock may be ahead until it is set right, as that of a
    /// machine without a battery is.
    async fn believes(&self, clock: &mut ClockWatch) -> Result<bool, StoreError> {
        let newest = self.store.jobs(JobFilter { max: 1, ..JobFilter::default() }).await?;
        let now = self.store.now();
        let old = now - self.plugins.catalog().settings().keep_rules().doubtful_age();
        let is_all_old = newest.jobs.first().is_some_and(|job| job.enqueued_at < old);
        if let Some(why) = clock.look(now, self.started.elapsed(), is_all_old) {
            self.listener.notify(&Notice::ClockDoubted { why });
        }
        Ok(!clock.is_doubted())
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

    /// Deletes every finished job that was kept long enough, in batches.
    async fn delete_expired(&self, walks: &mut KeepWalks, done: &mut Round) -> Result<(), StoreError> {
        let rules = Arc::new(self.plugins.catalog().settings().keep_rules());
        for walk in walks.round(&rules, self.store.now()) {
            let (before, max) = (walk.before, bounds::UPKEEP_BATCH);
            let mut from = (walk.from, None);
            loop {
                let jobs = ExpiredJobs { rules: Arc::clone(&rules), from, before, max };
                let result = self.store.delete_expired(jobs).await?;
                done.deleted += u64::from(result.deleted);
                match result.next {
                    Some(next) => from = next,
                    None => break,
                }
            }
            walks.ended(&walk);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use wharf_core::author::Author;
    use wharf_core::clock_watch::ClockDoubt;
    use wharf_core::ids::TaskName;
    use wharf_core::job::NewJob;
    use wharf_core::lifecycle::Event;
    use wharf_core::time::Timestamp;
    use wharf_engine::Budget;
    use wharf_store::{Clock, MemoryStore, Store};

    use super::*;
    use crate::live_settings::LiveSettings;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    struct HandClock(AtomicU64);

    impl Clock for HandClock {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0.load(Ordering::SeqCst))
        }
    }

    #[tokio::test]
    async fn a_clock_that_would_have_everything_deleted_is_not_believed_at_once() {
        let clock = Arc::new(HandClock(AtomicU64::new(2_000_000_000_000)));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::open(clock.clone()));
        let task: TaskName = "a/b".parse().unwrap();
        let job = NewJob::ready(store.next_id().unwrap(), task, None, [].into());
        store.insert(vec![job.clone()], Arc::default()).await.unwrap();
        store.change_job(job.id, Event::CancelRequested, Author::anyone()).await.unwrap().unwrap();
        let doubts = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&doubts);
        let listener = Listener::new(move |notice| {
            if let Notice::ClockDoubted { why } = notice {
                heard.lock().unwrap().push(*why);
            }
        });
        let watched = WatchedStore::new(store.clone(), DAY, listener.clone());
        let new = || Upkeep {
            store: watched.clone(),
            followers: Arc::new(Followers::new(Budget::new(1 << 30))),
            listener: listener.clone(),
            failed: FailedJobs::new(watched.clone(), listener.clone()).0,
            lease: DAY,
            interval: DAY,
            plugins: Arc::new(PluginIndex::new(LiveSettings::default())),
            walks: KeepWalks::default(),
            clock: ClockWatch::default(),
            started: Instant::now(),
        };
        let is_there = async || store.job_summary(job.id).await.unwrap().is_some();
        let pass = |length: Duration| clock.0.fetch_add(length.as_millis() as u64, Ordering::SeqCst);

        pass(6 * DAY);
        let mut upkeep = new();
        upkeep.run_once(true).await.unwrap();
        assert!(is_there().await && doubts.lock().unwrap().is_empty(), "it is kept for seven days");
        // The clock goes ahead while the host runs.
        pass(3650 * DAY);
        upkeep.run_once(true).await.unwrap();
        upkeep.run_once(true).await.unwrap();
        assert!(is_there().await);
        let first = doubts.lock().unwrap().pop();
        assert!(matches!(first, Some(ClockDoubt::WentAhead(ahead)) if ahead > 3649 * DAY), "{first:?}");
        // A host that starts with that clock does not believe it either, until enough time has passed.
        let mut upkeep = new();
        upkeep.run_once(true).await.unwrap();
        assert!(is_there().await);
        assert_eq!(doubts.lock().unwrap().pop(), Some(ClockDoubt::AllIsOld));
        pass(bounds::CLOCK_DOUBTED);
        upkeep.clock.look(watched.now(), bounds::CLOCK_DOUBTED + Duration::from_secs(60), true);
        upkeep.run_once(true).await.unwrap();
        assert!(!is_there().await, "it stood still, and the clock is right");
    }
}
