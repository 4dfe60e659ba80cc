//! Queries of the read side. Each sees one moment of the database and costs one round trip.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::bounds;
use wharf_core::hold::HoldTable;
use wharf_core::ids::{JobId, TaskName};
use wharf_core::job::{NumberedEntry, State, StateName, UniqueToken};
use wharf_core::limits::{LimitTable, Limits, Override};
use wharf_core::log_page::log_page;
use wharf_core::time::Timestamp;
use wharf_core::wait_reason::{Holders, wait_reason};

use super::hold_rows;
use super::rows::{self, STATUS_COLUMNS, job_id, numbered_entry};
use super::session::{Arg, Session, SessionError, computed, value};
use crate::columns::{self, READY, parse, signed};
use crate::store::{JobFilter, JobPage, JobSnapshot, QueueStats};

const BEGIN: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '30s'; SET LOCAL jit = off";

/// The columns of a whole job besides its status, its payload and its output.
pub(super) const JOB: &str =
    "jobs.id AS id, t.text AS task_name, g.text AS group_name, jobs.key AS key, priority, token, batch, topic, tick,
    parent, generation, enqueued_at, started_at, finished_at, requeued_at, retried_at, report_outcome, report_text, fingerprint, queue_wait_us, cpu_us,
    wall_us, memory_peak_bytes, in_bytes, out_bytes";

pub(super) const JOB_NAMES: &str =
    "JOIN $schema.names t ON t.id = jobs.task JOIN $schema.names g ON g.id = jobs.limit_group";

/// Reads a row of `overrides`.
pub(super) fn read_override(row: &Row) -> Result<Override, SessionError> {
    let limit =
        |column: &str| value::<Option<i64>>(row, "overrides", column).map(|limit| limit.map(|limit| limit as u32));
    Ok(Override {
        group: parse("limit group", value(row, "overrides", "limit_group")?)?,
        key: columns::key(value(row, "overrides", "key")?)?,
        limits: Limits { per_key: limit("per_key")?, total: limit("total")? },
    })
}

/// Finds the jobs with these tokens, in the order of `of`.
pub(super) async fn find_by_tokens(session: &Session, of: &[UniqueToken]) -> Result<Vec<Option<JobId>>, SessionError> {
    let text = "SELECT (SELECT jobs.id FROM $schema.jobs WHERE jobs.token IS NOT NULL AND jobs.token = wanted.token
                        AND jobs.key = wanted.key
                        AND jobs.task = (SELECT id FROM $schema.names WHERE text = wanted.task))
                FROM unnest($1::text[], $2::bytea[], $3::text[]) WITH ORDINALITY AS wanted (task, token, key, position)
                ORDER BY position";
    let tasks: Vec<&str> = of.iter().map(|one| one.task.as_str()).collect();
    let tokens: Vec<&[u8]> = of.iter().map(|one| one.token.as_str().as_bytes()).collect();
    let keys: Vec<&str> = of.iter().map(|one| columns::key_text(one.key.as_ref())).collect();
    let args = [(&tasks as _, Type::TEXT_ARRAY), (&tokens as _, Type::BYTEA_ARRAY), (&keys as _, Type::TEXT_ARRAY)];
    let found = session.query(text, &args).await?;
    found.iter().map(|row| Ok(value::<Option<i64>>(row, "jobs", 0)?.map(columns::job_id).transpose()?)).collect()
}

/// Reads one job whole, and the reason why it waits.
pub(super) async fn job(
    session: &Session,
    id: JobId,
    declared: &LimitTable,
    now: Timestamp,
) -> Result<Option<JobSnapshot>, SessionError> {
    let number = signed(id.number());
    let whole =
        format!("SELECT {STATUS_COLUMNS}, {JOB}, payload, output FROM $schema.jobs {JOB_NAMES} WHERE jobs.id = $1");
    let args = [(&number as _, Type::INT8)];
    let ((), job, last_entry, overrides, lane, group, holds, ()) = futures_util::try_join!(
        session.execute(BEGIN),
        session.query(&whole, &args),
        session.query_one("SELECT coalesce(max(number), 0) FROM $schema.entries WHERE job = $1", &args),
        overrides(session),
        holders(session, number, Scope::Lane),
        holders(session, number, Scope::Group),
        hold_rows::on_job(session, id),
        session.execute("COMMIT"),
    )?;
    let Some(row) = job.first() else { return Ok(None) };
    let (job, is_ready) = (rows::job(row)?, value::<i16>(row, "jobs", "state")? == READY);
    let why = match job.status.state {
        State::Waiting { due } => {
            let table = declared.with_overrides(overrides);
            let limits = Limits { per_key: table.per_key(&job.lane), total: table.of(&job.lane.group).total };
            // A ready job stays ready, however the clock is set.
            let due = if is_ready { due.min(now) } else { due };
            let holds: HoldTable = holds.into_iter().collect();
            let hold = holds.on_job(&job.task, &job.lane, now);
            Some(wait_reason(due, now, limits, lane, group).or_held(hold))
        }
        _ => None,
    };
    Ok(Some(JobSnapshot { job, why, entries: value::<i64>(&last_entry, "entries", 0)? as u64 }))
}

