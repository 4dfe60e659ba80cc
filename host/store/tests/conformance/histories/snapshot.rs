//! All that can be read from a store at one moment, for comparison with what another one says.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use wharf_core::attempt::Attempt;
use wharf_core::audit::ActKind;
use wharf_core::author::Author;
use wharf_core::backlog::{Backlog, TaskBacklog};
use wharf_core::bulk::BulkOperation;
use wharf_core::failure::{FailureDetails, FailureState};
use wharf_core::find::{JobOrder, JobQuery};
use wharf_core::ids::{JobId, PluginId, TaskName};
use wharf_core::job::{NumberedEntry, StateName};
use wharf_core::kv::{KvKey, KvKeyQuery, KvUsage};
use wharf_core::limits::{LimitTable, Override};
use wharf_core::time::Timestamp;
use wharf_store::{
    ActFilter, FailureFilter, FailurePage, FindRequest, HoldPage, JobFilter, JobPage, JobSnapshot, QueueStats, Store,
};

use super::operation::{BATCHES, PLUGINS};
use super::world::World;

/// Everything that can be read from a store.
#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    pub(super) seen: Vec<JobSnapshot>,
    pub(super) entries: Vec<Vec<NumberedEntry>>,
    pub(super) attempts: Vec<Vec<Attempt>>,
    pub(super) failures: Vec<FailurePage>,
    pub(super) failure_details: Vec<Option<FailureDetails>>,
    pub(super) pages: Vec<JobPage>,
    /// The jobs that each of some queries finds.
    pub(super) found: Vec<Vec<JobId>>,
    pub(super) overrides: Vec<Override>,
    pub(super) holds: Vec<HoldPage>,
    pub(super) operations: Vec<BulkOperation>,
    /// How many jobs of each durable broadcast were deleted.
    pub(super) deleted: Vec<u64>,
    /// Every act: when, who, what. Their numbers differ between stores.
    pub(super) acts: Vec<(Timestamp, Author, ActKind, String, String)>,
    pub(super) stats: QueueStats,
    pub(super) backlog: Backlog,
    pub(super) waiting: BTreeMap<PluginId, u64>,
    /// The usage and the values of each plugin.
    pub(super) kept: Vec<(KvUsage, Vec<(KvKey, Option<Vec<u8>>)>)>,
}

impl Snapshot {
    /// Reads everything from a store of the world.
    pub(super) async fn of(world: &World, store: &dyn Store) -> Snapshot {
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
            let (task, key) = (Some(world.tasks[0].0.clone()), Some("a".parse().unwrap()));
            let of_state = JobFilter { state: Some(state), max: 1000, ..JobFilter::default() };
            pages.push(store.jobs(JobFilter { task, key, ..of_state.clone() }).await.unwrap());
            pages.push(store.jobs(of_state).await.unwrap());
        }
        for batch in BATCHES.map(JobId::from_number) {
            pages.push(store.jobs(JobFilter { batch, max: 1000, ..JobFilter::default() }).await.unwrap());
        }
        // A few queries after each step: over a history, each meets many states of the store.
        let queries = QUERIES.iter().cycle().skip(jobs.len() + 3 * world.leases.len()).take(2);
        let mut found = Vec::new();
        for (text, order) in queries.flat_map(|text| [(text, JobOrder::Newest), (text, JobOrder::Finished)]) {
            found.push(find(store, text, order, &world.declared[0]).await);
        }
        let (mut seen, mut entries, mut attempts) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs {
            seen.push(store.job(job, world.declared[0].clone()).await.unwrap().expect("it was on a page"));
            entries.push(store.entries(job, 0, 1000).await.unwrap());
            attempts.push(store.attempts(job).await.unwrap());
        }
        let every = FailureFilter { max: 1000, ..FailureFilter::default() };
        let resolved = FailureFilter { state: Some(FailureState::Resolved), ..every.clone() };
        let of_task = FailureFilter { task: Some(world.tasks[0].0.clone()), max: 1, ..every.clone() };
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
        let backlog = store.backlog(world.declared[0].clone(), Duration::MAX).await.unwrap();
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
