//! Brings the schedules of the settings file into the store.
//!
//! Hosts that share a store each have a file. What they have is in the store, too, so that each host knows what no file has any
//! more, and which definition is newer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_core::audit::{ActKind, NewAct};
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::ids::{NodeId, ScheduleId};
use wharf_core::schedule::{FileSchedules, Schedule, ScheduleSource, SyncAct, sync};
use wharf_store::{ScheduleWrite, ScheduleWritten, StoreError};

use crate::notice::{Listener, Notice};
use crate::plugin_view::PluginIndex;
use crate::schedules::reschedule;
use crate::store_health::WatchedStore;

/// The interval at which a host compares again, as long as a file of any host has schedules.
const INTERVAL: Duration = Duration::from_secs(30);

/// The schedules of this host's file, and what the host knows of those of others.
pub(crate) struct ScheduleSync {
    pub(crate) node: NodeId,
    /// The name of this host.
    pub(crate) name: String,
    pub(crate) store: WatchedStore,
    pub(crate) plugins: Arc<PluginIndex>,
    pub(crate) listener: Listener,
    /// The schedules that were brought into the store last, and when; `None` before the first time.
    synced: Option<(FileSchedules, Instant)>,
    /// A file has schedules, so that it has to be compared again.
    has_schedules: bool,
    /// Nodes that were not registered when it was compared last. A node that is not registered twice is gone.
    unregistered: BTreeSet<NodeId>,
    /// The schedules that were reported to differ, each with the reason.
    reported: BTreeMap<ScheduleId, String>,
}

impl ScheduleSync {
    pub(crate) fn new(
        (node, name): (NodeId, String),
        store: WatchedStore,
        plugins: Arc<PluginIndex>,
        listener: Listener,
    ) -> ScheduleSync {
        let (unregistered, reported) = (BTreeSet::new(), BTreeMap::new());
        ScheduleSync {
            node,
            name,
            store,
            plugins,
            listener,
            synced: None,
            has_schedules: false,
            unregistered,
            reported,
        }
    }

    /// Brings the file's schedules into the store, if that is due. Returns the time until it is due again; `None` if it is when the
    /// settings change.
    ///
    /// # Errors
    ///
    /// Returns the error of the store.
    pub(crate) async fn turn(&mut self) -> Result<Option<Duration>, StoreError> {
        let catalog = self.plugins.catalog();
        let file = &catalog.settings().schedules;
        let is_shared = self.store.messages().is_some();
        if let Some((synced, at)) = &self.synced
            && synced == file
        {
            let left = INTERVAL.saturating_sub(at.elapsed());
            match is_shared && self.has_schedules {
                false => return Ok(None),
                true if !left.is_zero() => return Ok(Some(left)),
                true => {}
            }
        }
        self.compare(file, is_shared).await?;
        self.synced = Some((file.clone(), Instant::now()));
        Ok((is_shared && self.has_schedules).then_some(INTERVAL))
    }

    async fn compare(&mut self, file: &FileSchedules, is_shared: bool) -> Result<(), StoreError> {
        const DOING: &str = "bringing the schedules of wharf.toml into the store";
        let stored_files = self.store.call(DOING, self.store.schedule_files()).await?;
        let digests = digests(file);
        let (mut gone, mut others) = (Vec::new(), Vec::new());
        if stored_files.iter().any(|(node, _)| *node != self.node) {
            let nodes = self.store.call(DOING, self.store.nodes()).await?;
            let registered: BTreeSet<NodeId> = nodes.iter().map(|node| node.id).collect();
            let before = std::mem::take(&mut self.unregistered);
            for (node, file) in stored_files.iter().filter(|(node, _)| *node != self.node) {
                let is_registered = registered.contains(node);
                if !is_shared || !is_registered && before.contains(node) {
                    gone.push(*node);
                    continue;
                }
                if !is_registered {
                    self.unregistered.insert(*node);
                }
                others.push(file.clone());
            }
        }
        let is_stored = stored_files.iter().any(|(node, file)| *node == self.node && *file == digests);
        if !gone.is_empty() || !is_stored && !(digests.is_empty() && stored_files.is_empty()) {
            self.store.call(DOING, self.store.set_schedule_file(self.node, digests, gone)).await?;
        }
        let stored = self.stored(file).await?;
        let is_live = |schedule: &Schedule| schedule.source == ScheduleSource::File && schedule.retired_at.is_none();
        self.has_schedules = !file.schedules.is_empty() || !others.is_empty() || stored.iter().any(is_live);
        let mut differs = BTreeMap::new();
        for act in sync(file, &stored, &others) {
            match act {
                SyncAct::Define(id) => self.define(file, &stored, id).await?,
                SyncAct::Retire(id) => self.retire(&stored, id).await?,
                SyncAct::Older(id) => {
                    let why = "a host with a newer file has another definition, which holds; give all hosts one file";
                    differs.insert(id, why.to_owned());
                }
                SyncAct::OfApi(id) => {
                    let why = format!(
                        "one of this ID was made through the API, and holds; remove that with `wharf schedule remove {id}`, or \
                         choose another ID"
                    );
                    differs.insert(id, why);
                }
            }
        }
        for (id, why) in differs.iter().filter(|(id, why)| self.reported.get(*id) != Some(why)) {
            self.listener.notify(&Notice::ScheduleDiffers { schedule: id.clone(), why: why.clone() });
        }
        self.reported = differs;
        Ok(())
    }

