//! Checks the contents of a database file: SQLite's own structure, and the rules that hold between the rows of a store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;

use super::file::{self, open_store};
use super::file_header::unusable;
use super::unsynced_claims::decode_jobs;
use crate::columns::job_id;
use crate::store::{CheckReport, MaintenanceError, StoreContents};

/// The contents of a store: each kind with the query that counts it.
const CONTENTS: [(&str, &str); 11] = [
    ("waiting jobs", "SELECT count(*) FROM jobs WHERE state < 2"),
    ("running jobs", "SELECT count(*) FROM jobs WHERE state = 2"),
    ("succeeded jobs", "SELECT count(*) FROM jobs WHERE state = 3"),
    ("failed jobs", "SELECT count(*) FROM jobs WHERE state = 4"),
    ("cancelled jobs", "SELECT count(*) FROM jobs WHERE state = 5"),
    ("log entries", "SELECT count(*) FROM entries"),
    ("attempts", "SELECT count(*) FROM attempts"),
    ("stored values", "SELECT count(*) FROM kv"),
    ("schedules", "SELECT count(*) FROM schedules"),
    ("holds", "SELECT count(*) FROM holds"),
    ("acts", "SELECT count(*) FROM audit"),
];

/// Rules between rows, each with the query for what breaks it.
const RULES: [(&str, &str); 9] = [
    (
        "each job that is listed as ready is ready",
        "SELECT ready.id FROM ready LEFT JOIN jobs ON jobs.id = ready.id WHERE jobs.state IS NOT 1",
    ),
    (
        "each running job has a lease",
        "SELECT id FROM jobs WHERE state = 2 AND (node IS NULL OR lease_expires_at IS NULL)",
    ),
    ("each finished job says when it finished", "SELECT id FROM jobs WHERE (state >= 3) <> (finished_at IS NOT NULL)"),
    (
        "the parent of each job is there, or a job at least as new was deleted",
        "SELECT id FROM jobs WHERE parent IS NOT NULL AND parent NOT IN (SELECT id FROM jobs)
         AND parent > coalesce((SELECT id FROM last_deleted), -1)",
    ),
    (
        "each log, payload, result and report belongs to a job",
        "SELECT DISTINCT job FROM (SELECT job FROM entries UNION ALL SELECT job FROM payloads UNION ALL SELECT job FROM outputs
             UNION ALL SELECT job FROM reports UNION ALL SELECT job FROM attempts UNION ALL SELECT job FROM failure_samples)
         WHERE job NOT IN (SELECT id FROM jobs)",
    ),
    (
        "the usage of each plugin is the sum of its values",
        "SELECT plugin FROM (SELECT plugin, count(*) AS number, sum(length(key) + length(value)) AS bytes FROM kv GROUP BY plugin)
             FULL JOIN kv_usage USING (plugin)
         WHERE coalesce(number, 0) <> coalesce(value_count, 0) OR coalesce(bytes, 0) <> coalesce(total_bytes, 0)",
    ),
    (
        "deleted jobs are counted for broadcasts that have jobs",
        "SELECT batch FROM deleted_of_batch WHERE batch NOT IN (SELECT batch FROM jobs WHERE batch IS NOT NULL)",
    ),
    (
        "what a bulk operation began with is kept only while it is open",
        "SELECT DISTINCT operation FROM operation_waits WHERE operation NOT IN (SELECT id FROM operations WHERE ended_at IS NULL)",
    ),
    (
        "each task and limit group of a job has a name",
        "SELECT id FROM jobs WHERE task NOT IN (SELECT id FROM names) OR limit_group NOT IN (SELECT id FROM names)",
    ),
];

/// Checks a file: a store, or a backup of one. A host may be writing to it.
///
/// # Errors
/// If the file is not a store or cannot be read.
pub(crate) fn check_store_file(path: &Path) -> Result<CheckReport, MaintenanceError> {
    let conn = open_store(path)?;
    check(&conn).map_err(|error| unusable(path, file::reason(&error)).into())
}

