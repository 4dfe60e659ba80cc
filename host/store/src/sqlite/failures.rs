//! Failure groups, as the writer changes them.

use rusqlite::{OptionalExtension, params};
use wharf_core::audit::NewAct;
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::failure::{FailureGroup, FailureState, NewFailure, digest_first_seen};
use wharf_core::fingerprint::Fingerprint;
use wharf_core::time::Timestamp;

use super::failure_rows;
use super::ledger::SqliteLedger;
use crate::announced_plugins::PluginDigest;
use crate::columns::{signed, timestamp, timestamp_us};

impl SqliteLedger<'_> {
    /// Counts a failure in its group. Returns true if it is a regression.
    pub(super) fn count_failure(&mut self, failure: &NewFailure, now: Timestamp) -> rusqlite::Result<bool> {
        let origin = failure.origin.as_deref();
        let digest_seen = match origin {
            Some(origin) => {
                let (digest, version) = (origin.digest.clone(), origin.plugin_version.clone());
                Some(self.see_digest(&PluginDigest { plugin: failure.task.plugin(), digest, version }, now)?)
            }
            None => None,
        };
        let known = failure_rows::group(self.conn, failure.fingerprint)?;
        let is_new = known.is_none();
        let mut group = known.unwrap_or_else(|| FailureGroup::new(failure));
        let regressed = group.count(digest_seen, now);
        if let Some(hash) = failure.key_hash.filter(|_| group.keys < bounds::FAILURE_KEYS_MAX) {
            group.keys += u32::from(self.add_failure_key(failure.fingerprint, hash)?);
        }
        self.write_group(&group)?;
        if let Some(origin) = origin {
            self.count_version(failure.fingerprint, &origin.digest, &origin.plugin_version, now)?;
        }
        self.add_sample(failure)?;
        if is_new {
            self.make_room_for_group(&group)?;
        }
        Ok(regressed)
    }

    /// Notes that a digest of a plugin is loaded; returns when it was seen first.
    pub(super) fn see_digest(&self, seen: &PluginDigest, now: Timestamp) -> rusqlite::Result<Timestamp> {
        let (plugin, digest) = (seen.plugin.as_str(), &seen.digest);
        let mut find =
            self.conn.prepare_cached("SELECT first_seen_at FROM plugin_digests WHERE plugin = ?1 AND digest = ?2")?;
        let known: Option<i64> = find.query_row([plugin, digest], |row| row.get(0)).optional()?;
        if let Some(at) = known {
            return Ok(timestamp(at));
        }
        // The tasks of a plugin are its name, a slash and more: `0` follows the slash.
        let mut resolved = self.conn.prepare_cached(
            "SELECT max(changed_at) FROM failure_groups WHERE state = 'resolved' AND task >= ?1 || '/' AND task < ?1 || '0'",
        )?;
        let resolved: Option<i64> = resolved.query_row([plugin], |row| row.get(0))?;
        let first = digest_first_seen(now, resolved.map(timestamp));
        let mut write = self.conn.prepare_cached(
            "INSERT INTO plugin_digests (plugin, digest, version, first_seen_at) VALUES (?1, ?2, ?3, ?4)",
        )?;
        write.execute(params![plugin, digest, seen.version, timestamp_us(first)])?;
        let mut trim = self.conn.prepare_cached(
            "DELETE FROM plugin_digests WHERE plugin = ?1 AND digest IN (
                 SELECT digest FROM plugin_digests WHERE plugin = ?1 ORDER BY first_seen_at DESC, digest DESC
                 LIMIT -1 OFFSET ?2)",
        )?;
        trim.execute(params![plugin, bounds::PLUGIN_DIGESTS_MAX])?;
        Ok(first)
    }

    /// Returns true if the key is new in its group.
    fn add_failure_key(&self, fingerprint: Fingerprint, hash: u64) -> rusqlite::Result<bool> {
        let mut add = self.conn.prepare_cached(
            "INSERT INTO failure_keys (fingerprint, key_hash) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?;
        Ok(add.execute(params![fingerprint.to_string(), signed(hash)])? > 0)
    }

    fn write_group(&self, group: &FailureGroup) -> rusqlite::Result<()> {
        let mut write = self.conn.prepare_cached(
            "INSERT INTO failure_groups (fingerprint, task, outcome, message, failures, keys, first_seen_at, last_seen_at, state,
                 changed_at, changed_by, regressed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (fingerprint) DO UPDATE SET failures = excluded.failures, keys = excluded.keys,
                 last_seen_at = excluded.last_seen_at, state = excluded.state, changed_at = excluded.changed_at,
                 changed_by = excluded.changed_by, regressed_at = excluded.regressed_at",
        )?;
        write.execute(params![
            group.fingerprint.to_string(),
            group.task.as_str(),
            group.outcome.as_str(),
            group.message,
            signed(group.count),
            group.keys,
            timestamp_us(group.first_seen),
            timestamp_us(group.last_seen),
            group.state.as_str(),
            group.changed.as_ref().map(|change| timestamp_us(change.at)),
            group.changed.as_ref().and_then(|change| change.by.as_deref()),
            group.regressed.map(timestamp_us)
        ])?;
        Ok(())
    }

    fn count_version(
        &self,
        fingerprint: Fingerprint,
        digest: &str,
        version: &str,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let fingerprint = fingerprint.to_string();
        let mut write = self.conn.prepare_cached(
            "INSERT INTO failure_versions (fingerprint, digest, version, failures, first_seen_at, last_seen_at)
             VALUES (?1, ?2, ?3, 1, ?4, ?4)
             ON CONFLICT (fingerprint, digest) DO UPDATE SET failures = failures + 1, version = excluded.version,
                 last_seen_at = max(last_seen_at, excluded.last_seen_at)",
        )?;
        write.execute(params![fingerprint, digest, version, timestamp_us(now)])?;
        let mut trim = self.conn.prepare_cached(
            "DELETE FROM failure_versions WHERE fingerprint = ?1 AND digest IN (
                 SELECT digest FROM failure_versions WHERE fingerprint = ?1 ORDER BY last_seen_at DESC, digest DESC
                 LIMIT -1 OFFSET ?2)",
        )?;
        trim.execute(params![fingerprint, bounds::FAILURE_VERSIONS_MAX])?;
        Ok(())
    }

    fn add_sample(&self, failure: &NewFailure) -> rusqlite::Result<()> {
        let (fingerprint, sample) = (failure.fingerprint.to_string(), &failure.sample);
        let mut write = self.conn.prepare_cached(
            "INSERT OR REPLACE INTO failure_samples (fingerprint, job, failed_at, message) VALUES (?1, ?2, ?3, ?4)",
        )?;
        write.execute(params![fingerprint, signed(sample.job.number()), timestamp_us(sample.at), sample.message])?;
        let mut trim = self.conn.prepare_cached(
            "DELETE FROM failure_samples WHERE fingerprint = ?1 AND job IN (
                 SELECT job FROM failure_samples WHERE fingerprint = ?1 ORDER BY failed_at DESC, job DESC
                 LIMIT -1 OFFSET ?2)",
        )?;
        trim.execute(params![fingerprint, bounds::FAILURE_SAMPLES_MAX])?;
        Ok(())
    }

    /// Deletes the group of a task that failed last the longest ago, if there are too many with the new one. Those that are open and those
    /// that an operator has dealt with are counted apart: new failures never take away what operators said.
    fn make_room_for_group(&self, new: &FailureGroup) -> rusqlite::Result<()> {
        let mut find = self.conn.prepare_cached(
            "SELECT fingerprint FROM failure_groups WHERE task = ?1 AND (state = 'open') = ?3
             ORDER BY last_seen_at DESC, fingerprint DESC LIMIT -1 OFFSET ?2",
        )?;
        let new_fingerprint = new.fingerprint.to_string();
        let mut too_many: Vec<String> = Vec::new();
        for is_open in [true, false] {
            let args = params![new.task.as_str(), bounds::FAILURE_GROUPS_MAX, is_open];
            for old in find.query_map(args, |row| row.get::<_, String>(0))? {
                too_many.push(old?);
            }
        }
        too_many.iter().filter(|old| **old != new_fingerprint).try_for_each(|old| self.delete_group(old))
    }

    fn delete_group(&self, fingerprint: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached("DELETE FROM failure_groups WHERE fingerprint = ?1")?.execute([fingerprint])?;
        self.conn.prepare_cached("DELETE FROM failure_versions WHERE fingerprint = ?1")?.execute([fingerprint])?;
        self.conn.prepare_cached("DELETE FROM failure_samples WHERE fingerprint = ?1")?.execute([fingerprint])?;
        self.conn.prepare_cached("DELETE FROM failure_keys WHERE fingerprint = ?1")?.execute([fingerprint])?;
        Ok(())
    }

    /// Sets the state of a group, and returns the group.
    pub(super) fn set_failure_state(
        &self,
        fingerprint: Fingerprint,
        state: FailureState,
        by: &Author,
    ) -> rusqlite::Result<Option<FailureGroup>> {
        let Some(mut group) = failure_rows::group(self.conn, fingerprint)? else { return Ok(None) };
        let mut newest = self.conn.prepare_cached("SELECT max(first_seen_at) FROM plugin_digests WHERE plugin = ?1")?;
        let newest: Option<i64> = newest.query_row([group.task.plugin().as_str()], |row| row.get(0))?;
        group.set_state(state, by.name().map(str::to_owned), self.now(), newest.map(timestamp));
        self.write_group(&group)?;
        self.write_act(&NewAct::of_failure(by.clone(), fingerprint, state))?;
        Ok(Some(group))
    }

    /// Deletes at most `max` groups that failed last before `before`, and returns how many.
    pub(super) fn delete_failures(&self, before: Timestamp, max: u32) -> rusqlite::Result<u32> {
        let mut find = self.conn.prepare_cached(
            "SELECT fingerprint FROM failure_groups WHERE last_seen_at < ?1 ORDER BY last_seen_at, fingerprint LIMIT ?2",
        )?;
        let found = find.query_map(params![timestamp_us(before), max], |row| row.get::<_, String>(0))?;
        let old: Vec<String> = found.collect::<rusqlite::Result<_>>()?;
        old.iter().try_for_each(|old| self.delete_group(old))?;
        Ok(old.len() as u32)
    }
}
