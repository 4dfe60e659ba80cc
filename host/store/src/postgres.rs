//! A store in PostgreSQL: any number of hosts share one database. A write that was acknowledged is committed.
//!
//! Each host has one writer that commits operations in groups; the locks of limit groups put the writers of all hosts in order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use wharf_core::author::Author;
use wharf_core::backlog::Backlog;
use wharf_core::ids::{JobId, PluginId};
use wharf_core::job::{NewJob, NumberedEntry, UniqueToken};
use wharf_core::kv::KvChanges;
use wharf_core::lease::Lease;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, Override};
use wharf_core::line_walk::LineWalk;
use wharf_core::time::Timestamp;

use crate::announced_plugins::AnnouncedPlugins;
use crate::clock::Clock;
use crate::store::{
    Claim, Claimed, ExpiredDeleted, ExpiredJobs, FindPage, FindRequest, Inserted, JobFilter, JobFinder, JobPage,
    JobSnapshot, NodeMessages, Nudges, OpenError, Queue, QueueStats, Recorded, Renewed, Store, StoreError, StoreFiles,
    StoreSize, by_plugin,
};

mod address;
mod tls;
mod prepared;
mod session;
mod unnest;
mod rows;
mod time;
mod id_source;
mod node_marks;
mod schema;
mod operation;
mod lane_rows;
mod job_row;
mod running_cache;
mod read_set;
mod hold_rows;
mod read;
mod wait_rows;
mod find;
mod backlog;
mod kv;
mod waiting_rows;
mod running_rows;
mod write_set;
mod line_updates;
mod ready_rows;
mod job_updates;
mod attempts;
mod plugin_digests;
mod failure_rows;
mod failures;
mod ledger;
mod apply;
mod overrides;
mod holds;
mod audit;
mod insert;
mod record;
mod operation_waits;
mod operations;
mod schedules;
mod claim_snapshot;
mod claim;
mod lease;
mod expired;
mod vacuum;
mod task_announcements;
mod activity_text;
mod nodes;
mod messages;
mod nudge;
mod writer;
mod check;
#[cfg(test)]
#[path = "../../../tests/harness/postgres.rs"]
#[expect(dead_code, reason = "the tests from outside do more with a server")]
mod test_server;

use address::Address;
pub(crate) use check::{check, schema_of};
use id_source::IdSource;
use nudge::Nudger;
use operation::{WriteRequest, WriteResult};
use session::{RESPONSE_TIMEOUT, Session, SessionError, Sessions};
use time::Time;
use vacuum::Vacuum;
use writer::{PostgresWriter, WriterContext};

/// A durable queue in a PostgreSQL database, shared by any number of hosts.
pub struct PostgresStore {
    /// Connections for urgent work: the writer, renewals.
    sessions: Sessions,
    /// Connections for reading: however many reads wait for these, no lease is lost because of them.
    readers: Sessions,
    time: Time,
    source: Arc<IdSource>,
    nudger: Arc<Nudger>,
    announced: AnnouncedPlugins,
    writer: PostgresWriter,
    /// The address without its password, for errors.
    address: String,
    vacuum: Arc<Vacuum>,
    /// The beginning of the next look at the backlog. Locked to read or to replace it, never across an await.
    backlog_walk: Arc<Mutex<LineWalk>>,
    _tasks: BackgroundTasks,
}

/// The number of connections for writing, renewing and nudging others.
const URGENT_CONNECTIONS: usize = 4;

/// Tasks that end with the store.
struct BackgroundTasks(Vec<tokio::task::JoinHandle<()>>);

impl Drop for BackgroundTasks {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PostgresStore")
    }
}

impl PostgresStore {
    /// Opens the store at a `postgres://` address, and makes its tables if there are none. Its clock is the database's.
    ///
    /// # Errors
    /// If the address is invalid, the server can't be reached or rejects the user, or the schema holds anything but tables
    /// that this version can use.
    pub async fn open(address: &str) -> Result<PostgresStore, OpenError> {
        PostgresStore::with_time(address, Time::database()).await
    }

    /// Opens the store at a `postgres://` address with another clock than the database's, for tests that set the time by hand.
    ///
    /// # Errors
    /// Those of [`open`](PostgresStore::open).
    pub async fn open_with_clock(address: &str, clock: Arc<dyn Clock>) -> Result<PostgresStore, OpenError> {
        PostgresStore::with_time(address, Time::Manual(clock)).await
    }

