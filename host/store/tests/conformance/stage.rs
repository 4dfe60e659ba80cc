//! A fresh store with a clock that tests move by hand, and short names for what tests do with it.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use wharf_core::ids::{Group, JobId, NodeId, TaskName};
use wharf_core::job::{LeasedJob, NewJob, StateName};
use wharf_core::keep::{Keep, KeepRules};
use wharf_core::key::Lane;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, Limits, OnConflict};
use wharf_core::outcome::{OutcomeKind, Report, Usage};
use wharf_core::room::Room;
use wharf_core::time::Timestamp;
use wharf_store::{
    Claim, Claimed, Clock, ExpiredJobs, Inserted, JobSnapshot, MemoryStore, PostgresStore, Recorded, SqliteStore,
    Store, StoreError,
};

use crate::server::shared_address;

pub(crate) const COUNT: &str = "words/count";
pub(crate) const LIST: &str = "words/list";
pub(crate) const MAKE: &str = "thumbnail/make";
pub(crate) const LEASE: Duration = Duration::from_secs(30);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A clock that starts on 14 July 2017 and only moves when a test moves it.
#[derive(Debug)]
pub(crate) struct HandClock(AtomicU64);

impl HandClock {
    pub(crate) fn new() -> Arc<HandClock> {
        Arc::new(HandClock(AtomicU64::new(1_500_000_000_000_000)))
    }

    pub(crate) fn pass(&self, length: Duration) {
        self.0.fetch_add(length.as_micros() as u64, Ordering::SeqCst);
    }

