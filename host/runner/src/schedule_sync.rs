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
use crate::schedule_times::TimingError;
use crate::schedules::{ScheduleError, reschedule};
use crate::store_health::WatchedStore;

/// The interval at which a host compares again where other hosts use the store, too, or where something is left to do.
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
    /// Something of the file does not hold yet, or another host may change what holds: it has to be compared again.
    is_open: bool,
    /// Schedules were changed on this host since: what is left may hold now.
    was_changed: bool,
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
            is_open: false,
            was_changed: false,
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
            if !is_shared && !self.is_open {
                return Ok(None);
            }
            let is_due = left.is_zero() || self.is_open && self.was_changed;
            if !is_due {
                return Ok(Some(left));
            }
        }
        self.was_changed = false;
        self.is_open = self.compare(file, is_shared).await?;
        self.synced = Some((file.clone(), Instant::now()));
        Ok((is_shared || self.is_open).then_some(INTERVAL))
    }

    /// Says that a schedule was changed on this host: what could not be written before is tried again.
    pub(crate) fn look_again(&mut self) {
        self.was_changed = true;
    }

    /// Compares the file with the store. Returns true if something of the file does not hold.
    async fn compare(&mut self, file: &FileSchedules, is_shared: bool) -> Result<bool, StoreError> {
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
        let has_files = !digests.is_empty() || !stored_files.is_empty();
        if !gone.is_empty() || has_files && !is_stored {
            self.store.call(DOING, self.store.set_schedule_file(self.node, digests, gone)).await?;
        }
        let stored = self.stored(file).await?;
        let (mut differs, mut is_stale) = (BTreeMap::new(), false);
        for act in sync(file, &stored, &others) {
            match act {
                SyncAct::Define(id) => match self.define(file, &stored, &id).await? {
                    Ok(ScheduleWritten::Written) => {}
                    Ok(ScheduleWritten::Stale) => is_stale = true,
                    Ok(ScheduleWritten::TooMany) => _ = differs.insert(id, ScheduleError::TooMany.to_string()),
                    Err(error) => _ = differs.insert(id, error.to_string()),
                },
                SyncAct::Retire(id) => is_stale |= self.retire(&stored, &id).await? == ScheduleWritten::Stale,
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
        // Somebody has changed a schedule meanwhile: the next look compares again.
        self.was_changed |= is_stale;
        Ok(is_stale || !self.reported.is_empty())
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

    /// Gives a schedule the definition of the file. Returns whether that was written, or why its moments cannot be worked out.
    async fn define(
        &self,
        file: &FileSchedules,
        stored: &[Schedule],
        id: &ScheduleId,
    ) -> Result<Result<ScheduleWritten, TimingError>, StoreError> {
        let (Some(spec), now) = (file.schedules.get(id), self.store.now()) else {
            return Ok(Ok(ScheduleWritten::Stale));
        };
        let found = stored.iter().find(|schedule| schedule.id == *id);
        let expected = found.map(|found| found.version);
        let mut schedule = found.cloned().unwrap_or_else(|| Schedule::new(id.clone(), spec.clone(), now));
        let is_revived = schedule.retired_at.is_some();
        let is_other = expected.is_none() || schedule.spec != *spec || is_revived;
        if is_other
            && schedule.redefine(spec.clone(), now)
            && let Err(error) = reschedule(&mut schedule, now)
        {
            return Ok(Err(error));
        }
        (schedule.source, schedule.revision) = (ScheduleSource::File, file.revision);
        schedule.author = self.author().name().map(str::to_owned);
        self.write(expected, schedule, ActKind::ScheduleSet).await.map(Ok)
    }

    async fn retire(&self, stored: &[Schedule], id: &ScheduleId) -> Result<ScheduleWritten, StoreError> {
        let (Some(found), now) = (stored.iter().find(|schedule| schedule.id == *id), self.store.now()) else {
            return Ok(ScheduleWritten::Stale);
        };
        let mut schedule = found.clone();
        (schedule.retired_at, schedule.next_at, schedule.moved_at) = (Some(now), None, now);
        self.write(Some(found.version), schedule, ActKind::ScheduleRetired).await
    }

    /// Writes a schedule, unless somebody has changed it meanwhile.
    async fn write(
        &self,
        expected: Option<u64>,
        mut schedule: Schedule,
        kind: ActKind,
    ) -> Result<ScheduleWritten, StoreError> {
        schedule.version += 1;
        let act = NewAct::of_schedule(self.author(), kind, &schedule, "of wharf.toml");
        let id = schedule.id.clone();
        let write = ScheduleWrite { id: id.clone(), expected, schedule: Some(schedule), act: Some(act) };
        let written = self.store.call("changing schedules", self.store.write_schedules(vec![write])).await?;
        let written = written.first().copied().unwrap_or(ScheduleWritten::Stale);
        if written == ScheduleWritten::Written {
            let by = self.author().name().map(str::to_owned);
            self.listener.notify(&Notice::ScheduleChanged { schedule: id, act: kind, by });
        }
        Ok(written)
    }

    fn author(&self) -> Author {
        Author::host(&self.name)
    }
}

fn digests(file: &FileSchedules) -> BTreeMap<ScheduleId, u64> {
    file.schedules.iter().map(|(id, spec)| (id.clone(), spec.digest())).collect()
}
