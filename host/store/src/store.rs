//! The interface of the durable queue. Every write is one transaction, and is durable when the call returns.

use std::collections::BTreeMap;
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

/// A receiver of wake-ups that mean "check again". They carry no data, because one may come late, twice or never.
pub type Nudges = tokio::sync::watch::Receiver<u64>;

/// A durable queue of jobs: SQLite, PostgreSQL or memory. All calls of one store judge time by the store's own clock.
///
/// Each call returns a [`StoreError`] if the store fails; its variants say whether something was written.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Returns the time by the store's clock, the only clock that decides whether a lease has expired.
    fn now(&self) -> Timestamp;

    /// Makes an ID that no job of this store has or had.
    ///
    /// # Errors
    /// `Busy` if other hosts make IDs for the store as well, and this one can no longer be sure that it owns its ID
    /// source.
    fn next_id(&self) -> Result<JobId, StoreError>;

    /// Adds jobs in order: all of them or none. `declared` has the limits that apply to `on_conflict`.
    ///
    /// The result for a job whose token is known is the earlier job; no other duplicate is reported. If another job has
    /// the ID of a new one, the new job is added under a fresh ID.
    async fn insert(&self, jobs: Vec<NewJob>, declared: Arc<LimitTable>) -> Result<Vec<Inserted>, StoreError>;

    /// Leases up to `claim.free` jobs. `wharf_core::admission::admit` chooses them inside the transaction.
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError>;

    /// Applies events in order, each by `JobStatus::after`. A refused event changes nothing; the others are applied.
    ///
    /// The end of an attempt is one transaction: its slot, its children, the changes to its plugin's kv values and the
    /// job's next status. The IDs of children were given out before. A child that is not enqueued is stored under its
    /// ID as a cancelled job whose report says why.
    async fn record(&self, events: Vec<(JobId, Event)>) -> Result<Vec<Result<Recorded, Refusal>>, StoreError>;

    /// Adds jobs as `record` adds children and changes kv values, in one transaction. A subscriber of a live broadcast
    /// leaves these behind; it has no job.
    async fn insert_with_changes(
        &self,
        jobs: Vec<NewJob>,
        declared: Arc<LimitTable>,
        changes: Option<Arc<KvChanges>>,
    ) -> Result<Vec<Inserted>, StoreError>;

    /// Extends leases to `length` from now. `length` is at most the length for which they were claimed.
    async fn renew(&self, leases: Vec<Lease>, length: Duration) -> Result<Vec<Renewed>, StoreError>;

    /// Stores what a node records about itself, in place of its last mark.
    async fn set_node_mark(&self, node: NodeId, mark: NodeMark) -> Result<(), StoreError>;

    /// Ends at most `max` leases that have expired. Each is a `LeaseExpired` event with the mark of the lease's node.
    /// Returns the jobs whose leases ended.
    async fn reclaim(&self, max: u32) -> Result<Vec<JobId>, StoreError>;

    /// Returns the jobs with these tokens, in the order of `of`.
    async fn find_by_tokens(&self, of: Vec<(TaskName, Token)>) -> Result<Vec<Option<JobId>>, StoreError>;

    /// Returns one job with payload and result, and the reason if it waits.
    async fn job(&self, id: JobId, declared: Arc<LimitTable>) -> Result<Option<JobSnapshot>, StoreError>;

    /// Returns a page of jobs, newest first, without payload and result.
    async fn jobs(&self, wanted: JobFilter) -> Result<JobPage, StoreError>;

    /// Returns the entries of a job's log after number `after`, in order. It returns at most `max` and about
    /// `bounds::PAGE_BYTES_MAX` bytes, but at least one entry if there is any.
    async fn entries(&self, id: JobId, after: u64, max: u32) -> Result<Vec<NumberedEntry>, StoreError>;

    /// Returns a plugin's kv value.
    async fn value(&self, plugin: PluginId, key: KvKey) -> Result<Option<Vec<u8>>, StoreError>;

    /// Returns the keys of a plugin's kv values that match the query, in ascending order.
    async fn value_keys(&self, plugin: PluginId, wanted: KvKeyQuery) -> Result<Vec<KvKey>, StoreError>;

    /// Returns how much a plugin stores in kv, and the sizes in bytes of the values of these keys, in the order of
    /// `of`.
    async fn usage(&self, plugin: PluginId, of: Vec<KvKey>) -> Result<(KvUsage, Vec<Option<u64>>), StoreError>;

    /// Deletes at most `max` jobs that finished before `before`, with their logs and results. Returns how many. The kv
    /// values of their plugins stay.
    async fn delete_finished(&self, before: Timestamp, max: u32) -> Result<u32, StoreError>;

    /// Returns the limit overrides in force.
    async fn overrides(&self) -> Result<Vec<Override>, StoreError>;

    /// Sets an override, or removes it if both of its limits are `None`. A raised limit takes effect with the next
    /// claim. Under a lowered limit, running jobs continue and no new one starts until few enough are running.
    async fn set_override(&self, change: Override) -> Result<(), StoreError>;

    /// Returns how many jobs of each plugin wait, due or not; plugins without any may be left out. It is cheap, however
    /// many jobs there are.
    async fn waiting_jobs(&self) -> Result<BTreeMap<PluginId, u64>, StoreError>;

    /// Returns counts for operators and metrics.
    async fn stats(&self) -> Result<QueueStats, StoreError>;

    /// Registers this node, or renews its registration. The store sets `seen`. Nodes that have not registered for
    /// longer than `silent` are removed.
    async fn register(&self, node: Node, silent: Duration) -> Result<(), StoreError>;

    /// Removes this node's registration, when it shuts down.
    async fn deregister(&self, node: NodeId) -> Result<(), StoreError>;

    /// Returns the registered nodes, by name.
    async fn nodes(&self) -> Result<Vec<Node>, StoreError>;

    /// Returns jobs that run on this node and whose cancellation another node requested; `None` if no other node can
    /// use the store.
    async fn cancel_requests(&self, node: NodeId) -> Result<Option<Vec<JobId>>, StoreError>;

    /// Stores messages for other nodes.
    async fn send_messages(&self, letters: Vec<NodeMessage>) -> Result<(), StoreError>;

    /// Removes and returns the messages to this node, each once, in the order in which they were sent; `None` if no
    /// other node can use the store.
    async fn receive_messages(&self, node: NodeId) -> Result<Option<Vec<NodeMessage>>, StoreError>;

    /// Returns a receiver that changes when there may be messages to this node.
    fn message_nudges(&self) -> Nudges;

    /// Returns a receiver that changes after every write that may let a job start, or that a follower may wait for.
    fn nudges(&self) -> Nudges;

    /// Returns the store's write-ahead log if it grows because another program prevents it from being copied into the
    /// database file.
    fn pinned_log(&self) -> Option<PinnedLog> {
        None
    }
}

