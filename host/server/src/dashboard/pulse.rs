//! What every page shows of the whole cluster: read at most every other second, however many pages are open; and the last hour, a
//! minute each, as this host saw it.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wharf_core::failure::FailureState;
use wharf_core::hold::HoldScope;
use wharf_core::time::Timestamp;
use wharf_runner::Host;
use wharf_store::{FailureFilter, StoreError};

use crate::http::api::{Failure, Hold, Summary};

use super::verdict::{Signs, Verdict};

/// The time for which a reading is shown.
const FRESH: Duration = Duration::from_secs(2);
/// The longest time for which a page waits for a reading.
const READ_MAX: Duration = Duration::from_secs(3);
/// The number of keys that a reading has.
const KEYS: u32 = 10;
/// The number of failure groups and of holds that a reading has.
pub(super) const LISTED: u32 = 20;
/// The time between two samples of the last hour.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(60);
/// The number of samples that are kept.
pub(super) const SAMPLES: usize = 61;

/// The cluster at one moment.
pub(super) struct Reading {
    pub(super) verdict: Verdict,
    /// `None` if the store did not answer.
    pub(super) known: Option<Known>,
}

/// The answers of the store.
pub(super) struct Known {
    pub(super) summary: Summary,
    /// The open failure groups, at most [`LISTED`].
    pub(super) failures: Vec<Failure>,
    /// The holds in force, at most [`LISTED`].
    pub(super) holds: Vec<Hold>,
    /// The plugins that this host refused and that no host has loaded.
    refused: Vec<String>,
}

/// One minute of the cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at: Timestamp,
    pub(super) waiting: u64,
    pub(super) running: u64,
    /// Attempts that began in the minute before; `None` if not every host said so.
    pub(super) started: Option<u64>,
    /// Attempts that ended in the minute before; `None` if not every host said so.
    pub(super) ended: Option<u64>,
    /// Attempts that failed in the minute before.
    pub(super) failed: Option<u64>,
}

/// The readings and the samples of one host.
#[derive(Default)]
pub(crate) struct Pulse {
    /// Held while it is read, so that it is read once for all.
    latest: tokio::sync::Mutex<Option<(Instant, Arc<Reading>)>>,
    /// Locked for one push or one copy.
    samples: Mutex<VecDeque<Sample>>,
}

impl Pulse {
    /// Returns the cluster as it was at most two seconds ago.
    pub(super) async fn latest(&self, host: &Host) -> Arc<Reading> {
        let mut latest = self.latest.lock().await;
        if let Some((at, reading)) = &*latest
            && at.elapsed() < FRESH
        {
            return Arc::clone(reading);
        }
        let reading = match tokio::time::timeout(READ_MAX, read(host)).await {
            Ok(Ok(known)) => Reading { verdict: verdict(host, &known), known: Some(known) },
            Ok(Err(error)) => Reading { verdict: Verdict::without_store(&error.to_string()), known: None },
            Err(_) => {
                Reading { verdict: Verdict::without_store("It has not answered for three seconds."), known: None }
            }
        };
        let reading = Arc::new(reading);
        *latest = Some((Instant::now(), Arc::clone(&reading)));
        reading
    }

    /// Takes a sample each minute, for ever.
    pub(crate) async fn run(&self, host: Host) {
        let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Ok(Ok(summary)) = tokio::time::timeout(READ_MAX, host.summary()).await {
                self.add(sample(host.now(), &Summary::new(summary, None)));
            }
        }
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Returns the samples of the last hour, the oldest first.
    pub(super) fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

fn sample(at: Timestamp, summary: &Summary) -> Sample {
    let sum = |of: fn(&crate::http::api::TaskSummary) -> u64| summary.tasks.iter().map(of).sum();
    let is_known = summary.covers_s.is_some_and(|covers| covers >= 60);
    let minute = |of: fn(&crate::http::api::EndedCounts) -> u64| {
        is_known.then(|| summary.tasks.iter().filter_map(|task| task.minute.as_ref()).map(of).sum())
    };
    Sample {
        at,
        waiting: sum(|task| task.waiting),
        running: sum(|task| task.running),
        started: is_known.then(|| summary.tasks.iter().filter_map(|task| task.started).sum()),
        ended: minute(|minute| minute.ended),
        failed: minute(|minute| minute.failed),
    }
}

async fn read(host: &Host) -> Result<Known, StoreError> {
    let open = FailureFilter { state: Some(FailureState::Open), task: None, after: None, max: LISTED };
    let (summary, failures, holds) = tokio::try_join!(host.summary(), host.failures(open), host.holds(None, LISTED))?;
    let catalog = host.catalog();
    let refused = catalog.refused().values().filter_map(|refused| refused.plugin.as_ref());
    let mut refused: Vec<String> = refused.filter(|id| catalog.plugin(id).is_none()).map(ToString::to_string).collect();
    if !refused.is_empty() {
        let nodes = host.nodes().await?;
        let loaded = nodes.iter().flat_map(|node| &node.plugins).map(|plugin| plugin.plugin.to_string());
        let loaded: HashSet<String> = loaded.collect();
        refused.retain(|id| !loaded.contains(id));
    }
    Ok(Known {
        summary: Summary::new(summary, Some(KEYS)),
        failures: failures.groups.iter().map(Failure::from).collect(),
        holds: holds.holds.iter().map(Hold::from).collect(),
        refused,
    })
}

fn verdict(host: &Host, known: &Known) -> Verdict {
    let health = host.health();
    if let Err(reason) = &health.store {
        return Verdict::without_store(&reason.to_string());
    }
    let all = HoldScope::All.to_string();
    let held: Vec<String> = known.holds.iter().map(|hold| hold.what().replace('`', "")).collect();
    Verdict::of(&Signs {
        summary: &known.summary,
        refused: &known.refused,
        all_held: known.holds.iter().any(|hold| hold.kind.to_string() == all),
        held: &held,
        draining: health.draining,
    })
}
