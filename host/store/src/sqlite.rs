//! The SQLite store: one host, one file. What was acknowledged is on the disk.
//!
//! It uses a write-ahead log with `synchronous = FULL`, except for claims and renewals. One thread writes, in groups; readers
//! never wait for it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::watch::Sender as Nudge;
use wharf_core::activity::Activity;
use wharf_core::attempt::Attempt;
use wharf_core::audit::NewAct;
use wharf_core::author::Author;
use wharf_core::backlog::Backlog;
use wharf_core::bulk::{BulkOperation, NewOperation, OperationStep};
use wharf_core::failure::{FailureDetails, FailureGroup, FailureState};
use wharf_core::fingerprint::Fingerprint;
use wharf_core::hold::{Hold, HoldScope, NewHold};
use wharf_core::ids::{JobId, JobIds, NodeId, PluginId};
use wharf_core::job::{NewJob, NumberedEntry, UniqueToken};
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery, KvUsage};
use wharf_core::lease::{Lease, NodeMark};
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, Override};
use wharf_core::line_walk::LineWalk;
use wharf_core::node::Node;
use wharf_core::time::Timestamp;

use crate::announced_plugins::AnnouncedPlugins;
use crate::clock::Clock;
use crate::node_list::NodeList;
use crate::store::{
    ActFilter, ActPage, AttemptStore, AuditLog, Claim, Claimed, ExpiredDeleted, ExpiredJobs, FailureFilter,
    FailurePage, FailureStore, FindPage, FindRequest, HoldPage, HoldStore, Inserted, JobFilter, JobFinder, JobPage,
    JobSnapshot, KvStore, NodeMessages, NodeRegistry, Nudges, OpenError, OperationStore, PinnedLog, Queue, QueueStats,
    Recorded, Renewed, StepTaken, Store, StoreError, StoreFiles, StoreSize, by_plugin,
};

mod file_header;
mod lock;
mod file;
mod file_watch;
mod rows;
mod large_values;
mod row_padding;
mod lanes;
mod unsynced_claims;
mod waiting_counts;
mod hold_rows;
mod read;
mod wait_rows;
mod find;
mod backlog;
mod statements;
mod ledger;
mod load_queue;
mod holds;
mod audit;
mod kv;
mod node_marks;
mod attempts;
mod failure_rows;
mod failures;
mod insert;
mod record;
mod expired;
mod operation_waits;
mod operations;
mod schedules;
mod claim;
mod readers;
mod checkpoint;
mod writer;
mod check;
mod backup;
#[cfg(test)]
mod tests;

pub(crate) use backup::{backup_file, restore_file};
pub(crate) use check::check_store_file;
use checkpoint::Checkpoints;
use file::DatabaseFile;
use file_watch::FileWatch;
use ledger::SqliteLedger;
use readers::Readers;
use unsynced_claims::UnsyncedClaims;
use waiting_counts::SharedCounts;
use writer::SqliteWriter;

/// A durable queue in one SQLite file.
pub struct SqliteStore {
    clock: Arc<dyn Clock>,
    /// Locked to make one ID, never across an await.
    ids: Arc<Mutex<JobIds>>,
    nudge: Nudge<u64>,
    nodes: NodeList,
    announced: AnnouncedPlugins,
    unsynced_claims: Arc<Mutex<UnsyncedClaims>>,
    waiting: SharedCounts,
    /// The beginning of the next look at the backlog. Locked to read or to replace it.
    backlog_walk: Arc<Mutex<LineWalk>>,
    watch: Arc<FileWatch>,
    /// Declared before the writer, and so dropped first: the last connection that closes the file removes its log.
    readers: Readers,
    writer: SqliteWriter,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SqliteStore")
    }
}

impl SqliteStore {
    /// Opens the file, or creates it. Leases in it belong to hosts that are gone: they are ended, and `reclaim` frees their
    /// jobs.
    ///
    /// # Errors
    /// If another host uses the file, Wharf 0.1, a newer Wharf or another program wrote it, or it can't be read and written.
    pub fn open(path: impl AsRef<Path>, clock: Arc<dyn Clock>) -> Result<SqliteStore, OpenError> {
        let path = path.as_ref();
        let file = DatabaseFile::lock(path)?;
        let mut conn = file.open_writer()?;
        let watch = Arc::new(FileWatch::new(&file, &conn)?);
        let unusable = |error| file_header::unusable(path, format!("{error}"));
        let checkpointer = file::open_checkpointer(file.real()).map_err(unusable)?;
        let checkpoints = Checkpoints::start(&watch, &mut conn, checkpointer).map_err(unusable)?;
        let nudge = Nudge::new(0);
        let readers = Readers::new(&file, watch.clone());
        let (writer, shared) =
            SqliteWriter::start(file, conn, checkpoints, watch.clone(), (clock.clone(), nudge.clone()))?;
        Ok(SqliteStore {
            clock,
            ids: shared.ids,
            nudge,
            nodes: NodeList::default(),
            announced: AnnouncedPlugins::default(),
            unsynced_claims: shared.unsynced_claims,
            waiting: shared.waiting,
            backlog_walk: Arc::default(),
            watch,
            readers,
            writer,
        })
    }
}