/// The jobs that count as slot holders for a waiting job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Lane,
    Group,
}

/// Reads the slot holders in the lane or the limit group of a waiting job.
async fn holders(session: &Session, job: i64, scope: Scope) -> Result<Holders, SessionError> {
    let same_key = if scope == Scope::Lane { "AND holder.key = jobs.key" } else { "" };
    let text = format!(
        "SELECT holder.id, holder.started_at, count(*) OVER () FROM $schema.jobs
         JOIN $schema.running ON running.limit_group = jobs.limit_group CROSS JOIN LATERAL unnest(running.ids) AS each (id)
         JOIN $schema.jobs AS holder ON holder.id = each.id {same_key}
         WHERE jobs.id = $1 AND jobs.state < 2 ORDER BY holder.id LIMIT $2"
    );
    let max = bounds::HOLDERS_NAMED as i64;
    let found = session.query(&text, &[(&job, Type::INT8), (&max, Type::INT8)]).await?;
    let first = found
        .iter()
        .map(|row| Ok((job_id(row, "jobs", 0)?, rows::timestamp(row, "jobs", "started_at")?)))
        .collect::<Result<_, SessionError>>()?;
    let count = found.first().map_or(Ok(0), |row| value::<i64>(row, "running", 2))?;
    Ok(Holders { count: count as u32, first })
}

/// Lists jobs, newest first, without payloads and outputs.
pub(super) async fn jobs(session: &Session, filter: &JobFilter) -> Result<JobPage, SessionError> {
    let max = filter.max.clamp(1, bounds::PAGE_MAX) as usize;
    let limit = max as i64 + 1;
    let before = filter.before.map(|id| signed(id.number()));
    let batch = filter.batch.map(|id| signed(id.number()));
    let task = filter.task.as_ref().map(|task| task.as_str());
    let key = filter.key.as_ref().map(|key| key.as_str());
    let token = filter.token.as_ref().map(|token| token.as_str().as_bytes());
    let mut args: Vec<Arg<'_>> = vec![(&limit, Type::INT8)];
    let mut conditions = Vec::new();
    let filters: [(Option<Arg<'_>>, &str); 5] = [
        (before.as_ref().map(|before| (before as _, Type::INT8)), "jobs.id < ?"),
        (batch.as_ref().map(|batch| (batch as _, Type::INT8)), "batch = ?"),
        (task.as_ref().map(|task| (task as _, Type::TEXT)), "task = (SELECT id FROM $schema.names WHERE text = ?)"),
        (key.as_ref().map(|key| (key as _, Type::TEXT)), "key = ?"),
        (token.as_ref().map(|token| (token as _, Type::BYTEA)), "token = ?"),
    ];
    for (arg, text) in filters {
        if let Some(arg) = arg {
            args.push(arg);
            conditions.push(text.replace('?', &format!("${}", args.len())));
        }
    }
    match filter.state {
        None => {}
        Some(StateName::Waiting) if has_few_waiting(session).await? => conditions.push(
            "jobs.id = ANY(ARRAY(SELECT unnest(ids) FROM $schema.ready UNION ALL SELECT id FROM $schema.jobs WHERE delayed))"
                .to_owned(),
        ),
        Some(StateName::Waiting) => conditions.push("state IN (0, 1)".to_owned()),
        Some(StateName::Running) => conditions.push("jobs.id = ANY(ARRAY(SELECT unnest(ids) FROM $schema.running))".to_owned()),
        Some(StateName::Succeeded) => conditions.push("state = 3".to_owned()),
        Some(StateName::Failed) => conditions.push("unsuccessful = 4".to_owned()),
        Some(StateName::Cancelled) => conditions.push("unsuccessful = 5".to_owned()),
    }
    let conditions = if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") };
    let text = format!(
        "SELECT {STATUS_COLUMNS}, {JOB}, NULL::bytea AS payload, NULL::bytea AS output
         FROM (SELECT * FROM $schema.jobs WHERE {conditions} ORDER BY jobs.id DESC LIMIT $1) AS jobs {JOB_NAMES} ORDER BY jobs.id DESC"
    );
    let found = session.query_selective(&text, &args).await?;
    let mut jobs = found.iter().map(rows::job).collect::<Result<Vec<_>, _>>()?;
    let more = jobs.len() > max;
    jobs.truncate(max);
    Ok(JobPage { jobs, more })
}

pub(super) async fn has_few_waiting(session: &Session) -> Result<bool, SessionError> {
    let text =
        "SELECT (SELECT coalesce(sum(cardinality(ids)), 0) FROM (SELECT ids FROM $schema.ready LIMIT $1) AS first)
                     + (SELECT count(*) FROM (SELECT FROM $schema.jobs WHERE delayed LIMIT $1) AS delayed)";
    let max = i64::from(bounds::WAITING_SORTED_MAX);
    let row = session.query_one(text, &[(&max, Type::INT8)]).await?;
    Ok(value::<i64>(&row, "ready", 0)? < max)
}

/// Reads log entries of a job after number `after`.
pub(super) async fn entries(
    session: &Session,
    id: JobId,
    after: u64,
    max: u32,
) -> Result<Vec<NumberedEntry>, SessionError> {
    // The server cuts the page at its maximum of bytes, so it does not send entries that would be dropped.
    let text = "SELECT * FROM (
                    SELECT number, attempt, written_at, kind, amount, data,
                        sum(coalesce(length(data), 0)) OVER (ORDER BY number) - coalesce(length(data), 0) AS bytes_before
                    FROM (SELECT * FROM $schema.entries WHERE job = $1 AND number > $2 ORDER BY number LIMIT $3) AS first
                ) AS measured
                WHERE bytes_before = 0 OR bytes_before + coalesce(length(data), 0) <= $4 ORDER BY number";
    let (id, after) = (signed(id.number()), i64::try_from(after).unwrap_or(i64::MAX));
    let (max, bytes) = (i64::from(max.clamp(1, bounds::PAGE_MAX)), bounds::PAGE_BYTES_MAX as i64);
    let args = [(&id as _, Type::INT8), (&after as _, Type::INT8), (&max as _, Type::INT8), (&bytes as _, Type::INT8)];
    log_page(session.query(text, &args).await?.iter().map(numbered_entry))
}

