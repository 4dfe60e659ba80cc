//! The reading side of the database. Each query sees one snapshot of it, and never makes the writer wait.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use wharf_core::bounds;
use wharf_core::ids::{Group, JobId, TaskName};
use wharf_core::job::{Job, JobStatus, NumberedEntry, State, StateName, UniqueToken};
use wharf_core::key::Lane;
use wharf_core::limits::{LimitTable, Limits, Override};
use wharf_core::log_page::log_page;
use wharf_core::time::Timestamp;
use wharf_core::wait_reason::{Holders, wait_reason};

use super::hold_rows;
use super::large_values::{OUTPUTS, PAYLOADS};
use super::rows::{self, InternedNames, numbered_entry, timestamp};
use super::unsynced_claims::{self, UnsyncedClaim, UnsyncedClaims};
use crate::columns::{self, READY, job_id, key_text, parse, signed, unsigned};
use crate::store::{JobFilter, JobPage, JobSnapshot, QueueStats};

/// The columns that [`rows::job`] reads, except for the status, the payload and the result.
pub(super) const JOB_COLUMNS: &str =
    "jobs.id AS id, t.text AS task_name, g.text AS group_name, jobs.key AS key, priority, token, batch,
    topic, jobs.tick AS tick, parent, generation, enqueued_at, started_at, finished_at, reports.outcome AS outcome, reports.text AS report, reports.fingerprint AS fingerprint,
    requeued_at, retried_at,
    queue_wait_us, cpu_us, wall_us, memory_peak_bytes, in_bytes, out_bytes";

/// The joins that [`JOB_COLUMNS`] needs.
pub(super) const JOB_JOINS: &str = "JOIN names t ON t.id = jobs.task JOIN names g ON g.id = jobs.limit_group
    LEFT JOIN reports ON reports.job = jobs.id";

/// Returns the job of a task and a key that has this token.
pub(super) fn find_by_token(conn: &Connection, of: &UniqueToken) -> rusqlite::Result<Option<JobId>> {
    let mut find = conn.prepare_cached(
        "SELECT id FROM jobs WHERE token = ?1 AND task = (SELECT id FROM names WHERE text = ?2) AND key = ?3",
    )?;
    find.query_row(params![of.token.as_str(), of.task.as_str(), key_text(of.key.as_ref())], |row| {
        Ok(job_id(row.get(0)?)?)
    })
    .optional()
}

/// Returns a job with its wait reason, and the number of its last entry.
pub(super) fn job(
    conn: &Connection,
    claims: &Mutex<UnsyncedClaims>,
    id: JobId,
    declared: &LimitTable,
    now: Timestamp,
) -> rusqlite::Result<Option<JobSnapshot>> {
    // Claims are read before the snapshot, since one that ends after it is not among them any more; and again after it, for one
    // that starts in between.
    let before = unsynced_claims::lock(claims).get(id);
    let snapshot = conn.unchecked_transaction()?;
    let number = signed(id.number());
    let sql = format!(
        "SELECT {JOB_COLUMNS}, {}, jobs.payload AS payload, jobs.output AS output, length(payloads.payload) AS payload_size,
             length(outputs.output) AS output_size FROM jobs {JOB_JOINS}
         LEFT JOIN payloads ON payloads.job = jobs.id LEFT JOIN outputs ON outputs.job = jobs.id WHERE jobs.id = ?1",
        rows::STATUS
    );
    let read = |row: &Row<'_>| {
        let large = [row.get::<_, Option<i64>>("payload_size")?, row.get("output_size")?];
        Ok((rows::job(row)?, row.get::<_, i16>("state")? == READY, large))
    };
    let job = snapshot.prepare_cached(&sql)?.query_row([number], read).optional()?;
    let found = [before, unsynced_claims::lock(claims).get(id)];
    let Some((mut job, is_ready, [payload_size, output_size])) = job else { return Ok(None) };
    if let Some(size) = payload_size {
        job.payload = PAYLOADS.read(&snapshot, number, unsigned(size))?.unwrap_or_default();
    }
    if let Some(size) = output_size {
        job.result = OUTPUTS.read(&snapshot, number, unsigned(size))?;
    }
    let job = found.iter().flatten().fold(job, with_claim);
    let entries: i64 = snapshot
        .prepare_cached("SELECT coalesce(max(number), 0) FROM entries WHERE job = ?1")?
        .query_row([number], |row| row.get(0))?;
    let why = match job.status.state {
        State::Waiting { due } => {
            let table = declared.with_overrides(overrides(&snapshot)?);
            let limits = Limits { per_key: table.per_key(&job.lane), total: table.of(&job.lane.group).total };
            // Without a limit no other job delays this one.
            let (mut of_lane, mut of_group) = Default::default();
            if limits.per_key.is_some() || limits.total.is_some() {
                let ahead = ahead_of_rows(&snapshot, unsynced_claims::lock(claims).of_group(&job.lane.group))?;
                of_lane = slot_holders(&snapshot, &ahead, &job.lane.group, Some(&job.lane))?;
                of_group = slot_holders(&snapshot, &ahead, &job.lane.group, None)?;
            }
            // A ready job stays ready, even if the clock is set back.
            let due = if is_ready { due.min(now) } else { due };
            let hold = hold_rows::on_job(&snapshot, &job.task, &job.lane, now)?;
            Some(wait_reason(due, now, limits, of_lane, of_group).or_held(hold.as_ref()))
        }
        _ => None,
    };
    Ok(Some(JobSnapshot { job, why, entries: entries as u64 }))
}