    pub(crate) fn set_back(&self, length: Duration) {
        self.0.fetch_sub(length.as_micros() as u64, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// The kinds of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Sqlite,
    Postgres,
}

pub(crate) struct Stage {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) declared: Arc<LimitTable>,
    pub(crate) tasks: Arc<[(TaskName, Group)]>,
    pub(crate) folder: Arc<TempDir>,
}

/// Runs a test on a fresh store of every kind.
pub(crate) fn on_every_store<T: Future<Output = ()>>(test: impl Fn(Stage) -> T) {
    for kind in [Kind::Memory, Kind::Sqlite, Kind::Postgres] {
        eprintln!("on the {kind:?} store");
        block_on(async {
            let stage = Stage::new(kind).await;
            // A test may move the store out of the stage; the folder has to outlive it all the same.
            let _folder = stage.folder.clone();
            test(stage).await;
        });
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(crate) fn task(name: &str) -> TaskName {
    name.parse().unwrap()
}

pub(crate) fn group(name: &str) -> Group {
    name.parse().unwrap()
}

pub(crate) fn at_most(per_key: impl Into<Option<u32>>, total: impl Into<Option<u32>>) -> Limits {
    Limits { per_key: per_key.into(), total: total.into() }
}

pub(crate) fn added(id: JobId) -> Inserted {
    Inserted::Added { id, replaced: vec![], cancel_requested: vec![] }
}

pub(crate) fn ids(leased: &[LeasedJob]) -> Vec<JobId> {
    leased.iter().map(|leased| leased.lease.job).collect()
}

pub(crate) fn usage() -> Usage {
    Usage { queue_wait: SECOND, cpu: 2 * SECOND, wall: 3 * SECOND, memory_peak_bytes: 4, in_bytes: 5, out_bytes: 6 }
}

pub(crate) fn trapped() -> Report {
    Report { kind: OutcomeKind::Trapped, text: "unreachable was reached".to_owned() }
}

/// Returns all jobs that finished before this moment, up to so many, whatever they are kept for.
pub(crate) fn expired(before: Timestamp, max: u32) -> ExpiredJobs {
    let rules = Arc::new(KeepRules { of_all: Keep::all(Duration::ZERO), ..KeepRules::default() });
    ExpiredJobs { rules, from: (Timestamp::ZERO, None), before, max }
}

impl Stage {
    /// Deletes jobs that finished before this moment, up to so many, and returns how many.
    pub(crate) async fn delete_finished(&self, before: Timestamp, max: u32) -> Result<u32, StoreError> {
        Ok(self.store.delete_expired(expired(before, max)).await?.deleted)
    }

    pub(crate) async fn new(kind: Kind) -> Stage {
        let clock = HandClock::new();
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let store: Arc<dyn Store> = match kind {
            Kind::Memory => Arc::new(MemoryStore::open(clock.clone())),
            Kind::Sqlite => Arc::new(SqliteStore::open(folder.path().join("wharf.db"), clock.clone()).unwrap()),
            Kind::Postgres => Arc::new(PostgresStore::open_with_clock(&shared_address(), clock.clone()).await.unwrap()),
        };
        let tasks = [COUNT, LIST, MAKE].map(|name| (task(name), Group::from(&task(name))));
        Stage { store, clock, declared: Arc::default(), tasks: tasks.into(), folder }
    }

    /// Opens the PostgreSQL store at an address.
    pub(crate) async fn at(address: &str) -> Stage {
        let stage = Stage::new(Kind::Memory).await;
        let store = PostgresStore::open_with_clock(address, stage.clock.clone()).await.unwrap();
        Stage { store: Arc::new(store), ..stage }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("wharf.db")
    }

    /// Declares limits for a group.
    pub(crate) fn limit(mut self, name: &str, limits: Limits) -> Stage {
        let mut table = (*self.declared).clone();
        table.declare(group(name), limits);
        self.declared = Arc::new(table);
        self
    }

    /// Puts all tasks into one group, in place of one group for each.
    pub(crate) fn sharing(mut self, name: &str) -> Stage {
        self.tasks = self.tasks.iter().map(|(task, _)| (task.clone(), group(name))).collect();
        self
    }

    pub(crate) fn id(&self) -> JobId {
        self.store.next_id().unwrap()
    }

    pub(crate) fn new_job(&self, name: &str, key: &str) -> NewJob {
        let (task, group) = self.tasks.iter().find(|(task, _)| task.as_str() == name).unwrap().clone();
        NewJob {
            id: self.id(),
            task,
            lane: Lane { group, key: (!key.is_empty()).then(|| key.parse().unwrap()) },
            payload: b"payload".as_slice().into(),
            priority: 0,
            due: None,
            token: None,
            on_conflict: OnConflict::Wait,
            batch: None,
            lineage: Default::default(),
            tick: None,
        }
    }

    /// Inserts one job and returns the result.
    pub(crate) async fn insert(&self, job: NewJob) -> Inserted {
        self.store.insert(vec![job], self.declared.clone()).await.unwrap().remove(0)
    }

    pub(crate) async fn add(&self, name: &str, key: &str) -> JobId {
        let job = self.new_job(name, key);
        let id = job.id;
        assert_eq!(self.insert(job).await, added(id));
        id
    }

    pub(crate) async fn add_many(&self, name: &str, key: &str, count: usize) -> Vec<JobId> {
        let jobs: Vec<NewJob> = (0..count).map(|_| self.new_job(name, key)).collect();
        let ids = jobs.iter().map(|job| job.id).collect();
        self.store.insert(jobs, self.declared.clone()).await.unwrap();
        ids
    }

    pub(crate) fn wish(&self, free: u32) -> Claim {
        let (tasks, declared) = (self.tasks.clone(), self.declared.clone());
        Claim {
            node: NodeId(7),
            tasks,
            declared,
            free,
            room: Room::UNLIMITED,
            costs: Arc::default(),
            task_quotas: Vec::new(),
            lease: LEASE,
        }
    }

    pub(crate) async fn claim_whole(&self, free: u32) -> Claimed {
        self.store.claim(self.wish(free)).await.unwrap()
    }

    pub(crate) async fn claim(&self, free: u32) -> Vec<LeasedJob> {
        self.claim_whole(free).await.leased
    }

    pub(crate) async fn claim_one(&self) -> LeasedJob {
        let mut leased = self.claim(1).await;
        assert_eq!(leased.len(), 1, "expected one job to start");
        leased.remove(0)
    }

    pub(crate) async fn record(&self, id: JobId, event: Event) -> Result<Recorded, Refusal> {
        self.store.record(Arc::new(vec![(id, event)])).await.unwrap().remove(0)
    }

    pub(crate) async fn succeed(&self, leased: &LeasedJob) -> Result<Recorded, Refusal> {
        self.record(leased.lease.job, succeeded(leased.lease.attempt)).await
    }

    pub(crate) async fn seen(&self, id: JobId) -> JobSnapshot {
        self.store.job(id, self.declared.clone()).await.unwrap().expect("the job exists")
    }

    pub(crate) async fn state(&self, id: JobId) -> StateName {
        self.seen(id).await.job.status.state.name()
    }

    pub(crate) fn pass(&self, length: Duration) {
        self.clock.pass(length);
    }
}

pub(crate) fn succeeded(attempt: u32) -> Event {
    Event::Succeeded { attempt, output: b"result".as_slice().into(), children: vec![], changes: None, usage: usage() }
}

pub(crate) fn failed(attempt: u32, retry_in: Option<Duration>) -> Event {
    Event::Failed { attempt, report: trapped(), retry_in, usage: usage(), origin: None }
}

impl Stage {
    /// Returns the moment in `seconds` from now.
    pub(crate) fn clock_in(&self, seconds: u32) -> Timestamp {
        self.store.now() + seconds * SECOND
    }
}

/// Runs this many jobs on hosts that share a store, as many at once as each claims, under a limit of one per key and three in
/// total.
pub(crate) async fn run_side_by_side(stages: &[Stage], jobs: usize) {
    let mut done = 0;
    while done < jobs {
        let claims = stages.iter().map(|stage| stage.claim(4));
        let leased: Vec<_> = futures_util::future::join_all(claims).await.into_iter().flatten().collect();
        let mut lanes: Vec<_> = leased.iter().map(|leased| &leased.lane).collect();
        lanes.sort();
        lanes.dedup();
        assert!(leased.len() <= 3 && lanes.len() == leased.len(), "limits are respected");
        assert!(!leased.is_empty(), "{done} jobs are done, and no more can be claimed");
        done += leased.len();
        let ends = leased.iter().zip(stages.iter().cycle()).map(|(leased, stage)| stage.succeed(leased));
        futures_util::future::join_all(ends).await.into_iter().for_each(|end| _ = end.unwrap());
    }
}
