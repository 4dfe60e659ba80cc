//! SqliteStore: one host, one file. What was acknowledged is on the disk.
//!
//! Write-ahead log with `synchronous = FULL`, but for claims and renewals; one thread writes, in groups; readers stand beside it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch::Sender as Nudge;
use wharf_core::ids::{JobId, JobIds, NodeId, PluginId, TaskName};
use wharf_core::job::{NewJob, NumberedEntry, Token};
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery, KvUsage};
use wharf_core::lease::{Lease, NodeMark};
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, Override};
use wharf_core::node::Node;
use wharf_core::node_message::NodeMessage;
use wharf_core::time::Timestamp;

use crate::clock::Clock;
use crate::node_list::NodeList;
use crate::store::{
    Claim, Claimed, Inserted, JobFilter, JobPage, JobSnapshot, Nudges, OpenError, PinnedLog, QueueStats, Recorded,
    Renewed, Store, StoreError,
};

mod file_header;
mod lock;
mod file;
mod file_watch;
mod rows;
mod row_padding;
mod lanes;
mod unsynced_claims;
mod read;
mod statements;
mod ledger;
mod recovery;
mod kv;
mod node_marks;
mod insert;
mod record;
mod claim;
mod readers;
mod checkpoint;
mod writer;
#[cfg(test)]
mod tests;

use checkpoint::Checkpoints;
use file::DatabaseFile;
use file_watch::Watch;
use ledger::Ledger;
use readers::Readers;
use unsynced_claims::Unwritten;
use writer::Writer;

/// A durable queue in one SQLite file.
pub struct SqliteStore {
    clock: Arc<dyn Clock>,
    /// Locked for one addition, never across an await.
    ids: Arc<Mutex<JobIds>>,
    nudge: Nudge<u64>,
    roster: NodeList,
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
        let unusable = |error| file_header::mend(path, format!("{error}"));
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
            roster: NodeList::default(),
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
                if event.is_recordable() { ledger.apply(*id, event, now) } else { Ok(Err(Refusal::Stale)) }
            };
            events.iter().map(apply).collect()
        };
        self.writer.write(record, |_: &Vec<_>| true).await
    }

    async fn insert_with_changes(
        &self,
        jobs: Vec<NewJob>,
        declared: Arc<LimitTable>,
        changes: Option<Arc<KvChanges>>,
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

    async fn set_node_mark(&self, node: NodeId, mark: NodeMark) -> Result<(), StoreError> {
        let write = move |ledger: &mut Ledger| ledger.write_mark(node, mark);
        self.writer.write(write, |()| false).await
    }

    async fn reclaim(&self, max: u32) -> Result<Vec<JobId>, StoreError> {
        self.writer.write(move |ledger| ledger.reclaim(max), |freed| !freed.is_empty()).await
    }

    async fn find_by_tokens(&self, of: Vec<(TaskName, Token)>) -> Result<Vec<Option<JobId>>, StoreError> {
        self.readers.read(move |conn| of.iter().map(|(task, token)| read::known(conn, task, token)).collect()).await
    }

    async fn job(&self, id: JobId, declared: Arc<LimitTable>) -> Result<Option<JobSnapshot>, StoreError> {
        let (now, unwritten) = (self.now(), self.unwritten.clone());
        self.readers.read(move |conn| read::job(conn, &unwritten, id, &declared, now)).await
    }

    async fn jobs(&self, wanted: JobFilter) -> Result<JobPage, StoreError> {
        let unwritten = self.unwritten.clone();
        self.readers.read(move |conn| read::jobs(conn, &unwritten, &wanted)).await
    }

    async fn entries(&self, id: JobId, after: u64, max: u32) -> Result<Vec<NumberedEntry>, StoreError> {
        self.readers.read(move |conn| read::entries(conn, id, after, max)).await
    }

    async fn value(&self, plugin: PluginId, key: KvKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.readers.read(move |conn| kv::value(conn, &plugin, &key)).await
    }

    async fn value_keys(&self, plugin: PluginId, wanted: KvKeyQuery) -> Result<Vec<KvKey>, StoreError> {
        self.readers.read(move |conn| kv::keys(conn, &plugin, &wanted)).await
    }

    async fn usage(&self, plugin: PluginId, of: Vec<KvKey>) -> Result<(KvUsage, Vec<Option<u64>>), StoreError> {
        self.readers.read(move |conn| kv::usage(conn, &plugin, &of)).await
    }

    async fn delete_finished(&self, before: Timestamp, max: u32) -> Result<u32, StoreError> {
        self.writer.write(move |ledger| ledger.delete_finished(before, max), |_| false).await
    }

    async fn overrides(&self) -> Result<Vec<Override>, StoreError> {
        self.readers.read(read::overrides).await
    }

    async fn set_override(&self, change: Override) -> Result<(), StoreError> {
        self.writer.write(move |ledger| ledger.set_override(&change), |()| true).await
    }

    async fn stats(&self) -> Result<QueueStats, StoreError> {
        let (now, unwritten) = (self.now(), self.unwritten.clone());
        self.readers.read(move |conn| read::stats(conn, &unwritten, now)).await
    }

    async fn register(&self, node: Node, silent: Duration) -> Result<(), StoreError> {
        // A node that has lost its file is not there for anybody, and hears it though it has nothing else to ask.
        self.watch.check()?;
        self.roster.announce(node, silent, self.now());
        Ok(())
    }

    async fn deregister(&self, node: NodeId) -> Result<(), StoreError> {
        self.roster.leave(node);
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        Ok(self.roster.all())
    }

    async fn cancel_requests(&self, _node: NodeId) -> Result<Option<Vec<JobId>>, StoreError> {
        Ok(None)
    }

    async fn send_messages(&self, _letters: Vec<NodeMessage>) -> Result<(), StoreError> {
        Err(StoreError::Broken("letters to other nodes, though no other node can use this store".to_owned()))
    }

    async fn receive_messages(&self, _node: NodeId) -> Result<Option<Vec<NodeMessage>>, StoreError> {
        Ok(None)
    }

    fn message_nudges(&self) -> Nudges {
        self.nudges()
    }

    fn pinned_log(&self) -> Option<PinnedLog> {
        checkpoint::pinned_log(&self.watch)
    }

    fn nudges(&self) -> Nudges {
        self.nudge.subscribe()
    }
}
