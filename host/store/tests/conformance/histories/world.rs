//! The stores of a history: the memory store as oracle, a SQLite store and a PostgreSQL store, with one clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use wharf_core::attempt::{Attempt, dropped_count};
use wharf_core::audit::ActKind;
use wharf_core::author::Author;
use wharf_core::backlog::{Backlog, TaskBacklog};
use wharf_core::bulk::{BulkAct, BulkOperation, OperationStep};
use wharf_core::failure::{FailureDetails, FailureState};
use wharf_core::find::{JobOrder, JobQuery};
use wharf_core::fingerprint::Fingerprint;
use wharf_core::hold::HoldTable;
use wharf_core::ids::{Group, JobId, NodeId, PluginId, TaskName};
use wharf_core::job::{Job, NumberedEntry, State, StateName, WaitReason};
use wharf_core::kv::{KvKey, KvKeyQuery, KvUsage};
use wharf_core::lease::Lease;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, Override};
use wharf_core::room::{Room, TaskCost};
use wharf_core::time::Timestamp;
use wharf_store::{
    ActFilter, AuditLog as _, Claim, Claimed, FailureFilter, FailurePage, FailureStore as _, FindRequest, HoldPage,
    HoldStore as _, Inserted, JobFilter, JobPage, JobSnapshot, MemoryStore, NodeRegistry as _, OperationStore as _,
    PostgresStore, Queue as _, QueueStats, Recorded, Renewed, SqliteStore, StepTaken, Store,
};

use super::operation::{BATCHES, Operation, PLUGINS};
use crate::server::shared_address;
use crate::stage::{COUNT, HandClock, LEASE, LIST, MAKE, at_most, group, task};

pub(super) struct World {
    pub(super) clock: Arc<HandClock>,
    pub(super) oracle: MemoryStore,
    file: Option<SqliteStore>,
    folder: TempDir,
    database: Option<PostgresStore>,
    address: String,
    pub(super) tasks: Vec<(TaskName, Group)>,
    /// The limits that two versions of the plugins declare; mostly the first is used.
    pub(super) declared: [Arc<LimitTable>; 2],
    /// The jobs that exist.
    pub(super) ids: Vec<JobId>,
    /// Every lease that was ever claimed.
    pub(super) leases: Vec<Lease>,
    /// The current leases.
    pub(super) running: Vec<Lease>,
    /// The failure groups that exist.
    pub(super) failures: Vec<Fingerprint>,
    /// The jobs that exist, the newest first, and those that existed a step ago.
    pub(super) jobs: Vec<Job>,
    pub(super) jobs_before: Vec<Job>,
    /// The bulk operations that have not ended.
    pub(super) open: Vec<BulkOperation>,
}

/// Everything that can be read from a store.
#[derive(Debug, PartialEq)]
struct Snapshot {
    seen: Vec<JobSnapshot>,
    entries: Vec<Vec<NumberedEntry>>,
    attempts: Vec<Vec<Attempt>>,
    failures: Vec<FailurePage>,
    failure_details: Vec<Option<FailureDetails>>,
    pages: Vec<JobPage>,
    /// The jobs that each of some queries finds.
    found: Vec<Vec<JobId>>,
    overrides: Vec<Override>,
    holds: Vec<HoldPage>,
    operations: Vec<BulkOperation>,
    /// How many jobs of each durable broadcast were deleted.
    deleted: Vec<u64>,
    /// Every act: when, who, what. Their numbers differ between stores.
    acts: Vec<(Timestamp, Author, ActKind, String, String)>,
    stats: QueueStats,
    backlog: Backlog,
    waiting: BTreeMap<PluginId, u64>,
    /// The usage and the values of each plugin.
    kept: Vec<(KvUsage, Vec<(KvKey, Option<Vec<u8>>)>)>,
}

/// The results of the same operation on two stores, which must be equal.
fn same<T: PartialEq + Debug>(oracle: T, other: T, about: &str) -> T {
    assert!(oracle == other, "{about}:\n the oracle says {oracle:#?}\n the other one says {other:#?}");
    oracle
}