/// Applies a claim to a job whose row is behind it.
pub(super) fn with_claim(job: Job, claim: &UnsyncedClaim) -> Job {
    if !claim.is_ahead_of(&job.status) {
        return job;
    }
    let state = State::Running { lease: claim.lease };
    let status = JobStatus { state, attempt: claim.lease.attempt, ..job.status };
    Job { status, started_at: Some(claim.started_at), ..job }
}

/// Returns the claims that the rows of their jobs are behind, in the snapshot of `conn`.
pub(super) fn ahead_of_rows(
    conn: &Connection,
    mut claims: Vec<UnsyncedClaim>,
) -> rusqlite::Result<HashMap<JobId, UnsyncedClaim>> {
    let mut ahead = HashMap::new();
    claims.sort_unstable_by_key(|claim| claim.lease.job);
    for claim in claims {
        let id = claim.lease.job;
        let mut read = conn.prepare_cached(
            "SELECT state, due_at, attempt, failures, crashes, cancel_requested, node, lease_expires_at FROM jobs
             WHERE id = ?1",
        )?;
        let row = read.query_row([signed(id.number())], |row| rows::status(id, row, 0)).optional()?;
        if row.is_some_and(|row| claim.is_ahead_of(&row)) {
            ahead.insert(id, claim);
        }
    }
    Ok(ahead)
}

/// Returns the running jobs of a lane; of its whole group if `lane` is `None`.
fn slot_holders(
    conn: &Connection,
    ahead: &HashMap<JobId, UnsyncedClaim>,
    group: &Group,
    lane: Option<&Lane>,
) -> rusqlite::Result<Holders> {
    let mut find = conn.prepare_cached(
        "SELECT id, started_at FROM jobs INDEXED BY jobs_running
         WHERE state = 2 AND limit_group = (SELECT id FROM names WHERE text = ?1) AND (?2 IS NULL OR key = ?2)",
    )?;
    let key = lane.map(|lane| key_text(lane.key.as_ref()));
    let found =
        find.query_map(params![group.as_str(), key], |row| Ok((job_id(row.get(0)?)?, timestamp(row, "started_at")?)))?;
    let mut all = found.collect::<rusqlite::Result<Vec<_>>>()?;
    let claimed = ahead.values().filter(|claim| lane.is_none_or(|lane| claim.lane == *lane));
    all.extend(claimed.map(|claim| (claim.lease.job, claim.started_at)));
    all.sort_unstable_by_key(|(id, _)| *id);
    Ok(all.into_iter().collect())
}

