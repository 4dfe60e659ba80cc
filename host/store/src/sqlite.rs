//! SqliteStore: one host, one file. What was acknowledged is on the disk.
//!
//! Write-ahead log with `synchronous = FULL`, but for claims and renewals; one thread writes, in groups; readers stand beside it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch::Sender as Nudge;
use wharf_core::ids::{JobId, JobIds, NodeId, PluginId, TaskName};
use wharf_core::job::{NewJob, Numbered, Token};
use wharf_core::kv::{Changes, Usage, ValueKey, WantedKeys};
use wharf_core::lease::{Lease, NodeMark};
use wharf_core::letter::Letter;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, Override};
use wharf_core::node::Node;
use wharf_core::time::Timestamp;

use crate::change::recordable;
use crate::clock::Clock;
use crate::roster::Roster;
use crate::store::{
    Claim, Claimed, HeldLog, Inserted, Nudges, OpenError, Page, Recorded, Renewed, Seen, Store, StoreError, Tally,
    Wanted,
};

mod mark;
mod lock;
mod file;
mod watch;
mod rows;
mod room;
mod lanes;
mod claims;
mod read;
mod statements;
mod ledger;
mod takeover;
mod kv;
mod marks;
mod insert;
mod record;
mod claim;
mod readers;
mod checkpoint;
mod writer;
#[cfg(test)]
mod tests;

use checkpoint::Checkpoints;
use claims::Unwritten;
use file::DatabaseFile;
use ledger::Ledger;
use readers::Readers;
use watch::Watch;
use writer::Writer;

/// A durable queue in one SQLite file.
pub struct SqliteStore {
    clock: Arc<dyn Clock>,
    /// Locked for one addition, never across an await.
    ids: Arc<Mutex<JobIds>>,
    nudge: Nudge<u64>,
    roster: Roster,
    /// Jobs that run though their rows do not say so yet.
    unwritten: Arc<Mutex<Unwritten>>,
    watch: Arc<Watch>,
    /// Declared before the writer, and so dropped first: the last one to close the file tidies up its log.
    readers: Readers,
    writer: Writer,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SqliteStore")
    }
}

