//! Start: creates the parts of a host, connects them and sets them going.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use wharf_core::bounds;
use wharf_core::clock_watch::ClockWatch;
use wharf_core::ids::NodeId;
use wharf_core::keep::KeepWalks;
use wharf_core::lease::is_margin_valid;
use wharf_core::planner::{Planner, PlannerSettings};
use wharf_engine::{Budget, Engine};
use wharf_store::{Store, StoreError};

use crate::attempt::AttemptStarter;
use crate::broadcast::{Broadcasts, CallContext, Cluster, RemoteCalls};
use crate::check_threads::CheckThreads;
use crate::dispatch::{Dispatch, DispatchParts, Load};
use crate::enqueuer::{Enqueuer, InsertNotifier};
use crate::failed_jobs::FailedJobs;
use crate::folder::{Folder, SettingsRequest};
use crate::follow::Followers;
use crate::guest_store::GuestStore;
use crate::heartbeat::Heartbeat;
use crate::held_subscribers::HeldSubscribers;
use crate::live_settings::LiveSettings;
use crate::notice::{Listener, Notice};
use crate::operations::OperationDriver;
use crate::plugin_view::PluginIndex;
use crate::queue_bounds::QueueBounds;
use crate::schedule_sync::ScheduleSync;
use crate::scheduler::Scheduler;
use crate::shared_activity::SharedActivity;
use crate::store_health::WatchedStore;
use crate::task_concurrency::{ClaimQuotas, TaskConcurrency};
use crate::task_memory::TaskCosts;
use crate::upkeep::Upkeep;

/// The outside worlds that a host runs on.
pub struct Parts {
    /// The durable queue. Several hosts may share one store.
    pub store: Arc<dyn Store>,
    /// The engine that compiles and runs plugins.
    pub engine: Arc<Engine>,
}

/// The settings of a host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The ID of this node. It must be new: no two hosts on one store may share it, not even one after the other.
    pub node: NodeId,
    /// The name by which users know this node.
    pub name: String,
    /// The version of the host.
    pub version: String,
    /// The folder with the plugins. It must exist.
    pub plugins_dir: PathBuf,
    /// The maximum number of attempts at once. The engine may have a lower capacity, which then counts.
    pub attempts: u32,
    /// The maximum number of live broadcasts that are open at once, for each depth of broadcasts within broadcasts.
    pub broadcasts: u32,
    /// The length of a lease.
    pub lease: Duration,
    /// A lease is trusted this much less than its length. Must be below a third of it.
    pub lease_margin: Duration,
    /// Time for which a client's write waits for the store before its outcome is reported as unknown.
    pub write_timeout: Duration,
    /// Time for which an attempt may go on after a cancel request.
    pub cancel_grace: Duration,
    /// Interval at which finished jobs are deleted.
    pub upkeep_interval: Duration,
    /// The plugin folder is scanned at least this often, whatever its watcher reports.
    pub rescan: Duration,
    /// The settings that may change while the host runs.
    pub live: LiveSettings,
}

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Settings contradict each other.
    #[error("invalid settings: {0}")]
    Settings(String),
    /// The plugin folder cannot be read.
    #[error("could not read the plugin folder {}: {why}", .dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// The error of the system.
        why: std::io::Error,
    },
    /// The store is broken. One that is only busy or away does not keep a host from starting.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The parts of a running host, as its handle needs them.
pub(crate) struct RunningHost {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) capacity: u32,
    pub(crate) budget: Budget,
    pub(crate) checks: CheckThreads,
    pub(crate) bounds: Arc<QueueBounds>,
    pub(crate) activity: SharedActivity,
    pub(crate) store: WatchedStore,
    pub(crate) plugins: Arc<PluginIndex>,
    pub(crate) enqueuer: Enqueuer,
    pub(crate) broadcasts: Arc<Broadcasts>,
    pub(crate) held_subscribers: Arc<HeldSubscribers>,
    /// Notified when an operator starts a bulk operation.
    pub(crate) operation_started: Arc<Notify>,
    /// Notified when a schedule is changed on this host, or the settings are.
    pub(crate) schedules_changed: Arc<Notify>,
    pub(crate) load: watch::Receiver<Load>,
    /// The cost of an attempt of each task, as the last claim was told.
    pub(crate) costs: watch::Receiver<TaskCosts>,
    pub(crate) first_scan: watch::Receiver<bool>,
    /// Sends new settings to the task that owns the plugin folder.
    pub(crate) to_folder: mpsc::Sender<SettingsRequest>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
    _end: DropGuard,
}

