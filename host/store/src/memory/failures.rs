//! Failure groups: maps, and lists that are cut after each failure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use wharf_core::bounds;
use wharf_core::failure::{
    FailureDetails, FailureGroup, FailureSample, FailureState, FailureVersion, NewFailure, digest_first_seen,
};
use wharf_core::fingerprint::Fingerprint;
use wharf_core::ids::{JobId, PluginId, TaskName};
use wharf_core::time::Timestamp;

use crate::announced_plugins::PluginDigest;
use crate::store::{FailureCursor, FailureFilter, FailurePage};

#[derive(Default)]
pub(super) struct FailureMap {
    groups: BTreeMap<Fingerprint, FailureRecord>,
    /// When each digest of a plugin was seen first.
    digests: BTreeMap<PluginId, BTreeMap<String, Timestamp>>,
}

struct FailureRecord {
    details: FailureDetails,
    keys: BTreeSet<u64>,
}

impl FailureMap {
    /// Notes that a digest of a plugin is loaded; returns when it was seen first.
    pub(super) fn see(&mut self, seen: &PluginDigest, now: Timestamp) -> Timestamp {
        let of_plugin = self.groups.values().map(|record| &record.details.group);
        let resolved =
            of_plugin.filter(|group| group.state == FailureState::Resolved && group.task.plugin() == seen.plugin);
        let resolved = resolved.filter_map(|group| group.changed.as_ref().map(|change| change.at)).max();
        let digests = self.digests.entry(seen.plugin.clone()).or_default();
        let first = *digests.entry(seen.digest.clone()).or_insert_with(|| digest_first_seen(now, resolved));
        while digests.len() > bounds::PLUGIN_DIGESTS_MAX as usize {
            let oldest = digests.iter().min_by_key(|(digest, at)| (**at, (*digest).clone()));
            let Some(oldest) = oldest.map(|(digest, _)| digest.clone()) else { break };
            digests.remove(&oldest);
        }
        first
    }

    /// Counts a failure. Returns true if it is a regression.
    pub(super) fn count(&mut self, failure: &NewFailure, now: Timestamp) -> bool {
        let plugin = failure.task.plugin();
        let digest_seen = failure.origin.as_deref().map(|origin| {
            let (digest, version) = (origin.digest.clone(), origin.plugin_version.clone());
            self.see(&PluginDigest { plugin, digest, version }, now)
        });
        let fingerprint = failure.fingerprint;
        let new = || {
            let (group, versions, samples) = (FailureGroup::new(failure), Vec::new(), Vec::new());
            FailureRecord { details: FailureDetails { group, versions, samples }, keys: BTreeSet::new() }
        };
        let record = self.groups.entry(fingerprint).or_insert_with(new);
        let regressed = record.details.group.count(digest_seen, now);
        record.add(failure, now);
        self.make_room(&failure.task, fingerprint);
        regressed
    }

    /// Deletes the group of a task that failed last the longest ago, if there are too many. Those that are open and those that an operator
    /// has dealt with are counted apart: new failures never take away what operators said.
    fn make_room(&mut self, task: &TaskName, new: Fingerprint) {
        for is_open in [true, false] {
            let of_task = self.groups.values().map(|record| &record.details.group).filter(|group| group.task == *task);
            let of_kind = of_task.filter(|group| (group.state == FailureState::Open) == is_open);
            let mut places: Vec<FailureCursor> = of_kind.map(FailureCursor::of).collect();
            places.sort_unstable_by_key(|place| Reverse(*place));
            for place in places.into_iter().skip(bounds::FAILURE_GROUPS_MAX as usize) {
                if place.fingerprint != new {
                    self.groups.remove(&place.fingerprint);
                }
            }
        }
    }

    pub(super) fn page(&self, filter: &FailureFilter) -> FailurePage {
        let groups = self.groups.values().map(|record| &record.details.group);
        let matches = |group: &&FailureGroup| {
            filter.state.is_none_or(|state| group.state == state)
                && filter.task.as_ref().is_none_or(|task| group.task == *task)
                && filter.after.is_none_or(|after| FailureCursor::of(group) < after)
        };
        let mut found: Vec<FailureGroup> = groups.filter(matches).cloned().collect();
        found.sort_unstable_by_key(|group| Reverse(FailureCursor::of(group)));
        found.truncate(filter.page_length() + 1);
        FailurePage::new(found, filter.page_length())
    }

    pub(super) fn details(&self, fingerprint: Fingerprint) -> Option<FailureDetails> {
        self.groups.get(&fingerprint).map(|record| record.details.clone())
    }

    pub(super) fn set_state(
        &mut self,
        fingerprint: Fingerprint,
        state: FailureState,
        by: Option<String>,
        now: Timestamp,
    ) -> Option<FailureGroup> {
        let group = &mut self.groups.get_mut(&fingerprint)?.details.group;
        let newest = self.digests.get(&group.task.plugin()).and_then(|digests| digests.values().max().copied());
        group.set_state(state, by, now, newest);
        Some(group.clone())
    }

    /// Deletes at most `max` groups that failed last before `before`. Returns how many.
    pub(super) fn delete(&mut self, before: Timestamp, max: usize) -> u32 {
        let places = self.groups.values().map(|record| FailureCursor::of(&record.details.group));
        let mut old: Vec<FailureCursor> = places.filter(|place| place.last_seen < before).collect();
        old.sort_unstable();
        old.truncate(max);
        old.iter().for_each(|place| _ = self.groups.remove(&place.fingerprint));
        old.len() as u32
    }

    /// Takes a job that is deleted out of the samples.
    pub(super) fn forget_job(&mut self, job: JobId) {
        self.groups.values_mut().for_each(|record| record.details.samples.retain(|sample| sample.job != job));
    }
}

impl FailureRecord {
    fn add(&mut self, failure: &NewFailure, now: Timestamp) {
        let FailureDetails { group, versions, samples } = &mut self.details;
        if let Some(hash) = failure.key_hash
            && group.keys < bounds::FAILURE_KEYS_MAX
            && self.keys.insert(hash)
        {
            group.keys += 1;
        }
        if let Some(origin) = failure.origin.as_deref() {
            let (digest, name) = (origin.digest.clone(), origin.plugin_version.clone());
            let known = versions.iter().position(|version| version.digest == digest);
            let before = known.map(|index| versions.remove(index));
            versions.push(FailureVersion {
                digest,
                version: name,
                count: before.as_ref().map_or(0, |before| before.count) + 1,
                first_seen: before.as_ref().map_or(now, |before| before.first_seen),
                last_seen: before.map_or(now, |before| before.last_seen.max(now)),
            });
            versions.sort_unstable_by(|a, b| (b.last_seen, &b.digest).cmp(&(a.last_seen, &a.digest)));
            versions.truncate(bounds::FAILURE_VERSIONS_MAX as usize);
        }
        samples.retain(|sample| sample.job != failure.sample.job);
        samples.push(failure.sample.clone());
        samples.sort_unstable_by_key(|sample: &FailureSample| Reverse((sample.at, sample.job)));
        samples.truncate(bounds::FAILURE_SAMPLES_MAX as usize);
    }
}