    async fn with_time(address: &str, time: Time) -> Result<PostgresStore, OpenError> {
        let address = Address::parse(address)?;
        let sessions = Sessions::new(&address, URGENT_CONNECTIONS)?;
        let readers = Sessions::new(&address, address.pool)?;
        schema::prepare(&sessions, &address).await?;
        let source = IdSource::acquire(&sessions, &time).await.map_err(|error| schema::open_error(&error, &address))?;
        let source = Arc::new(source);
        let nudger = Arc::new(Nudger::new(&address, format!("{:016x}", fastrand::u64(..))));
        let context = WriterContext {
            sessions: sessions.clone(),
            time: time.clone(),
            source: source.clone(),
            nudger: nudger.clone(),
            address: address.redacted.clone(),
        };
        let vacuum = Arc::new(Vacuum::default());
        let mut tasks = vec![
            tokio::spawn({
                let (vacuum, sessions) = (Arc::clone(&vacuum), Sessions::new(&address, 1)?);
                let address = address.redacted.clone();
                async move { vacuum.run(&sessions, &address).await }
            }),
            tokio::spawn(nudge::send_nudges(nudger.clone(), sessions.clone(), address.listen)),
            tokio::spawn(id_source::keep_renewed(source.clone(), sessions.clone(), time.clone())),
        ];
        if address.listen {
            tasks.push(tokio::spawn(nudge::receive_nudges(nudger.clone(), address.clone())));
        }
        let writer = PostgresWriter::start(context);
        let (address, _tasks) = (address.redacted, BackgroundTasks(tasks));
        Ok(PostgresStore {
            sessions,
            readers,
            time,
            source,
            nudger,
            announced: AnnouncedPlugins::default(),
            writer,
            address,
            vacuum,
            backlog_walk: Arc::default(),
            _tasks,
        })
    }

    async fn write(&self, request: WriteRequest) -> Result<WriteResult, StoreError> {
        self.writer.write(request).await
    }

    async fn write_jobs(&self, request: WriteRequest) -> Result<Vec<Inserted>, StoreError> {
        match self.write(request).await? {
            WriteResult::Inserted(inserted) => Ok(inserted),
            other => Err(unexpected_reply(&other)),
        }
    }

    /// Returns a session for urgent work.
    async fn session(&self) -> Result<Session, StoreError> {
        self.sessions.session().await.map_err(|error| self.store_error(&error))
    }

    /// Runs a small and urgent query, with a time limit for the response.
    async fn urgent<T>(&self, query: impl AsyncFnOnce(&Session) -> Result<T, SessionError>) -> Result<T, StoreError> {
        let session = self.session().await?;
        let result = tokio::time::timeout(RESPONSE_TIMEOUT, query(&session)).await;
        let result = result.unwrap_or_else(|_| Err(SessionError::timed_out()));
        self.finish(session, result)
    }

    /// Returns a session for reading.
    async fn reader(&self) -> Result<Session, StoreError> {
        self.readers.session().await.map_err(|error| self.store_error(&error))
    }

    fn store_error(&self, error: &SessionError) -> StoreError {
        error.store_error(&self.address)
    }

    /// Returns the result of a query. A session whose query failed does not go back to the pool.
    fn finish<T>(&self, session: Session, result: Result<T, SessionError>) -> Result<T, StoreError> {
        result.map_err(|error| {
            session.discard();
            self.store_error(&error)
        })
    }
}

/// Returns the error for a result of the writer that does not fit the request: a bug.
fn unexpected_reply(result: &WriteResult) -> StoreError {
    StoreError::Broken(format!("the writer returned a result of another operation: {result:?}"))
}

#[async_trait]
impl Queue for PostgresStore {
    fn now(&self) -> Timestamp {
        self.time.now()
    }

    fn next_id(&self) -> Result<JobId, StoreError> {
        self.source.next(self.time.now()).map_err(|error| self.store_error(&error))
    }

    async fn insert(&self, jobs: Vec<NewJob>, declared: Arc<LimitTable>) -> Result<Vec<Inserted>, StoreError> {
        self.write_jobs(WriteRequest::Insert(jobs, declared)).await
    }

    async fn insert_with_changes(
        &self,
        jobs: Vec<NewJob>,
        declared: Arc<LimitTable>,
        changes: Option<Arc<KvChanges>>,
    ) -> Result<Vec<Inserted>, StoreError> {
        self.write_jobs(WriteRequest::InsertWithChanges(jobs, declared, changes)).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        match self.write(WriteRequest::Claim(claim)).await? {
            WriteResult::Claimed(claimed) => Ok(claimed),
            other => Err(unexpected_reply(&other)),
        }
    }

    async fn record(&self, events: Arc<Vec<(JobId, Event)>>) -> Result<Vec<Result<Recorded, Refusal>>, StoreError> {
        match self.write(WriteRequest::Record(events, None)).await? {
            WriteResult::Recorded(recorded) => Ok(recorded),
            other => Err(unexpected_reply(&other)),
        }
    }

    async fn renew(&self, leases: Vec<Lease>, length: Duration) -> Result<Vec<Renewed>, StoreError> {
        self.urgent(async |session| lease::renew(session, &self.time, &leases, length).await).await
    }

