//! The stores of a history: the memory store as oracle, a SQLite store and a PostgreSQL store, with one clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use wharf_core::attempt::dropped_count;
use wharf_core::bulk::BulkOperation;
use wharf_core::fingerprint::Fingerprint;
use wharf_core::hold::HoldTable;
use wharf_core::ids::{Group, JobId, NodeId, TaskName};
use wharf_core::job::{Job, State, WaitReason};
use wharf_core::lease::Lease;
use wharf_core::limits::LimitTable;
use wharf_core::room::{Room, TaskCost};
use wharf_store::{
    AuditLog as _, Claim, Claimed, FailureStore as _, HoldStore as _, JobSnapshot, MemoryStore, NodeRegistry as _,
    OperationStore as _, PostgresStore, Queue as _, Renewed, SqliteStore, Store,
};

use super::bulk::{self, Start};
use super::occurred::{note_inserted, note_recorded, note_step};
use super::operation::Operation;
use super::snapshot::Snapshot;
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
    /// The starts of all bulk operations.
    starts: BTreeMap<JobId, Start>,
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
    /// Checks the rules between the rows of both databases, and those of a backup of the file.
    pub(super) async fn check(&self) {
        let (file, copy) = (self.folder.path().join("wharf.db"), self.folder.path().join("copy.db"));
        let backup = wharf_store::backup(&file.display().to_string(), &copy, &mut |_, _| {}).unwrap();
        let checks = [
            ("the file", wharf_store::check_file(&file).await),
            ("the backup", wharf_store::check_file(&copy).await),
            ("the database", wharf_store::check(&self.address).await),
        ];
        for (what, report) in checks {
            let report = report.unwrap();
            assert_eq!(report.faults, [], "{what}");
            assert_eq!(report.contents, backup.contents, "{what}");
        }
    }

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
            starts: BTreeMap::new(),
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
                let started = call!(self, start_operation(*new, self.declared[0]));
                if let Some(started) = started.filter(|started| started.id == new.id) {
                    let start = Start::see(&self.oracle, &started, &self.declared[0]).await;
                    self.starts.insert(started.id, start);
                    // What comes next is after the start.
                    self.clock.pass(Duration::from_micros(1));
                }
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
        let all = Snapshot::of(self, &self.oracle).await.seen;
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
        let mut snapshot = Snapshot::of(self, &self.oracle).await;
        for (name, other) in self.others() {
            snapshot = same(snapshot, Snapshot::of(self, other).await, &format!("all that can be read on {name}"));
        }
        self.jobs_before = std::mem::take(&mut self.jobs);
        self.jobs = snapshot.seen.iter().map(|seen| seen.job.clone()).collect();
        self.open = snapshot.operations.iter().filter(|operation| !operation.state.is_final()).cloned().collect();
        // One of them after each step.
        if let Some(operation) = self.open.get((self.jobs.len() + self.leases.len()) % self.open.len().max(1)) {
            let mut found = bulk::find(&self.oracle, operation).await;
            for (name, other) in self.others() {
                found = same(found, bulk::find(other, operation).await, &format!("{operation:?} on {name}"));
            }
            let (found, moved_on) = found;
            self.starts[&operation.id].check(operation, &found, &self.jobs);
            if moved_on > 0 {
                occurred.insert("left out by an operation");
            }
            if !found.is_empty() && operation.query().unwrap().needs_wait_view() {
                occurred.insert("taken by an operation that asks why jobs wait");
            }
        }
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
}
