//! The heartbeat: registers this node with what it has loaded, reads the other nodes, and receives cancel requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::ids::NodeId;
use wharf_core::node::{LoadedPlugin, Node, SchemaAnnouncement, TaskAnnouncement};
use wharf_core::planner::Input;
use wharf_core::time::Timestamp;
use wharf_engine::Task;
use wharf_engine::spec::sources::TaskKind;
use wharf_store::PinnedLog;

use crate::catalog::{Catalog, runs};
use crate::dispatch::Load;
use crate::loop_message::LoopMessage;
use crate::notice::{Listener, Notice};
use crate::plugin_view::PluginIndex;
use crate::shared_activity::SharedActivity;
use crate::store_health::WatchedStore;

/// Interval at which a node registers and reads the others.
const INTERVAL: Duration = Duration::from_secs(3);
/// Delay between a change of its plugins and the registration of a node: further changes in this time are registered together with it.
const CHANGE_DELAY: Duration = Duration::from_millis(200);
/// Least interval at which a node announces its activity, which may be some ten thousand bytes.
const ACTIVITY_INTERVAL: Duration = Duration::from_secs(8);
/// A node that did not register for this long is no longer listed. Its jobs do not wait for that: their leases run out by
/// themselves.
const UNLISTED_AFTER: Duration = Duration::from_secs(30);
/// The pause between two reads of cancel requests, however many nudges arrive.
const CANCEL_READ_PAUSE: Duration = Duration::from_millis(100);
/// Cancel requests are read at least this often, whatever nudges were lost.
const CANCEL_READ_INTERVAL: Duration = Duration::from_secs(2);

/// The content of a node's registration, and where it comes from.
pub(crate) struct Heartbeat {
    pub(crate) store: WatchedStore,
    pub(crate) plugins: Arc<PluginIndex>,
    pub(crate) listener: Listener,
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) version: String,
    /// The maximum number of attempts at once.
    pub(crate) capacity: u32,
    /// The host's budget of memory in bytes.
    pub(crate) memory_budget: u64,
    pub(crate) started: Timestamp,
    pub(crate) activity: SharedActivity,
    pub(crate) load: watch::Receiver<Load>,
    /// The version of the catalog; changes with it.
    pub(crate) changed: watch::Receiver<u64>,
    pub(crate) to_loop: mpsc::UnboundedSender<LoopMessage>,
    pub(crate) stopping: CancellationToken,
}

impl Heartbeat {
    /// Registers the node until it stops; at once when it starts to drain.
    pub(crate) async fn register(self: Arc<Heartbeat>) {
        let (mut load, mut changed) = (self.load.clone(), self.changed.clone());
        let mut reported = 0;
        let mut announced: Option<Instant> = None;
        loop {
            let (draining, stopping) = {
                let load = load.borrow_and_update();
                (load.draining, load.stopping)
            };
            changed.mark_unchanged();
            let read = async {
                if let Ok(nodes) = self.store.nodes().await {
                    self.plugins.update_others(self.id, nodes);
                }
            };
            let register = self.store.call("registering this node", self.store.register(self.node(), UNLISTED_AFTER));
            // Side by side, since a commit may hang. A failure was reported by the call; the next round tries again.
            let (registered, ()) = tokio::join!(register, read);
            if registered.is_ok() && announced.is_none_or(|at| at.elapsed() >= ACTIVITY_INTERVAL) {
                announced = Some(Instant::now());
                let activity = Arc::new(self.activity.now());
                let _ = self.store.call("announcing activity", self.store.set_activity(self.id, activity)).await;
            }
            reported = self.report_pinned_log(reported);
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
                () = soon_after_a_change(&mut changed) => {}
                Ok(_) = load.wait_for(|load| (load.draining, load.stopping) != (draining, stopping)) => {}
            }
        }
    }

    /// Reports a log of the store that is pinned. `reported` is its size in bytes when it was last reported, zero if it was
    /// not pinned then; returns what that is now.
    fn report_pinned_log(&self, reported: u64) -> u64 {
        match self.store.pinned_log() {
            Some(PinnedLog { log, bytes }) if bytes >= reported * 2 => {
                self.listener.notify(&Notice::StoreLogPinned { log, bytes });
                bytes
            }
            Some(_) => reported,
            None => {
                if reported > 0 {
                    self.listener.notify(&Notice::StoreLogReleased);
                }
                0
            }
        }
    }

    fn node(&self) -> Node {
        let (load, catalog) = (*self.load.borrow(), self.plugins.catalog());
        Node {
            id: self.id,
            name: self.name.clone(),
            version: self.version.clone(),
            started: self.started,
            seen: self.store.now(),
            capacity: self.capacity,
            running: load.running,
            memory_budget: Some(self.memory_budget),
            draining: load.draining,
            stopping: load.stopping,
            settings: Some(catalog.settings().digest.clone()).filter(|digest| !digest.is_empty()),
            plugins: loaded_plugins(&catalog),
            pending: catalog.awaited().cloned().collect(),
        }
    }

    /// Sends the cancel requests of other nodes to the loop, until this node stops. Ends at once if the store can have no
    /// other node.
    pub(crate) async fn receive_cancels(self: Arc<Heartbeat>) {
        let Some(messages) = self.store.messages() else { return };
        let mut nudges = self.store.nudges();
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                Ok(()) = nudges.changed() => tokio::time::sleep(CANCEL_READ_PAUSE).await,
                () = tokio::time::sleep(CANCEL_READ_INTERVAL) => {}
            }
            nudges.mark_unchanged();
            if self.load.borrow().running == 0 {
                continue;
            }
            // After a failure the renewal of a job's lease brings the request as well.
            if let Ok(jobs) = messages.cancel_requests(self.id).await {
                for job in jobs {
                    let _ = self.to_loop.send(LoopMessage::Input(Input::CancelRequested(job)));
                }
            }
        }
    }
}

