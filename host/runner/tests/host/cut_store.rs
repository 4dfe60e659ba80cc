//! A store that can be cut off from its host, or hang, at moments that a test chooses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use wharf_core::activity::Activity;
use wharf_core::attempt::Attempt;
use wharf_core::audit::NewAct;
use wharf_core::author::Author;
use wharf_core::backlog::Backlog;
use wharf_core::bulk::{BulkOperation, NewOperation, OperationStep};
use wharf_core::failure::{FailureDetails, FailureGroup, FailureState};
use wharf_core::fingerprint::Fingerprint;
use wharf_core::hold::{Hold, HoldScope, NewHold};
use wharf_core::ids::{JobId, NodeId, PluginId, ScheduleId};
use wharf_core::job::{NewJob, NumberedEntry, UniqueToken};
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery, KvUsage};
use wharf_core::lease::{Lease, NodeMark};
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, Override};
use wharf_core::node::Node;
use wharf_core::schedule::{Schedule, ScheduleFiring, ScheduleSource};
use wharf_core::time::Timestamp;
use wharf_store::{
    ActFilter, ActPage, AttemptStore, AuditLog, Claim, Claimed, DueSchedules, ExpiredDeleted, ExpiredJobs,
    FailureFilter, FailurePage, FailureStore, FindPage, FindRequest, HoldPage, HoldStore, Inserted, JobFilter,
    JobFinder, JobPage, JobSnapshot, KvStore, NodeMessages, NodeRegistry, Nudges, OperationStore, Queue, QueueStats,
    Recorded, Renewed, ScheduleFired, ScheduleStore, ScheduleWrite, ScheduleWritten, StepTaken, Store, StoreError,
    StoreFiles, StoreSize,
};

/// A real store that can be cut off.
pub(crate) struct Cut {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) off: AtomicBool,
    /// Writes are done, but return only when this ends.
    pub(crate) hanging: AtomicBool,
    /// Only values of plugins cannot be read.
    pub(crate) kv_off: AtomicBool,
    /// Only the events of attempts cannot be recorded.
    pub(crate) records_off: AtomicBool,
    /// New jobs have values that the store cannot take.
    pub(crate) refusing: AtomicBool,
    /// Steps of bulk operations that change jobs fail.
    pub(crate) steps_fail: AtomicBool,
    /// The waiting jobs cannot be counted: no call returns until this ends.
    pub(crate) counts_hang: AtomicBool,
    /// The jobs of subscribers are written only when this ends.
    pub(crate) subscribers_hang: AtomicBool,
    /// Number of calls that write jobs of subscribers.
    pub(crate) subscribers_wrote: AtomicU32,
    pub(crate) registered: AtomicU32,
}

impl Cut {
    pub(crate) fn before(store: Arc<dyn Store>) -> Arc<Cut> {
        Arc::new(Cut {
            store,
            off: AtomicBool::default(),
            hanging: AtomicBool::default(),
            kv_off: AtomicBool::default(),
            records_off: AtomicBool::default(),
            refusing: AtomicBool::default(),
            steps_fail: AtomicBool::default(),
            counts_hang: AtomicBool::default(),
            subscribers_hang: AtomicBool::default(),
            subscribers_wrote: AtomicU32::default(),
            registered: AtomicU32::default(),
        })
    }

    fn values(&self) -> Result<&Arc<dyn Store>, StoreError> {
        if self.kv_off.load(Ordering::SeqCst) { Err(StoreError::Broken("cut off".into())) } else { self.reached() }
    }

    fn reached(&self) -> Result<&Arc<dyn Store>, StoreError> {
        if self.off.load(Ordering::SeqCst) { Err(StoreError::Busy("cut off".into())) } else { Ok(&self.store) }
    }

    async fn respond<T>(&self, written: Result<T, StoreError>) -> Result<T, StoreError> {
        until_over(&self.hanging).await;
        written
    }
}