/// The result of inserting a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The job was added.
    Added {
        /// The job's ID: its own, or a fresh one if another job had that.
        id: JobId,
        /// Waiting jobs that it replaced: they are cancelled.
        replaced: Vec<JobId>,
        /// Running jobs that were asked to cancel for it.
        cancel_requested: Vec<JobId>,
    },
    /// An earlier job has the same token.
    Duplicate {
        /// The earlier job.
        id: JobId,
    },
    /// The job was not added: its lane has no free slot, and its task discards jobs in that case.
    Discarded {
        /// The jobs in the way: those that use the slots, then those that wait (the first `bounds::HOLDERS_NAMED`).
        holders: Vec<JobId>,
    },
}

impl Inserted {
    /// Returns why no job is stored under `id`, the ID of the job to insert; `None` if one is.
    pub(crate) fn not_enqueued(&self, id: JobId) -> Option<NotEnqueued> {
        match self {
            Inserted::Duplicate { id: known } if *known != id => Some(NotEnqueued::Duplicate(*known)),
            Inserted::Discarded { holders } => Some(NotEnqueued::LaneFull(holders.clone())),
            Inserted::Added { .. } | Inserted::Duplicate { .. } => None,
        }
    }
}

/// A claim: a node's request for jobs.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The node that claims.
    pub node: NodeId,
    /// The tasks that the node can run, each with its group.
    pub tasks: Arc<[(TaskName, Group)]>,
    /// The limits declared in manifests and settings. The store applies its overrides to them.
    pub declared: Arc<LimitTable>,
    /// Number of jobs to lease at most.
    pub free: u32,
    /// Caps below `free` for single tasks.
    pub task_quotas: Vec<(TaskName, u32)>,
    /// Length of the leases.
    pub lease: Duration,
}

impl Claim {
    pub(crate) fn offer(&self) -> ClaimBudget<'_> {
        ClaimBudget { tasks: &self.tasks, free: self.free, task_quotas: &self.task_quotas }
    }
}

/// The result of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The jobs that were leased.
    pub leased: Vec<LeasedJob>,
    /// When the next delayed job becomes due, or now if jobs are due that this claim did not take.
    pub wake_at: Option<Timestamp>,
    /// True if a quota of `Claim::task_quotas` is used up: there may be more jobs of that task.
    pub quota_reached: bool,
}

