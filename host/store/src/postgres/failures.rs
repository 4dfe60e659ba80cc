//! Failure groups, as a transaction changes in which jobs fail.
//!
//! Such a transaction locks the rows of its groups before it writes what plugins keep, in the order of their fingerprints:
//! nobody waits in a circle. It then reads them, lets the rules count, and writes them with its commit.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::BoxFuture;
use tokio_postgres::types::Type;
use wharf_core::bounds;
use wharf_core::failure::{FailureGroup, NewFailure};
use wharf_core::fingerprint::Fingerprint;
use wharf_core::ids::JobId;
use wharf_core::time::Timestamp;

use super::failure_rows::{self, delete_groups};
use super::plugin_digests;
use super::session::{Session, SessionError};
use super::unnest::unnest;
use crate::announced_plugins::PluginDigest;
use crate::columns::{signed, timestamp_us};

/// The failures of a transaction, and the groups as they count them.
#[derive(Debug, Default)]
pub(super) struct FailureWrites {
    failures: Vec<NewFailure>,
    groups: BTreeMap<Fingerprint, FailureGroup>,
}

impl FailureWrites {
    pub(super) fn add(&mut self, failure: NewFailure) {
        self.failures.push(failure);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.failures.is_empty()
    }

    /// Locks the groups and counts the failures at `now`. Returns the jobs whose failures are regressions.
    pub(super) async fn count(
        &mut self,
        session: &Session,
        now: Timestamp,
    ) -> Result<Vec<(JobId, Fingerprint)>, SessionError> {
        let digest = |failure: &NewFailure| {
            let origin = failure.origin.as_deref()?;
            let (digest, version) = (origin.digest.clone(), origin.plugin_version.clone());
            Some(PluginDigest { plugin: failure.task.plugin(), digest, version })
        };
        let mut digests: Vec<PluginDigest> = self.failures.iter().filter_map(digest).collect();
        digests.sort();
        digests.dedup_by(|a, b| (&a.plugin, &a.digest) == (&b.plugin, &b.digest));
        let first_seen = plugin_digests::first_seen(session, &digests, now).await?;
        self.groups = self.lock(session).await?;
        let mut regressed = Vec::new();
        for failure in &self.failures {
            let Some(group) = self.groups.get_mut(&failure.fingerprint) else { continue };
            let digest = failure.origin.as_deref().map(|origin| (failure.task.plugin(), origin.digest.clone()));
            if group.count(digest.and_then(|digest| first_seen.get(&digest).copied()), now) {
                regressed.push((failure.sample.job, failure.fingerprint));
            }
        }
        Ok(regressed)
    }

