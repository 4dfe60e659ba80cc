//! What the host asks of its queue. Every write is one transaction, and durable when it returns.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wharf_core::admission::ClaimBudget;
use wharf_core::ids::{Group, JobId, NodeId, PluginId, TaskName};
use wharf_core::job::{Job, LeasedJob, NewJob, NotEnqueued, NumberedEntry, StateName, Token, WaitReason};
use wharf_core::key::Key;
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery, KvUsage};
use wharf_core::lease::{Lease, NodeMark};
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, Override};
use wharf_core::node::Node;
use wharf_core::node_message::NodeMessage;
use wharf_core::time::Timestamp;

/// A wake-up that means "look again". It carries no truth: it may come late, twice or never.
pub type Nudges = tokio::sync::watch::Receiver<u64>;

#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The store's clock: the only one by which leases are judged.
    fn now(&self) -> Timestamp;

    /// An id that no job of this store has or had.
    ///
    /// # Errors
    /// `Busy` where others make ids for the store, too, and this one cannot be sure of its own any more.
    fn next_id(&self) -> Result<JobId, StoreError>;

    /// Adds jobs, in order: all or none. `declared` says how many of a lane may run, for `on_conflict`.
    /// A job whose token is known is answered with the job that stands; no other job ever is. Where another job has the id of
    /// a new one, that is added under a fresh one.
    async fn insert(&self, jobs: Vec<NewJob>, declared: Arc<LimitTable>) -> Result<Vec<Inserted>, StoreError>;

    /// Leases up to `claim.free` jobs, chosen by `wharf_core::admission::admit` inside the transaction.
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError>;

    /// Applies events in order, each by `JobStatus::after`. One that is refused changes nothing; the others stand.
    /// The end of an attempt, its slot, its children, what it changed of its plugin's values and the job's next state are
    /// one transaction. The ids of children were given out before: one that is not taken stands under its own, cancelled,
    /// and says why.
    async fn record(&self, events: Vec<(JobId, Event)>) -> Result<Vec<Result<Recorded, Refusal>>, StoreError>;

    /// Adds jobs as `record` adds children and changes values, in one transaction: what an attempt leaves behind that is of no job.
    async fn insert_with_changes(
        &self,
        jobs: Vec<NewJob>,
        declared: Arc<LimitTable>,
        changes: Option<Arc<KvChanges>>,
    ) -> Result<Vec<Inserted>, StoreError>;

    /// Prolongs leases to `length` from now, which is no longer than they were claimed for.
    async fn renew(&self, leases: Vec<Lease>, length: Duration) -> Result<Vec<Renewed>, StoreError>;

    /// Writes down what a node says of itself, in place of what it said before.
    async fn set_node_mark(&self, node: NodeId, mark: NodeMark) -> Result<(), StoreError>;

    /// Ends leases that have run out, at most `max`: each is a `LeaseExpired`, with what its node has written down. Returns
    /// the jobs that were freed.
    async fn reclaim(&self, max: u32) -> Result<Vec<JobId>, StoreError>;

    /// The jobs that stand under these tokens, in the order of `of`.
    async fn find_by_tokens(&self, of: Vec<(TaskName, Token)>) -> Result<Vec<Option<JobId>>, StoreError>;

    /// One job whole, and why it waits if it does.
    async fn job(&self, id: JobId, declared: Arc<LimitTable>) -> Result<Option<JobSnapshot>, StoreError>;

    /// Jobs, newest first, without payload and result.
    async fn jobs(&self, wanted: JobFilter) -> Result<JobPage, StoreError>;

    /// What attempts of a job wrote after number `after`, in order, at most `max` and about `bounds::PAGE_BYTES_MAX`
    /// at once; at least one if there is any.
    async fn entries(&self, id: JobId, after: u64, max: u32) -> Result<Vec<NumberedEntry>, StoreError>;

    /// The value that a plugin keeps under a key.
    async fn value(&self, plugin: PluginId, key: KvKey) -> Result<Option<Vec<u8>>, StoreError>;

    /// Under which keys a plugin keeps values, in their order.
    async fn value_keys(&self, plugin: PluginId, wanted: KvKeyQuery) -> Result<Vec<KvKey>, StoreError>;

    /// How much a plugin keeps in all, and how many bytes the values under these keys have, in the order of `of`.
    async fn usage(&self, plugin: PluginId, of: Vec<KvKey>) -> Result<(KvUsage, Vec<Option<u64>>), StoreError>;

    /// Removes jobs that finished before `before`, with all that belongs to them, at most `max`. Returns how many.
    /// What their plugins keep stays.
    async fn delete_finished(&self, before: Timestamp, max: u32) -> Result<u32, StoreError>;

    /// The overrides in force.
    async fn overrides(&self) -> Result<Vec<Override>, StoreError>;

    /// Puts an override in force, or with `limits` of two `None` ends it. Raising acts on the next claim; lowering drains.
    async fn set_override(&self, change: Override) -> Result<(), StoreError>;

    /// Counts for people and metrics.
    async fn stats(&self) -> Result<QueueStats, StoreError>;

    /// Tells of this node; `seen` is the store's to say. Nodes that were silent for longer than `silent` are taken off.
    async fn register(&self, node: Node, silent: Duration) -> Result<(), StoreError>;

    /// Takes this node off: it ended by itself.
    async fn deregister(&self, node: NodeId) -> Result<(), StoreError>;

    /// The nodes that are there, by name.
    async fn nodes(&self) -> Result<Vec<Node>, StoreError>;

    /// Jobs that run on this node and were asked to end by another one; `None` where there is no other.
    async fn cancel_requests(&self, node: NodeId) -> Result<Option<Vec<JobId>>, StoreError>;

    /// Puts letters to other nodes where they find them.
    async fn send_messages(&self, letters: Vec<NodeMessage>) -> Result<(), StoreError>;

    /// Takes out the letters to this node, each once, in the order in which they were posted; `None` where there is no other.
    async fn receive_messages(&self, node: NodeId) -> Result<Option<Vec<NodeMessage>>, StoreError>;

    /// Changes when there may be letters.
    fn message_nudges(&self) -> Nudges;

    /// Changes after every write that may let something start or that a follower may wait for.
    fn nudges(&self) -> Nudges;

    /// A log of the store's own that grows, since another program keeps it from being carried into its file.
    fn pinned_log(&self) -> Option<PinnedLog> {
        None
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    Added {
        /// The new job's own, or the one that it was given in its place.
        id: JobId,
        /// Waiting jobs that it replaced: they are cancelled.
        replaced: Vec<JobId>,
        /// Running jobs that were asked to end for it.
        cancel_asked: Vec<JobId>,
    },
    /// A job with the same token stands.
    Duplicate { id: JobId },
    /// Its lane had no slot left, and its task says that it is then not taken. These jobs hold the slots (the first ten).
    Discarded { holders: Vec<JobId> },
}