async fn until_over(hangs: &AtomicBool) {
    while hangs.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[async_trait]
impl Queue for Cut {
    async fn deleted_of_batch(&self, batch: JobId) -> Result<u64, StoreError> {
        self.reached()?.deleted_of_batch(batch).await
    }
    fn now(&self) -> Timestamp {
        self.store.now()
    }
    fn next_id(&self) -> Result<JobId, StoreError> {
        self.store.next_id()
    }
    async fn insert(&self, jobs: Vec<NewJob>, declared: Arc<LimitTable>) -> Result<Vec<Inserted>, StoreError> {
        if self.refusing.load(Ordering::SeqCst) {
            return Err(StoreError::Refused("no room for it".into()));
        }
        let inserted = self.reached()?.insert(jobs, declared).await;
        self.respond(inserted).await
    }
    async fn insert_with_changes(
        &self,
        jobs: Vec<NewJob>,
        declared: Arc<LimitTable>,
        changes: Option<Arc<KvChanges>>,
    ) -> Result<Vec<Inserted>, StoreError> {
        self.subscribers_wrote.fetch_add(1, Ordering::SeqCst);
        until_over(&self.subscribers_hang).await;
        self.reached()?.insert_with_changes(jobs, declared, changes).await
    }
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        self.reached()?.claim(claim).await
    }
    async fn record(&self, events: Arc<Vec<(JobId, Event)>>) -> Result<Vec<Result<Recorded, Refusal>>, StoreError> {
        if self.records_off.load(Ordering::SeqCst) {
            return Err(StoreError::Busy("cut off".into()));
        }
        let recorded = self.reached()?.record(events).await;
        self.respond(recorded).await
    }
    async fn renew(&self, leases: Vec<Lease>, length: Duration) -> Result<Vec<Renewed>, StoreError> {
        self.reached()?.renew(leases, length).await
    }
    async fn reclaim(&self, max: u32) -> Result<Vec<JobId>, StoreError> {
        self.reached()?.reclaim(max).await
    }
    async fn find_by_tokens(&self, of: Vec<UniqueToken>) -> Result<Vec<Option<JobId>>, StoreError> {
        self.reached()?.find_by_tokens(of).await
    }
    async fn waiting_jobs(&self) -> Result<BTreeMap<PluginId, u64>, StoreError> {
        until_over(&self.counts_hang).await;
        self.reached()?.waiting_jobs().await
    }
    async fn job(&self, id: JobId, declared: Arc<LimitTable>) -> Result<Option<JobSnapshot>, StoreError> {
        self.store.job(id, declared).await
    }
    async fn jobs(&self, wanted: JobFilter) -> Result<JobPage, StoreError> {
        self.store.jobs(wanted).await
    }
    async fn entries(&self, id: JobId, after: u64, max: u32) -> Result<Vec<NumberedEntry>, StoreError> {
        self.store.entries(id, after, max).await
    }
    async fn delete_expired(&self, expired: ExpiredJobs) -> Result<ExpiredDeleted, StoreError> {
        self.reached()?.delete_expired(expired).await
    }
    async fn overrides(&self) -> Result<Vec<Override>, StoreError> {
        self.store.overrides().await
    }
    async fn set_override(&self, change: Override, by: Author) -> Result<(), StoreError> {
        self.reached()?.set_override(change, by).await
    }
    async fn stats(&self) -> Result<QueueStats, StoreError> {
        self.store.stats().await
    }
    fn nudges(&self) -> Nudges {
        self.store.nudges()
    }
}

#[async_trait]
impl JobFinder for Cut {
    async fn backlog(&self, declared: Arc<LimitTable>, time: Duration) -> Result<Backlog, StoreError> {
        self.reached()?.backlog(declared, time).await
    }
    async fn find(&self, request: FindRequest) -> Result<FindPage, StoreError> {
        self.reached()?.find(request).await
    }
}

