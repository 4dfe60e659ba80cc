//! What this node tells the others of itself, and what it hears from them of its own jobs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::ids::NodeId;
use wharf_core::node::{LoadedPlugin, Node, SchemaAnnouncement, TaskAnnouncement};
use wharf_core::planner::Input;
use wharf_core::time::Timestamp;
use wharf_engine::Task;
use wharf_engine::spec::payload::Schema;
use wharf_store::PinnedLog;

use crate::catalog::{Catalog, runs};
use crate::dispatch::Load;
use crate::loop_message::LoopMessage;
use crate::notice::Notice;
use crate::shared::Shared;

/// A node says this often that it is there, and hears of the others.
const EVERY: Duration = Duration::from_secs(3);
/// What it has is told this soon after it changed: what changes with it is told, too.
const SOON: Duration = Duration::from_millis(200);
/// Who said nothing for this long is no longer shown. Its jobs do not wait for that: their leases run out by themselves.
const SILENT: Duration = Duration::from_secs(30);
/// Between two looks for jobs that others asked to end, however many nudges come.
const APART: Duration = Duration::from_millis(100);
/// A look by itself, whatever nudges were lost.
const LOOK_EVERY: Duration = Duration::from_secs(2);

pub(crate) struct Heartbeat {
    pub(crate) shared: Shared,
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) capacity: u32,
    pub(crate) started: Timestamp,
    pub(crate) load: watch::Receiver<Load>,
    /// Changes with the catalog.
    pub(crate) changed: watch::Receiver<u64>,
    pub(crate) words: mpsc::UnboundedSender<LoopMessage>,
    pub(crate) stopping: CancellationToken,
}

impl Heartbeat {
    /// Announces the node until it stops, at once where it begins to drain.
    pub(crate) async fn announce(self: Arc<Heartbeat>) {
        let (mut load, mut changed) = (self.load.clone(), self.changed.clone());
        let mut told = 0;
        loop {
            let draining = load.borrow_and_update().draining;
            changed.mark_unchanged();
            let hear = async {
                if let Ok(nodes) = self.shared.store.nodes().await {
                    let others = self.shared.others.load().next(self.id, nodes);
                    self.shared.others.store(Arc::new(others));
                }
            };
            let announce = self.shared.ask("announcing this node", self.shared.store.register(self.node(), SILENT));
            // Side by side, since a commit may hang. What failed was told, and is tried again in the next round.
            let _ = tokio::join!(announce, hear);
            told = self.tell_of_log(told);
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
                () = soon_after_a(&mut changed) => {}
                Ok(_) = load.wait_for(|load| load.draining != draining) => {}
            }
        }
    }

    /// How long the store's log was when it was last told that it is held up: zero where it is not.
    fn tell_of_log(&self, told: u64) -> u64 {
        match self.shared.store.pinned_log() {
            Some(PinnedLog { log, bytes }) if bytes >= told * 2 => {
                (self.shared.tell)(&Notice::StoreLogHeld { log, bytes });
                bytes
            }
            Some(_) => told,
            None => {
                if told > 0 {
                    (self.shared.tell)(&Notice::StoreLogFree);
                }
                0
            }
        }
    }

    fn node(&self) -> Node {
        let (load, catalog) = (*self.load.borrow(), self.shared.catalog.load());
        Node {
            id: self.id,
            name: self.name.clone(),
            version: self.version.clone(),
            started: self.started,
            seen: self.shared.store.now(),
            capacity: self.capacity,
            running: load.running,
            draining: load.draining,
            plugins: carried(&catalog),
            pending: catalog.awaited().cloned().collect(),
        }
    }

    /// Tells the loop of jobs that another node asked to end, until this one stops.
    pub(crate) async fn hear(self: Arc<Heartbeat>) {
        let mut nudges = self.shared.store.nudges();
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                Ok(()) = nudges.changed() => tokio::time::sleep(APART).await,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            nudges.mark_unchanged();
            if self.load.borrow().running == 0 {
                continue;
            }
            match self.shared.store.cancel_requests(self.id).await {
                Ok(Some(jobs)) => {
                    for job in jobs {
                        let _ = self.words.send(LoopMessage::Input(Input::CancelAsked(job)));
                    }
                }
                Ok(None) => return,
                // The renewal of its lease tells of it as well.
                Err(_) => {}
            }
        }
    }
}

fn carried(catalog: &Catalog) -> Vec<LoadedPlugin> {
    let mut room = bounds::TOLD_SCHEMAS_BYTES_MAX;
    let plugins = catalog.plugins().iter();
    let carried = plugins.map(|(id, loaded)| LoadedPlugin {
        plugin: id.clone(),
        version: loaded.plugin.manifest.version.clone(),
        digest: loaded.plugin.digest.clone(),
        topics: loaded.plugin.manifest.topics.clone(),
        tasks: Some(runs(&loaded.plugin).map(|task| terms(task, &mut room)).collect()),
    });
    carried.collect()
}

async fn soon_after_a(change: &mut watch::Receiver<u64>) {
    if change.changed().await.is_err() {
        // The folder is followed no more: the host stops.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(SOON).await;
}

/// What is told of a task. `room` is what is left for schemas.
fn terms(task: &Task, room: &mut usize) -> TaskAnnouncement {
    let schema = match task.schema.as_ref().map(Schema::text) {
        None => SchemaAnnouncement::Absent,
        Some(text) if text.len() <= bounds::TOLD_SCHEMA_BYTES_MAX.min(*room) => {
            *room -= text.len();
            SchemaAnnouncement::Text(text.to_owned())
        }
        Some(_) => SchemaAnnouncement::Untold,
    };
    TaskAnnouncement {
        name: task.name.clone(),
        group: task.group.clone(),
        limits: task.limits,
        on_conflict: task.on_conflict,
        key: task.key.as_ref().map(|key| key.as_str().to_owned()),
        schema,
    }
}
