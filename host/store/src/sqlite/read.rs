//! The reading side: each question sees one moment of the database, and never stands in the writer's way.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use wharf_core::bounds;
use wharf_core::ids::{Group, JobId, TaskName};
use wharf_core::job::{Numbered, State, StateName};
use wharf_core::limits::{LimitTable, Limits, Override};
use wharf_core::time::Timestamp;

use super::rows::{self, job_id, key_of, key_text, micros, moment, numbered, parse, signed};
use crate::page::one_page;
use crate::store::{Page, Seen, Tally, Wanted};
use crate::why::{Holders, why};

/// Fewer waiting jobs than this are found through their own indexes; more are soon met going back through all jobs.
const WAITING_SORTED_MAX: i64 = 10_000;

const JOB_COLUMNS: &str = "jobs.id AS id, t.text AS task_name, g.text AS group_name, jobs.key AS key, priority, token,
    batch, topic, enqueued_at, started_at, finished_at, kind, report, queue_wait, guest, wall, memory_peak, bytes_in, bytes_out";

const JOB_NAMES: &str =
    "JOIN names t ON t.id = jobs.task JOIN names g ON g.id = jobs.grp LEFT JOIN ends ON ends.job = jobs.id";

pub(super) fn job(
    conn: &Connection,
    id: JobId,
    declared: &LimitTable,
    now: Timestamp,
) -> rusqlite::Result<Option<Seen>> {
    let moment = conn.unchecked_transaction()?;
    let number = signed(id.number());
    let sql = format!(
        "SELECT {JOB_COLUMNS}, {}, payload, output FROM jobs {JOB_NAMES}
         LEFT JOIN payloads ON payloads.job = jobs.id WHERE jobs.id = ?1",
        rows::STANDING
    );
    let Some(job) = moment.prepare_cached(&sql)?.query_row([number], rows::job).optional()? else { return Ok(None) };
    let entries: i64 = moment
        .prepare_cached("SELECT coalesce(max(number), 0) FROM entries WHERE job = ?1")?
        .query_row([number], |row| row.get(0))?;
    let why = match job.standing.state {
        State::Waiting { due } => {
            let table = declared.with_overrides(overrides(&moment)?);
            let limits = Limits { per_key: table.per_key(&job.lane), total: table.of(&job.lane.group).total };
            let (group, key) = (job.lane.group.as_str(), Some(key_text(&job.lane)));
            Some(why(due, now, limits, holders(&moment, group, key)?, holders(&moment, group, None)?))
        }
        _ => None,
    };
    Ok(Some(Seen { job, why, entries: entries as u64 }))
}

/// The running jobs of a lane, or without a key those of the whole group.
fn holders(conn: &Connection, group: &str, key: Option<&str>) -> rusqlite::Result<Holders> {
    let mut find = conn.prepare_cached(
        "SELECT id, started_at FROM jobs INDEXED BY jobs_running
         WHERE state = 2 AND grp = (SELECT id FROM names WHERE text = ?1) AND (?2 IS NULL OR key = ?2) ORDER BY id",
    )?;
    let found = find.query_map(params![group, key], |row| Ok((job_id(row.get(0)?)?, moment(row, "started_at")?)))?;
    found.collect()
}