#[async_trait]
impl Queue for SqliteStore {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn next_id(&self) -> Result<JobId, StoreError> {
        Ok(self.ids.lock().unwrap_or_else(PoisonError::into_inner).next(self.clock.now()))
    }

    async fn insert(&self, jobs: Vec<NewJob>, declared: Arc<LimitTable>) -> Result<Vec<Inserted>, StoreError> {
        let insert = move |ledger: &mut SqliteLedger| {
            let now = ledger.now();
            ledger.declare(&declared);
            jobs.iter().map(|job| ledger.insert(job, now)).collect()
        };
        self.writer.write(insert, |_: &Vec<_>| true).await
    }

    async fn insert_with_changes(
        &self,
        jobs: Vec<NewJob>,
        declared: Arc<LimitTable>,
        changes: Option<Arc<KvChanges>>,
    ) -> Result<Vec<Inserted>, StoreError> {
        let insert = move |ledger: &mut SqliteLedger| {
            let now = ledger.now();
            ledger.declare(&declared);
            changes.iter().try_for_each(|changes| ledger.change_values(changes))?;
            jobs.iter().map(|job| ledger.insert_child(job, now)).collect()
        };
        self.writer.write(insert, |_: &Vec<_>| true).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        let lease = move |ledger: &mut SqliteLedger| {
            let now = ledger.now();
            ledger.claim(&claim, now)
        };
        self.writer.write_unsynced(lease, |claimed| !claimed.leased.is_empty()).await
    }

    async fn record(&self, events: Arc<Vec<(JobId, Event)>>) -> Result<Vec<Result<Recorded, Refusal>>, StoreError> {
        let record = move |ledger: &mut SqliteLedger| {
            let now = ledger.now();
            let apply = |(id, event): &(JobId, Event)| {
                if event.is_recordable() { ledger.apply(*id, event, now) } else { Ok(Err(Refusal::Stale)) }
            };
            events.iter().map(apply).collect()
        };
        self.writer.write(record, |_: &Vec<_>| true).await
    }

    async fn renew(&self, leases: Vec<Lease>, length: Duration) -> Result<Vec<Renewed>, StoreError> {
        self.writer.write_unsynced(move |ledger| ledger.renew_all(&leases, length), |_| false).await
    }

    async fn reclaim(&self, max: u32) -> Result<Vec<JobId>, StoreError> {
        self.writer.write(move |ledger| ledger.reclaim(max), |freed| !freed.is_empty()).await
    }

    async fn find_by_tokens(&self, tokens: Vec<UniqueToken>) -> Result<Vec<Option<JobId>>, StoreError> {
        let find = move |conn: &Connection| tokens.iter().map(|token| read::find_by_token(conn, token)).collect();
        self.readers.read(find).await
    }

    async fn job(&self, id: JobId, declared: Arc<LimitTable>) -> Result<Option<JobSnapshot>, StoreError> {
        let (now, claims) = (self.now(), self.unsynced_claims.clone());
        self.readers.read(move |conn| read::job(conn, &claims, id, &declared, now)).await
    }

    async fn jobs(&self, filter: JobFilter) -> Result<JobPage, StoreError> {
        let claims = self.unsynced_claims.clone();
        self.readers.read(move |conn| read::jobs(conn, &claims, &filter)).await
    }

    async fn deleted_of_batch(&self, batch: JobId) -> Result<u64, StoreError> {
        self.readers.read(move |conn| operations::deleted_of_batch(conn, batch)).await
    }

    async fn entries(&self, id: JobId, after: u64, max: u32) -> Result<Vec<NumberedEntry>, StoreError> {
        self.readers.read(move |conn| read::entries(conn, id, after, max)).await
    }

    async fn delete_expired(&self, expired: ExpiredJobs) -> Result<ExpiredDeleted, StoreError> {
        self.writer.write(move |ledger| ledger.delete_expired(&expired), |_| false).await
    }

