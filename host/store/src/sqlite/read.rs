//! The reading side: each question sees one moment of the database, and never stands in the writer's way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use wharf_core::bounds;
use wharf_core::ids::{Group, JobId, TaskName};
use wharf_core::job::{Job, JobStatus, NumberedEntry, State, StateName, Token};
use wharf_core::key::Lane;
use wharf_core::limits::{LimitTable, Limits, Override};
use wharf_core::log_page::log_page;
use wharf_core::time::Timestamp;
use wharf_core::wait_reason::{Holders, wait_reason};

use super::rows::{self, Names, READY, job_id, key_of, key_text, micros, moment, numbered, parse, signed};
use super::unsynced_claims::{self, Claimed, Unwritten};
use crate::store::{JobFilter, JobPage, JobSnapshot, QueueStats};

const JOB_COLUMNS: &str = "jobs.id AS id, t.text AS task_name, g.text AS group_name, jobs.key AS key, priority, token,
    batch, topic, enqueued_at, started_at, finished_at, kind, report, queue_wait, guest, wall, memory_peak, bytes_in, bytes_out";

const JOB_NAMES: &str =
    "JOIN names t ON t.id = jobs.task JOIN names g ON g.id = jobs.grp LEFT JOIN reports ON reports.job = jobs.id";

/// The job that stands under a token.
pub(super) fn known(conn: &Connection, task: &TaskName, token: &Token) -> rusqlite::Result<Option<JobId>> {
    let mut find =
        conn.prepare_cached("SELECT id FROM jobs WHERE token = ?1 AND task = (SELECT id FROM names WHERE text = ?2)")?;
    find.query_row(params![token.as_str(), task.as_str()], |row| job_id(row.get(0)?)).optional()
}

pub(super) fn job(
    conn: &Connection,
    unwritten: &Mutex<Unwritten>,
    id: JobId,
    declared: &LimitTable,
    now: Timestamp,
) -> rusqlite::Result<Option<JobSnapshot>> {
    // Before the moment that is read, since what ends after it is not there any more; and after it for what begins meanwhile.
    let before = unsynced_claims::look(unwritten).get(id);
    let moment = conn.unchecked_transaction()?;
    let number = signed(id.number());
    let sql = format!(
        "SELECT {JOB_COLUMNS}, {}, coalesce(jobs.payload, payloads.payload) AS payload,
             coalesce(jobs.output, outputs.output) AS output FROM jobs {JOB_NAMES}
         LEFT JOIN payloads ON payloads.job = jobs.id LEFT JOIN outputs ON outputs.job = jobs.id WHERE jobs.id = ?1",
        rows::STANDING
    );
    let read = |row: &Row<'_>| Ok((rows::job(row)?, row.get::<_, i64>("state")? == READY));
    let job = moment.prepare_cached(&sql)?.query_row([number], read).optional()?;
    let looks = [before, unsynced_claims::look(unwritten).get(id)];
    let Some((job, is_ready)) = job else { return Ok(None) };
    let job = looks.iter().flatten().fold(job, overlaid);
    let entries: i64 = moment
        .prepare_cached("SELECT coalesce(max(number), 0) FROM entries WHERE job = ?1")?
        .query_row([number], |row| row.get(0))?;
    let why = match job.standing.state {
        State::Waiting { due } => {
            let table = declared.with_overrides(overrides(&moment)?);
            let limits = Limits { per_key: table.per_key(&job.lane), total: table.of(&job.lane.group).total };
            // Without a limit nobody holds a job up.
            let (mut of_lane, mut of_group) = Default::default();
            if limits.per_key.is_some() || limits.total.is_some() {
                let ahead = ahead_of_rows(&moment, unsynced_claims::look(unwritten).of_group(&job.lane.group))?;
                of_lane = holders(&moment, &ahead, &job.lane.group, Some(&job.lane))?;
                of_group = holders(&moment, &ahead, &job.lane.group, None)?;
            }
            // One that is ready stays so, however the clock is set.
            let due = if is_ready { due.min(now) } else { due };
            Some(wait_reason(due, now, limits, of_lane, of_group))
        }
        _ => None,
    };
    Ok(Some(JobSnapshot { job, why, entries: entries as u64 }))
}

/// The job as it stands, where its row is behind.
fn overlaid(job: Job, claimed: &Claimed) -> Job {
    if !claimed.is_ahead_of(&job.standing) {
        return job;
    }
    let state = State::Running { lease: claimed.lease };
    let standing = JobStatus { state, attempt: claimed.lease.attempt, ..job.standing };
    Job { standing, started_at: Some(claimed.started_at), ..job }
}

