//! The tables of failure groups, as readers read them, and the changes that need no writer.

use async_trait::async_trait;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::audit::NewAct;
use wharf_core::author::Author;
use wharf_core::failure::{FailureDetails, FailureGroup, FailureSample, FailureState, FailureVersion};
use wharf_core::fingerprint::Fingerprint;
use wharf_core::time::Timestamp;

use super::PostgresStore;
use super::rows::{job_id, timestamp};
use super::session::{Arg, Session, SessionError, computed, value};
use super::time::{NOW, Time};
use crate::columns::{timestamp_us, unsigned};
use crate::failure_columns::FailureColumns;
use crate::store::{FailureFilter, FailurePage, FailureStore, StoreError};

/// The columns that [`group`] reads.
pub(super) const COLUMNS: &str = "fingerprint, task, outcome, message, failures, keys, first_seen_at, last_seen_at, state, changed_at, changed_by, regressed_at";

/// Reads a row of `failure_groups`, of which the columns are [`COLUMNS`].
pub(super) fn group(row: &Row) -> Result<FailureGroup, SessionError> {
    let table = "failure_groups";
    let columns = FailureColumns {
        fingerprint: value(row, table, 0)?,
        task: value(row, table, 1)?,
        outcome: value(row, table, 2)?,
        message: value(row, table, 3)?,
        failures: value(row, table, 4)?,
        keys: value::<i32>(row, table, 5)? as u32,
        first_seen_at: value(row, table, 6)?,
        last_seen_at: value(row, table, 7)?,
        state: value(row, table, 8)?,
        changed_at: value(row, table, 9)?,
        changed_by: value(row, table, 10)?,
        regressed_at: value(row, table, 11)?,
    };
    Ok(columns.group()?)
}

/// Reads a group with its versions and samples.
pub(super) async fn details(
    session: &Session,
    fingerprint: Fingerprint,
) -> Result<Option<FailureDetails>, SessionError> {
    let fingerprint = fingerprint.to_string();
    let args = [(&fingerprint as _, Type::TEXT)];
    let of_group = format!("SELECT {COLUMNS} FROM $schema.failure_groups WHERE fingerprint = $1");
    let versions = "SELECT digest, version, failures, first_seen_at, last_seen_at FROM $schema.failure_versions
                    WHERE fingerprint = $1 ORDER BY last_seen_at DESC, digest DESC";
    let samples = "SELECT job, failed_at, message FROM $schema.failure_samples WHERE fingerprint = $1
                   ORDER BY failed_at DESC, job DESC";
    let ((), found, versions, samples, ()) = futures_util::try_join!(
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
        session.query(&of_group, &args),
        session.query(versions, &args),
        session.query(samples, &args),
        session.execute("COMMIT"),
    )?;
    let Some(row) = found.first() else { return Ok(None) };
    let version = |row: &Row| {
        let table = "failure_versions";
        Ok(FailureVersion {
            digest: value(row, table, "digest")?,
            version: value(row, table, "version")?,
            count: unsigned(value(row, table, "failures")?),
            first_seen: timestamp(row, table, "first_seen_at")?,
            last_seen: timestamp(row, table, "last_seen_at")?,
        })
    };
    let sample = |row: &Row| {
        let table = "failure_samples";
        let message = String::from_utf8_lossy(value(row, table, "message")?).into_owned();
        Ok(FailureSample { job: job_id(row, table, "job")?, at: timestamp(row, table, "failed_at")?, message })
    };
    Ok(Some(FailureDetails {
        group: group(row)?,
        versions: versions.iter().map(version).collect::<Result<_, SessionError>>()?,
        samples: samples.iter().map(sample).collect::<Result<_, SessionError>>()?,
    }))
}

/// Reads a page of groups, the one that failed last first.
pub(super) async fn page(session: &Session, filter: &FailureFilter) -> Result<FailurePage, SessionError> {
    let limit = filter.page_length() as i64 + 1;
    let state = filter.state.map(FailureState::as_str);
    let task = filter.task.as_ref().map(|task| task.as_str());
    let after = filter.after.map(|after| (timestamp_us(after.last_seen), after.fingerprint.to_string()));
    let mut args: Vec<Arg<'_>> = vec![(&limit, Type::INT8)];
    let mut conditions = vec!["true".to_owned()];
    if let Some(state) = &state {
        args.push((state, Type::TEXT));
        conditions.push(format!("state = ${}", args.len()));
    }
    if let Some(task) = &task {
        args.push((task, Type::TEXT));
        conditions.push(format!("task = ${}", args.len()));
    }
    if let Some((at, fingerprint)) = &after {
        args.extend([(at as _, Type::INT8), (fingerprint as _, Type::TEXT)]);
        conditions.push(format!("(last_seen_at, fingerprint) < (${}, ${})", args.len() - 1, args.len()));
    }
    let text = format!(
        "SELECT {COLUMNS} FROM $schema.failure_groups WHERE {} ORDER BY last_seen_at DESC, fingerprint DESC LIMIT $1",
        conditions.join(" AND ")
    );
    let found = session.query_selective(&text, &args).await?;
    Ok(FailurePage::new(found.iter().map(group).collect::<Result<_, _>>()?, filter.page_length()))
}