    async fn overrides(&self) -> Result<Vec<Override>, StoreError> {
        self.readers.read(read::overrides).await
    }

    async fn set_override(&self, change: Override, by: Author) -> Result<(), StoreError> {
        self.writer.write(move |ledger| ledger.set_override(&change, &by), |()| true).await
    }

    async fn waiting_jobs(&self) -> Result<BTreeMap<PluginId, u64>, StoreError> {
        let counts = self.waiting.all();
        self.readers.read(move |conn| read::by_task_name(conn, counts).map(by_plugin)).await
    }

    async fn stats(&self) -> Result<QueueStats, StoreError> {
        let claims = self.unsynced_claims.clone();
        self.readers.read(move |conn| read::stats(conn, &claims)).await
    }

    fn nudges(&self) -> Nudges {
        self.nudge.subscribe()
    }
}

#[async_trait]
impl JobFinder for SqliteStore {
    async fn find(&self, request: FindRequest) -> Result<FindPage, StoreError> {
        let (now, claims) = (self.now(), self.unsynced_claims.clone());
        self.readers.read(move |conn| find::find(conn, &claims, &request, now)).await
    }

    async fn backlog(&self, declared: Arc<LimitTable>, time: Duration) -> Result<Backlog, StoreError> {
        let (now, claims, waiting) = (self.now(), self.unsynced_claims.clone(), self.waiting.all());
        let walk = self.backlog_walk.clone();
        self.readers.read(move |conn| backlog::backlog(conn, &claims, waiting, &walk, (&declared, now, time))).await
    }
}

#[async_trait]
impl OperationStore for SqliteStore {
    async fn start_operation(
        &self,
        new: NewOperation,
        declared: Arc<LimitTable>,
    ) -> Result<Option<BulkOperation>, StoreError> {
        self.writer.write(move |ledger| ledger.start_operation(&new, &declared), |_| true).await
    }

    async fn operation(&self, id: JobId) -> Result<Option<BulkOperation>, StoreError> {
        self.readers.read(move |conn| operations::operation(conn, id)).await
    }

    async fn operations(&self, before: Option<JobId>, max: u32) -> Result<Vec<BulkOperation>, StoreError> {
        self.readers.read(move |conn| operations::page(conn, before, max)).await
    }

    async fn open_operations(&self) -> Result<Vec<BulkOperation>, StoreError> {
        self.readers.read(operations::open).await
    }

    async fn take_operation_step(&self, step: OperationStep) -> Result<Option<StepTaken>, StoreError> {
        self.writer.write(move |ledger| ledger.take_operation_step(&step), Option::is_some).await
    }

    async fn cancel_operation(&self, id: JobId, by: Author) -> Result<Option<BulkOperation>, StoreError> {
        self.writer.write(move |ledger| ledger.cancel_operation(id, &by), |_| false).await
    }

    async fn delete_ended_operations(&self, before: Timestamp, max: u32) -> Result<u32, StoreError> {
        self.writer.write(move |ledger| ledger.delete_ended_operations(before, max), |_| false).await
    }
}

#[async_trait]
impl HoldStore for SqliteStore {
    async fn set_hold(&self, hold: NewHold) -> Result<Option<Hold>, StoreError> {
        self.writer.write(move |ledger| ledger.set_hold(&hold), |_| true).await
    }

    async fn release_hold(&self, scope: HoldScope, by: Author) -> Result<Option<Hold>, StoreError> {
        self.writer.write(move |ledger| ledger.release_hold(&scope, &by), |_| true).await
    }

    async fn holds(&self, after: Option<HoldScope>, max: u32) -> Result<HoldPage, StoreError> {
        let now = self.now();
        self.readers.read(move |conn| hold_rows::page(conn, after.as_ref(), max, now)).await
    }

    async fn holds_of(&self, scopes: Vec<HoldScope>) -> Result<Vec<Hold>, StoreError> {
        let now = self.now();
        self.readers.read(move |conn| hold_rows::of_scopes(conn, &scopes, now)).await
    }

    async fn delete_ended_holds(&self, max: u32) -> Result<u32, StoreError> {
        self.writer.write(move |ledger| ledger.delete_ended_holds(max), |_| false).await
    }
}

#[async_trait]
impl AuditLog for SqliteStore {
    async fn change_job(&self, id: JobId, event: Event, by: Author) -> Result<Result<Recorded, Refusal>, StoreError> {
        self.writer.write(move |ledger| ledger.change_job(id, &event, &by), |_| true).await
    }