fn loaded_plugins(catalog: &Catalog) -> Vec<LoadedPlugin> {
    // Declared schemas come first, whatever the order of the plugins: those of types are replaced by a check where the job runs.
    let declared = catalog.plugins().values().flat_map(|loaded| runs(&loaded.plugin));
    let declared = declared.filter_map(|task| task.schema.as_ref().map(|schema| schema.text().len()));
    let declared: usize = declared.filter(|bytes| *bytes <= bounds::PUBLISHED_SCHEMA_BYTES_MAX).sum();
    let max = bounds::PUBLISHED_SCHEMAS_BYTES_MAX;
    let mut free = FreeBytes { declared: max, derived: max.saturating_sub(declared) };
    let plugins = catalog.plugins().iter();
    let loaded = plugins.map(|(id, loaded)| LoadedPlugin {
        plugin: id.clone(),
        version: loaded.plugin.manifest.version.clone(),
        digest: loaded.plugin.digest.clone(),
        topics: loaded.plugin.manifest.topics.clone(),
        tasks: Some(runs(&loaded.plugin).map(|task| announcement(task, &mut free)).collect()),
    });
    loaded.collect()
}

async fn soon_after_a_change(change: &mut watch::Receiver<u64>) {
    if change.changed().await.is_err() {
        // The folder is no longer watched: the host is stopping.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(CHANGE_DELAY).await;
}

/// Takes the place of the schema of types that no other host could check. No schema is empty.
const NEVER_ANNOUNCED: &str = "";

/// The bytes that are left of the bound for all schemas of the node.
struct FreeBytes {
    /// For schemas that are declared.
    declared: usize,
    /// For those of the types of functions.
    derived: usize,
}

/// Returns the announcement of a task.
fn announcement(task: &Task, free: &mut FreeBytes) -> TaskAnnouncement {
    let text = match (&task.schema, &task.kind) {
        // A schema of its own narrows the types. Where the job runs, its payload is held against both.
        (Some(schema), _) => Some(schema.text()),
        (None, TaskKind::Function(function)) => {
            Some(function.announced_schema(task.is_spelled_as_wit()).unwrap_or(NEVER_ANNOUNCED))
        }
        (None, TaskKind::Contract | TaskKind::Program) => None,
    };
    let free_bytes = if task.schema.is_some() { &mut free.declared } else { &mut free.derived };
    let schema = match text {
        None => SchemaAnnouncement::Absent,
        Some(NEVER_ANNOUNCED) => SchemaAnnouncement::NotAnnounced,
        Some(text) if text.len() <= bounds::PUBLISHED_SCHEMA_BYTES_MAX.min(*free_bytes) => {
            *free_bytes -= text.len();
            SchemaAnnouncement::Text(text.to_owned())
        }
        Some(_) => SchemaAnnouncement::NotAnnounced,
    };
    TaskAnnouncement {
        name: task.name.clone(),
        group: task.group.clone(),
        limits: task.limits,
        on_conflict: task.on_conflict,
        key: task.key.as_ref().map(|key| key.as_str().to_owned()),
        memory_bytes: task.memory_bytes,
        schema,
    }
}