/// Returns a page of jobs, newest first, without payloads and results.
pub(super) fn jobs(conn: &Connection, claims: &Mutex<UnsyncedClaims>, filter: &JobFilter) -> rusqlite::Result<JobPage> {
    let claims = unsynced_claims::lock(claims).all();
    let snapshot = conn.unchecked_transaction()?;
    let ahead = ahead_of_rows(&snapshot, claims)?;
    let ids = || Value::from(json_list(ahead.keys().map(|id| id.number())));
    let max = filter.max.clamp(1, bounds::PAGE_MAX) as usize;
    let (mut table, mut conditions, mut values) = ("jobs", Vec::new(), Vec::<Value>::new());
    if let Some(before) = filter.before {
        conditions.push("jobs.id < ?");
        values.push(signed(before.number()).into());
    }
    match filter.state {
        None => {}
        Some(StateName::Waiting) if few_waiting(&snapshot)? => conditions.push(
            "jobs.id IN (SELECT id FROM ready UNION ALL SELECT id FROM jobs INDEXED BY jobs_delayed WHERE state = 0)",
        ),
        Some(StateName::Waiting) => {
            conditions.push("state IN (0, 1) AND jobs.id NOT IN (SELECT value FROM json_each(?))");
            values.push(ids());
        }
        Some(StateName::Running) => {
            conditions.push(
                "jobs.id IN (SELECT id FROM jobs INDEXED BY jobs_running WHERE state = 2
                     UNION ALL SELECT value FROM json_each(?))",
            );
            values.push(ids());
        }
        Some(StateName::Succeeded) => conditions.push("state = 3"),
        Some(StateName::Failed) => {
            table = "jobs INDEXED BY jobs_unsuccessful";
            conditions.push("state = 4 AND state >= 4");
        }
        Some(StateName::Cancelled) => {
            table = "jobs INDEXED BY jobs_unsuccessful";
            conditions.push("state = 5 AND state >= 4");
        }
    }
    if let Some(task) = &filter.task {
        conditions.push("task = (SELECT id FROM names WHERE text = ?)");
        values.push(task.as_str().to_owned().into());
    }
    if let Some(key) = &filter.key {
        conditions.push("key = ?");
        values.push(key.as_str().to_owned().into());
    }
    if let Some(token) = &filter.token {
        if filter.state.is_none() {
            table = "jobs INDEXED BY jobs_token";
        }
        conditions.push("token = ? AND token IS NOT NULL");
        values.push(token.as_str().to_owned().into());
    }
    if let Some(batch) = filter.batch {
        conditions.push("batch = ? AND batch IS NOT NULL");
        values.push(signed(batch.number()).into());
    }
    let conditions = if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") };
    values.push(((max + 1) as i64).into());
    let sql = format!(
        "SELECT {JOB_COLUMNS}, {}, NULL AS payload, NULL AS output
         FROM (SELECT * FROM {table} WHERE {conditions} ORDER BY jobs.id DESC LIMIT ?) AS jobs {JOB_JOINS} ORDER BY jobs.id DESC",
        rows::STATUS
    );
    let mut find = snapshot.prepare_cached(&sql)?;
    let found = find.query_map(params_from_iter(values), rows::job)?;
    let apply_claim = |job: Job| match ahead.get(&job.id) {
        Some(claim) => with_claim(job, claim),
        None => job,
    };
    let mut jobs = found.map(|job| job.map(apply_claim)).collect::<rusqlite::Result<Vec<_>>>()?;
    let more = jobs.len() > max;
    jobs.truncate(max);
    Ok(JobPage { jobs, more })
}

/// Returns true if fewer than `bounds::WAITING_SORTED_MAX` jobs wait.
pub(super) fn few_waiting(conn: &Connection) -> rusqlite::Result<bool> {
    let mut count = conn.prepare_cached(
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM ready LIMIT ?1))
              + (SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_delayed WHERE state = 0 LIMIT ?1))",
    )?;
    let max = bounds::WAITING_SORTED_MAX;
    Ok(count.query_row([max], |row| row.get::<_, i64>(0))? < i64::from(max))
}