#[async_trait]
impl OperationStore for Cut {
    async fn start_operation(
        &self,
        new: NewOperation,
        declared: Arc<LimitTable>,
    ) -> Result<Option<BulkOperation>, StoreError> {
        self.reached()?.start_operation(new, declared).await
    }
    async fn operation(&self, id: JobId) -> Result<Option<BulkOperation>, StoreError> {
        self.reached()?.operation(id).await
    }
    async fn operations(&self, before: Option<JobId>, max: u32) -> Result<Vec<BulkOperation>, StoreError> {
        self.reached()?.operations(before, max).await
    }
    async fn open_operations(&self) -> Result<Vec<BulkOperation>, StoreError> {
        self.reached()?.open_operations().await
    }
    async fn take_operation_step(&self, step: OperationStep) -> Result<Option<StepTaken>, StoreError> {
        if self.steps_fail.load(Ordering::SeqCst) && !step.targets.is_empty() {
            return Err(StoreError::Broken("a row is damaged".into()));
        }
        self.reached()?.take_operation_step(step).await
    }
    async fn cancel_operation(&self, id: JobId, by: Author) -> Result<Option<BulkOperation>, StoreError> {
        self.reached()?.cancel_operation(id, by).await
    }
    async fn delete_ended_operations(&self, before: Timestamp, max: u32) -> Result<u32, StoreError> {
        self.reached()?.delete_ended_operations(before, max).await
    }
}

#[async_trait]
impl ScheduleStore for Cut {
    async fn schedule(&self, id: ScheduleId) -> Result<Option<Schedule>, StoreError> {
        self.reached()?.schedule(id).await
    }
    async fn schedules(
        &self,
        source: Option<ScheduleSource>,
        after: Option<ScheduleId>,
        max: u32,
    ) -> Result<Vec<Schedule>, StoreError> {
        self.reached()?.schedules(source, after, max).await
    }
    async fn due_schedules(
        &self,
        after: Option<(Timestamp, ScheduleId)>,
        max: u32,
    ) -> Result<DueSchedules, StoreError> {
        self.reached()?.due_schedules(after, max).await
    }
    async fn schedules_ahead(&self, max: u32) -> Result<Vec<Schedule>, StoreError> {
        self.reached()?.schedules_ahead(max).await
    }
    async fn write_schedules(&self, writes: Vec<ScheduleWrite>) -> Result<Vec<ScheduleWritten>, StoreError> {
        self.reached()?.write_schedules(writes).await
    }
    async fn fire_schedules(
        &self,
        firings: Arc<Vec<ScheduleFiring>>,
        declared: Arc<LimitTable>,
    ) -> Result<Vec<Option<ScheduleFired>>, StoreError> {
        self.reached()?.fire_schedules(firings, declared).await
    }
    async fn schedule_files(&self) -> Result<Vec<(NodeId, BTreeMap<ScheduleId, u64>)>, StoreError> {
        self.reached()?.schedule_files().await
    }
    async fn set_schedule_file(
        &self,
        node: NodeId,
        file: BTreeMap<ScheduleId, u64>,
        gone: Vec<NodeId>,
    ) -> Result<(), StoreError> {
        self.reached()?.set_schedule_file(node, file, gone).await
    }
}

#[async_trait]
impl HoldStore for Cut {
    async fn set_hold(&self, hold: NewHold) -> Result<Option<Hold>, StoreError> {
        self.reached()?.set_hold(hold).await
    }
    async fn release_hold(&self, scope: HoldScope, by: Author) -> Result<Option<Hold>, StoreError> {
        self.reached()?.release_hold(scope, by).await
    }
    async fn holds(&self, after: Option<HoldScope>, max: u32) -> Result<HoldPage, StoreError> {
        self.reached()?.holds(after, max).await
    }
    async fn holds_of(&self, scopes: Vec<HoldScope>) -> Result<Vec<Hold>, StoreError> {
        self.reached()?.holds_of(scopes).await
    }
    async fn delete_ended_holds(&self, max: u32) -> Result<u32, StoreError> {
        self.reached()?.delete_ended_holds(max).await
    }
}