/// Starts a host. Its plugins are loaded in the background.
///
/// # Errors
///
/// Returns `Settings` if settings contradict each other, `Folder` if the plugin folder cannot be read, and `Store` if the store
/// is broken.
pub(crate) async fn start(parts: Parts, settings: Settings, listener: Listener) -> Result<RunningHost, StartError> {
    check(&settings)?;
    let Parts { store, engine } = parts;
    let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
    let budget = engine.budget().clone();
    let (plugins, followers) = (Arc::new(PluginIndex::new(settings.live)), Arc::new(Followers::new(budget.clone())));
    let store = WatchedStore::new(store, settings.write_timeout, listener.clone());
    let (failed, failed_reader) = FailedJobs::new(store.clone(), listener.clone());
    let read_failed = supervised("reading failed jobs", failed_reader.run(stopping.clone()), listener.clone());
    tasks.spawn(read_failed);
    let mut upkeep = Upkeep {
        store: store.clone(),
        followers: Arc::clone(&followers),
        listener: listener.clone(),
        failed: failed.clone(),
        lease: settings.lease,
        interval: settings.upkeep_interval,
        plugins: Arc::clone(&plugins),
        walks: KeepWalks::default(),
        clock: ClockWatch::default(),
        started: Instant::now(),
    };
    // Before the first claim: jobs of a host that died are free again as soon as their leases have run out.
    // Old jobs may be many, and are deleted when the host runs.
    if let Err(broken @ StoreError::Broken(_)) = upkeep.run_once(false).await {
        return Err(broken.into());
    }
    let capacity = settings.attempts.min(engine.capacity()).max(1);
    let (to_loop, inbox) = mpsc::unbounded_channel();
    let (to_load, load) = watch::channel(Load::default());
    let (to_costs, costs) = watch::channel(TaskCosts::default());
    let (to_first_scan, first_scan) = watch::channel(false);
    let (to_changed, changed) = watch::channel(0);
    let (to_folder, changes) = mpsc::channel(1);
    let activity = SharedActivity::new();

    let inserts = InsertNotifier { followers, listener: listener.clone() };
    let enqueuer =
        Enqueuer { store: store.clone(), inserts: inserts.clone(), to_loop: to_loop.clone(), tasks: tasks.clone() };
    let held_subscribers = Arc::new(HeldSubscribers::new(store.clone(), Arc::clone(&plugins)));
    let calls = Arc::new(CallContext {
        engine: Arc::clone(&engine),
        enqueuer: enqueuer.clone(),
        listener: listener.clone(),
        held: Arc::clone(&held_subscribers),
        tasks: tasks.clone(),
        host_runtime: Handle::current(),
    });
    let guest_store = GuestStore::new(store.clone(), budget.clone(), tasks.clone());
    let bounds = QueueBounds::new(store.clone(), Arc::clone(&plugins));
    let cluster = Arc::new(Cluster::new(settings.node, store.clone(), Arc::clone(&plugins)));
    let guest_parts = (guest_store, Arc::clone(&bounds));
    let broadcasts =
        Broadcasts::new(Arc::clone(&calls), Arc::clone(&cluster), guest_parts, settings.broadcasts, stopping.clone());
    let guest = broadcasts.guest_context();
    let remote_calls = RemoteCalls::new(cluster, calls, Arc::clone(&guest), stopping.clone());

    let starter = AttemptStarter {
        engine: Arc::clone(&engine),
        node_name: settings.name.as_str().into(),
        guest,
        cancel_grace: settings.cancel_grace,
        tasks: tasks.clone(),
        to_loop: to_loop.clone(),
    };
    let parts = DispatchParts {
        node: settings.node,
        lease: settings.lease,
        store: store.clone(),
        plugins: Arc::clone(&plugins),
        inserts,
        starter,
        inbox,
        load: to_load,
        activity: activity.clone(),
        failed,
        costs: to_costs,
        stopping: stopping.clone(),
    };
    let (lease, lease_margin) = (settings.lease, settings.lease_margin);
    let planner = Planner::new(PlannerSettings { capacity, lease, lease_margin });
    let quotas = ClaimQuotas::new(TaskConcurrency::new(engine.guest_threads()));
    let dispatch = Dispatch::new(parts, planner, quotas);

    let folder = Folder {
        dir: settings.plugins_dir,
        rescan: settings.rescan,
        engine,
        store: store.clone(),
        plugins: Arc::clone(&plugins),
        to_loop: to_loop.clone(),
        changes,
        first_scan: to_first_scan,
        changed: to_changed,
        stopping: stopping.clone(),
        listener: listener.clone(),
    };
    let heartbeat = Arc::new(Heartbeat {
        id: settings.node,
        name: settings.name.clone(),
        version: settings.version,
        capacity,
        memory_budget: budget.total(),
        started: store.now(),
        activity: activity.clone(),
        load: load.clone(),
        changed,
        store: store.clone(),
        plugins: Arc::clone(&plugins),
        listener: listener.clone(),
        to_loop,
        stopping: stopping.clone(),
    });

    let operation_started = Arc::new(Notify::new());
    let operations = OperationDriver {
        store: store.clone(),
        bounds: Arc::clone(&bounds),
        enqueuer: enqueuer.clone(),
        budget: budget.clone(),
        started: Arc::clone(&operation_started),
        failed_tries: BTreeMap::new(),
    };

    let schedules_changed = Arc::new(Notify::new());
    let scheduler = Scheduler {
        store: store.clone(),
        plugins: Arc::clone(&plugins),
        bounds: Arc::clone(&bounds),
        enqueuer: enqueuer.clone(),
        sync: ScheduleSync::new(
            (settings.node, settings.name.clone()),
            store.clone(),
            Arc::clone(&plugins),
            listener.clone(),
        ),
        unreadable: BTreeMap::new(),
        changed: Arc::clone(&schedules_changed),
        load: load.clone(),
    };

    tasks.spawn(supervised("firing schedules", scheduler.run(stopping.clone()), listener.clone()));
    tasks.spawn(supervised("bulk operations", operations.run(stopping.clone()), listener.clone()));
    tasks.spawn(supervised("dispatching jobs", dispatch.run(), listener.clone()));
    tasks.spawn(supervised("watching the plugin folder", folder.run(), listener.clone()));
    tasks.spawn(supervised("upkeep", upkeep.run(stopping.clone()), listener.clone()));
    tasks.spawn(supervised("registering this node", Arc::clone(&heartbeat).register(), listener.clone()));
    tasks.spawn(supervised("receiving cancel requests", heartbeat.receive_cancels(), listener.clone()));
    tasks.spawn(supervised("receiving messages", Arc::new(remote_calls).receive_messages(), listener));
    let (node, name, _end) = (settings.node, settings.name, stopping.clone().drop_guard());
    let checks = CheckThreads::new();
    Ok(RunningHost {
        node,
        name,
        capacity,
        budget,
        checks,
        bounds,
        activity,
        store,
        plugins,
        enqueuer,
        broadcasts,
        held_subscribers,
        operation_started,
        schedules_changed,
        load,
        costs,
        first_scan,
        to_folder,
        tasks,
        stopping,
        _end,
    })
}

fn check(settings: &Settings) -> Result<(), StartError> {
    let invalid = |why: String| Err(StartError::Settings(why));
    if !is_margin_valid(settings.lease, settings.lease_margin) {
        return invalid(format!(
            "lease margin is {:?}; the limit is below {:?}, a third of the lease: otherwise a renewal that failed once could \
             not be repeated in time",
            settings.lease_margin,
            settings.lease / bounds::LEASE_RENEWALS
        ));
    }
    if settings.upkeep_interval.is_zero() || settings.rescan.is_zero() {
        return invalid("upkeep interval and rescan interval: expected more than zero".to_owned());
    }
    let dir = settings.plugins_dir.clone();
    match std::fs::read_dir(&dir) {
        Ok(_) => Ok(()),
        Err(why) => Err(StartError::Folder { dir, why }),
    }
}

/// Runs a loop of the host, and reports if it panics: without it the host is no longer whole.
async fn supervised(doing: &'static str, running: impl Future<Output = ()> + Send, listener: Listener) {
    if let Err(panic) = AssertUnwindSafe(running).catch_unwind().await {
        let why = format!("{}; restart this host", panic_message(&*panic));
        listener.notify(&Notice::HostFault { doing, why });
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it panicked without a message".to_owned())
}
