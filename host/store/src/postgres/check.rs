//! Checks the tables of a schema: the rules that hold between the rows of a store, at one moment.

use super::address::Address;
use super::schema::{self, open_error};
use super::session::{Session, SessionError, Sessions, computed};
use crate::columns::job_id;
use crate::store::{CheckReport, OpenError};

/// The contents of a store: each kind with the query that counts it.
const CONTENTS: [(&str, &str); 11] = [
    ("waiting jobs", "SELECT count(*) FROM $schema.jobs WHERE state < 2"),
    ("running jobs", "SELECT count(*) FROM $schema.jobs WHERE state = 2"),
    ("succeeded jobs", "SELECT count(*) FROM $schema.jobs WHERE state = 3"),
    ("failed jobs", "SELECT count(*) FROM $schema.jobs WHERE state = 4"),
    ("cancelled jobs", "SELECT count(*) FROM $schema.jobs WHERE state = 5"),
    ("log entries", "SELECT count(*) FROM $schema.entries"),
    ("attempts", "SELECT count(*) FROM $schema.attempts"),
    ("stored values", "SELECT count(*) FROM $schema.kv"),
    ("schedules", "SELECT count(*) FROM $schema.schedules"),
    ("holds", "SELECT count(*) FROM $schema.holds"),
    ("acts", "SELECT count(*) FROM $schema.audit"),
];

/// Rules between rows, each with the query for the jobs that break it.
const RULES_OF_JOBS: [(&str, &str); 8] = [
    (
        "each job that is listed as ready is ready, and each ready job is listed once",
        "SELECT coalesce(listed.id, jobs.id) FROM (SELECT id FROM $schema.jobs WHERE state = 1) AS jobs
         FULL JOIN (SELECT id, count(*) AS lists FROM $schema.ready CROSS JOIN LATERAL unnest(ids) AS each (id) GROUP BY id) AS listed
         ON listed.id = jobs.id WHERE jobs.id IS NULL OR lists IS DISTINCT FROM 1",
    ),
    (
        "each lease has a running job, and each running job one lease",
        "SELECT coalesce(listed.id, jobs.id) FROM (SELECT id FROM $schema.jobs WHERE state = 2) AS jobs
         FULL JOIN (SELECT id, count(*) AS lists FROM $schema.running CROSS JOIN LATERAL unnest(ids) AS each (id) GROUP BY id) AS listed
         ON listed.id = jobs.id WHERE jobs.id IS NULL OR lists IS DISTINCT FROM 1",
    ),
    (
        "each running job says who runs it",
        "SELECT id FROM $schema.jobs WHERE state = 2 AND (node IS NULL OR lease_expires_at IS NULL)",
    ),
    (
        "each finished job says when it finished, and is listed for its deletion",
        "SELECT jobs.id FROM $schema.jobs LEFT JOIN (
             SELECT DISTINCT finished_at, id FROM $schema.finished CROSS JOIN LATERAL unnest(ids) AS each (id)) AS listed
         ON listed.id = jobs.id AND listed.finished_at = jobs.finished_at WHERE state >= 3 AND listed.id IS NULL",
    ),
    (
        "the parent of each job is there, or a job at least as new was deleted",
        "SELECT child.id FROM $schema.jobs AS child LEFT JOIN $schema.jobs AS parent ON parent.id = child.parent
         WHERE child.parent IS NOT NULL AND parent.id IS NULL
         AND child.parent > coalesce((SELECT id FROM $schema.last_deleted), -1)",
    ),
    (
        "each log and each attempt belongs to a job",
        "SELECT of.job FROM (SELECT job FROM $schema.entries UNION SELECT job FROM $schema.attempts
             UNION SELECT job FROM $schema.failure_samples) AS of
         LEFT JOIN $schema.jobs ON jobs.id = of.job WHERE jobs.id IS NULL",
    ),
    (
        "each ready job is of a line of its lane and its task",
        "SELECT first_id FROM $schema.ready LEFT JOIN $schema.lines ON lines.id = ready.line AND lines.task = ready.task
         WHERE lines.id IS NULL",
    ),
    (
        "each task and limit group of a job has a name",
        "SELECT jobs.id FROM $schema.jobs LEFT JOIN $schema.names AS t ON t.id = jobs.task
         LEFT JOIN $schema.names AS g ON g.id = jobs.limit_group WHERE t.id IS NULL OR g.id IS NULL",
    ),
];