impl SqliteStore {
    /// Opens the file, or makes it. Leases in it belong to hosts that are gone: they have run out,
    /// and `reclaim` frees them.
    ///
    /// # Errors
    /// When another host uses the file, a newer one wrote it, or it cannot be read and written.
    pub fn open(path: impl AsRef<Path>, clock: Arc<dyn Clock>) -> Result<SqliteStore, OpenError> {
        let path = path.as_ref();
        let file = DatabaseFile::lock(path)?;
        let mut conn = file.writer()?;
        let watch = Arc::new(Watch::over(&file, &conn)?);
        let unusable = |error| mark::mend(path, format!("{error}"));
        let copier = file::copier(file.real()).map_err(unusable)?;
        let checkpoints = Checkpoints::start(&watch, &mut conn, copier).map_err(unusable)?;
        let nudge = Nudge::new(0);
        let readers = Readers::of(&file, watch.clone());
        let with = (clock.clone(), nudge.clone());
        let (writer, opened) = Writer::start(file, conn, checkpoints, watch.clone(), with)?;
        Ok(SqliteStore {
            clock,
            ids: opened.ids,
            nudge,
            roster: Roster::default(),
            unwritten: opened.unwritten,
            watch,
            readers,
            writer,
        })
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn next_id(&self) -> Result<JobId, StoreError> {
        Ok(self.ids.lock().unwrap_or_else(PoisonError::into_inner).next(self.clock.now()))
    }

    async fn insert(&self, jobs: Vec<NewJob>, declared: Arc<LimitTable>) -> Result<Vec<Inserted>, StoreError> {
        let insert = move |ledger: &mut Ledger| {
            let now = ledger.now();
            ledger.declare(&declared);
            jobs.iter().map(|job| ledger.insert(job, now)).collect()
        };
        self.writer.write(insert, |_: &Vec<_>| true).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        let take = move |ledger: &mut Ledger| {
            let now = ledger.now();
            ledger.claim(&claim, now)
        };
        self.writer.write_for_now(take, |claimed| !claimed.leased.is_empty()).await
    }

    async fn record(&self, events: Vec<(JobId, Event)>) -> Result<Vec<Result<Recorded, Refusal>>, StoreError> {
        let record = move |ledger: &mut Ledger| {
            let now = ledger.now();
            let apply = |(id, event): &(JobId, Event)| {
                if recordable(event) { ledger.apply(*id, event, now) } else { Ok(Err(Refusal::Stale)) }
            };
            events.iter().map(apply).collect()
        };
        self.writer.write(record, |_: &Vec<_>| true).await
    }

    async fn leave_behind(
        &self,
        jobs: Vec<NewJob>,
        declared: Arc<LimitTable>,
        changes: Option<Arc<Changes>>,
    ) -> Result<Vec<Inserted>, StoreError> {
        let leave = move |ledger: &mut Ledger| {
            let now = ledger.now();
            ledger.declare(&declared);
            changes.iter().try_for_each(|changes| ledger.change_values(changes))?;
            jobs.iter().map(|job| ledger.insert_child(job, now)).collect()
        };
        self.writer.write(leave, |_: &Vec<_>| true).await
    }

    async fn renew(&self, leases: Vec<Lease>, length: Duration) -> Result<Vec<Renewed>, StoreError> {
        self.writer.write_for_now(move |ledger| ledger.renew_all(&leases, length), |_| false).await
    }

    async fn mark(&self, node: NodeId, mark: NodeMark) -> Result<(), StoreError> {
        let write = move |ledger: &mut Ledger| ledger.write_mark(node, mark);
        self.writer.write(write, |()| false).await
    }

    async fn reclaim(&self, most: u32) -> Result<Vec<JobId>, StoreError> {
        self.writer.write(move |ledger| ledger.reclaim(most), |freed| !freed.is_empty()).await
    }

    async fn known(&self, of: Vec<(TaskName, Token)>) -> Result<Vec<Option<JobId>>, StoreError> {
        self.readers.read(move |conn| of.iter().map(|(task, token)| read::known(conn, task, token)).collect()).await
    }

    async fn job(&self, id: JobId, declared: Arc<LimitTable>) -> Result<Option<Seen>, StoreError> {
        let (now, unwritten) = (self.now(), self.unwritten.clone());
        self.readers.read(move |conn| read::job(conn, &unwritten, id, &declared, now)).await
    }

    async fn jobs(&self, wanted: Wanted) -> Result<Page, StoreError> {
        let unwritten = self.unwritten.clone();
        self.readers.read(move |conn| read::jobs(conn, &unwritten, &wanted)).await
    }

    async fn entries(&self, id: JobId, after: u64, most: u32) -> Result<Vec<Numbered>, StoreError> {
        self.readers.read(move |conn| read::entries(conn, id, after, most)).await
    }

    async fn value(&self, plugin: PluginId, key: ValueKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.readers.read(move |conn| kv::value(conn, &plugin, &key)).await
    }

    async fn value_keys(&self, plugin: PluginId, wanted: WantedKeys) -> Result<Vec<ValueKey>, StoreError> {
        self.readers.read(move |conn| kv::keys(conn, &plugin, &wanted)).await
    }

    async fn usage(&self, plugin: PluginId, of: Vec<ValueKey>) -> Result<(Usage, Vec<Option<u64>>), StoreError> {
        self.readers.read(move |conn| kv::usage(conn, &plugin, &of)).await
    }

    async fn forget(&self, before: Timestamp, most: u32) -> Result<u32, StoreError> {
        self.writer.write(move |ledger| ledger.forget(before, most), |_| false).await
    }

    async fn overrides(&self) -> Result<Vec<Override>, StoreError> {
        self.readers.read(read::overrides).await
    }

    async fn set_override(&self, change: Override) -> Result<(), StoreError> {
        self.writer.write(move |ledger| ledger.set_override(&change), |()| true).await
    }

    async fn tally(&self) -> Result<Tally, StoreError> {
        let (now, unwritten) = (self.now(), self.unwritten.clone());
        self.readers.read(move |conn| read::tally(conn, &unwritten, now)).await
    }

    async fn announce(&self, node: Node, silent: Duration) -> Result<(), StoreError> {
        // A node that has lost its file is not there for anybody, and hears it though it has nothing else to ask.
        self.watch.check()?;
        self.roster.announce(node, silent, self.now());
        Ok(())
    }

    async fn leave(&self, node: NodeId) -> Result<(), StoreError> {
        self.roster.leave(node);
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        Ok(self.roster.all())
    }

    async fn asked_to_end(&self, _node: NodeId) -> Result<Option<Vec<JobId>>, StoreError> {
        Ok(None)
    }

    async fn post(&self, _letters: Vec<Letter>) -> Result<(), StoreError> {
        Err(StoreError::Broken("letters to other nodes, though no other node can use this store".to_owned()))
    }

    async fn collect(&self, _node: NodeId) -> Result<Option<Vec<Letter>>, StoreError> {
        Ok(None)
    }

    fn letters(&self) -> Nudges {
        self.nudges()
    }

    fn held_log(&self) -> Option<HeldLog> {
        checkpoint::held_log(&self.watch)
    }

    fn nudges(&self) -> Nudges {
        self.nudge.subscribe()
    }
}