    /// Returns the stored schedules of files, and those of the API whose IDs the file has, too.
    async fn stored(&self, file: &FileSchedules) -> Result<Vec<Schedule>, StoreError> {
        let (mut stored, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.schedules(Some(ScheduleSource::File), after, bounds::PAGE_MAX);
            let page = self.store.call("looking for schedules", page).await?;
            let is_last = page.len() < bounds::PAGE_MAX as usize;
            after = page.last().map(|last: &Schedule| last.id.clone());
            stored.extend(page);
            if is_last {
                break;
            }
        }
        let known: BTreeSet<ScheduleId> = stored.iter().map(|schedule| schedule.id.clone()).collect();
        for id in file.schedules.keys().filter(|id| !known.contains(*id)) {
            stored.extend(self.store.call("looking for schedules", self.store.schedule(id.clone())).await?);
        }
        Ok(stored)
    }

    async fn define(&self, file: &FileSchedules, stored: &[Schedule], id: ScheduleId) -> Result<(), StoreError> {
        let (Some(spec), now) = (file.schedules.get(&id), self.store.now()) else { return Ok(()) };
        let found = stored.iter().find(|schedule| schedule.id == id);
        let expected = found.map(|found| found.version);
        let mut schedule = found.cloned().unwrap_or_else(|| Schedule::new(id.clone(), spec.clone(), now));
        let is_revived = schedule.retired_at.is_some();
        let is_other = expected.is_none() || schedule.spec != *spec || is_revived;
        if is_other && schedule.redefine(spec.clone(), now) {
            reschedule(&mut schedule, now);
        }
        (schedule.source, schedule.revision) = (ScheduleSource::File, file.revision);
        schedule.author = self.author().name().map(str::to_owned);
        self.write(expected, schedule, ActKind::ScheduleSet).await
    }

    async fn retire(&self, stored: &[Schedule], id: ScheduleId) -> Result<(), StoreError> {
        let (Some(found), now) = (stored.iter().find(|schedule| schedule.id == id), self.store.now()) else {
            return Ok(());
        };
        let mut schedule = found.clone();
        (schedule.retired_at, schedule.next_at, schedule.moved_at) = (Some(now), None, now);
        self.write(Some(found.version), schedule, ActKind::ScheduleRetired).await
    }

    /// Writes a schedule; if another host has changed it meanwhile, the next comparison finds what is left to do.
    async fn write(&self, expected: Option<u64>, mut schedule: Schedule, kind: ActKind) -> Result<(), StoreError> {
        schedule.version = expected.unwrap_or(0) + 1;
        let act = NewAct::of_schedule(self.author(), kind, &schedule, "of wharf.toml");
        let id = schedule.id.clone();
        let write = ScheduleWrite { id: id.clone(), expected, schedule: Some(schedule), act: Some(act) };
        let written = self.store.call("changing schedules", self.store.write_schedules(vec![write])).await?;
        if written.first() == Some(&ScheduleWritten::Written) {
            let by = self.author().name().map(str::to_owned);
            self.listener.notify(&Notice::ScheduleChanged { schedule: id, act: kind, by });
        }
        Ok(())
    }

    fn author(&self) -> Author {
        Author::host(&self.name)
    }
}

fn digests(file: &FileSchedules) -> BTreeMap<ScheduleId, u64> {
    file.schedules.iter().map(|(id, spec)| (id.clone(), spec.digest())).collect()
}
