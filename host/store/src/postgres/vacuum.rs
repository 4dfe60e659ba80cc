//! Makes the space of deleted jobs free for new ones.
//!
//! The server does so by itself, but looks at a table once a minute at most: where few jobs are kept and many come, their tables
//! grow to what comes in that time.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use tracing::{debug, warn};

use super::session::Sessions;

/// Number of deleted jobs after which their tables are cleaned.
const DELETED_EACH: u64 = 20_000;

/// Never waits for a lock, and leaves the ends of the tables alone, for which it would need one that stops every host.
const VACUUM: &str =
    "VACUUM (SKIP_LOCKED, TRUNCATE FALSE) $schema.jobs, $schema.finished, $schema.entries, $schema.attempts";

/// Counts deleted jobs.
#[derive(Debug, Default)]
pub(super) struct Vacuum {
    deleted: AtomicU64,
    is_due: Notify,
}

impl Vacuum {
    /// Notes that jobs were deleted.
    pub(super) fn deleted(&self, jobs: u64) {
        let before = self.deleted.fetch_add(jobs, Ordering::Relaxed);
        if before + jobs >= DELETED_EACH {
            self.deleted.store(0, Ordering::Relaxed);
            self.is_due.notify_one();
        }
    }

    /// Cleans the tables each time that many jobs were deleted, for as long as the store is open. `sessions` are its own: reads and writes must
    /// not wait for a connection while large tables are cleaned.
    pub(super) async fn run(&self, sessions: &Sessions, address: &str) {
        let mut is_told = false;
        loop {
            self.is_due.notified().await;
            let cleaned = async {
                let session = sessions.session().await?;
                let cleaned = session.execute(VACUUM).await;
                // Seldom needed: others can have the connection meanwhile.
                session.discard();
                cleaned
            };
            match cleaned.await {
                Ok(()) => is_told = false,
                Err(error) if is_told => debug!("could not clean the tables of jobs in {address}: {error}"),
                Err(error) => {
                    is_told = true;
                    warn!(
                        "could not clean the tables of jobs in {address}, so they may grow until the server does: {error}; the role of the \
                         address must own the tables"
                    );
                }
            }
        }
    }
}