/// Lists the overrides in force.
pub(super) async fn overrides(session: &Session) -> Result<Vec<Override>, SessionError> {
    let text = "SELECT limit_group, key, per_key, total FROM $schema.overrides ORDER BY limit_group, key";
    session.query(text, &[]).await?.iter().map(read_override).collect()
}

/// Returns how many jobs of each task wait.
pub(super) async fn waiting_jobs(session: &Session) -> Result<Vec<(TaskName, u64)>, SessionError> {
    let text = "SELECT text, sum(jobs)::bigint FROM $schema.waiting_jobs JOIN $schema.names ON names.id = task
                GROUP BY text HAVING sum(jobs) > 0";
    let rows = session.query(text, &[]).await?;
    rows.iter().map(|row| Ok((parse("task", value(row, "names", 0)?)?, computed::<i64>(row, 1)? as u64))).collect()
}

/// Returns the bytes of all tables, with their indexes and large values.
pub(super) async fn table_bytes(session: &Session) -> Result<u64, SessionError> {
    let text = "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class WHERE relkind = 'r' AND relnamespace =
                    (SELECT relnamespace FROM pg_class WHERE oid = '$schema.jobs'::regclass)";
    Ok(computed::<i64>(&session.query_one(text, &[]).await?, 0)? as u64)
}

/// Returns the store's random bytes.
pub(super) async fn seal_key(session: &Session) -> Result<[u8; 32], SessionError> {
    let row = session.query_one("SELECT bytes FROM $schema.seal_key", &[]).await?;
    let bytes: &[u8] = value(&row, "seal_key", 0)?;
    let damaged = |_| SessionError::Damaged(format!("the database has a key of {} bytes and not of 32", bytes.len()));
    bytes.try_into().map_err(damaged)
}

/// Counts waiting and running jobs, each from its own index; finished jobs cost nothing.
pub(super) async fn stats(session: &Session) -> Result<QueueStats, SessionError> {
    let by_task = "SELECT text, sum(waiting)::bigint, sum(running)::bigint FROM (
            SELECT task, sum(cardinality(ids)) AS waiting, 0 AS running FROM $schema.ready GROUP BY task
            UNION ALL SELECT task, count(*), 0 FROM $schema.jobs WHERE delayed GROUP BY task
            UNION ALL SELECT task, 0, count(*) FROM $schema.running CROSS JOIN LATERAL unnest(ids) AS each (id)
                JOIN $schema.jobs ON jobs.id = each.id GROUP BY task
        ) AS counted JOIN $schema.names ON names.id = task GROUP BY text ORDER BY text";
    let by_group =
        "SELECT text, sum(cardinality(ids)) FROM $schema.running JOIN $schema.names ON names.id = limit_group
        GROUP BY text ORDER BY text";
    let ((), tasks, groups, ()) = futures_util::try_join!(
        session.execute(BEGIN),
        session.query(by_task, &[]),
        session.query(by_group, &[]),
        session.execute("COMMIT"),
    )?;
    let count = |row: &Row, column: usize| computed::<i64>(row, column).map(|count| count as u64);
    Ok(QueueStats {
        tasks: tasks
            .iter()
            .map(|row| Ok((parse("task", value(row, "names", 0)?)?, count(row, 1)?, count(row, 2)?)))
            .collect::<Result<_, SessionError>>()?,
        groups: groups
            .iter()
            .map(|row| Ok((parse("limit group", value(row, "names", 0)?)?, count(row, 1)?)))
            .collect::<Result<_, SessionError>>()?,
    })
}
