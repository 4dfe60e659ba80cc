//! A store that fails for a while, and one that fails for too long.

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
use wharf_core::job::{NewJob, NumberedEntry, StateName, UniqueToken};
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery, KvUsage};
use wharf_core::lease::{Lease, NodeMark};
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, Override};
use wharf_core::node::Node;
use wharf_core::outcome::OutcomeKind;
use wharf_core::rollcall::{Answer, Mode};
use wharf_core::schedule::{Schedule, ScheduleFiring, ScheduleSource};
use wharf_core::time::Timestamp;
use wharf_runner::{Broadcast, ChangeError, EnqueueError, Enqueued, Notice, Request};
use wharf_store::{
    ActFilter, ActPage, AttemptStore, AuditLog, Claim, Claimed, DueSchedules, ExpiredDeleted, ExpiredJobs,
    FailureFilter, FailurePage, FailureStore, FindPage, FindRequest, HoldPage, HoldStore, Inserted, JobFilter,
    JobFinder, JobPage, JobSnapshot, KvStore, NodeMessages, NodeRegistry, Nudges, OperationStore, Queue, QueueStats,
    Recorded, Renewed, ScheduleFired, ScheduleStore, ScheduleWrite, ScheduleWritten, SqliteStore, StepTaken, Store,
    StoreError, StoreFiles, StoreSize, SystemClock,
};

use crate::setup::{LONG, Setup, memory, order};

