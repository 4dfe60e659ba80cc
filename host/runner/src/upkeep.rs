//! Frees what dead nodes held, and forgets what is old. The normal path never waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::ids::JobId;
use wharf_store::{Store, StoreError};

use crate::notice::Notice;
use crate::shared::Shared;

/// How soon after its end an expired lease is found.
const LOOKS_PER_LEASE: u32 = 3;

/// How often, and how long finished jobs are kept.
#[derive(Clone, Copy)]
pub(crate) struct Upkeep {
    pub(crate) lease: Duration,
    pub(crate) interval: Duration,
    pub(crate) keep_finished: Duration,
}

/// What one round did.
#[derive(Debug, Default)]
struct Done {
    reclaimed: Vec<JobId>,
    forgotten: u64,
}

/// One round; `keep` of `None` forgets nothing.
pub(crate) async fn run_once(shared: &Shared, keep: Option<Duration>) -> Result<(), StoreError> {
    let began = Instant::now();
    let mut done = Done::default();
    let round = async {
        reclaim(&shared.store, &mut done).await?;
        match keep {
            Some(keep) => forget(&shared.store, keep, &mut done).await,
            None => Ok(()),
        }
    };
    let result = shared.ask_at_length("keeping up", round).await;
    done.reclaimed.iter().for_each(|job| shared.followers.wake(*job));
    if keep.is_some() || !done.reclaimed.is_empty() {
        let (reclaimed, forgotten) = (done.reclaimed.len() as u64, done.forgotten);
        (shared.tell)(&Notice::Upkeep { reclaimed, forgotten, took: began.elapsed() });
    }
    result
}

/// Leases that ran out are looked for as often as they may run out, which is cheap; old jobs once per interval.
pub(crate) async fn tick(shared: Shared, upkeep: Upkeep, stopping: CancellationToken) {
    let round = (upkeep.lease / LOOKS_PER_LEASE).min(upkeep.interval);
    let mut forgot = Instant::now();
    while stopping.run_until_cancelled(tokio::time::sleep(round)).await.is_some() {
        let due = forgot.elapsed() >= upkeep.interval;
        // What failed was told, and is tried again in the next round.
        if run_once(&shared, due.then_some(upkeep.keep_finished)).await.is_ok() && due {
            forgot = Instant::now();
        }
    }
}

/// Ends every lease that has run out, in batches, so that no transaction is long.
async fn reclaim(store: &Arc<dyn Store>, done: &mut Done) -> Result<(), StoreError> {
    loop {
        let freed = store.reclaim(bounds::UPKEEP_BATCH).await?;
        let last = freed.len() < bounds::UPKEEP_BATCH as usize;
        done.reclaimed.extend(freed);
        if last {
            return Ok(());
        }
    }
}

/// Removes every job that finished longer than `keep` ago, in batches.
async fn forget(store: &Arc<dyn Store>, keep: Duration, done: &mut Done) -> Result<(), StoreError> {
    let before = store.now() - keep;
    loop {
        let removed = store.delete_finished(before, bounds::UPKEEP_BATCH).await?;
        done.forgotten += u64::from(removed);
        if removed < bounds::UPKEEP_BATCH {
            return Ok(());
        }
    }
}
