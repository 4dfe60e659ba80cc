//! Start: the parts of a host made, joined and set going.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use wharf_core::bounds;
use wharf_core::ids::{NodeId, PluginId};
use wharf_core::lease;
use wharf_core::planner::{self, Planner};
use wharf_engine::{Engine, PluginSettings};
use wharf_store::{Store, StoreError};

use crate::attempt::said;
use crate::broadcast::Broadcasts;
use crate::catalog::Catalog;
use crate::dispatch::{Dispatch, Load};
use crate::enqueuer::Enqueuer;
use crate::folder::Folder;
use crate::follow::Followers;
use crate::heartbeat::Heartbeat;
use crate::notice::{Listener, Notice};
use crate::shared::Shared;
use crate::task_concurrency::TaskConcurrency;
use crate::upkeep::{self, Upkeep};

/// The outside worlds that a host runs on.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub engine: Arc<Engine>,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub node: NodeId,
    /// How people call this node, and the version of its host.
    pub name: String,
    pub version: String,
    /// Must exist.
    pub plugins_dir: PathBuf,
    /// At once; the engine may have room for fewer.
    pub attempts: u32,
    /// Live broadcasts that may be open at once; as many again of each depth within broadcasts.
    pub broadcasts: u32,
    pub lease: Duration,
    /// Leases are trusted this much less than they are long.
    pub lease_margin: Duration,
    /// For the store's answer to what people ask it to write.
    pub write_patience: Duration,
    pub cancel_grace: Duration,
    pub upkeep_interval: Duration,
    pub keep_finished: Duration,
    /// The plugin folder is looked at this often, whatever hints came.
    pub rescan: Duration,
    pub plugins: BTreeMap<PluginId, PluginSettings>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("settings: {0}")]
    Settings(String),
    #[error("the plugin folder {} cannot be used: {why}", .dir.display())]
    Folder { dir: PathBuf, why: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The parts of a host that runs, as its handle needs them.
pub(crate) struct Running {
    pub(crate) node: NodeId,
    pub(crate) shared: Shared,
    pub(crate) inserting: Enqueuer,
    pub(crate) broadcasts: Arc<Broadcasts>,
    pub(crate) load: watch::Receiver<Load>,
    pub(crate) first_scan: watch::Receiver<bool>,
    pub(crate) capacity: u32,
    pub(crate) stopping: CancellationToken,
    _end: DropGuard,
}

/// Plugins are loaded in the background.
///
/// # Errors
/// When the settings contradict each other, the plugin folder cannot be read, or the store is broken.
pub(crate) async fn start(parts: Parts, settings: Settings, tell: Listener) -> Result<Running, StartError> {
    check(&settings)?;
    let shared = Shared {
        store: parts.store,
        engine: parts.engine,
        catalog: Arc::new(ArcSwap::from_pointee(Catalog::default())),
        others: Arc::default(),
        followers: Arc::new(Followers::default()),
        trouble: Arc::default(),
        overdue: Arc::default(),
        tasks: TaskTracker::new(),
        patience: settings.write_patience,
        home: Handle::current(),
        reads: Arc::new(Semaphore::new(bounds::KV_READS_AT_ONCE)),
        tell,
    };
    // Before the first claim: what a host that died held is free again as soon as its leases have run out.
    // Old jobs may be many, and can wait until the host runs.
    if let Err(broken @ StoreError::Broken(_)) = upkeep::run_once(&shared, None).await {
        return Err(broken.into());
    }
    let capacity = settings.attempts.min(shared.engine.capacity()).max(1);
    let stopping = CancellationToken::new();
    let (words, inbox) = mpsc::unbounded_channel();
    let (to_load, load) = watch::channel(Load::default());
    let (to_first_scan, first_scan) = watch::channel(false);
    let (to_changed, changed) = watch::channel(0);
    let inserting = Enqueuer { shared: shared.clone(), words: words.clone() };
    let broadcasts = Broadcasts::new(inserting.clone(), settings.node, settings.broadcasts, stopping.clone());

    let dispatch = Dispatch {
        planner: Planner::new(planner::PlannerSettings {
            capacity,
            lease: settings.lease,
            lease_margin: settings.lease_margin,
        }),
        node: settings.node,
        lease: settings.lease,
        cancel_grace: settings.cancel_grace,
        words: inbox,
        to_self: words.clone(),
        load: to_load,
        attempts: HashMap::new(),
        asked: FuturesUnordered::new(),
        progress: VecDeque::new(),
        paces: TaskConcurrency::new(shared.engine.guest_threads()),
        bounded: Vec::new(),
        held_back: None,
        stopping: stopping.clone(),
        broadcasts: Arc::clone(&broadcasts),
        shared: shared.clone(),
    };
    let folder = Folder {
        dir: settings.plugins_dir.clone(),
        rescan: settings.rescan,
        settings: Arc::new(settings.plugins.clone()),
        engine: Arc::clone(&shared.engine),
        store: Arc::clone(&shared.store),
        catalog: Arc::clone(&shared.catalog),
        words: words.clone(),
        first_scan: to_first_scan,
        changed: to_changed,
        stopping: stopping.clone(),
        tell: Arc::clone(&shared.tell),
    };
    shared.tasks.spawn(watched("dispatching jobs", dispatch.run(), Arc::clone(&shared.tell)));
    shared.tasks.spawn(watched("watching the plugin folder", folder.run(), Arc::clone(&shared.tell)));
    let upkeep =
        Upkeep { lease: settings.lease, interval: settings.upkeep_interval, keep_finished: settings.keep_finished };
    let upkeep = keeping_up(shared.clone(), upkeep, stopping.clone());
    shared.tasks.spawn(watched("keeping up", upkeep, Arc::clone(&shared.tell)));
    let roster = Arc::new(Heartbeat {
        id: settings.node,
        name: settings.name,
        version: settings.version,
        capacity,
        started: shared.store.now(),
        load: load.clone(),
        changed,
        words,
        stopping: stopping.clone(),
        shared: shared.clone(),
    });
    let announcing = Arc::clone(&roster).announce();
    shared.tasks.spawn(watched("announcing this node", announcing, Arc::clone(&shared.tell)));
    shared.tasks.spawn(watched("hearing other nodes", roster.hear(), Arc::clone(&shared.tell)));
    let reading = Arc::clone(&broadcasts).read_letters();
    shared.tasks.spawn(watched("reading letters", reading, Arc::clone(&shared.tell)));
    let node = settings.node;
    let _end = stopping.clone().drop_guard();
    Ok(Running { node, shared, inserting, broadcasts, load, first_scan, capacity, stopping, _end })
}

fn check(settings: &Settings) -> Result<(), StartError> {
    let bad = |why: String| Err(StartError::Settings(why));
    if !lease::is_margin_valid(settings.lease, settings.lease_margin) {
        return bad(format!(
            "a lease margin of {:?} is too long for a lease of {:?}: a renewal that failed once could not be made up for; less than a third is expected",
            settings.lease_margin, settings.lease
        ));
    }
    if settings.upkeep_interval.is_zero() || settings.rescan.is_zero() {
        return bad("the upkeep interval and the rescan interval must be longer than nothing".to_owned());
    }
    let dir = settings.plugins_dir.clone();
    match std::fs::read_dir(&dir) {
        Ok(_) => Ok(()),
        Err(why) => Err(StartError::Folder { dir, why }),
    }
}

/// Forgets what is old once at the start, then keeps to the intervals.
async fn keeping_up(shared: Shared, upkeep: Upkeep, stopping: CancellationToken) {
    // What failed was told, and is tried again in the next round.
    let _ = stopping.run_until_cancelled(upkeep::run_once(&shared, Some(upkeep.keep_finished))).await;
    upkeep::tick(shared, upkeep, stopping).await;
}

/// A loop that panics leaves a host that is no longer whole: that must be heard.
async fn watched(doing: &'static str, running: impl Future<Output = ()> + Send, tell: Listener) {
    if let Err(panic) = AssertUnwindSafe(running).catch_unwind().await {
        tell(&Notice::HostFault { doing, why: format!("{}; this host must be started again", said(&*panic)) });
    }
}