    async fn reclaim(&self, max: u32) -> Result<Vec<JobId>, StoreError> {
        let session = self.session().await?;
        let expired = async {
            lease::shorten_after_clock_jump(&session, &self.time).await?;
            lease::expired(&session, &self.time, max).await
        };
        let expired = expired.await;
        let expired = self.finish(session, expired)?;
        if expired.is_empty() {
            return Ok(Vec::new());
        }
        match self.write(WriteRequest::Expire(expired)).await? {
            WriteResult::Expired(freed) => Ok(freed),
            other => Err(unexpected_reply(&other)),
        }
    }

    async fn find_by_tokens(&self, of: Vec<UniqueToken>) -> Result<Vec<Option<JobId>>, StoreError> {
        let session = self.reader().await?;
        let found = read::find_by_tokens(&session, &of).await;
        self.finish(session, found)
    }

    async fn job(&self, id: JobId, declared: Arc<LimitTable>) -> Result<Option<JobSnapshot>, StoreError> {
        let session = self.reader().await?;
        let job = read::job(&session, id, &declared, self.now()).await;
        self.finish(session, job)
    }

    async fn jobs(&self, filter: JobFilter) -> Result<JobPage, StoreError> {
        let session = self.reader().await?;
        let jobs = read::jobs(&session, &filter).await;
        self.finish(session, jobs)
    }

    async fn deleted_of_batch(&self, batch: JobId) -> Result<u64, StoreError> {
        let session = self.reader().await?;
        let deleted = operations::deleted_of_batch(&session, batch).await;
        self.finish(session, deleted)
    }

    async fn entries(&self, id: JobId, after: u64, max: u32) -> Result<Vec<NumberedEntry>, StoreError> {
        let session = self.reader().await?;
        let entries = read::entries(&session, id, after, max).await;
        self.finish(session, entries)
    }

    async fn delete_expired(&self, expired: ExpiredJobs) -> Result<ExpiredDeleted, StoreError> {
        let session = self.reader().await?;
        let result = expired::delete(&session, &expired, self.now()).await;
        let result = self.finish(session, result)?;
        self.vacuum.deleted(result.deleted.into());
        Ok(result)
    }

    async fn overrides(&self) -> Result<Vec<Override>, StoreError> {
        let session = self.reader().await?;
        let overrides = read::overrides(&session).await;
        self.finish(session, overrides)
    }

    async fn set_override(&self, change: Override, by: Author) -> Result<(), StoreError> {
        match self.write(WriteRequest::SetOverride(change, by)).await? {
            WriteResult::Done => Ok(()),
            other => Err(unexpected_reply(&other)),
        }
    }

    async fn waiting_jobs(&self) -> Result<BTreeMap<PluginId, u64>, StoreError> {
        let session = self.reader().await?;
        let waiting = read::waiting_jobs(&session).await;
        self.finish(session, waiting).map(by_plugin)
    }

    async fn stats(&self) -> Result<QueueStats, StoreError> {
        let session = self.reader().await?;
        let stats = read::stats(&session).await;
        self.finish(session, stats)
    }

    fn nudges(&self) -> Nudges {
        self.nudger.job_nudges()
    }
}

#[async_trait]
impl JobFinder for PostgresStore {
    async fn find(&self, request: FindRequest) -> Result<FindPage, StoreError> {
        let (session, now) = (self.reader().await?, self.now());
        // In a task of its own: if the caller goes away, its transaction ends all the same before the session is used again.
        let search = tokio::spawn(async move {
            let found = find::find(&session, &request, now).await;
            if found.is_err() {
                session.discard();
            }
            found
        });
        let found = search.await.map_err(|_| StoreError::Broken("a search panicked: see the host's log".to_owned()))?;
        found.map_err(|error| self.store_error(&error))
    }

    async fn backlog(&self, declared: Arc<LimitTable>, _: Duration) -> Result<Backlog, StoreError> {
        let (session, now) = (self.reader().await?, self.now());
        let walk = Arc::clone(&self.backlog_walk);
        // In a task of its own, as a search is.
        let count = tokio::spawn(async move {
            let counted = backlog::backlog(&session, &walk, &declared, now).await;
            if counted.is_err() {
                session.discard();
            }
            counted
        });
        let counted = count.await.map_err(|_| StoreError::Broken("a count panicked: see the host's log".to_owned()))?;
        counted.map_err(|error| self.store_error(&error))
    }
}

#[async_trait]
impl StoreFiles for PostgresStore {
    async fn size(&self) -> Result<StoreSize, StoreError> {
        let session = self.reader().await?;
        let bytes = read::table_bytes(&session).await;
        self.finish(session, bytes).map(|bytes| StoreSize { bytes, log_bytes: None })
    }

    async fn seal_key(&self) -> Result<[u8; 32], StoreError> {
        let session = self.reader().await?;
        let key = read::seal_key(&session).await;
        self.finish(session, key)
    }
}

impl Store for PostgresStore {
    fn messages(&self) -> Option<&dyn NodeMessages> {
        Some(self)
    }
}
