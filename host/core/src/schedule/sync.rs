//! Which schedules of a settings file a host adds, changes and retires.

use std::collections::{BTreeMap, BTreeSet};

use super::{Schedule, ScheduleSource, ScheduleSpec};
use crate::ids::ScheduleId;
use crate::time::Timestamp;

/// The schedules of a host's settings file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSchedules {
    /// When the file was written.
    pub revision: Timestamp,
    /// The schedules.
    pub schedules: BTreeMap<ScheduleId, ScheduleSpec>,
}

/// The part of a stored schedule that a host compares with its file: a store may have many large ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSchedule {
    /// The schedule's ID.
    pub id: ScheduleId,
    /// The place where it was defined.
    pub source: ScheduleSource,
    /// When the file was written that it was read from.
    pub revision: Timestamp,
    /// True if it was retired.
    pub is_retired: bool,
    /// The digest of its specification.
    pub digest: u64,
}

impl From<&Schedule> for StoredSchedule {
    fn from(schedule: &Schedule) -> StoredSchedule {
        StoredSchedule {
            id: schedule.id.clone(),
            source: schedule.source,
            revision: schedule.revision,
            is_retired: schedule.retired_at.is_some(),
            digest: schedule.spec.digest(),
        }
    }
}

/// A host's act on one schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncAct {
    /// It adds the schedule, or gives it the definition of its file.
    Define(ScheduleId),
    /// It retires the schedule: no live host's file has it.
    Retire(ScheduleId),
    /// It leaves the schedule as it is, although its file says otherwise: a newer file of a live host has this definition.
    Older(ScheduleId),
    /// It leaves the schedule as it is: one of the same ID was made through the API.
    OfApi(ScheduleId),
}

/// Returns what a host does about the schedules that are stored, given its own file and what the files of the other live hosts
/// have: the digest of each definition. What stands already as in the file is left out.
///
/// A definition replaces that of another live host's file only if its own file was written later: so a host that starts with
/// an older file undoes nothing, and going back to an older file on all hosts does what it says.
pub fn sync(file: &FileSchedules, stored: &[StoredSchedule], others: &[BTreeMap<ScheduleId, u64>]) -> Vec<SyncAct> {
    let by_id: BTreeMap<&ScheduleId, &StoredSchedule> =
        stored.iter().map(|schedule| (&schedule.id, schedule)).collect();
    let mut acts = Vec::new();
    for (id, spec) in &file.schedules {
        let Some(schedule) = by_id.get(id) else {
            acts.push(SyncAct::Define(id.clone()));
            continue;
        };
        if schedule.source == ScheduleSource::Api {
            acts.push(SyncAct::OfApi(id.clone()));
            continue;
        }
        let is_same = schedule.digest == spec.digest();
        if is_same && !schedule.is_retired {
            continue;
        }
        let is_another_hosts = others.iter().any(|file| file.get(id) == Some(&schedule.digest));
        if is_same || !is_another_hosts || file.revision > schedule.revision {
            acts.push(SyncAct::Define(id.clone()));
        } else {
            acts.push(SyncAct::Older(id.clone()));
        }
    }
    let in_files: BTreeSet<&ScheduleId> = file.schedules.keys().chain(others.iter().flat_map(BTreeMap::keys)).collect();
    let is_left = |schedule: &&StoredSchedule| {
        schedule.source == ScheduleSource::File && !schedule.is_retired && !in_files.contains(&schedule.id)
    };
    acts.extend(stored.iter().filter(is_left).map(|schedule| SyncAct::Retire(schedule.id.clone())));
    acts
}
