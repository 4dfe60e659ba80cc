//! Bounds of what plugins may leave in the queue: how many jobs of one plugin wait, and how many generations of jobs may enqueue
//! one another.
//!
//! Jobs that enqueue more than one of themselves grow without end, and fill the store: the number of waiting jobs ends that. A job
//! that enqueues one of itself without a pause goes round for ever: generations end that.
//!
//! The number of waiting jobs is asked of the store once a second, and in between what this node adds is counted here; so it is
//! off by what other nodes add within a second, and by the jobs that were started since, which are asked for before anybody is
//! refused. What an attempt has enqueued counts from then on, since its jobs come with its success.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use wharf_core::ids::{PluginId, TaskName};
use wharf_core::job::{NewJob, UniqueToken};

use crate::plugin_view::PluginIndex;
use crate::store_health::WatchedStore;

/// Counts that are older than this are read again.
const COUNTS_AGE_MAX: Duration = Duration::from_secs(1);

/// More jobs of a plugin than may wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct QueueFull {
    /// The plugin.
    pub plugin: PluginId,
    /// The number of its jobs that wait.
    pub waiting: u64,
    /// The number of jobs that would be added.
    pub wanted: u64,
    /// The limit.
    pub max: u64,
}

impl QueueFull {
    /// Returns true if the jobs are more than may ever wait: as many as these are never added at once.
    pub fn is_oversized(&self) -> bool {
        self.wanted > self.max.max(1)
    }
}

impl fmt::Display for QueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QueueFull { plugin, waiting, wanted, max } = self;
        if self.is_oversized() {
            write!(
                f,
                "{wanted} jobs of plugin `{plugin}` would be added at once; the limit is {max} that wait: add them in parts"
            )?;
        } else {
            write!(f, "{waiting} jobs of plugin `{plugin}` wait and {wanted} would be added; the limit is {max}: ")?;
            f.write_str("try again when some have ended")?;
        }
        write!(f, ", or raise `jobs.waiting-max`, or `waiting-max` of [plugins.{plugin}] in wharf.toml")
    }
}

/// The bounds, and the jobs that count.
pub(crate) struct QueueBounds {
    store: WatchedStore,
    /// The runtime of the host, on which the store is asked. Guest threads have no timers.
    host_runtime: Handle,
    /// Has the settings, which may change.
    plugins: Arc<PluginIndex>,
    /// Locked for a few assignments, never across an await.
    counts: Mutex<Counts>,
    /// Held by the one who asks the store; has the moment at which the last who did so began.
    reading: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Counts {
    /// When the last read of the store began; `None` before the first.
    read_at: Option<Instant>,
    /// A read was started and has not ended.
    is_reading: bool,
    plugins: BTreeMap<PluginId, Count>,
}

/// The jobs of one plugin.
#[derive(Clone, Copy, Default)]
struct Count {
    /// As the store said.
    stored: u64,
    /// Jobs that were added since the store was asked.
    added: u64,
    /// Jobs that will be added.
    reserved: u64,
}

impl Count {
    fn all(&self) -> u64 {
        self.stored + self.added + self.reserved
    }
}

impl Counts {
    /// Returns the jobs of each plugin that were added since the store was asked.
    fn added(&self) -> BTreeMap<PluginId, u64> {
        self.plugins.iter().map(|(plugin, count)| (plugin.clone(), count.added)).collect()
    }

    /// Takes in what the store has counted; `None` if it failed. `added` are the jobs that had been added when it `began`.
    fn take_in(&mut self, began: Instant, added: &BTreeMap<PluginId, u64>, waiting: Option<BTreeMap<PluginId, u64>>) {
        (self.read_at, self.is_reading) = (Some(began), false);
        let Some(waiting) = waiting else { return };
        for (plugin, count) in &mut self.plugins {
            count.stored = 0;
            // What was added before is among those that the store has counted, or has ended.
            count.added = count.added.saturating_sub(added.get(plugin).copied().unwrap_or(0));
        }
        for (plugin, stored) in waiting {
            self.plugins.entry(plugin).or_default().stored = stored;
        }
        self.plugins.retain(|_, count| count.all() > 0);
    }
}

/// Places among the waiting jobs. Dropped when the jobs are added, or are not added after all.
pub(crate) struct Reservation {
    bounds: Arc<QueueBounds>,
    places: Vec<(PluginId, u64)>,
}

impl QueueBounds {
    /// Must be called on the runtime of the host.
    pub(crate) fn new(store: WatchedStore, plugins: Arc<PluginIndex>) -> Arc<QueueBounds> {
        Arc::new(QueueBounds {
            store,
            host_runtime: Handle::current(),
            plugins,
            counts: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        })
    }

    /// Returns how many generations of jobs may enqueue one another until one of this plugin.
    pub(crate) fn generations_max(&self, plugin: &PluginId) -> u32 {
        self.plugins.generations_max(plugin)
    }