pub(super) fn jobs(conn: &Connection, wanted: &Wanted) -> rusqlite::Result<Page> {
    let moment = conn.unchecked_transaction()?;
    let most = wanted.most.clamp(1, bounds::PAGE_MAX) as usize;
    let (mut table, mut tests, mut values) = ("jobs", Vec::new(), Vec::<Value>::new());
    if let Some(before) = wanted.before {
        tests.push("jobs.id < ?");
        values.push(signed(before.number()).into());
    }
    match wanted.state {
        None => {}
        Some(StateName::Waiting) if few_wait(&moment)? => tests.push(
            "jobs.id IN (SELECT id FROM jobs INDEXED BY jobs_ready WHERE state = 1
                 UNION ALL SELECT id FROM jobs INDEXED BY jobs_delayed WHERE state = 0)",
        ),
        Some(StateName::Waiting) => tests.push("state IN (0, 1)"),
        Some(StateName::Running) => {
            table = "jobs INDEXED BY jobs_running";
            tests.push("state = 2");
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
    if let Some(batch) = wanted.batch {
        tests.push("batch = ? AND batch IS NOT NULL");
        values.push(signed(batch.number()).into());
    }
    let tests = if tests.is_empty() { "1".to_owned() } else { tests.join(" AND ") };
    values.push(((most + 1) as i64).into());
    let sql = format!(
        "SELECT {JOB_COLUMNS}, {}, NULL AS payload, NULL AS output
         FROM (SELECT * FROM {table} WHERE {tests} ORDER BY jobs.id DESC LIMIT ?) AS jobs {JOB_NAMES} ORDER BY jobs.id DESC",
        rows::STANDING
    );
    let mut find = moment.prepare_cached(&sql)?;
    let found = find.query_map(params_from_iter(values), rows::job)?;
    let mut jobs = found.collect::<rusqlite::Result<Vec<_>>>()?;
    let more = jobs.len() > most;
    jobs.truncate(most);
    Ok(Page { jobs, more })
}

fn few_wait(conn: &Connection) -> rusqlite::Result<bool> {
    let mut count = conn.prepare_cached(
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_ready WHERE state = 1 LIMIT ?1))
              + (SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_delayed WHERE state = 0 LIMIT ?1))",
    )?;
    Ok(count.query_row([WAITING_SORTED_MAX], |row| row.get::<_, i64>(0))? < WAITING_SORTED_MAX)
}

pub(super) fn entries(conn: &Connection, id: JobId, after: u64, most: u32) -> rusqlite::Result<Vec<Numbered>> {
    let mut find = conn.prepare_cached(
        "SELECT number, attempt, at, kind, amount, data FROM entries WHERE job = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
    )?;
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let found = find.query_map(params![signed(id.number()), after, most.clamp(1, bounds::PAGE_MAX)], numbered)?;
    one_page(found)
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
pub(super) fn tally(conn: &Connection, now: Timestamp) -> rusqlite::Result<Tally> {
    let moment = conn.unchecked_transaction()?;
    let mut by_task = moment.prepare_cached(
        "SELECT text, sum(waiting), sum(running) FROM (
             SELECT lines.task AS task, count(*) AS waiting, 0 AS running FROM lines
                 CROSS JOIN jobs ON jobs.state = 1 AND jobs.line = lines.id GROUP BY lines.task
             UNION ALL SELECT task, count(*), 0 FROM jobs INDEXED BY jobs_delayed_lane WHERE state = 0 GROUP BY task
             UNION ALL SELECT task, 0, count(*) FROM jobs INDEXED BY jobs_running WHERE state = 2 GROUP BY task
         ) JOIN names ON names.id = task GROUP BY text ORDER BY text",
    )?;
    let tasks = by_task.query_map([], |row| {
        let task: TaskName = parse("a task", &row.get::<_, String>(0)?)?;
        Ok((task, row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64))
    })?;
    let tasks = tasks.collect::<rusqlite::Result<_>>()?;
    let mut by_group = moment.prepare_cached(
        "SELECT text, count(*) FROM jobs INDEXED BY jobs_running JOIN names ON names.id = grp
         WHERE state = 2 GROUP BY text ORDER BY text",
    )?;
    let groups = by_group.query_map([], |row| {
        let group: Group = parse("a group", &row.get::<_, String>(0)?)?;
        Ok((group, row.get::<_, i64>(1)? as u64))
    })?;
    let groups = groups.collect::<rusqlite::Result<_>>()?;
    let oldest: Option<i64> = moment
        .prepare_cached(
            "SELECT min(due) FROM (
                 SELECT min(due) AS due FROM jobs INDEXED BY jobs_ready WHERE state = 1
                 UNION ALL SELECT min(due) FROM jobs INDEXED BY jobs_delayed WHERE state = 0 AND due <= ?1)",
        )?
        .query_row([micros(now)], |row| row.get(0))?;
    Ok(Tally { tasks, oldest_due: oldest.map(|due| Timestamp::from_micros(due as u64)), groups })
}