/// Sets the state of a group, and returns the group. A resolve is later than all digests of the plugin that were seen: see
/// `FailureGroup::set_state`.
pub(super) async fn set_state(
    session: &Session,
    time: &Time,
    fingerprint: Fingerprint,
    state: FailureState,
    by: &Author,
) -> Result<Option<FailureGroup>, SessionError> {
    let text = format!(
        "WITH changed AS (
             UPDATE $schema.failure_groups SET state = $2, changed_by = $3, changed_at = greatest(
                 coalesce($4::bigint, {NOW}), CASE WHEN $2 = 'resolved' THEN (
                     SELECT max(first_seen_at) FROM $schema.plugin_digests WHERE plugin = split_part(failure_groups.task, '/', 1)
                 ) END)
             WHERE fingerprint = $1 RETURNING {COLUMNS}
         ), act AS (
             INSERT INTO $schema.audit (acted_at, author, address, act, target, detail, changed)
             SELECT coalesce($4::bigint, {NOW}), $3, $5, $6, $7, $8, 1 FROM changed
         )
         SELECT {COLUMNS} FROM changed"
    );
    let act = NewAct::of_failure(by.clone(), fingerprint, state);
    let (fingerprint, state, now) = (fingerprint.to_string(), state.as_str(), time.manual_micros());
    let (name, address, kind, target, detail) =
        (by.name(), by.address(), act.kind().as_str(), act.target(), act.detail());
    let args = [
        (&fingerprint as _, Type::TEXT),
        (&state as _, Type::TEXT),
        (&name as _, Type::TEXT),
        (&now as _, Type::INT8),
        (&address as _, Type::TEXT),
        (&kind as _, Type::TEXT),
        (&target as _, Type::TEXT),
        (&detail as _, Type::TEXT),
    ];
    session.query(&text, &args).await?.first().map(group).transpose()
}

/// Returns a statement that deletes the groups which `victims` selects by their fingerprints, and returns their number. Whoever
/// deletes a group locks it, and skips those that others have locked: then nobody waits in a circle. Samples that are locked
/// are those of a job that is being deleted, which deletes them.
pub(super) fn delete_groups(victims: &str) -> String {
    format!(
        "WITH victims AS MATERIALIZED (
             SELECT fingerprint FROM $schema.failure_groups WHERE fingerprint IN ({victims}) FOR UPDATE SKIP LOCKED
         ), samples AS MATERIALIZED (
             SELECT failure_samples.ctid AS row FROM $schema.failure_samples JOIN victims USING (fingerprint)
             FOR UPDATE OF failure_samples SKIP LOCKED
         ), no_samples AS (
             DELETE FROM $schema.failure_samples WHERE ctid = ANY(ARRAY(SELECT row FROM samples))
         ), no_versions AS (
             DELETE FROM $schema.failure_versions USING victims WHERE failure_versions.fingerprint = victims.fingerprint
         ), no_keys AS (
             DELETE FROM $schema.failure_keys USING victims WHERE failure_keys.fingerprint = victims.fingerprint
         ), gone AS (
             DELETE FROM $schema.failure_groups USING victims WHERE failure_groups.fingerprint = victims.fingerprint RETURNING 1
         )
         SELECT count(*) FROM gone"
    )
}

/// Deletes at most `max` groups that failed last before a moment. Returns how many.
pub(super) async fn delete_before(session: &Session, before: Timestamp, max: u32) -> Result<u32, SessionError> {
    let text = delete_groups(
        "SELECT fingerprint FROM $schema.failure_groups WHERE last_seen_at < $1 ORDER BY last_seen_at, fingerprint LIMIT $2",
    );
    let (before, max) = (timestamp_us(before), i64::from(max));
    let found = session.query_selective(&text, &[(&before, Type::INT8), (&max, Type::INT8)]).await?;
    found.first().map_or(Ok(0), |row| computed::<i64>(row, 0).map(|count| count as u32))
}

#[async_trait]
impl FailureStore for PostgresStore {
    async fn failures(&self, filter: FailureFilter) -> Result<FailurePage, StoreError> {
        let session = self.reader().await?;
        let page = page(&session, &filter).await;
        self.finish(session, page)
    }

    async fn failure_details(&self, fingerprint: Fingerprint) -> Result<Option<FailureDetails>, StoreError> {
        let session = self.reader().await?;
        let details = details(&session, fingerprint).await;
        self.finish(session, details)
    }

    async fn set_failure_state(
        &self,
        fingerprint: Fingerprint,
        state: FailureState,
        by: Author,
    ) -> Result<Option<FailureGroup>, StoreError> {
        let session = self.reader().await?;
        let group = set_state(&session, &self.time, fingerprint, state, &by).await;
        self.finish(session, group)
    }

    async fn delete_failures(&self, before: Timestamp, max: u32) -> Result<u32, StoreError> {
        let session = self.reader().await?;
        let deleted = delete_before(&session, before, max).await;
        self.finish(session, deleted)
    }
}