/// Those whose rows are behind, at the moment that is read.
fn ahead_of_rows(conn: &Connection, mut claimed: Vec<Claimed>) -> rusqlite::Result<HashMap<JobId, Claimed>> {
    let mut ahead = HashMap::new();
    claimed.sort_unstable_by_key(|claimed| claimed.lease.job);
    for claimed in claimed {
        let id = claimed.lease.job;
        let mut read = conn.prepare_cached(
            "SELECT state, due, attempt, failures, crashes, cancel_asked, node, lease_until FROM jobs WHERE id = ?1",
        )?;
        let row = read.query_row([signed(id.number())], |row| rows::standing(id, row, 0)).optional()?;
        if row.is_some_and(|row| claimed.is_ahead_of(&row)) {
            ahead.insert(id, claimed);
        }
    }
    Ok(ahead)
}

/// The running jobs of a lane, or of the whole group.
fn holders(
    conn: &Connection,
    ahead: &HashMap<JobId, Claimed>,
    group: &Group,
    lane: Option<&Lane>,
) -> rusqlite::Result<Holders> {
    let mut find = conn.prepare_cached(
        "SELECT id, started_at FROM jobs INDEXED BY jobs_running
         WHERE state = 2 AND grp = (SELECT id FROM names WHERE text = ?1) AND (?2 IS NULL OR key = ?2)",
    )?;
    let key = lane.map(key_text);
    let found =
        find.query_map(params![group.as_str(), key], |row| Ok((job_id(row.get(0)?)?, moment(row, "started_at")?)))?;
    let mut all = found.collect::<rusqlite::Result<Vec<_>>>()?;
    let here = ahead.values().filter(|claimed| lane.is_none_or(|lane| claimed.lane == *lane));
    all.extend(here.map(|claimed| (claimed.lease.job, claimed.started_at)));
    all.sort_unstable_by_key(|(id, _)| *id);
    Ok(all.into_iter().collect())
}

pub(super) fn jobs(conn: &Connection, unwritten: &Mutex<Unwritten>, wanted: &JobFilter) -> rusqlite::Result<JobPage> {
    let claimed = unsynced_claims::look(unwritten).all();
    let moment = conn.unchecked_transaction()?;
    let ahead = ahead_of_rows(&moment, claimed)?;
    let ids = || Value::from(json_list(ahead.keys().map(|id| id.number())));
    let max = wanted.max.clamp(1, bounds::PAGE_MAX) as usize;
    let (mut table, mut tests, mut values) = ("jobs", Vec::new(), Vec::<Value>::new());
    if let Some(before) = wanted.before {
        tests.push("jobs.id < ?");
        values.push(signed(before.number()).into());
    }
    match wanted.state {
        None => {}
        Some(StateName::Waiting) if few_wait(&moment)? => tests.push(
            "jobs.id IN (SELECT id FROM ready UNION ALL SELECT id FROM jobs INDEXED BY jobs_delayed WHERE state = 0)",
        ),
        Some(StateName::Waiting) => {
            tests.push("state IN (0, 1) AND jobs.id NOT IN (SELECT value FROM json_each(?))");
            values.push(ids());
        }
        Some(StateName::Running) => {
            tests.push(
                "jobs.id IN (SELECT id FROM jobs INDEXED BY jobs_running WHERE state = 2
                     UNION ALL SELECT value FROM json_each(?))",
            );
            values.push(ids());
        }
        Some(StateName::Succeeded) => tests.push("state = 3"),
        Some(StateName::Failed) => {
            table = "jobs INDEXED BY jobs_unsuccessful";
            tests.push("state = 4 AND state >= 4");
        }
        Some(StateName::Cancelled) => {
            table = "jobs INDEXED BY jobs_unsuccessful";
            tests.push("state = 5 AND state >= 4");
        }
    }
    if let Some(task) = &wanted.task {
        tests.push("task = (SELECT id FROM names WHERE text = ?)");
        values.push(task.as_str().to_owned().into());
    }
    if let Some(key) = &wanted.key {
        tests.push("key = ?");
        values.push(key.as_str().to_owned().into());
    }
    if let Some(token) = &wanted.token {
        if wanted.state.is_none() {
            table = "jobs INDEXED BY jobs_token";
        }
        tests.push("token = ? AND token IS NOT NULL");
        values.push(token.as_str().to_owned().into());
    }
    if let Some(batch) = wanted.batch {
        tests.push("batch = ? AND batch IS NOT NULL");
        values.push(signed(batch.number()).into());
    }
    let tests = if tests.is_empty() { "1".to_owned() } else { tests.join(" AND ") };
    values.push(((max + 1) as i64).into());
    let sql = format!(
        "SELECT {JOB_COLUMNS}, {}, NULL AS payload, NULL AS output
         FROM (SELECT * FROM {table} WHERE {tests} ORDER BY jobs.id DESC LIMIT ?) AS jobs {JOB_NAMES} ORDER BY jobs.id DESC",
        rows::STANDING
    );
    let mut find = moment.prepare_cached(&sql)?;
    let found = find.query_map(params_from_iter(values), rows::job)?;
    let shown = |job: Job| match ahead.get(&job.id) {
        Some(claimed) => overlaid(job, claimed),
        None => job,
    };
    let mut jobs = found.map(|job| job.map(shown)).collect::<rusqlite::Result<Vec<_>>>()?;
    let more = jobs.len() > max;
    jobs.truncate(max);
    Ok(JobPage { jobs, more })
}