    async fn add_act(&self, act: NewAct) -> Result<(), StoreError> {
        self.writer.write(move |ledger| ledger.write_act(&act), |()| false).await
    }

    async fn acts(&self, filter: ActFilter) -> Result<ActPage, StoreError> {
        self.readers.read(move |conn| audit::page(conn, &filter)).await
    }

    async fn delete_acts(&self, before: Timestamp, max: u32) -> Result<u32, StoreError> {
        self.writer.write(move |ledger| ledger.delete_acts(before, max), |_| false).await
    }
}

#[async_trait]
impl AttemptStore for SqliteStore {
    async fn attempts(&self, id: JobId) -> Result<Vec<Attempt>, StoreError> {
        self.readers.read(move |conn| attempts::of_job(conn, id)).await
    }
}

#[async_trait]
impl FailureStore for SqliteStore {
    async fn failures(&self, filter: FailureFilter) -> Result<FailurePage, StoreError> {
        self.readers.read(move |conn| failure_rows::page(conn, &filter)).await
    }

    async fn failure_details(&self, fingerprint: Fingerprint) -> Result<Option<FailureDetails>, StoreError> {
        self.readers.read(move |conn| failure_rows::details(conn, fingerprint)).await
    }

    async fn set_failure_state(
        &self,
        fingerprint: Fingerprint,
        state: FailureState,
        by: Author,
    ) -> Result<Option<FailureGroup>, StoreError> {
        self.writer.write(move |ledger| ledger.set_failure_state(fingerprint, state, &by), |_| false).await
    }

    async fn delete_failures(&self, before: Timestamp, max: u32) -> Result<u32, StoreError> {
        self.writer.write(move |ledger| ledger.delete_failures(before, max), |_| false).await
    }
}

#[async_trait]
impl KvStore for SqliteStore {
    async fn value(&self, plugin: PluginId, key: KvKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.readers.read(move |conn| kv::value(conn, &plugin, &key)).await
    }

    async fn value_keys(&self, plugin: PluginId, query: KvKeyQuery) -> Result<Vec<KvKey>, StoreError> {
        self.readers.read(move |conn| kv::keys(conn, &plugin, &query)).await
    }

    async fn usage(&self, plugin: PluginId, keys: Vec<KvKey>) -> Result<(KvUsage, Vec<Option<u64>>), StoreError> {
        self.readers.read(move |conn| kv::usage(conn, &plugin, &keys)).await
    }
}

#[async_trait]
impl NodeRegistry for SqliteStore {
    async fn register(&self, node: Node, silent: Duration) -> Result<(), StoreError> {
        // A node that has lost its file must not be listed, and gets the error here even if it calls nothing else.
        self.watch.check()?;
        let new = self.announced.new_of(&node);
        self.nodes.announce(node.clone(), silent, self.now());
        if !new.is_empty() {
            let note = move |ledger: &mut SqliteLedger| {
                let now = ledger.now();
                new.iter().try_for_each(|digest| ledger.see_digest(digest, now).map(drop))
            };
            self.writer.write(note, |()| false).await?;
            self.announced.stored(&node);
        }
        Ok(())
    }

    async fn deregister(&self, node: NodeId) -> Result<(), StoreError> {
        self.nodes.leave(node);
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        Ok(self.nodes.all())
    }

    async fn set_activity(&self, node: NodeId, activity: Arc<Activity>) -> Result<(), StoreError> {
        self.nodes.set_activity(node, activity);
        Ok(())
    }

    async fn activities(&self) -> Result<Vec<(NodeId, Arc<Activity>)>, StoreError> {
        Ok(self.nodes.activities())
    }

    async fn set_node_mark(&self, node: NodeId, mark: NodeMark) -> Result<(), StoreError> {
        let write = move |ledger: &mut SqliteLedger| ledger.write_mark(node, mark);
        self.writer.write(write, |()| false).await
    }
}

impl Store for SqliteStore {
    fn messages(&self) -> Option<&dyn NodeMessages> {
        None
    }

    fn pinned_log(&self) -> Option<PinnedLog> {
        checkpoint::pinned_log(&self.watch)
    }
}

#[async_trait]
impl StoreFiles for SqliteStore {
    async fn size(&self) -> Result<StoreSize, StoreError> {
        let (bytes, log_bytes) = self.watch.sizes();
        Ok(StoreSize { bytes, log_bytes: Some(log_bytes) })
    }

    async fn seal_key(&self) -> Result<[u8; 32], StoreError> {
        self.readers.read(read::seal_key).await
    }
}