/// The result of an event that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The job's state after the event.
    pub state: StateName,
    /// True if the running attempt was asked to cancel.
    pub cancel_requested: bool,
    /// The result of inserting each child. A child that was not enqueued is stored under its ID as a cancelled job.
    pub children: Vec<Inserted>,
}

/// The result of renewing a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The lease was extended.
    Renewed(Lease),
    /// The lease was extended, and the attempt was asked to cancel.
    RenewedCancelRequested(Lease),
    /// The job belongs to another attempt, or to none: the attempt must stop.
    Lost(Lease),
}

/// A job with the data that is derived when it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSnapshot {
    /// The job.
    pub job: Job,
    /// Why it does not run, if it waits.
    pub why: Option<WaitReason>,
    /// The number of the last entry in its log.
    pub entries: u64,
}

/// A write-ahead log that grows, as [`Store::pinned_log`] reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedLog {
    /// The path of the log file.
    pub log: String,
    /// The size of the log file in bytes.
    pub bytes: u64,
}

/// A filter for a list of jobs. A job must match all filters that are present.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Only jobs in this state.
    pub state: Option<StateName>,
    /// Only jobs of this task.
    pub task: Option<TaskName>,
    /// Only jobs with this key.
    pub key: Option<Key>,
    /// Only jobs with this idempotency token: at most one of each task.
    pub token: Option<Token>,
    /// Only jobs of this durable broadcast.
    pub batch: Option<JobId>,
    /// Only jobs with a lower ID, such as the last one of the previous page.
    pub before: Option<JobId>,
    /// The length of the page, from 1 to `bounds::PAGE_MAX`.
    pub max: u32,
}

/// A page of a list of jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobPage {
    /// The jobs, newest first.
    pub jobs: Vec<Job>,
    /// True if older jobs match, too.
    pub more: bool,
}

/// Returns the counts of plugins, as sums over their tasks.
pub(crate) fn by_plugin(tasks: impl IntoIterator<Item = (TaskName, u64)>) -> BTreeMap<PluginId, u64> {
    let mut plugins = BTreeMap::new();
    for (task, count) in tasks.into_iter().filter(|(_, count)| *count > 0) {
        *plugins.entry(task.plugin()).or_default() += count;
    }
    plugins
}

/// Counts of the jobs in the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Each task with its number of waiting jobs (due or not) and its number of running jobs.
    pub tasks: Vec<(TaskName, u64, u64)>,
    /// When the waiting job that has been due longest became due.
    pub oldest_due: Option<Timestamp>,
    /// Each group with its number of running jobs.
    pub groups: Vec<(Group, u64)>,
}

/// A failed call of a store. The variants are named by what the caller does next.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was written. The caller may try again later.
    #[error("the store cannot write now: {0}")]
    Busy(String),
    /// Nothing was written, and the call will fail until an operator fixes the store.
    #[error("the store is broken: {0}")]
    Broken(String),
    /// The write happened, or will happen, or did not. A caller that repeats it must use a token, or read the result
    /// first.
    #[error("the store did not respond, so it is unknown whether it wrote: {0}")]
    Unknown(String),
}

/// A store that could not be opened. The variants are named by what the operator does next.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Fix the address of the store.
    #[error("could not open the store: `{address}` {reason}")]
    MendAddress {
        /// The address.
        address: String,
        /// The error, for the operator.
        reason: String,
    },
    /// Stop the other host that uses the file, or use another file.
    #[error(
        "could not open {file}: another host uses it, possibly under another name; \
         stop that host first, or give this one its own store"
    )]
    StopOtherHost {
        /// The path of the file.
        file: String,
    },
    /// Run a newer Wharf, or use another file.
    #[error(
        "could not open {file}: it was written by a newer Wharf (its version is {found}, this one supports up to {known}); \
         run that Wharf, or give this one its own store"
    )]
    TakeNewerHost {
        /// The path of the file.
        file: String,
        /// The version of the file's schema.
        found: i64,
        /// The newest version that this host supports.
        known: i64,
    },
    /// Fix the file.
    #[error("could not open {file}: {reason}")]
    MendFile {
        /// The path of the file.
        file: String,
        /// The error, for the operator.
        reason: String,
    },
    /// Fix the database.
    #[error("could not open {address}: {reason}")]
    MendDatabase {
        /// The database's address.
        address: String,
        /// The error, for the operator.
        reason: String,
    },
    /// Wait: the database responds, and will accept this host later.
    #[error("could not open {address} yet: {reason}")]
    AwaitDatabase {
        /// The database's address.
        address: String,
        /// Why it does not accept this host now.
        reason: String,
    },
}