macro_rules! call {
    ($world:expr, $method:ident ( $($argument:expr),* )) => {{
        let mut result = $world.oracle.$method($($argument.clone()),*).await.unwrap();
        for (name, other) in $world.others() {
            let about = format!("{} on {name}", stringify!($method));
            result = same(result, other.$method($($argument.clone()),*).await.unwrap(), &about);
        }
        result
    }};
}

impl World {
    pub(super) async fn new() -> World {
        let clock = HandClock::new();
        let folder = tempfile::tempdir().unwrap();
        let mut first = LimitTable::default();
        first.declare(group("shared"), at_most(2, 4));
        let mut second = first.clone();
        second.declare(group(MAKE), at_most(1, None));
        let address = shared_address();
        World {
            database: Some(PostgresStore::open_with_clock(&address, clock.clone()).await.unwrap()),
            address,
            oracle: MemoryStore::open(clock.clone()),
            file: Some(SqliteStore::open(folder.path().join("wharf.db"), clock.clone()).unwrap()),
            folder,
            clock,
            tasks: vec![(task(COUNT), group("shared")), (task(LIST), group("shared")), (task(MAKE), group(MAKE))],
            declared: [Arc::new(first), Arc::new(second)],
            ids: Vec::new(),
            leases: Vec::new(),
            running: Vec::new(),
            failures: Vec::new(),
            jobs: Vec::new(),
            jobs_before: Vec::new(),
            open: Vec::new(),
        }
    }

