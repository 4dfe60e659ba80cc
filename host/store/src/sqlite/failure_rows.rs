//! The tables of failure groups, as readers and the writer read them.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use wharf_core::failure::{FailureDetails, FailureGroup, FailureSample, FailureVersion};
use wharf_core::fingerprint::Fingerprint;

use super::rows::timestamp;
use crate::columns::{job_id, timestamp_us, unsigned};
use crate::failure_columns::FailureColumns;
use crate::store::{FailureFilter, FailurePage};

/// The columns that [`read_group`] reads.
const COLUMNS: &str =
    "fingerprint, task, outcome, message, failures, keys, first_seen_at, last_seen_at, state, changed_at,
    changed_by, regressed_at";

fn read_group(row: &Row<'_>) -> rusqlite::Result<FailureGroup> {
    let columns = FailureColumns {
        fingerprint: row.get_ref(0)?.as_str()?,
        task: row.get_ref(1)?.as_str()?,
        outcome: row.get_ref(2)?.as_str()?,
        message: row.get(3)?,
        failures: row.get(4)?,
        keys: row.get(5)?,
        first_seen_at: row.get(6)?,
        last_seen_at: row.get(7)?,
        state: row.get_ref(8)?.as_str()?,
        changed_at: row.get(9)?,
        changed_by: row.get(10)?,
        regressed_at: row.get(11)?,
    };
    Ok(columns.group()?)
}

/// Returns a group.
pub(super) fn group(conn: &Connection, fingerprint: Fingerprint) -> rusqlite::Result<Option<FailureGroup>> {
    let mut find = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM failure_groups WHERE fingerprint = ?1"))?;
    find.query_row([fingerprint.to_string()], read_group).optional()
}

/// Returns a group with its versions and samples, of one moment.
pub(super) fn details(conn: &Connection, fingerprint: Fingerprint) -> rusqlite::Result<Option<FailureDetails>> {
    let snapshot = conn.unchecked_transaction()?;
    let Some(group) = group(&snapshot, fingerprint)? else { return Ok(None) };
    let text = fingerprint.to_string();
    let mut versions = snapshot.prepare_cached(
        "SELECT digest, version, failures, first_seen_at, last_seen_at FROM failure_versions WHERE fingerprint = ?1
         ORDER BY last_seen_at DESC, digest DESC",
    )?;
    let versions = versions.query_map([&text], |row| {
        Ok(FailureVersion {
            digest: row.get("digest")?,
            version: row.get("version")?,
            count: unsigned(row.get("failures")?),
            first_seen: timestamp(row, "first_seen_at")?,
            last_seen: timestamp(row, "last_seen_at")?,
        })
    })?;
    let versions = versions.collect::<rusqlite::Result<_>>()?;
    let mut samples = snapshot.prepare_cached(
        "SELECT job, failed_at, message FROM failure_samples WHERE fingerprint = ?1 ORDER BY failed_at DESC, job DESC",
    )?;
    let samples = samples.query_map([&text], |row| {
        let (job, at) = (job_id(row.get("job")?)?, timestamp(row, "failed_at")?);
        Ok(FailureSample { job, at, message: row.get("message")? })
    })?;
    Ok(Some(FailureDetails { group, versions, samples: samples.collect::<rusqlite::Result<_>>()? }))
}

/// Returns a page of groups, the one that failed last first.
pub(super) fn page(conn: &Connection, filter: &FailureFilter) -> rusqlite::Result<FailurePage> {
    let max = filter.page_length();
    let (mut conditions, mut values) = (vec!["1"], Vec::<Value>::new());
    if let Some(state) = filter.state {
        conditions.push("state = ?");
        values.push(state.as_str().to_owned().into());
    }
    if let Some(task) = &filter.task {
        conditions.push("task = ?");
        values.push(task.as_str().to_owned().into());
    }
    if let Some(after) = filter.after {
        conditions.push("(last_seen_at, fingerprint) < (?, ?)");
        values.push(timestamp_us(after.last_seen).into());
        values.push(after.fingerprint.to_string().into());
    }
    values.push(((max + 1) as i64).into());
    let mut find = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM failure_groups WHERE {} ORDER BY last_seen_at DESC, fingerprint DESC LIMIT ?",
        conditions.join(" AND ")
    ))?;
    let found = find.query_map(params_from_iter(values), read_group)?;
    Ok(FailurePage::new(found.collect::<rusqlite::Result<_>>()?, max))
}

/// Takes a job out of the samples of all groups.
pub(super) fn forget_job(conn: &Connection, job: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM failure_samples WHERE job = ?1")?.execute(params![job])?;
    Ok(())
}
