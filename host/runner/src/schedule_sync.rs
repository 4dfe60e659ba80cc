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
use wharf_core::schedule::{FileSchedules, Schedule, ScheduleSource, StoredSchedule, SyncAct, sync};
use wharf_store::{ScheduleWrite, ScheduleWritten, StoreError};

use crate::notice::{Listener, Notice};
use crate::plugin_view::PluginIndex;
use crate::schedules::{ScheduleError, reschedule};
use crate::store_health::WatchedStore;

/// The interval at which a host compares again where other hosts use the store, too, or where something is left to do.
const INTERVAL: Duration = Duration::from_secs(30);

/// Number of schedules that are written in one transaction.
const WRITES_MAX: usize = 256;
/// Number of schedules of the file up to which each is looked for by itself.
const SINGLE_READS_MAX: usize = 100;

/// A schedule is another one than when it was compared.
struct Changed;

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
        let (mut differs, mut is_stale, mut writes) = (BTreeMap::new(), false, Vec::new());
        for act in sync(file, &stored, &others) {
            let decided = match act {
                SyncAct::Define(id) => self.define(file, &stored, &id).await?.map_err(|why| (id, why)),
                SyncAct::Retire(id) => Ok(self.retire(&stored, &id).await?),
                SyncAct::Older(id) => {
                    let why = "a host with a newer file has another definition, which holds; give all hosts one file";
                    Err((id, why.to_owned()))
                }
                SyncAct::OfApi(id) => {
                    let why = format!(
                        "one of this ID was made through the API, and holds; remove that with `wharf schedule remove {id}`, or \
                         choose another ID"
                    );
                    Err((id, why))
                }
            };
            match decided {
                Ok(Some(write)) => writes.push(write),
                // Somebody has changed it since.
                Ok(None) => is_stale = true,
                Err((id, why)) => _ = differs.insert(id, why),
            }
            if writes.len() == WRITES_MAX {
                is_stale |= self.write(std::mem::take(&mut writes), &mut differs).await?;
            }
        }
        is_stale |= self.write(writes, &mut differs).await?;
        for (id, why) in differs.iter().filter(|(id, why)| self.reported.get(*id) != Some(why)) {
            self.listener.notify(&Notice::ScheduleDiffers { schedule: id.clone(), why: why.clone() });
        }
        self.reported = differs;
        // Somebody has changed a schedule meanwhile: the next look compares again.
        self.was_changed |= is_stale;
        Ok(is_stale || !self.reported.is_empty())
    }

    /// Returns the stored schedules of files, and those of the API whose IDs the file has, too, in the order of their IDs.
    async fn stored(&self, file: &FileSchedules) -> Result<Vec<StoredSchedule>, StoreError> {
        let mut stored: Vec<StoredSchedule> = Vec::new();
        self.read_all(ScheduleSource::File, |schedule| stored.push(schedule.into())).await?;
        let known: BTreeSet<ScheduleId> = stored.iter().map(|stored| stored.id.clone()).collect();
        let unknown: BTreeSet<&ScheduleId> = file.schedules.keys().filter(|id| !known.contains(*id)).collect();
        if unknown.len() > SINGLE_READS_MAX {
            let is_unknown = |schedule: &&Schedule| unknown.contains(&schedule.id);
            self.read_all(ScheduleSource::Api, |schedule| {
                stored.extend(Some(schedule).filter(is_unknown).map(StoredSchedule::from));
            })
            .await?;
        } else {
            for id in unknown {
                stored.extend(self.read(id).await?.as_ref().map(StoredSchedule::from));
            }
        }
        stored.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        Ok(stored)
    }

    /// Reads all schedules of a source, of which not more than a page is held at a time.
    async fn read_all(&self, source: ScheduleSource, mut each: impl FnMut(&Schedule)) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.schedules(Some(source), after, bounds::PAGE_MAX);
            let page = self.store.call("looking for schedules", page).await?;
            page.iter().for_each(&mut each);
            if page.len() < bounds::PAGE_MAX as usize {
                return Ok(());
            }
            after = page.last().map(|last| last.id.clone());
        }
    }

    async fn read(&self, id: &ScheduleId) -> Result<Option<Schedule>, StoreError> {
        self.store.call("looking for schedules", self.store.schedule(id.clone())).await
    }

    /// Reads a schedule as it was compared: `Err` if it has changed since.
    async fn compared(
        &self,
        stored: &[StoredSchedule],
        id: &ScheduleId,
    ) -> Result<Result<Option<Schedule>, Changed>, StoreError> {
        let Ok(at) = stored.binary_search_by(|stored| stored.id.cmp(id)) else { return Ok(Ok(None)) };
        let found = self.read(id).await?;
        let is_as_compared = found.as_ref().is_some_and(|found| StoredSchedule::from(found) == stored[at]);
        Ok(if is_as_compared { Ok(found) } else { Err(Changed) })
    }

    /// Returns the write that gives a schedule the definition of the file, `None` if it has changed since it was compared; or why its
    /// moments cannot be worked out.
    async fn define(
        &self,
        file: &FileSchedules,
        stored: &[StoredSchedule],
        id: &ScheduleId,
    ) -> Result<Result<Option<ScheduleWrite>, String>, StoreError> {
        let (Some(spec), now) = (file.schedules.get(id), self.store.now()) else { return Ok(Ok(None)) };
        let Ok(found) = self.compared(stored, id).await? else { return Ok(Ok(None)) };
        let expected = found.as_ref().map(|found| found.version);
        let mut schedule = found.unwrap_or_else(|| Schedule::new(id.clone(), spec.clone(), now));
        let after = schedule.goes_on_after(spec, now);
        let is_other = expected.is_none() || schedule.spec != *spec || schedule.retired_at.is_some();
        if is_other
            && schedule.redefine(spec.clone(), now)
            && let Err(error) = reschedule(&mut schedule, after)
        {
            return Ok(Err(error.to_string()));
        }
        (schedule.source, schedule.revision) = (ScheduleSource::File, file.revision);
        schedule.author = self.author().name().map(str::to_owned);
        Ok(Ok(Some(self.change(expected, schedule, ActKind::ScheduleSet))))
    }

    /// Returns the write that retires a schedule; `None` if it has changed since it was compared.
    async fn retire(&self, stored: &[StoredSchedule], id: &ScheduleId) -> Result<Option<ScheduleWrite>, StoreError> {
        let Ok(Some(mut schedule)) = self.compared(stored, id).await? else { return Ok(None) };
        let (expected, now) = (schedule.version, self.store.now());
        (schedule.retired_at, schedule.next_at, schedule.moved_at) = (Some(now), None, now);
        Ok(Some(self.change(Some(expected), schedule, ActKind::ScheduleRetired)))
    }

    /// Returns the write of a schedule, which is done unless somebody has changed it meanwhile.
    fn change(&self, expected: Option<u64>, mut schedule: Schedule, kind: ActKind) -> ScheduleWrite {
        schedule.version += 1;
        let act = NewAct::of_schedule(self.author(), kind, &schedule, "of wharf.toml");
        ScheduleWrite { id: schedule.id.clone(), expected, schedule: Some(schedule), act: Some(act) }
    }

    /// Writes schedules in one transaction. Returns true if some were changed meanwhile; those for which there is no room are added to
    /// `differs`.
    async fn write(
        &self,
        writes: Vec<ScheduleWrite>,
        differs: &mut BTreeMap<ScheduleId, String>,
    ) -> Result<bool, StoreError> {
        if writes.is_empty() {
            return Ok(false);
        }
        let kind = |write: &ScheduleWrite| match &write.schedule {
            Some(schedule) if schedule.retired_at.is_some() => ActKind::ScheduleRetired,
            _ => ActKind::ScheduleSet,
        };
        let kinds: Vec<(ScheduleId, ActKind)> = writes.iter().map(|write| (write.id.clone(), kind(write))).collect();
        let written = self.store.call("changing schedules", self.store.write_schedules(writes)).await?;
        let mut is_stale = written.len() < kinds.len();
        for ((id, act), written) in kinds.into_iter().zip(written) {
            match written {
                ScheduleWritten::Written => {
                    let by = self.author().name().map(str::to_owned);
                    self.listener.notify(&Notice::ScheduleChanged { schedule: id, act, by });
                }
                ScheduleWritten::Stale => is_stale = true,
                ScheduleWritten::TooMany => _ = differs.insert(id, ScheduleError::TooMany.to_string()),
            }
        }
        Ok(is_stale)
    }

    fn author(&self) -> Author {
        Author::host(&self.name)
    }
}

fn digests(file: &FileSchedules) -> BTreeMap<ScheduleId, u64> {
    file.schedules.iter().map(|(id, spec)| (id.clone(), spec.digest())).collect()
}
