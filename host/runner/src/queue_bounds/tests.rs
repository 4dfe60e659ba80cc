use wharf_core::ids::JobId;
use wharf_core::limits::LimitTable;
use wharf_engine::PluginSettings;
use wharf_store::{MemoryStore, Queue as _, SystemClock};

use super::*;
use crate::live_settings::LiveSettings;
use crate::notice::Listener;

/// Longer than anything takes, however slow the machine.
const LONG: Duration = Duration::from_secs(60);

pub(crate) fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::open(Arc::new(SystemClock)))
}

/// Bounds before an empty or a given store; `settings` are those of single plugins.
pub(crate) fn bounds(
    store: Arc<MemoryStore>,
    (waiting_max, generations_max): (u32, u32),
    settings: &BTreeMap<PluginId, PluginSettings>,
) -> Arc<QueueBounds> {
    let store = WatchedStore::new(store, LONG, Listener::new(|_| {}));
    let live = LiveSettings { waiting_max, generations_max, plugins: settings.clone(), ..LiveSettings::default() };
    let plugins = PluginIndex::new(live);
    QueueBounds::new(store, Arc::new(plugins))
}

pub(crate) fn plugin(name: &str) -> PluginId {
    name.parse().unwrap()
}

pub(crate) fn new_job(number: u64, task: &str) -> NewJob {
    let task: TaskName = task.parse().unwrap();
    NewJob::ready(JobId::from_number(number).unwrap(), task, None, [].into())
}

impl QueueBounds {
    /// Returns the jobs of a plugin that are stored, added and reserved.
    pub(crate) fn counted(&self, of: &str) -> (u64, u64, u64) {
        let count = self.counts().plugins.get(&plugin(of)).copied().unwrap_or_default();
        (count.stored, count.added, count.reserved)
    }
}

#[tokio::test]
async fn a_job_counts_once_from_its_reservation_until_the_store_has_it() {
    let store = memory();
    let bounds = bounds(Arc::clone(&store), (10, 1), &BTreeMap::new());
    let (a, b) = (new_job(1, "a/one"), new_job(2, "a/two"));
    let jobs = [a, new_job(3, "b/one"), b];
    assert_eq!(places(&jobs), [(plugin("a"), 2), (plugin("b"), 1)]);
    let reserved = bounds.reserve(places(&jobs)).await.unwrap();
    assert_eq!((bounds.counted("a"), bounds.counted("b")), ((0, 0, 2), (0, 0, 1)));
    drop(reserved);
    assert_eq!((bounds.counted("a"), bounds.counted("b")), ((0, 2, 0), (0, 1, 0)));
    store.insert(jobs.to_vec(), Arc::new(LimitTable::default())).await.unwrap();
    bounds.read(Instant::now()).await;
    assert_eq!((bounds.counted("a"), bounds.counted("b")), ((2, 0, 0), (1, 0, 0)));
}

#[tokio::test]
async fn all_places_are_reserved_or_none() {
    let bounds = bounds(memory(), (2, 1), &BTreeMap::new());
    let both = vec![(plugin("a"), 1), (plugin("b"), 3)];
    let full = bounds.reserve(both.clone()).await.map(drop).unwrap_err();
    assert_eq!((full.plugin.clone(), full.waiting, full.wanted, full.max), (plugin("b"), 0, 3, 2));
    assert_eq!((bounds.counted("a"), bounds.counted("b")), ((0, 0, 0), (0, 0, 0)));
    assert_eq!(bounds.try_reserve(both.clone()).map(drop).unwrap_err(), both, "they are returned");
    // No number of jobs that end makes room for three at once.
    assert!(full.is_oversized() && full.to_string().contains("in parts") && !full.to_string().contains("again"));
    let _two = bounds.try_reserve(vec![(plugin("a"), 2)]).map_err(drop).unwrap();
    let full = bounds.reserve(vec![(plugin("a"), 1)]).await.map(drop).unwrap_err();
    assert!(!full.is_oversized() && full.to_string().contains("try again when some have ended"), "{full}");
}

#[tokio::test]
async fn what_is_added_while_the_store_counts_counts_beside_what_it_finds() {
    let bounds = bounds(memory(), (10, 1), &BTreeMap::new());
    let [before, during, pending] = [1, 2, 4].map(|places| vec![(plugin("a"), places)]);
    drop(bounds.reserve(before).await.unwrap());
    let during = bounds.reserve(during).await.unwrap();
    let _pending = bounds.reserve(pending).await.unwrap();
    let (began, added) = (Instant::now(), bounds.counts().added());
    drop(during);
    bounds.counts().take_in(began, &added, Some(BTreeMap::from([(plugin("a"), 3)])));
    assert_eq!(bounds.counted("a"), (3, 2, 4), "what was added before is among the three, or has ended");
}

#[tokio::test]
async fn a_count_that_fails_changes_nothing_and_is_not_repeated_at_once() {
    let bounds = bounds(memory(), (10, 1), &BTreeMap::new());
    drop(bounds.reserve(vec![(plugin("a"), 2)]).await.unwrap());
    let (began, added) = (Instant::now(), bounds.counts().added());
    bounds.counts().is_reading = true;
    bounds.counts().take_in(began, &added, None);
    assert_eq!(bounds.counted("a"), (0, 2, 0));
    let counts = bounds.counts();
    assert_eq!((counts.read_at, counts.is_reading), (Some(began), false));
}

#[tokio::test]
async fn places_that_are_given_back_are_neither_reserved_nor_added() {
    let bounds = bounds(memory(), (10, 1), &BTreeMap::new());
    let mut reserved = bounds.reserve(vec![(plugin("a"), 3), (plugin("b"), 2)]).await.unwrap();
    reserved.reduce_to(vec![(plugin("a"), 1)]);
    assert_eq!((bounds.counted("a"), bounds.counted("b")), ((0, 0, 1), (0, 0, 0)));
    drop(reserved);
    assert_eq!((bounds.counted("a"), bounds.counted("b")), ((0, 1, 0), (0, 0, 0)));
}

#[test]
fn a_token_that_is_known_or_comes_twice_needs_one_place_at_most() {
    let with = |number, token: &str| NewJob { token: Some(token.parse().unwrap()), ..new_job(number, "a/one") };
    let jobs = [with(1, "known"), with(2, "new"), with(3, "new"), new_job(4, "a/one"), new_job(5, "a/one")];
    let known = HashSet::from([jobs[0].unique_token().unwrap()]);
    assert_eq!(places_of_unknown(&jobs, known), [(plugin("a"), 3)]);
}