fn few_wait(conn: &Connection) -> rusqlite::Result<bool> {
    let mut count = conn.prepare_cached(
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM ready LIMIT ?1))
              + (SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_delayed WHERE state = 0 LIMIT ?1))",
    )?;
    let max = bounds::WAITING_SORTED_MAX;
    Ok(count.query_row([max], |row| row.get::<_, i64>(0))? < i64::from(max))
}

pub(super) fn entries(conn: &Connection, id: JobId, after: u64, max: u32) -> rusqlite::Result<Vec<NumberedEntry>> {
    let mut find = conn.prepare_cached(
        "SELECT number, attempt, at, kind, amount, data FROM entries WHERE job = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
    )?;
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let found = find.query_map(params![signed(id.number()), after, max.clamp(1, bounds::PAGE_MAX)], numbered)?;
    log_page(found)
}

pub(super) fn overrides(conn: &Connection) -> rusqlite::Result<Vec<Override>> {
    let mut find = conn.prepare_cached("SELECT grp, key, per_key, total FROM overrides ORDER BY grp, key")?;
    let found = find.query_map([], |row| {
        Ok(Override {
            group: parse("a group", &row.get::<_, String>("grp")?)?,
            key: key_of(&row.get::<_, String>("key")?)?,
            limits: Limits { per_key: row.get("per_key")?, total: row.get("total")? },
        })
    })?;
    found.collect()
}

/// Counts the jobs that wait and run, each from its own index; what is finished costs nothing.
pub(super) fn stats(conn: &Connection, unwritten: &Mutex<Unwritten>, now: Timestamp) -> rusqlite::Result<QueueStats> {
    let claimed = unsynced_claims::look(unwritten).all();
    let moment = conn.unchecked_transaction()?;
    let mut tasks: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    let mut groups: BTreeMap<Group, u64> = BTreeMap::new();
    for claimed in ahead_of_rows(&moment, claimed)?.into_values() {
        tasks.entry(claimed.task).or_default().1 += 1;
        *groups.entry(claimed.lane.group).or_default() += 1;
    }
    let mut by_task = moment.prepare_cached(
        "SELECT jobs.task, waiting, 0 FROM (SELECT count(*) AS waiting, max(id) AS one FROM ready GROUP BY line)
             JOIN jobs ON jobs.id = one
         UNION ALL SELECT task, count(*), 0 FROM jobs INDEXED BY jobs_delayed_lane WHERE state = 0 GROUP BY task
         UNION ALL SELECT task, 0, count(*) FROM jobs INDEXED BY jobs_running WHERE state = 2 GROUP BY task",
    )?;
    let counts = by_task.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))?;
    for count in counts {
        let (task, waiting, running): (i64, i64, i64) = count?;
        let of_task = tasks.entry(task).or_default();
        of_task.0 += waiting as u64;
        of_task.1 += running as u64;
    }
    let mut by_group = moment.prepare_cached(
        "SELECT text, count(*) FROM jobs INDEXED BY jobs_running JOIN names ON names.id = grp WHERE state = 2 GROUP BY text",
    )?;
    for count in by_group.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))? {
        let (group, running) = count?;
        *groups.entry(parse("a group", &group)?).or_default() += running as u64;
    }
    let oldest: Option<i64> = moment
        .prepare_cached(
            "SELECT min(due) FROM (
                 SELECT min(due) AS due FROM ready
                 UNION ALL SELECT min(due) FROM jobs INDEXED BY jobs_delayed WHERE state = 0 AND due <= ?1)",
        )?
        .query_row([micros(now)], |row| row.get(0))?;
    let mut named = Names::default();
    let tasks = tasks.into_iter().map(|(task, (waiting, running))| Ok((named.task(&moment, task)?, waiting, running)));
    let mut tasks = tasks.collect::<rusqlite::Result<Vec<(TaskName, u64, u64)>>>()?;
    tasks.sort_unstable();
    Ok(QueueStats {
        tasks,
        oldest_due: oldest.map(|due| Timestamp::from_micros(due as u64)),
        groups: groups.into_iter().collect(),
    })
}

/// For `json_each`: a list of numbers, of any length, as one value.
fn json_list(numbers: impl Iterator<Item = u64>) -> String {
    let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
    format!("[{}]", numbers.join(","))
}