/// Rules between rows, each with the query for the names of what breaks it.
const RULES_OF_NAMES: [(&str, &str); 3] = [
    (
        "what a bulk operation began with is kept only while it is open",
        "SELECT DISTINCT operation::text FROM $schema.operation_waits LEFT JOIN $schema.operations
         ON operations.id = operation AND ended_at IS NULL WHERE operations.id IS NULL",
    ),
    (
        "the waiting jobs of each task are counted",
        "SELECT text FROM (SELECT task, count(*) AS number FROM $schema.jobs WHERE state < 2 GROUP BY task) AS of
         FULL JOIN (SELECT task, sum(jobs) AS number FROM $schema.waiting_jobs GROUP BY task) AS counted USING (task)
         JOIN $schema.names ON names.id = task WHERE coalesce(of.number, 0) <> coalesce(counted.number, 0)",
    ),
    (
        "the usage of each plugin is the sum of its values",
        "SELECT plugin FROM (
             SELECT plugin, count(*) AS number, sum(length(key) + length(value)) AS bytes FROM $schema.kv GROUP BY plugin) AS of
         FULL JOIN (SELECT plugin, sum(value_count) AS number, sum(total_bytes) AS bytes FROM $schema.kv_usage GROUP BY plugin) AS counted
         USING (plugin)
         WHERE coalesce(of.number, 0) <> coalesce(counted.number, 0) OR coalesce(of.bytes, 0) <> coalesce(counted.bytes, 0)",
    ),
];

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Returns the schema that an address names.
///
/// # Errors
/// If the address is invalid.
pub(crate) fn schema_of(address: &str) -> Result<String, OpenError> {
    Ok(Address::parse(address)?.schema)
}

/// Checks the tables at an address. Hosts may be running.
///
/// # Errors
/// If the address is invalid, the server cannot be reached, or it has no store.
pub(crate) async fn check(address: &str) -> Result<CheckReport, OpenError> {
    let address = Address::parse(address)?;
    let failed = |error: SessionError| open_error(&error, &address);
    let sessions = Sessions::new(&address, 1)?;
    let session = sessions.session().await.map_err(failed)?;
    if !schema::has_tables(&session, &address).await? {
        let reason = format!("no host has made tables in its schema `{}`; name another one", address.schema);
        return Err(OpenError::MendDatabase { address: address.redacted.clone(), reason });
    }
    check_tables(&session).await.map_err(failed)
}

async fn check_tables(session: &Session) -> Result<CheckReport, SessionError> {
    let mut report = CheckReport::default();
    session.execute(BEGIN).await?;
    for (kind, sql) in CONTENTS {
        let count: i64 = computed(&session.query_one(sql, &[]).await?, 0)?;
        report.contents.push((kind, count.unsigned_abs()));
    }
    for (rule, sql) in RULES_OF_JOBS {
        let mut jobs = Vec::new();
        for row in &session.query(sql, &[]).await? {
            let id: i64 = computed(row, 0)?;
            jobs.push(job_id(id).map_or_else(|_| id.to_string(), |id| id.to_string()));
        }
        report.add(rule, jobs);
    }
    for (rule, sql) in RULES_OF_NAMES {
        let rows = session.query(sql, &[]).await?;
        report.add(rule, rows.iter().map(|row| computed::<String>(row, 0)).collect::<Result<Vec<_>, _>>()?);
    }
    session.execute("COMMIT").await?;
    Ok(report)
}