/// Returns the entries of a job after number `after`, up to `max` and a page's bytes.
pub(super) fn entries(conn: &Connection, id: JobId, after: u64, max: u32) -> rusqlite::Result<Vec<NumberedEntry>> {
    let mut find = conn.prepare_cached(
        "SELECT number, attempt, written_at, kind, amount, data FROM entries WHERE job = ?1 AND number > ?2
         ORDER BY number LIMIT ?3",
    )?;
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let found = find.query_map(params![signed(id.number()), after, max.clamp(1, bounds::PAGE_MAX)], numbered_entry)?;
    log_page(found)
}

/// Returns the store's random bytes.
pub(super) fn seal_key(conn: &Connection) -> rusqlite::Result<[u8; 32]> {
    conn.query_row("SELECT bytes FROM seal_key", [], |row| row.get(0))
}

/// Returns all overrides, by group and key.
pub(super) fn overrides(conn: &Connection) -> rusqlite::Result<Vec<Override>> {
    let mut find =
        conn.prepare_cached("SELECT limit_group, key, per_key, total FROM overrides ORDER BY limit_group, key")?;
    let found = find.query_map([], |row| {
        Ok(Override {
            group: parse("group", row.get_ref("limit_group")?.as_str()?)?,
            key: columns::key(row.get_ref("key")?.as_str()?)?,
            limits: Limits { per_key: row.get("per_key")?, total: row.get("total")? },
        })
    })?;
    found.collect()
}

/// Returns the names of tasks in place of their numbers.
pub(super) fn by_task_name(conn: &Connection, counts: Vec<(i64, u64)>) -> rusqlite::Result<Vec<(TaskName, u64)>> {
    let mut names = InternedNames::default();
    counts.into_iter().map(|(task, count)| Ok((names.task(conn, task)?, count))).collect()
}

/// Counts the waiting and the running jobs, each from its own index; finished jobs cost nothing.
pub(super) fn stats(conn: &Connection, claims: &Mutex<UnsyncedClaims>) -> rusqlite::Result<QueueStats> {
    let claims = unsynced_claims::lock(claims).all();
    let snapshot = conn.unchecked_transaction()?;
    let mut tasks: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    let mut groups: BTreeMap<Group, u64> = BTreeMap::new();
    for claim in ahead_of_rows(&snapshot, claims)?.into_values() {
        tasks.entry(claim.task).or_default().1 += 1;
        *groups.entry(claim.lane.group).or_default() += 1;
    }
    let mut by_task = snapshot.prepare_cached(
        "SELECT jobs.task, waiting, 0 FROM (SELECT count(*) AS waiting, max(id) AS one FROM ready GROUP BY line)
             JOIN jobs ON jobs.id = one
         UNION ALL SELECT task, count(*), 0 FROM jobs INDEXED BY jobs_delayed_lane WHERE state = 0 GROUP BY task
         UNION ALL SELECT task, 0, count(*) FROM jobs INDEXED BY jobs_running WHERE state = 2 GROUP BY task",
    )?;
    let counts = by_task.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))?;
    for count in counts {
        let (task, waiting, running): (i64, i64, i64) = count?;
        let counts = tasks.entry(task).or_default();
        counts.0 += waiting as u64;
        counts.1 += running as u64;
    }
    let mut by_group = snapshot.prepare_cached(
        "SELECT text, count(*) FROM jobs INDEXED BY jobs_running JOIN names ON names.id = limit_group WHERE state = 2
         GROUP BY text",
    )?;
    for count in by_group.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))? {
        let (group, running) = count?;
        *groups.entry(parse("group", &group)?).or_default() += running as u64;
    }
    let mut names = InternedNames::default();
    let tasks =
        tasks.into_iter().map(|(task, (waiting, running))| Ok((names.task(&snapshot, task)?, waiting, running)));
    let mut tasks = tasks.collect::<rusqlite::Result<Vec<(TaskName, u64, u64)>>>()?;
    tasks.sort_unstable();
    Ok(QueueStats { tasks, groups: groups.into_iter().collect() })
}

/// Returns a list of numbers as the JSON text that `json_each` reads: one SQL parameter, however long the list is.
fn json_list(numbers: impl Iterator<Item = u64>) -> String {
    let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
    format!("[{}]", numbers.join(","))
}