    fn others(&self) -> [(&'static str, &dyn Store); 2] {
        let file = self.file.as_ref().expect("open between steps");
        let database = self.database.as_ref().expect("open between steps");
        [("a file", file), ("a database", database)]
    }

    pub(super) async fn perform(&mut self, operation: Operation, occurred: &mut BTreeSet<&'static str>) {
        match operation {
            Operation::Insert(jobs) => {
                occurred.insert("insert");
                let results = call!(self, insert(jobs, self.declared[0]));
                results.iter().for_each(|result| note_inserted(result, false, occurred));
            }
            Operation::InsertWithChanges(jobs, changes) => {
                occurred.insert("inserted with changes");
                let changes = Some(changes);
                let results = call!(self, insert_with_changes(jobs, self.declared[0], changes));
                results.iter().for_each(|result| note_inserted(result, false, occurred));
            }
            Operation::Claim(claim) => {
                occurred.insert("claim");
                let claimed = call!(self, claim(claim));
                self.check_claim(&claim, &claimed, occurred).await;
                self.leases.extend(claimed.leased.iter().map(|leased| leased.lease));
            }
            Operation::Record(events) => {
                occurred.insert("record");
                let events = Arc::new(events);
                let results = call!(self, record(events));
                for ((_, event), result) in events.iter().zip(&results) {
                    note_recorded(event, result, occurred);
                }
            }
            Operation::Renew(leases, length) => {
                occurred.insert("renew");
                for result in call!(self, renew(leases, length)) {
                    occurred.insert(match result {
                        Renewed::Renewed(_) => "held",
                        Renewed::RenewedCancelRequested(_) => "held and asked to end",
                        Renewed::Lost(_) => "lost",
                    });
                }
            }
            Operation::Mark(node, mark) => {
                occurred.insert("mark");
                call!(self, set_node_mark(node, mark));
            }
            Operation::Reclaim(max) => {
                occurred.insert("reclaim");
                if !call!(self, reclaim(max)).is_empty() {
                    occurred.insert("reclaimed");
                }
            }
            Operation::DeleteExpired(expired) => {
                occurred.insert("delete finished");
                let result = call!(self, delete_expired(expired));
                if result.deleted > 0 {
                    occurred.insert("forgot");
                }
            }
            Operation::SetOverride(change, by) => {
                occurred.insert("set override");
                call!(self, set_override(change, by));
            }
            Operation::ChangeJob(job, event, by) => {
                let result = call!(self, change_job(job, event, by));
                occurred.insert(if result.is_ok() { "act on a job" } else { "act on a job refused" });
                note_recorded(&event, &result, occurred);
            }
            Operation::DeleteActs(before, max) => {
                if call!(self, delete_acts(before, max)) > 0 {
                    occurred.insert("deleted acts");
                }
            }
            Operation::SetHold(hold) => {
                occurred.insert("set hold");
                call!(self, set_hold(hold));
            }
            Operation::ReleaseHold(scope, by) => {
                let released = call!(self, release_hold(scope, by));
                occurred.insert(if released.is_some() { "released" } else { "released nothing" });
            }
            Operation::DeleteEndedHolds(max) => {
                if call!(self, delete_ended_holds(max)) > 0 {
                    occurred.insert("deleted holds");
                }
            }
            Operation::StartBulk(new) => {
                occurred.insert("operation started");
                call!(self, start_operation(*new));
            }
            Operation::TakeStep(step) => {
                let taken = call!(self, take_operation_step(step));
                note_step(&step, taken.as_ref(), occurred);
            }
            Operation::CancelBulk(id, by) => {
                if call!(self, cancel_operation(id, by)).is_some() {
                    occurred.insert("operation cancelled");
                }
            }
            Operation::DeleteEndedOperations(before, max) => {
                if call!(self, delete_ended_operations(before, max)) > 0 {
                    occurred.insert("operations deleted");
                }
            }
            Operation::SetFailureState(fingerprint, state, by) => {
                let set = call!(self, set_failure_state(fingerprint, state, by));
                occurred.insert(if set.is_some() { "failure state set" } else { "no such failure" });
            }
            Operation::DeleteFailures(before, max) => {
                if call!(self, delete_failures(before, max)) > 0 {
                    occurred.insert("deleted failures");
                }
            }
            Operation::Announce(node) => {
                occurred.insert("announced");
                call!(self, register(node, LEASE));
            }
            Operation::Pass(length) => {
                occurred.insert("time passes");
                self.clock.pass(length);
            }
            Operation::Crash => {
                occurred.insert("crash");
                self.crash().await;
            }
        }
    }

    /// Lets the host crash: only the file and its log are left. The memory store never crashes, but all its leases have expired,
    /// too, by the time that the next host starts.
    async fn crash(&mut self) {
        let next = tempfile::tempdir().unwrap();
        for name in ["wharf.db", "wharf.db-wal"] {
            std::fs::copy(self.folder.path().join(name), next.path().join(name)).unwrap();
        }
        drop(self.file.take());
        self.clock.pass(LEASE);
        self.file = Some(SqliteStore::open(next.path().join("wharf.db"), self.clock.clone()).unwrap());
        self.folder = next;
        drop(self.database.take());
        self.database = Some(PostgresStore::open_with_clock(&self.address, self.clock.clone()).await.unwrap());
        // A host claims before its attempts can end: until then the SQLite store does not know what plugins declare.
        let declared = self.declared[0].clone();
        let claim = Claim {
            node: NodeId(0),
            tasks: [].into(),
            declared,
            free: 0,
            room: Room::UNLIMITED,
            costs: Arc::default(),
            task_quotas: Vec::new(),
            lease: LEASE,
        };
        call!(self, claim(claim));
    }

    async fn check_claim(&self, claim: &Claim, claimed: &Claimed, occurred: &mut BTreeSet<&'static str>) {
        occurred.insert(if claimed.leased.is_empty() { "leased nothing" } else { "leased" });
        assert!(claimed.leased.len() <= claim.free as usize);
        match claimed.wake_at {
            Some(at) if at > self.oracle.now() => _ = occurred.insert("wakes later"),
            _ => {}
        }
        let limits = claim.declared.with_overrides(self.oracle.overrides().await.unwrap());
        let all = self.snapshot(&self.oracle).await.seen;
        let (mut lanes, mut groups) = (BTreeMap::new(), BTreeMap::new());
        for JobSnapshot { job, .. } in all.iter().filter(|seen| matches!(seen.job.status.state, State::Running { .. }))
        {
            *lanes.entry(&job.lane).or_insert(0u32) += 1;
            *groups.entry(&job.lane.group).or_insert(0u32) += 1;
        }
        for (task, quota) in &claim.task_quotas {
            let of_task = claimed.leased.iter().filter(|leased| leased.task == *task).count();
            assert!(of_task <= *quota as usize, "{task} exceeds its quota");
        }
        if claimed.quota_reached {
            occurred.insert("held back");
        }
        for leased in &claimed.leased {
            let lane = &leased.lane;
            assert!(limits.per_key(lane).is_none_or(|limit| lanes[lane] <= limit), "{lane:?} is over its limit");
            let total = limits.of(&lane.group).total;
            assert!(total.is_none_or(|limit| groups[&lane.group] <= limit), "{:?} is over its limit", lane.group);
        }
        let holds: HoldTable = self.oracle.holds(None, 1000).await.unwrap().holds.into_iter().collect();
        for leased in &claimed.leased {
            assert_eq!(holds.on_job(&leased.task, &leased.lane, self.oracle.now()), None, "{leased:?} is held");
        }
        let mut taken = TaskCost::NOTHING;
        for leased in &claimed.leased {
            let cost = claim.costs.get(&leased.task).copied().unwrap_or(TaskCost::ORDINARY);
            taken = taken.plus(claim.room.bounded(cost));
        }
        assert!(claim.room.fits(taken), "{taken:?} of {:?}", claim.room);
        assert!(claimed.overtook as usize <= claimed.leased.len());
        if claimed.short_of_room {
            occurred.insert("short of room");
        }
        if claimed.overtook > 0 {
            occurred.insert("overtook");
        }
        // No job is stuck: while slots and room are free, a job that still waits has another reason than its turn.
        if claimed.leased.len() < claim.free as usize && !claimed.short_of_room {
            let of_task = |task: &TaskName| claimed.leased.iter().filter(|leased| leased.task == *task).count();
            let has_quota = |task: &TaskName| {
                claim.task_quotas.iter().all(|(bounded, quota)| bounded != task || of_task(task) < *quota as usize)
            };
            let could_run = |snapshot: &&JobSnapshot| {
                claim.tasks.iter().any(|(task, _)| *task == snapshot.job.task && has_quota(task))
            };
            for seen in all.iter().filter(could_run) {
                let why = self.oracle.job(seen.job.id, claim.declared.clone()).await.unwrap().unwrap().why;
                assert_ne!(why, Some(WaitReason::InTurn), "{} is stuck", seen.job.id);
            }
        }
    }

    pub(super) async fn compare(&mut self, occurred: &mut BTreeSet<&'static str>) {
        let mut snapshot = self.snapshot(&self.oracle).await;
        for (name, other) in self.others() {
            snapshot = same(snapshot, self.snapshot(other).await, &format!("all that can be read on {name}"));
        }
        self.jobs_before = std::mem::take(&mut self.jobs);
        self.jobs = snapshot.seen.iter().map(|seen| seen.job.clone()).collect();
        self.open = snapshot.operations.iter().filter(|operation| !operation.state.is_final()).cloned().collect();
        if snapshot.deleted.iter().any(|deleted| *deleted > 0) {
            occurred.insert("deleted of a broadcast");
        }
        self.ids = snapshot.seen.iter().map(|seen| seen.job.id).collect();
        self.running.clear();
        self.failures = snapshot.failures[2].groups.iter().map(|group| group.fingerprint).collect();
        for (JobSnapshot { job, .. }, attempts) in snapshot.seen.iter().zip(&snapshot.attempts) {
            let is_failed = job.status.state == State::Failed;
            assert_eq!(job.fingerprint.is_some(), is_failed, "{job:?}");
            assert!(!is_failed || attempts.last().is_some_and(|last| last.fingerprint == job.fingerprint), "{job:?}");
        }
        for (JobSnapshot { job, .. }, attempts) in snapshot.seen.iter().zip(&snapshot.attempts) {
            let has_result = matches!(job.status.state, State::Running { .. } | State::Succeeded);
            let ended = job.status.attempt - u32::from(has_result);
            assert_eq!(attempts.len() as u32 + dropped_count(attempts), ended, "{job:?} has {attempts:?}");
        }
        for JobSnapshot { job, why, entries } in &snapshot.seen {
            if let State::Running { lease } = job.status.state {
                assert_eq!((lease.job, lease.attempt), (job.id, job.status.attempt));
                self.running.push(lease);
            }
            assert_eq!(job.finished_at.is_some(), job.status.state.name().is_final());
            assert_eq!(why.is_some(), matches!(job.status.state, State::Waiting { .. }));
            if let Some(why) = why {
                occurred.insert(match why {
                    WaitReason::NotDue { .. } => "why: not due",
                    WaitReason::Held(_) => "why: held",
                    WaitReason::LaneFull { .. } => "why: lane full",
                    WaitReason::GroupFull { .. } => "why: group full",
                    WaitReason::Paused => "why: paused",
                    WaitReason::InTurn => "why: in turn",
                });
            }
            assert!(*entries <= 1000, "the snapshot has all entries");
        }
        let waiting = |(_, waiting, _): &(TaskName, u64, u64)| *waiting;
        assert_eq!(snapshot.waiting.values().sum::<u64>(), snapshot.stats.tasks.iter().map(waiting).sum::<u64>());
        let running = self.running.len() as u64;
        assert_eq!(snapshot.stats.groups.iter().map(|(_, running)| running).sum::<u64>(), running);
        assert_eq!(snapshot.stats.tasks.iter().map(|(_, _, running)| running).sum::<u64>(), running);
    }

    async fn snapshot(&self, store: &dyn Store) -> Snapshot {
        let (mut pages, mut before) = (Vec::new(), None);
        loop {
            let page = store.jobs(JobFilter { before, max: 20, ..JobFilter::default() }).await.unwrap();
            before = page.jobs.last().map(|job| job.id);
            let more = page.more;
            pages.push(page);
            if !more {
                break;
            }
        }
        let jobs: Vec<JobId> = pages.iter().flat_map(|page| &page.jobs).map(|job| job.id).collect();
        for state in StateName::ALL {
            let (task, key) = (Some(self.tasks[0].0.clone()), Some("a".parse().unwrap()));
            let of_state = JobFilter { state: Some(state), max: 1000, ..JobFilter::default() };
            pages.push(store.jobs(JobFilter { task, key, ..of_state.clone() }).await.unwrap());
            pages.push(store.jobs(of_state).await.unwrap());
        }
        for batch in BATCHES.map(JobId::from_number) {
            pages.push(store.jobs(JobFilter { batch, max: 1000, ..JobFilter::default() }).await.unwrap());
        }
        // A few queries after each step: over a history, each meets many states of the store.
        let queries = QUERIES.iter().cycle().skip(jobs.len() + 3 * self.leases.len()).take(2);
        let mut found = Vec::new();
        for (text, order) in queries.flat_map(|text| [(text, JobOrder::Newest), (text, JobOrder::Finished)]) {
            found.push(find(store, text, order, &self.declared[0]).await);
        }
        let (mut seen, mut entries, mut attempts) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs {
            seen.push(store.job(job, self.declared[0].clone()).await.unwrap().expect("it was on a page"));
            entries.push(store.entries(job, 0, 1000).await.unwrap());
            attempts.push(store.attempts(job).await.unwrap());
        }
        let every = FailureFilter { max: 1000, ..FailureFilter::default() };
        let resolved = FailureFilter { state: Some(FailureState::Resolved), ..every.clone() };
        let of_task = FailureFilter { task: Some(self.tasks[0].0.clone()), max: 1, ..every.clone() };
        let mut failures = Vec::new();
        for filter in [resolved, of_task, every] {
            failures.push(store.failures(filter).await.unwrap());
        }
        let mut failure_details = Vec::new();
        for group in &failures[2].groups {
            failure_details.push(store.failure_details(group.fingerprint).await.unwrap());
        }
        let (overrides, stats) = (store.overrides().await.unwrap(), store.stats().await.unwrap());
        let all_holds = store.holds(None, 1000).await.unwrap();
        let second = all_holds.holds.first().map(|hold| hold.scope.clone());
        let holds = vec![store.holds(second, 2).await.unwrap(), all_holds];
        let backlog = store.backlog(self.declared[0].clone(), Duration::MAX).await.unwrap();
        let counted = |(task, of): (&TaskName, &TaskBacklog)| (task.clone(), of.waiting, of.running);
        let counted: Vec<_> = backlog.tasks.iter().map(counted).collect();
        assert_eq!(counted, stats.tasks);
        let operations = store.operations(None, 1000).await.unwrap();
        let mut open = operations.clone();
        open.retain(|operation| !operation.state.is_final());
        open.reverse();
        assert_eq!(store.open_operations().await.unwrap(), open);
        let mut deleted = Vec::new();
        for batch in BATCHES.map(JobId::from_number) {
            deleted.push(store.deleted_of_batch(batch.unwrap()).await.unwrap());
        }
        let waiting = store.waiting_jobs().await.unwrap();
        let mut counted = BTreeMap::new();
        for (task, count, _) in stats.tasks.iter().filter(|(_, count, _)| *count > 0) {
            *counted.entry(task.plugin()).or_default() += count;
        }
        assert_eq!(waiting, counted, "{:?}", stats.tasks);
        let mut kept = Vec::new();
        for plugin in PLUGINS {
            kept.push(values_of(store, plugin).await);
        }
        let acts = acts_of(store).await;
        Snapshot {
            seen,
            entries,
            attempts,
            failures,
            failure_details,
            pages,
            found,
            overrides,
            holds,
            operations,
            deleted,
            acts,
            stats,
            backlog,
            waiting,
            kept,
        }
    }
}

/// The queries that stores are compared by.
const QUERIES: [&str; 14] = [
    "",
    "state:ready",
    "state:delayed,held",
    "state:retrying,blocked",
    "state:waiting,running key:a",
    "state:failed",
    "state:failed,cancelled,running",
    "state:succeeded plugin:words",
    "task:words/list,thumbnail/make key:\"\",b",
    "outcome:trapped",
    "outcome:returned,cancelled",
    "text:UNREACHABLE",
    "batch:0000000000007",
    "since:5s",
];

/// Returns the jobs that meet a query, a few at a time.
async fn find(store: &dyn Store, text: &str, order: JobOrder, declared: &Arc<LimitTable>) -> Vec<JobId> {
    let query = Arc::new(JobQuery::parse(text, store.now()).unwrap());
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let bounds =
            FindRequest { order, after, time: Duration::MAX, ..FindRequest::new(query.clone(), declared.clone(), 7) };
        let page = store.find(bounds).await.unwrap();
        found.extend(page.jobs.iter().map(|job| job.id));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

/// Reads all acts, in pages; and those of one author once more.
async fn acts_of(store: &dyn Store) -> Vec<(Timestamp, Author, ActKind, String, String)> {
    let (mut all, mut filter) = (Vec::new(), ActFilter { max: 3, ..ActFilter::default() });
    loop {
        let page = store.acts(filter.clone()).await.unwrap();
        all.extend(page.acts);
        match page.next {
            Some(next) => filter.before = Some(next),
            None => break,
        }
    }
    assert!(all.windows(2).all(|pair| pair[0].id > pair[1].id), "newest first, each once");
    let of_none = ActFilter { author: Some(Some("none".to_owned())), max: 1000, ..ActFilter::default() };
    let found = store.acts(of_none).await.unwrap().acts;
    let mut expected = all.clone();
    expected.retain(|act| act.author.name() == Some("none"));
    assert_eq!(found, expected);
    all.into_iter().map(|act| (act.id.at, act.author, act.kind, act.target, act.detail)).collect()
}

async fn values_of(store: &dyn Store, plugin: &str) -> (KvUsage, Vec<(KvKey, Option<Vec<u8>>)>) {
    let plugin: PluginId = plugin.parse().unwrap();
    let wanted = KvKeyQuery { prefix: String::new(), after: None, max: 100 };
    let keys = store.value_keys(plugin.clone(), wanted).await.unwrap();
    let (usage, lengths) = store.usage(plugin.clone(), keys.clone()).await.unwrap();
    let mut kept = Vec::new();
    for (key, length) in keys.into_iter().zip(lengths) {
        let value = store.value(plugin.clone(), key.clone()).await.unwrap();
        assert_eq!(value.as_ref().map(|value| value.len() as u64), length, "{key:?}");
        kept.push((key, value));
    }
    let bytes = kept.iter().map(|(key, value)| key.as_str().len() + value.as_ref().map_or(0, Vec::len)).sum::<usize>();
    assert_eq!(usage, KvUsage { values: kept.len() as u64, bytes: bytes as u64 }, "{kept:?}");
    (usage, kept)
}

fn note_step(step: &OperationStep, taken: Option<&StepTaken>, occurred: &mut BTreeSet<&'static str>) {
    let Some(taken) = taken else {
        occurred.insert("operation step refused");
        return;
    };
    if taken.changed.len() < step.targets.len() {
        occurred.insert("operation skipped jobs");
    }
    if !taken.changed.is_empty() {
        occurred.insert(match taken.operation.act {
            BulkAct::Delete => "operation deleted jobs",
            BulkAct::SetPriority => "operation gave priorities",
            BulkAct::Retry | BulkAct::Cancel | BulkAct::RunNow => "operation changed jobs",
        });
    }
}

fn note_inserted(result: &Inserted, child: bool, occurred: &mut BTreeSet<&'static str>) {
    let kinds = if child { ["child added", "child known", "child discarded"] } else { ["added", "known", "discarded"] };
    match result {
        Inserted::Added { replaced, cancel_requested, .. } => {
            occurred.insert(kinds[0]);
            if !replaced.is_empty() {
                occurred.insert("replaced waiting");
            }
            if !cancel_requested.is_empty() {
                occurred.insert("asked running to end");
            }
        }
        Inserted::Duplicate { .. } => _ = occurred.insert(kinds[1]),
        Inserted::Discarded { .. } => _ = occurred.insert(kinds[2]),
    }
}

fn note_recorded(event: &Event, result: &Result<Recorded, Refusal>, occurred: &mut BTreeSet<&'static str>) {
    use wharf_core::job::StateName as S;
    if let Event::Succeeded { changes: Some(changes), .. } = event {
        match result {
            Err(_) => _ = occurred.insert("changes refused"),
            Ok(_) if changes.iter().any(|(_, value)| value.is_none()) => _ = occurred.insert("value taken away"),
            Ok(_) => _ = occurred.insert("values kept"),
        }
    }
    let recorded = match result {
        Ok(recorded) => recorded,
        Err(refusal) => {
            occurred.insert(match refusal {
                Refusal::Unknown => "refused: unknown",
                Refusal::Stale => "refused: stale",
                Refusal::Finished(S::Succeeded) => "refused: finished succeeded",
                Refusal::Finished(S::Failed) => "refused: finished failed",
                Refusal::Finished(S::Cancelled) => "refused: finished cancelled",
                Refusal::NotFinished(S::Waiting) => "refused: not finished waiting",
                Refusal::NotFinished(S::Running) => "refused: not finished running",
                Refusal::NotFinished(S::Succeeded) => "refused: not finished succeeded",
                Refusal::NotWaiting(_) => "refused: not waiting",
                Refusal::Finished(_) | Refusal::NotFinished(_) => panic!("{refusal:?} says the opposite of its state"),
            });
            return;
        }
    };
    recorded.children.iter().for_each(|child| note_inserted(child, true, occurred));
    occurred.insert(match event {
        Event::Claimed { .. } => panic!("a lease was given past the limits"),
        Event::Wrote { .. } => "event: wrote",
        Event::Succeeded { .. } => "event: succeeded",
        Event::Failed { .. } => "event: failed",
        Event::Released { .. } => "event: released",
        Event::Cancelled { .. } => "event: cancelled",
        Event::LeaseExpired { .. } => "event: lease expired",
        Event::CancelRequested => "event: cancel asked",
        Event::Replaced => "event: replaced",
        Event::NotEnqueued(_) => panic!("only a store says so"),
        Event::RetryRequested { .. } => "event: retry asked",
        Event::RunRequested => "event: run asked",
        Event::PriorityChanged { .. } => "event: priority changed",
    });
}