#[async_trait]
impl AuditLog for Cut {
    async fn change_job(&self, id: JobId, event: Event, by: Author) -> Result<Result<Recorded, Refusal>, StoreError> {
        let recorded = self.reached()?.change_job(id, event, by).await;
        self.respond(recorded).await
    }
    async fn add_act(&self, act: NewAct) -> Result<(), StoreError> {
        self.reached()?.add_act(act).await
    }
    async fn acts(&self, filter: ActFilter) -> Result<ActPage, StoreError> {
        self.store.acts(filter).await
    }
    async fn delete_acts(&self, before: Timestamp, max: u32) -> Result<u32, StoreError> {
        self.reached()?.delete_acts(before, max).await
    }
}

#[async_trait]
impl AttemptStore for Cut {
    async fn attempts(&self, id: JobId) -> Result<Vec<Attempt>, StoreError> {
        self.reached()?.attempts(id).await
    }
}

#[async_trait]
impl FailureStore for Cut {
    async fn failures(&self, filter: FailureFilter) -> Result<FailurePage, StoreError> {
        self.reached()?.failures(filter).await
    }
    async fn failure_details(&self, fingerprint: Fingerprint) -> Result<Option<FailureDetails>, StoreError> {
        self.reached()?.failure_details(fingerprint).await
    }
    async fn set_failure_state(
        &self,
        fingerprint: Fingerprint,
        state: FailureState,
        by: Author,
    ) -> Result<Option<FailureGroup>, StoreError> {
        self.reached()?.set_failure_state(fingerprint, state, by).await
    }
    async fn delete_failures(&self, before: Timestamp, max: u32) -> Result<u32, StoreError> {
        self.reached()?.delete_failures(before, max).await
    }
}

#[async_trait]
impl KvStore for Cut {
    async fn value(&self, plugin: PluginId, key: KvKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.values()?.value(plugin, key).await
    }
    async fn value_keys(&self, plugin: PluginId, wanted: KvKeyQuery) -> Result<Vec<KvKey>, StoreError> {
        self.values()?.value_keys(plugin, wanted).await
    }
    async fn usage(&self, plugin: PluginId, of: Vec<KvKey>) -> Result<(KvUsage, Vec<Option<u64>>), StoreError> {
        self.values()?.usage(plugin, of).await
    }
}

#[async_trait]
impl NodeRegistry for Cut {
    async fn register(&self, node: Node, silent: Duration) -> Result<(), StoreError> {
        self.registered.fetch_add(1, Ordering::SeqCst);
        self.store.register(node, silent).await
    }
    async fn deregister(&self, node: NodeId) -> Result<(), StoreError> {
        self.store.deregister(node).await
    }
    async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        self.store.nodes().await
    }
    async fn set_activity(&self, node: NodeId, activity: Arc<Activity>) -> Result<(), StoreError> {
        self.reached()?.set_activity(node, activity).await
    }
    async fn activities(&self) -> Result<Vec<(NodeId, Arc<Activity>)>, StoreError> {
        self.store.activities().await
    }
    async fn set_node_mark(&self, node: NodeId, mark: NodeMark) -> Result<(), StoreError> {
        self.reached()?.set_node_mark(node, mark).await
    }
}

#[async_trait]
impl StoreFiles for Cut {
    async fn size(&self) -> Result<StoreSize, StoreError> {
        self.store.size().await
    }

    async fn seal_key(&self) -> Result<[u8; 32], StoreError> {
        self.reached()?.seal_key().await
    }
}

impl Store for Cut {
    fn messages(&self) -> Option<&dyn NodeMessages> {
        self.store.messages()
    }
}