/// Returns what a store holds.
pub(super) fn contents(conn: &Connection) -> rusqlite::Result<StoreContents> {
    let count = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
    let mut contents =
        CONTENTS.iter().map(|(kind, sql)| Ok((*kind, count(sql)?))).collect::<rusqlite::Result<StoreContents>>()?;
    // A job may run although its own row says that it waits.
    let claimed = claimed_jobs(conn)?.running.len() as u64;
    contents[0].1 = contents[0].1.saturating_sub(claimed);
    contents[1].1 += claimed;
    Ok(contents)
}

fn check(conn: &Connection) -> rusqlite::Result<CheckReport> {
    let mut report = CheckReport::default();
    let snapshot = conn.unchecked_transaction()?;
    let mut structure = snapshot.prepare("PRAGMA integrity_check(20)")?;
    let problems = structure.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    report.add("the database is sound", problems.into_iter().filter(|text| text != "ok"));
    if !report.faults.is_empty() {
        return Ok(report);
    }
    report.contents = contents(&snapshot)?;
    for (rule, sql) in RULES {
        report.add(rule, texts(&snapshot, sql)?);
    }
    let claims = claimed_jobs(&snapshot)?;
    report.add("each record of leases has a running job", claims.without_job.iter().map(ToString::to_string));
    let numbers = |sql: &str| {
        let mut find = snapshot.prepare(sql)?;
        let numbers = find.query_map([], |row| row.get::<_, i64>(0))?;
        numbers.collect::<rusqlite::Result<BTreeSet<i64>>>()
    };
    let unlisted = numbers("SELECT id FROM jobs WHERE state = 1 EXCEPT SELECT id FROM ready")?;
    let lost = unlisted.difference(&claims.running);
    report.add("each ready job is listed or runs", lost.map(|id| name(*id)));
    report.add("no running job is listed as ready", claims.running.difference(&unlisted).map(|id| name(*id)));
    Ok(report)
}

/// The jobs that run although their own rows say that they are ready.
struct ClaimedJobs {
    running: BTreeSet<i64>,
    /// The records of leases that have no running job.
    without_job: Vec<i64>,
}

fn claimed_jobs(conn: &Connection) -> rusqlite::Result<ClaimedJobs> {
    let mut found = ClaimedJobs { running: BTreeSet::new(), without_job: Vec::new() };
    let mut claims: BTreeMap<i64, Vec<u8>> = BTreeMap::new();
    let mut find = conn.prepare("SELECT id, jobs FROM claims")?;
    let mut rows = find.query([])?;
    while let Some(row) = rows.next()? {
        claims.insert(row.get(0)?, row.get(1)?);
    }
    let mut job = conn.prepare("SELECT state, attempt FROM jobs WHERE id = ?1")?;
    for (claim, jobs) in claims {
        let mut has_job = false;
        for (id, attempt) in decode_jobs(&jobs) {
            let mut rows = job.query([id])?;
            let Some(row) = rows.next()? else { continue };
            match (row.get::<_, i64>(0)?, row.get::<_, u32>(1)?) {
                (0 | 1, before) if before + 1 == attempt => {
                    found.running.insert(id);
                    has_job = true;
                }
                (2, same) if same == attempt => has_job = true,
                _ => {}
            }
        }
        if !has_job {
            found.without_job.push(claim);
        }
    }
    Ok(found)
}

fn texts(conn: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut find = conn.prepare(sql)?;
    let found = find.query_map([], |row| match row.get_ref(0)? {
        rusqlite::types::ValueRef::Integer(id) => Ok(name(id)),
        other => Ok(other.as_str().unwrap_or_default().to_owned()),
    })?;
    found.collect()
}

/// Returns the ID of a job as users write it.
fn name(id: i64) -> String {
    job_id(id).map_or_else(|_| id.to_string(), |id| id.to_string())
}