    /// Reserves places for new jobs. Asks the store before it refuses any.
    ///
    /// # Errors
    ///
    /// Returns the first plugin of which too many jobs would wait; then no place is reserved.
    pub(crate) async fn reserve(self: &Arc<Self>, places: Vec<(PluginId, u64)>) -> Result<Reservation, QueueFull> {
        let places = match self.try_reserve(places) {
            Ok(reservation) => return Ok(reservation),
            Err(places) => places,
        };
        let this = Arc::clone(self);
        let wanted = Instant::now();
        // It ends even if nobody waits for it, and others profit. If it panicked, what is known has to do.
        let _ = self.host_runtime.spawn(async move { this.read(wanted).await }).await;
        self.take(&places)?;
        Ok(Reservation { bounds: Arc::clone(self), places })
    }

    /// Reserves places if there are any by what is known.
    ///
    /// # Errors
    ///
    /// Returns the places if the store has to be asked.
    pub(crate) fn try_reserve(
        self: &Arc<Self>,
        places: Vec<(PluginId, u64)>,
    ) -> Result<Reservation, Vec<(PluginId, u64)>> {
        let now = Instant::now();
        {
            let mut counts = self.counts();
            let Some(read_at) = counts.read_at else { return Err(places) };
            if now.duration_since(read_at) > COUNTS_AGE_MAX && !std::mem::replace(&mut counts.is_reading, true) {
                let this = Arc::clone(self);
                self.host_runtime.spawn(async move { this.read(now).await });
            }
        }
        match self.take(&places) {
            Ok(()) => Ok(Reservation { bounds: Arc::clone(self), places }),
            Err(_) => Err(places),
        }
    }

    fn take(&self, places: &[(PluginId, u64)]) -> Result<(), QueueFull> {
        let mut counts = self.counts();
        for (plugin, wanted) in places {
            let (waiting, max) = (counts.plugins.get(plugin).map_or(0, Count::all), self.plugins.waiting_max(plugin));
            if waiting + wanted > max {
                return Err(QueueFull { plugin: plugin.clone(), waiting, wanted: *wanted, max });
            }
        }
        for (plugin, wanted) in places {
            counts.plugins.entry(plugin.clone()).or_default().reserved += wanted;
        }
        Ok(())
    }

    /// Asks the store, unless somebody began to do so after `wanted`.
    async fn read(&self, wanted: Instant) {
        let mut last = self.reading.lock().await;
        if last.is_some_and(|began| began >= wanted) {
            return;
        }
        let began = Instant::now();
        *last = Some(began);
        let added = self.counts().added();
        // A store that does not answer refuses new jobs itself; the failure was reported by the call.
        let waiting = self.store.call_with_timeout("counting the waiting jobs", self.store.waiting_jobs()).await;
        self.counts().take_in(began, &added, waiting.ok());
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// Returns the plugins whose jobs have places, each once.
    pub(crate) fn plugins(&self) -> impl Iterator<Item = &PluginId> {
        self.places.iter().map(|(plugin, _)| plugin)
    }

    /// Gives back all places but these, which are among those that it has: fewer jobs will be added.
    pub(crate) fn reduce_to(&mut self, places: Vec<(PluginId, u64)>) {
        let mut counts = self.bounds.counts();
        for (plugin, had) in &self.places {
            let kept = places.iter().find(|(kept, _)| kept == plugin).map_or(0, |(_, places)| *places);
            if let Some(count) = counts.plugins.get_mut(plugin) {
                count.reserved = count.reserved.saturating_sub(had.saturating_sub(kept));
            }
        }
        drop(counts);
        self.places = places;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut counts = self.bounds.counts();
        for (plugin, places) in &self.places {
            let count = counts.plugins.entry(plugin.clone()).or_default();
            count.reserved = count.reserved.saturating_sub(*places);
            count.added += places;
        }
    }
}

/// Returns how many of these jobs each plugin gets.
pub(crate) fn places<'j>(jobs: impl IntoIterator<Item = &'j NewJob>) -> Vec<(PluginId, u64)> {
    let mut places: Vec<(PluginId, u64)> = Vec::new();
    // Jobs of one task mostly follow one another.
    let mut last: Option<(&TaskName, usize)> = None;
    for job in jobs {
        let index = match last {
            Some((task, index)) if *task == job.task => index,
            _ => {
                let plugin = job.task.plugin();
                places.iter().position(|(other, _)| *other == plugin).unwrap_or_else(|| {
                    places.push((plugin, 0));
                    places.len() - 1
                })
            }
        };
        places[index].1 += 1;
        last = Some((&job.task, index));
    }
    places
}

/// Returns how many of these jobs each plugin gets if those whose token is `known` exist already.
pub(crate) fn places_of_unknown(jobs: &[NewJob], mut known: HashSet<UniqueToken>) -> Vec<(PluginId, u64)> {
    places(jobs.iter().filter(|job| job.unique_token().is_none_or(|token| known.insert(token))))
}

#[cfg(test)]
pub(crate) mod tests;