/// A real store that can be cut off.
pub(crate) struct Cut {
    store: Arc<dyn Store>,
    pub(crate) off: AtomicBool,
    /// Writes are done, but return only when this ends.
    pub(crate) hanging: AtomicBool,
    /// Only values of plugins cannot be read.
    kv_off: AtomicBool,
    /// Only the events of attempts cannot be recorded.
    pub(crate) records_off: AtomicBool,
    /// New jobs have values that the store cannot take.
    refusing: AtomicBool,
    /// Steps of bulk operations that change jobs fail.
    pub(crate) steps_fail: AtomicBool,
    /// The waiting jobs cannot be counted: no call returns until this ends.
    pub(crate) counts_hang: AtomicBool,
    /// The jobs of subscribers are written only when this ends.
    pub(crate) subscribers_hang: AtomicBool,
    /// Number of calls that write jobs of subscribers.
    pub(crate) subscribers_wrote: AtomicU32,
    registered: AtomicU32,
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
    async fn start_operation(&self, new: NewOperation) -> Result<Option<BulkOperation>, StoreError> {
        self.reached()?.start_operation(new).await
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
}

impl Store for Cut {
    fn messages(&self) -> Option<&dyn NodeMessages> {
        self.store.messages()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_while_the_store_is_away_is_recorded_when_it_is_back() {
    let cut = Cut::before(memory());
    let running = Setup::new().with(&["villain"]).start(cut.clone()).await;
    let id = running.enqueue(order("slow", r#"{"do":"emit","chunks":5,"pause-ms":50}"#)).await;
    running.until_running(id).await;
    cut.off.store(true, Ordering::SeqCst);
    running.until_notified("the attempt ended", |notice| matches!(notice, Notice::AttemptEnded(_))).await;
    running.until_notified("the store failed", |notice| matches!(notice, Notice::StoreFailed { .. })).await;
    assert!(running.host.health().store.unwrap_err().contains("cut off"));
    assert_eq!(running.host.job(id).await.unwrap().unwrap().seen.job.status.state.name(), StateName::Running);
    cut.off.store(false, Ordering::SeqCst);
    let seen = running.finished(id).await;
    assert_eq!((seen.job.status.state.name(), seen.job.status.attempt), (StateName::Succeeded, 1));
    let chunks = running.host.follow(id, 0);
    let chunks = futures_util::StreamExt::collect::<Vec<_>>(chunks).await;
    assert_eq!(chunks.len(), 6, "five chunks and the end: {chunks:?}");
    running.until_notified("the store has recovered", |notice| matches!(notice, Notice::StoreRecovered)).await;
    assert_eq!(running.host.health().store, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_lease_cannot_be_confirmed_is_stopped_before_it_runs_out() {
    let cut = Cut::before(memory());
    let mut setup = Setup::new().with(&["villain"]);
    (setup.lease, setup.lease_margin) = (Duration::from_millis(1500), Duration::from_millis(300));
    let running = setup.start(cut.clone()).await;
    let id = running.enqueue(order("slow", r#"{"do":"sleep","ms":60000}"#)).await;
    // It outlives its first lease, since the store can be reached.
    running.until_running(id).await;
    let first = running.host.job(id).await.unwrap().unwrap().seen.job.status;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let now = running.host.job(id).await.unwrap().unwrap().seen.job.status;
    assert_eq!((first.attempt, now.attempt), (1, 1));
    cut.off.store(true, Ordering::SeqCst);
    let stopped =
        |notice: &Notice| matches!(notice, Notice::AttemptEnded(ended) if ended.job == id && ended.number == 1);
    running.until_notified("it was stopped", stopped).await;
    let wharf_core::job::State::Running { lease } = running.host.job(id).await.unwrap().unwrap().seen.job.status.state
    else {
        panic!("nobody could have recorded its end")
    };
    assert!(cut.now() < lease.until, "its lease had run out before it was stopped");
    cut.off.store(false, Ordering::SeqCst);
    running.until_notified("it runs again", |notice| matches!(notice, Notice::AttemptStarted { number: 2, .. })).await;
    running.host.stop_now().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_a_response_is_reported_as_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let file: Arc<dyn Store> =
        Arc::new(SqliteStore::open(folder.path().join("wharf.db"), Arc::new(SystemClock)).unwrap());
    for store in [memory(), file] {
        let cut = Cut::before(store);
        let mut setup = Setup::new().with(&["villain"]);
        setup.write_timeout = Duration::from_millis(100);
        let running = setup.start(cut.clone()).await;
        let asked =
            || Request { token: Some("one".to_owned()), delay: Some(LONG), ..order("slow", r#"{"do":"echo"}"#) };
        cut.hanging.store(true, Ordering::SeqCst);
        let unknown = running.host.enqueue(vec![asked()]).await.unwrap_err();
        assert!(matches!(unknown, EnqueueError::Store(StoreError::Unknown(_))), "{unknown:?}");
        let no_response =
            |notice: &Notice| matches!(notice, Notice::StoreFailed { why, .. } if why.contains("no response"));
        running.until_notified("the store gave no response", no_response).await;
        cut.hanging.store(false, Ordering::SeqCst);
        let Enqueued::Duplicate(id) = running.host.enqueue(vec![asked()]).await.unwrap().remove(0) else {
            panic!("it was written, and its token is known")
        };
        cut.hanging.store(true, Ordering::SeqCst);
        let unknown = running.host.cancel(id, Author::anyone()).await.unwrap_err();
        assert!(matches!(unknown, ChangeError::Store(StoreError::Unknown(_))), "{unknown:?}");
        cut.hanging.store(false, Ordering::SeqCst);
        assert_eq!(running.finished(id).await.job.status.state.name(), StateName::Cancelled);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_hangs_is_reported_while_it_hangs() {
    let cut = Cut::before(memory());
    let running = Setup::new().with(&["villain"]).start(cut.clone()).await;
    let id = running.enqueue(order("slow", r#"{"do":"sleep","ms":200}"#)).await;
    running.until_running(id).await;
    cut.hanging.store(true, Ordering::SeqCst);
    // Nothing fails meanwhile: this node registers, and leases are renewed.
    let hangs = |notice: &Notice| matches!(notice, Notice::StoreFailed { doing: "recording", why } if why.contains("no response"));
    running.until_notified("the record hangs", hangs).await;
    // Other calls that return do not hide it.
    let before = cut.registered.load(Ordering::SeqCst);
    while cut.registered.load(Ordering::SeqCst) < before + 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(running.host.health().store.is_err());
    assert!(!running.notices().iter().any(|notice| matches!(notice, Notice::StoreRecovered)));
    cut.hanging.store(false, Ordering::SeqCst);
    assert_eq!(running.finished(id).await.job.status.attempt, 1);
    let recovered = async {
        while running.host.health().store.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, recovered).await.expect("the store recovers");
}

fn steps(steps: &str) -> Request {
    let payload = format!(r#"{{"steps": {steps}, "key": "one"}}"#).into_bytes();
    Request { task: "villain-kv/do".to_owned(), payload, ..Request::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_reads_values_waits_until_the_store_is_back() {
    let cut = Cut::before(memory());
    let running = Setup::new().with(&["villain-kv"]).granting("villain-kv", "kv = true").start(cut.clone()).await;
    for query in [
        r#"[{"get": "a"}]"#,
        r#"[{"set": ["a", "1"]}]"#,
        r#"[{"keys": {"prefix": "", "after": null, "most": 9}}]"#,
        r#"[{"add": "n"}, {"add": "n"}]"#,
    ] {
        cut.kv_off.store(true, Ordering::SeqCst);
        let before = running.notices().len();
        let id = running.enqueue(steps(query)).await;
        let fails = async {
            let is_it =
                |notice: &Notice| matches!(notice, Notice::StoreFailed { doing, .. } if doing.contains("values"));
            while !running.notices()[before..].iter().any(is_it) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, fails).await.expect("the store fails");
        cut.kv_off.store(false, Ordering::SeqCst);
        let job = running.finished(id).await.job;
        let status = job.status;
        assert_eq!(
            (status.state.name(), status.attempt, status.failures.failed()),
            (StateName::Succeeded, 1, 0),
            "{query}: {:?}",
            job.report
        );
        let result = String::from_utf8_lossy(&job.result.unwrap()).into_owned();
        assert!(!result.contains("error"), "the guest got an error: {result}");
        // Otherwise the next failure, which is the same one, would not be reported.
        running.until_recovered(before).await;
    }
}

/// Time that goes by while the store is away is none that the job used up: not one that reads, nor one that writes.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_time_ends_while_it_waits_for_the_store_is_given_back_at_no_cost() {
    // Long enough that a busy machine has begun the attempt a second before its time ends.
    let brief = "[tasks.do]\ntimeout = \"6s\"\nretry = { attempts = 1 }";
    let setup = Setup::new()
        .with(&["villain-kv", "villain"])
        .granting("villain-kv", &format!("kv = true\n{brief}"))
        .granting("villain", brief);
    let reads = (steps(r#"[{"get": "a"}]"#), true);
    let writes = (order("do", r#"{"do":"flood-chunks","chunks":80,"bytes":65536}"#), false);
    for (request, reads) in [reads, writes] {
        let cut = Cut::before(memory());
        let running = setup.start(cut.clone()).await;
        let off = if reads { &cut.kv_off } else { &cut.records_off };
        off.store(true, Ordering::SeqCst);
        let id = running.enqueue(request).await;
        let given_back = |notice: &Notice| matches!(notice, Notice::AttemptEnded(ended) if ended.job == id && ended.kind == OutcomeKind::Interrupted);
        running.until_notified("it was given back", given_back).await;
        off.store(false, Ordering::SeqCst);
        let job = running.finished(id).await.job;
        assert_eq!(
            (job.status.state.name(), job.status.failures.failed()),
            (StateName::Succeeded, 0),
            "{:?}",
            job.report
        );
        assert!(job.status.attempt > 1);
        let ended = running.notices().into_iter().find(given_back).unwrap();
        let Notice::AttemptEnded(ended) = ended else { unreachable!() };
        assert!(ended.report.contains("waited for the store"), "{}", ended.report);
        running.host.stop_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_whose_time_ends_while_it_waits_for_the_store_has_not_failed() {
    let cut = Cut::before(memory());
    let running = Setup::new().with(&["villain-kv"]).granting("villain-kv", "kv = true").start(cut.clone()).await;
    cut.kv_off.store(true, Ordering::SeqCst);
    let payload = br#"{"steps": [{"get": "a"}]}"#.as_slice().into();
    let asked = Broadcast { topic: "kv.do".into(), payload, timeout: LONG, mode: Mode::All };
    let answer = running.host.broadcast(asked).unwrap().all().await.remove(0).answer;
    assert!(matches!(&answer, Answer::Skipped(why) if why.contains("the store")), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_store_refuses_leaves_the_host_ready() {
    let cut = Cut::before(memory());
    let running = Setup::new().with(&["villain"]).start(cut.clone()).await;
    cut.refusing.store(true, Ordering::SeqCst);
    let refused = running.host.enqueue(vec![order("slow", r#"{"do":"echo"}"#)]).await.unwrap_err();
    assert!(matches!(refused, EnqueueError::Store(StoreError::Refused(_))), "{refused:?}");
    assert!(running.host.health().store.is_ok());
    cut.refusing.store(false, Ordering::SeqCst);
    let id = running.enqueue(order("slow", r#"{"do":"echo"}"#)).await;
    assert_eq!(running.finished(id).await.job.status.state.name(), StateName::Succeeded);
}