    /// Reads and locks the groups, and adds those that are new.
    async fn lock(&self, session: &Session) -> Result<BTreeMap<Fingerprint, FailureGroup>, SessionError> {
        let named: BTreeMap<Fingerprint, &NewFailure> =
            self.failures.iter().rev().map(|failure| (failure.fingerprint, failure)).collect();
        let fingerprints: Vec<String> = named.keys().map(ToString::to_string).collect();
        let tasks: Vec<&str> = named.values().map(|failure| failure.task.as_str()).collect();
        let outcomes: Vec<&str> = named.values().map(|failure| failure.outcome.as_str()).collect();
        let messages: Vec<&str> = named.values().map(|failure| failure.message.as_str()).collect();
        let seen: Vec<i64> = named.values().map(|failure| timestamp_us(failure.sample.at)).collect();
        let text = format!(
            "INSERT INTO $schema.failure_groups (fingerprint, task, outcome, message, failures, keys, first_seen_at, last_seen_at,
                 state)
             SELECT fingerprint, task, outcome, message, 0, 0, seen_at, seen_at, 'open' FROM {} AS new
             ORDER BY fingerprint COLLATE \"C\"
             ON CONFLICT (fingerprint) DO UPDATE SET failures = failure_groups.failures RETURNING {}",
            unnest("fingerprint text, task text, outcome text, message text, seen_at bigint"),
            failure_rows::COLUMNS
        );
        let args = [
            (&fingerprints as _, Type::TEXT_ARRAY),
            (&tasks as _, Type::TEXT_ARRAY),
            (&outcomes as _, Type::TEXT_ARRAY),
            (&messages as _, Type::TEXT_ARRAY),
            (&seen as _, Type::INT8_ARRAY),
        ];
        let locked = session.query(&text, &args).await?;
        locked.iter().map(|row| failure_rows::group(row).map(|group| (group.fingerprint, group))).collect()
    }

    /// Writes the groups as they are counted, with their keys, versions and samples, and deletes what is too much.
    pub(super) async fn write(&self, session: &Session, now: Timestamp) -> Result<(), SessionError> {
        if self.is_empty() {
            return Ok(());
        }
        self.write_all(session, now).await
    }

    /// In a box, since few transactions have any: the future of every commit would have room for it.
    fn write_all<'f>(&'f self, session: &'f Session, now: Timestamp) -> BoxFuture<'f, Result<(), SessionError>> {
        Box::pin(async move {
            futures_util::try_join!(
                self.write_groups(session),
                self.write_versions(session, now),
                self.write_samples(session),
                self.make_room(session),
            )
            .map(drop)
        })
    }

    async fn write_groups(&self, session: &Session) -> Result<(), SessionError> {
        let counts_keys = |group: &FailureGroup| group.keys < bounds::FAILURE_KEYS_MAX;
        let of_failure = |failure: &NewFailure| {
            let counts = self.groups.get(&failure.fingerprint).is_some_and(counts_keys);
            failure.key_hash.filter(|_| counts).map(|hash| (failure.fingerprint, hash))
        };
        let keys: BTreeSet<(Fingerprint, u64)> = self.failures.iter().filter_map(of_failure).collect();
        let keys_max = bounds::FAILURE_KEYS_MAX as i32;
        let key_groups: Vec<String> = keys.iter().map(|(fingerprint, _)| fingerprint.to_string()).collect();
        let hashes: Vec<i64> = keys.iter().map(|(_, hash)| signed(*hash)).collect();
        let groups = || self.groups.values();
        let fingerprints: Vec<String> = groups().map(|group| group.fingerprint.to_string()).collect();
        let failures: Vec<i64> = groups().map(|group| signed(group.count)).collect();
        let last_seen: Vec<i64> = groups().map(|group| timestamp_us(group.last_seen)).collect();
        let states: Vec<&str> = groups().map(|group| group.state.as_str()).collect();
        let changed_at: Vec<Option<i64>> =
            groups().map(|group| group.changed.as_ref().map(|change| timestamp_us(change.at))).collect();
        let changed_by: Vec<Option<&str>> =
            groups().map(|group| group.changed.as_ref().and_then(|change| change.by.as_deref())).collect();
        let regressed_at: Vec<Option<i64>> = groups().map(|group| group.regressed.map(timestamp_us)).collect();
        let text = format!(
            "WITH new_keys AS (
                 SELECT named.fingerprint, named.key_hash,
                     row_number() OVER (PARTITION BY named.fingerprint ORDER BY named.key_hash) AS place
                 FROM unnest($8::text[], $9::bigint[]) AS named (fingerprint, key_hash) WHERE NOT EXISTS (
                     SELECT FROM $schema.failure_keys AS known
                     WHERE known.fingerprint = named.fingerprint AND known.key_hash = named.key_hash)
             ), added AS (
                 INSERT INTO $schema.failure_keys (fingerprint, key_hash)
                 SELECT fingerprint, key_hash FROM new_keys JOIN $schema.failure_groups AS counting USING (fingerprint)
                 WHERE place <= $10::int - counting.keys
                 ON CONFLICT DO NOTHING RETURNING fingerprint
             ), counted AS (
                 SELECT fingerprint, count(*)::int AS keys FROM added GROUP BY fingerprint
             )
             UPDATE $schema.failure_groups SET failures = new.failures, last_seen_at = new.last_seen_at, state = new.state,
                 changed_at = new.changed_at, changed_by = new.changed_by, regressed_at = new.regressed_at,
                 keys = failure_groups.keys + coalesce(counted.keys, 0)
             FROM {} AS new LEFT JOIN counted USING (fingerprint) WHERE failure_groups.fingerprint = new.fingerprint",
            unnest(
                "fingerprint text, failures bigint, last_seen_at bigint, state text, changed_at bigint, changed_by text,
                 regressed_at bigint"
            )
        );
        let args = [
            (&fingerprints as _, Type::TEXT_ARRAY),
            (&failures as _, Type::INT8_ARRAY),
            (&last_seen as _, Type::INT8_ARRAY),
            (&states as _, Type::TEXT_ARRAY),
            (&changed_at as _, Type::INT8_ARRAY),
            (&changed_by as _, Type::TEXT_ARRAY),
            (&regressed_at as _, Type::INT8_ARRAY),
            (&key_groups as _, Type::TEXT_ARRAY),
            (&hashes as _, Type::INT8_ARRAY),
            (&keys_max as _, Type::INT4),
        ];
        session.query(&text, &args).await.map(drop)
    }

    async fn write_versions(&self, session: &Session, now: Timestamp) -> Result<(), SessionError> {
        let mut counts: BTreeMap<(Fingerprint, &str), (&str, i64)> = BTreeMap::new();
        for failure in &self.failures {
            if let Some(origin) = failure.origin.as_deref() {
                let count = counts.entry((failure.fingerprint, &origin.digest)).or_default();
                *count = (&origin.plugin_version, count.1 + 1);
            }
        }
        if counts.is_empty() {
            return Ok(());
        }
        let fingerprints: Vec<String> = counts.keys().map(|(fingerprint, _)| fingerprint.to_string()).collect();
        let digests: Vec<&str> = counts.keys().map(|(_, digest)| *digest).collect();
        let versions: Vec<&str> = counts.values().map(|(version, _)| *version).collect();
        let failures: Vec<i64> = counts.values().map(|(_, count)| *count).collect();
        let now = timestamp_us(now);
        let count = format!(
            "INSERT INTO $schema.failure_versions (fingerprint, digest, version, failures, first_seen_at, last_seen_at)
             SELECT new.*, $5::bigint, $5::bigint FROM {} AS new
             ON CONFLICT (fingerprint, digest) DO UPDATE SET failures = failure_versions.failures + excluded.failures,
                 version = excluded.version, last_seen_at = greatest(failure_versions.last_seen_at, excluded.last_seen_at)",
            unnest("fingerprint text, digest text, version text, failures bigint")
        );
        let trim = "DELETE FROM $schema.failure_versions WHERE (fingerprint, digest) IN (
                        SELECT fingerprint, digest FROM (
                            SELECT fingerprint, digest,
                                row_number() OVER (PARTITION BY fingerprint ORDER BY last_seen_at DESC, digest DESC) AS place
                            FROM $schema.failure_versions WHERE fingerprint = ANY($1)) AS placed
                        WHERE place > $2)";
        let max = i64::from(bounds::FAILURE_VERSIONS_MAX);
        let count_args = [
            (&fingerprints as _, Type::TEXT_ARRAY),
            (&digests as _, Type::TEXT_ARRAY),
            (&versions as _, Type::TEXT_ARRAY),
            (&failures as _, Type::INT8_ARRAY),
            (&now as _, Type::INT8),
        ];
        let trim_args = [(&fingerprints as _, Type::TEXT_ARRAY), (&max as _, Type::INT8)];
        futures_util::try_join!(session.query(&count, &count_args), session.query(trim, &trim_args))?;
        Ok(())
    }

    async fn write_samples(&self, session: &Session) -> Result<(), SessionError> {
        // The last failure of a job in this transaction.
        let samples: BTreeMap<(Fingerprint, JobId), &NewFailure> =
            self.failures.iter().map(|failure| ((failure.fingerprint, failure.sample.job), failure)).collect();
        let fingerprints: Vec<String> = samples.keys().map(|(fingerprint, _)| fingerprint.to_string()).collect();
        let jobs: Vec<i64> = samples.keys().map(|(_, job)| signed(job.number())).collect();
        let at: Vec<i64> = samples.values().map(|failure| timestamp_us(failure.sample.at)).collect();
        let messages: Vec<&[u8]> = samples.values().map(|failure| failure.sample.message.as_bytes()).collect();
        let add = format!(
            "INSERT INTO $schema.failure_samples (fingerprint, job, failed_at, message) SELECT * FROM {} AS new
             ON CONFLICT (fingerprint, job) DO UPDATE SET failed_at = excluded.failed_at, message = excluded.message",
            unnest("fingerprint text, job bigint, failed_at bigint, message bytea")
        );
        // A sample that is locked is that of a job that is being deleted.
        let trim = "DELETE FROM $schema.failure_samples WHERE ctid = ANY(ARRAY(
                        SELECT failure_samples.ctid FROM $schema.failure_samples JOIN (
                            SELECT fingerprint, job,
                                row_number() OVER (PARTITION BY fingerprint ORDER BY failed_at DESC, job DESC) AS place
                            FROM $schema.failure_samples WHERE fingerprint = ANY($1)) AS placed USING (fingerprint, job)
                        WHERE place > $2 FOR UPDATE OF failure_samples SKIP LOCKED))";
        let max = i64::from(bounds::FAILURE_SAMPLES_MAX);
        let add_args = [
            (&fingerprints as _, Type::TEXT_ARRAY),
            (&jobs as _, Type::INT8_ARRAY),
            (&at as _, Type::INT8_ARRAY),
            (&messages as _, Type::BYTEA_ARRAY),
        ];
        let trim_args = [(&fingerprints as _, Type::TEXT_ARRAY), (&max as _, Type::INT8)];
        futures_util::try_join!(session.query(&add, &add_args), session.query(trim, &trim_args))?;
        Ok(())
    }

    /// Deletes the groups of tasks that have too many with the new ones: those that failed last the longest ago. Those that are open and
    /// those that an operator has dealt with are counted apart: new failures never take away what operators said.
    async fn make_room(&self, session: &Session) -> Result<(), SessionError> {
        let is_new = |group: &&FailureGroup| {
            let of_group = self.failures.iter().filter(|failure| failure.fingerprint == group.fingerprint);
            group.count == of_group.count() as u64
        };
        let new = self.groups.values().filter(is_new);
        let tasks: BTreeSet<&str> = new.map(|group| group.task.as_str()).collect();
        let tasks: Vec<&str> = tasks.into_iter().collect();
        let current: Vec<String> = self.groups.keys().map(ToString::to_string).collect();
        let text = delete_groups(
            "SELECT fingerprint FROM (
                 SELECT fingerprint,
                     row_number() OVER (PARTITION BY task, state = 'open' ORDER BY last_seen_at DESC, fingerprint DESC) AS place
                 FROM $schema.failure_groups WHERE task = ANY($1)) AS placed
             WHERE place > $2 AND fingerprint <> ALL($3)",
        );
        let max = i64::from(bounds::FAILURE_GROUPS_MAX);
        let args = [(&tasks as _, Type::TEXT_ARRAY), (&max as _, Type::INT8), (&current as _, Type::TEXT_ARRAY)];
        session.query_if(!tasks.is_empty(), &text, &args).await.map(drop)
    }
}