impl Inserted {
    /// Returns why no job is stored under `id`, the id of the job to add; `None` if one is.
    pub(crate) fn not_enqueued(&self, id: JobId) -> Option<NotEnqueued> {
        match self {
            Inserted::Duplicate { id: known } if *known != id => Some(NotEnqueued::Duplicate(*known)),
            Inserted::Discarded { holders } => Some(NotEnqueued::LaneFull(holders.clone())),
            Inserted::Added { .. } | Inserted::Duplicate { .. } => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Claim {
    pub node: NodeId,
    /// The tasks that this node can run, each with its group.
    pub tasks: Arc<[(TaskName, Group)]>,
    /// What manifests and settings declare; the store lays its overrides on top.
    pub declared: Arc<LimitTable>,
    /// How many jobs may be leased.
    pub free: u32,
    /// Tasks of which fewer may be leased, each with how many.
    pub task_quotas: Vec<(TaskName, u32)>,
    pub lease: Duration,
}

impl Claim {
    pub(crate) fn offer(&self) -> ClaimBudget<'_> {
        ClaimBudget { tasks: &self.tasks, free: self.free, task_quotas: &self.task_quotas }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub leased: Vec<LeasedJob>,
    /// When the next delayed job becomes due; now, if this claim left some that are due.
    pub wake_at: Option<Timestamp>,
    /// There may be more of one of `Claim::task_quotas`.
    pub held_back: bool,
}

/// What an event came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub state: StateName,
    /// The running attempt was asked to end.
    pub cancel_asked: bool,
    /// What became of each child: where it was not taken, it stands under its id and says so.
    pub children: Vec<Inserted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    Held(Lease),
    HeldCancelAsked(Lease),
    /// It belongs to another attempt, or to none: stop.
    Lost(Lease),
}

/// A job as it is read, with why it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSnapshot {
    pub job: Job,
    pub why: Option<WaitReason>,
    /// The number of the last entry in its log.
    pub entries: u64,
}

/// See `Store::pinned_log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedLog {
    /// The file that grows.
    pub log: String,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    pub state: Option<StateName>,
    pub task: Option<TaskName>,
    pub key: Option<Key>,
    /// Only the job with this idempotency token: at most one of each task.
    pub token: Option<Token>,
    /// Only jobs of this durable broadcast.
    pub batch: Option<JobId>,
    /// Only jobs with a lower id: the last one of the page before.
    pub before: Option<JobId>,
    /// 1 to `bounds::PAGE_MAX`.
    pub max: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobPage {
    pub jobs: Vec<Job>,
    pub more: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Waiting (due or not) and running jobs of each task.
    pub tasks: Vec<(TaskName, u64, u64)>,
    /// When the job that has been due longest became due.
    pub oldest_due: Option<Timestamp>,
    /// Running jobs of each group, counted.
    pub groups: Vec<(Group, u64)>,
}

/// Variants are named by what the caller does next.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was written: try again later.
    #[error("the store cannot write now: {0}")]
    Busy(String),
    /// Nothing was written, and it will not work until someone mends it.
    #[error("the store is broken: {0}")]
    Broken(String),
    /// It was written, or will be, or was not: who asks again must do so with a token, or look first.
    #[error("the store gave no answer and may have written it: {0}")]
    Unknown(String),
}

/// Why a store could not be opened. Variants are named by what the operator does next.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("could not open the store: `{address}` {reason}")]
    MendAddress { address: String, reason: String },
    #[error(
        "could not open {file}: another host uses it, by this name or by another; \
         stop that host first, or give this one a store of its own"
    )]
    StopOtherHost { file: String },
    #[error(
        "could not open {file}: it was written by a newer Wharf (its version is {found}, this one knows up to {known}); \
         run that Wharf, or give this one a store of its own"
    )]
    TakeNewerHost { file: String, found: i64, known: i64 },
    #[error("could not open {file}: {reason}")]
    MendFile { file: String, reason: String },
    #[error("could not open {address}: {reason}")]
    MendDatabase { address: String, reason: String },
    /// It answers, and will let this host in later.
    #[error("could not open {address} yet: {reason}")]
    AwaitDatabase { address: String, reason: String },
}
