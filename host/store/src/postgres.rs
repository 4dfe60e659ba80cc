//! PostgresStore: any number of hosts, one database. What was acknowledged is committed.
//!
//! Each host has one writer that works in groups; the locks of limit groups put the writers of all hosts in order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wharf_core::ids::{JobId, NodeId, PluginId, TaskName};
use wharf_core::job::{NewJob, NumberedEntry, Token};
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery, KvUsage};
use wharf_core::lease::{Lease, NodeMark};
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, Override};
use wharf_core::node::Node;
use wharf_core::node_message::NodeMessage;
use wharf_core::time::Timestamp;

use crate::clock::Clock;
use crate::store::{
    Claim, Claimed, Inserted, JobFilter, JobPage, JobSnapshot, Nudges, OpenError, QueueStats, Recorded, Renewed, Store,
    StoreError,
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
mod lane_rows;
mod read_set;
mod read;
mod kv;
mod running_rows;
mod ledger;
mod running_cache;
mod write_set;
mod ready_rows;
mod job_rows;
mod overrides;
mod insert;
mod record;
mod claim_snapshot;
mod claim;
mod lease;
mod task_announcements;
mod nodes;
mod messages;
mod nudge;
mod writer;

pub use address::without_password;

use address::Address;
use id_source::Source;
use nudge::Nudger;
use session::{ANSWER_PATIENCE, Session, SessionError, Sessions};
use time::Time;
use writer::{Desk, WriteRequest, WriteResult, Writer};

/// A durable queue in a PostgreSQL database, shared by any number of hosts.
pub struct PostgresStore {
    /// For what must not wait: the writer, renewals.
    sessions: Sessions,
    /// For questions: however many are asked, no lease is lost for it.
    readers: Sessions,
    time: Time,
    source: Arc<Source>,
    nudger: Arc<Nudger>,
    writer: Writer,
    shown: String,
    _talk: Talk,
}

/// Connections for writing, renewing and telling others.
const URGENT: usize = 4;

/// Tasks that end with the store.
struct Talk(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Talk {
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
    /// Opens the store at a `postgres://` address, and makes its tables where there are none. Its clock is the database's.
    ///
    /// # Errors
    /// When the address is wrong, the server cannot be reached or lets nobody in, or a newer host wrote the tables.
    pub async fn open(address: &str) -> Result<PostgresStore, OpenError> {
        PostgresStore::with_time(address, Time::database()).await
    }

    /// The same with another clock in place of the database's: for tests that move time by hand.
    ///
    /// # Errors
    /// As `open`.
    pub async fn open_with_clock(address: &str, clock: Arc<dyn Clock>) -> Result<PostgresStore, OpenError> {
        PostgresStore::with_time(address, Time::Given(clock)).await
    }

    async fn with_time(address: &str, time: Time) -> Result<PostgresStore, OpenError> {
        let address = Address::parse(address)?;
        let sessions = Sessions::of(&address, URGENT)?;
        let readers = Sessions::of(&address, address.pool)?;
        schema::prepare(&sessions, &address).await?;
        let source = Source::draw(&sessions, &time).await.map_err(|fault| schema::unopened(&fault, &address))?;
        let source = Arc::new(source);
        let nudger = Arc::new(Nudger::new(&address, format!("{:016x}", fastrand::u64(..))));
        let desk = Desk {
            sessions: sessions.clone(),
            time: time.clone(),
            source: source.clone(),
            nudger: nudger.clone(),
            shown: address.shown.clone(),
        };
        let mut talk = vec![
            tokio::spawn(nudge::tell(nudger.clone(), sessions.clone(), address.listen)),
            tokio::spawn(id_source::hold_on(source.clone(), sessions.clone(), time.clone())),
        ];
        if address.listen {
            talk.push(tokio::spawn(nudge::hear(nudger.clone(), address.clone())));
        }
        let writer = Writer::start(desk);
        Ok(PostgresStore { sessions, readers, time, source, nudger, writer, shown: address.shown, _talk: Talk(talk) })
    }

    async fn write(&self, wish: WriteRequest) -> Result<WriteResult, StoreError> {
        self.writer.write(wish).await
    }

    async fn add(&self, wish: WriteRequest) -> Result<Vec<Inserted>, StoreError> {
        match self.write(wish).await? {
            WriteResult::Inserted(inserted) => Ok(inserted),
            other => Err(confused(&other)),
        }
    }

    /// A session for what must not wait.
    async fn session(&self) -> Result<Session, StoreError> {
        self.sessions.session().await.map_err(|fault| self.refuse(&fault))
    }

    /// What must not wait and is small: where no answer comes, the caller hears that.
    async fn soon<T>(&self, ask: impl AsyncFnOnce(&Session) -> Result<T, SessionError>) -> Result<T, StoreError> {
        let session = self.session().await?;
        let answer = tokio::time::timeout(ANSWER_PATIENCE, ask(&session)).await;
        let answer = answer.unwrap_or_else(|_| Err(SessionError::silent()));
        self.answer(session, answer)
    }

    async fn reader(&self) -> Result<Session, StoreError> {
        self.readers.session().await.map_err(|fault| self.refuse(&fault))
    }

    fn refuse(&self, fault: &SessionError) -> StoreError {
        fault.refuse(&self.shown)
    }

    /// Answers a question. A session in which one failed is of no use to the next.
    fn answer<T>(&self, session: Session, answer: Result<T, SessionError>) -> Result<T, StoreError> {
        answer.map_err(|fault| {
            session.discard();
            self.refuse(&fault)
        })
    }
}

/// The writer answered another question than it was asked.
fn confused(done: &WriteResult) -> StoreError {
    StoreError::Broken(format!("its writer gave an answer that nobody asked for: {done:?}"))
}

#[async_trait]
impl Store for PostgresStore {
    fn now(&self) -> Timestamp {
        self.time.now()
    }

    fn next_id(&self) -> Result<JobId, StoreError> {
        self.source.next(self.time.now()).map_err(|fault| self.refuse(&fault))
    }

    async fn insert(&self, jobs: Vec<NewJob>, declared: Arc<LimitTable>) -> Result<Vec<Inserted>, StoreError> {
        self.add(WriteRequest::Insert(jobs, declared)).await
    }

    async fn insert_with_changes(
        &self,
        jobs: Vec<NewJob>,
        declared: Arc<LimitTable>,
        changes: Option<Arc<KvChanges>>,
    ) -> Result<Vec<Inserted>, StoreError> {
        self.add(WriteRequest::LeaveBehind(jobs, declared, changes)).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        match self.write(WriteRequest::Claim(claim)).await? {
            WriteResult::Claimed(claimed) => Ok(claimed),
            other => Err(confused(&other)),
        }
    }

    async fn record(&self, events: Vec<(JobId, Event)>) -> Result<Vec<Result<Recorded, Refusal>>, StoreError> {
        match self.write(WriteRequest::Record(events)).await? {
            WriteResult::Recorded(recorded) => Ok(recorded),
            other => Err(confused(&other)),
        }
    }

    async fn renew(&self, leases: Vec<Lease>, length: Duration) -> Result<Vec<Renewed>, StoreError> {
        self.soon(async |session| lease::renew(session, &self.time, &leases, length).await).await
    }

    async fn set_node_mark(&self, node: NodeId, mark: NodeMark) -> Result<(), StoreError> {
        self.soon(async |session| node_marks::write(session, &self.time, node, mark).await).await
    }

    async fn reclaim(&self, max: u32) -> Result<Vec<JobId>, StoreError> {
        let session = self.session().await?;
        let over = async {
            lease::end_those_of_a_gone_clock(&session, &self.time).await?;
            lease::over(&session, &self.time, max).await
        };
        let over = over.await;
        let over = self.answer(session, over)?;
        if over.is_empty() {
            return Ok(Vec::new());
        }
        match self.write(WriteRequest::Expire(over)).await? {
            WriteResult::Expired(freed) => Ok(freed),
            other => Err(confused(&other)),
        }
    }

    async fn find_by_tokens(&self, of: Vec<(TaskName, Token)>) -> Result<Vec<Option<JobId>>, StoreError> {
        let session = self.reader().await?;
        let known = read::known(&session, &of).await;
        self.answer(session, known)
    }

    async fn job(&self, id: JobId, declared: Arc<LimitTable>) -> Result<Option<JobSnapshot>, StoreError> {
        let session = self.reader().await?;
        let job = read::job(&session, id, &declared, self.now()).await;
        self.answer(session, job)
    }

    async fn jobs(&self, wanted: JobFilter) -> Result<JobPage, StoreError> {
        let session = self.reader().await?;
        let jobs = read::jobs(&session, &wanted).await;
        self.answer(session, jobs)
    }

    async fn entries(&self, id: JobId, after: u64, max: u32) -> Result<Vec<NumberedEntry>, StoreError> {
        let session = self.reader().await?;
        let entries = read::entries(&session, id, after, max).await;
        self.answer(session, entries)
    }

    async fn value(&self, plugin: PluginId, key: KvKey) -> Result<Option<Vec<u8>>, StoreError> {
        let session = self.reader().await?;
        let value = kv::value(&session, &plugin, &key).await;
        self.answer(session, value)
    }

    async fn value_keys(&self, plugin: PluginId, wanted: KvKeyQuery) -> Result<Vec<KvKey>, StoreError> {
        let session = self.reader().await?;
        let keys = kv::keys(&session, &plugin, &wanted).await;
        self.answer(session, keys)
    }

    async fn usage(&self, plugin: PluginId, of: Vec<KvKey>) -> Result<(KvUsage, Vec<Option<u64>>), StoreError> {
        let session = self.reader().await?;
        let usage = kv::usage(&session, &plugin, &of).await;
        self.answer(session, usage)
    }

    async fn delete_finished(&self, before: Timestamp, max: u32) -> Result<u32, StoreError> {
        let session = self.reader().await?;
        let forgotten = lease::delete_finished(&session, before, max).await;
        self.answer(session, forgotten)
    }

    async fn overrides(&self) -> Result<Vec<Override>, StoreError> {
        let session = self.reader().await?;
        let overrides = read::overrides(&session).await;
        self.answer(session, overrides)
    }

    async fn set_override(&self, change: Override) -> Result<(), StoreError> {
        match self.write(WriteRequest::SetOverride(change)).await? {
            WriteResult::Set => Ok(()),
            other => Err(confused(&other)),
        }
    }

    async fn stats(&self) -> Result<QueueStats, StoreError> {
        let session = self.reader().await?;
        let stats = read::stats(&session, self.now()).await;
        self.answer(session, stats)
    }

    async fn register(&self, node: Node, silent: Duration) -> Result<(), StoreError> {
        self.soon(async |session| nodes::announce(session, &self.time, &node, silent).await).await
    }

    async fn deregister(&self, node: NodeId) -> Result<(), StoreError> {
        let leave = async |session: &Session| {
            futures_util::try_join!(nodes::leave(session, node), self.source.leave(session)).map(drop)
        };
        self.soon(leave).await
    }

    async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        let session = self.reader().await?;
        let nodes = nodes::all(&session).await;
        self.answer(session, nodes)
    }

    async fn cancel_requests(&self, node: NodeId) -> Result<Option<Vec<JobId>>, StoreError> {
        self.soon(async |session| nodes::cancel_requests(session, node).await).await.map(Some)
    }

    async fn send_messages(&self, letters: Vec<NodeMessage>) -> Result<(), StoreError> {
        let session = self.session().await?;
        let posted = futures_util::future::try_join_all(
            letters.iter().map(|letter| messages::send(&session, &self.time, letter)),
        );
        let posted = posted.await;
        if posted.is_ok() {
            let receivers: BTreeSet<NodeId> = letters.iter().map(|letter| letter.to).collect();
            for node in receivers {
                self.nudger.ring(&session, node).await;
            }
        }
        self.answer(session, posted.map(drop))
    }

    async fn receive_messages(&self, node: NodeId) -> Result<Option<Vec<NodeMessage>>, StoreError> {
        self.nudger.collects(node);
        self.soon(async |session| messages::receive(session, &self.time, node).await).await.map(Some)
    }

    fn message_nudges(&self) -> Nudges {
        self.nudger.letters()
    }

    fn nudges(&self) -> Nudges {
        self.nudger.subscribe()
    }
}
