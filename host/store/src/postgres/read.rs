//! The reading side: each question sees one moment of the database, and is asked in one go.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::bounds;
use wharf_core::ids::{JobId, TaskName};
use wharf_core::job::{NumberedEntry, State, StateName, Token};
use wharf_core::limits::{LimitTable, Limits, Override};
use wharf_core::log_page::log_page;
use wharf_core::time::Timestamp;
use wharf_core::wait_reason::{Holders, wait_reason};

use super::rows::{self, READY, job_id, key_of, micros, moment, numbered, parse, signed, stamp};
use super::session::{Arg, Session, SessionError};
use crate::store::{JobFilter, JobPage, JobSnapshot, QueueStats};

const BEGIN: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '30s'; SET LOCAL jit = off";

const JOB: &str =
    "jobs.id AS id, t.text AS task_name, g.text AS group_name, jobs.key AS key, priority, token, batch, topic,
    enqueued_at, started_at, finished_at, kind, report, queue_wait, guest, wall, memory_peak, bytes_in, bytes_out";

const JOB_NAMES: &str = "JOIN wharf.names t ON t.id = jobs.task JOIN wharf.names g ON g.id = jobs.grp";

pub(super) fn override_of(row: &Row) -> Result<Override, SessionError> {
    let number = |column: &str| row.get::<_, Option<i64>>(column).map(|number| number as u32);
    Ok(Override {
        group: parse("a group", row.get("grp"))?,
        key: key_of(row.get("key"))?,
        limits: Limits { per_key: number("per_key"), total: number("total") },
    })
}

/// The jobs that stand under tokens.
pub(super) async fn known(session: &Session, of: &[(TaskName, Token)]) -> Result<Vec<Option<JobId>>, SessionError> {
    let text = "SELECT (SELECT jobs.id FROM wharf.jobs WHERE jobs.token IS NOT NULL AND jobs.token = asked.token
                        AND jobs.task = (SELECT id FROM wharf.names WHERE text = asked.task))
                FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS asked (task, token, place) ORDER BY place";
    let (tasks, tokens): (Vec<&str>, Vec<&[u8]>) =
        of.iter().map(|(task, token)| (task.as_str(), token.as_str().as_bytes())).unzip();
    let found = session.ask(text, &[(&tasks, Type::TEXT_ARRAY), (&tokens, Type::BYTEA_ARRAY)]).await?;
    found.iter().map(|row| row.get::<_, Option<i64>>(0).map(job_id).transpose()).collect()
}

pub(super) async fn job(
    session: &Session,
    id: JobId,
    declared: &LimitTable,
    now: Timestamp,
) -> Result<Option<JobSnapshot>, SessionError> {
    let number = signed(id.number());
    let whole =
        format!("SELECT {JOB}, {}, payload, output FROM wharf.jobs {JOB_NAMES} WHERE jobs.id = $1", rows::STANDING);
    let args = [(&number as _, Type::INT8)];
    let ((), job, last, overrides, lane, group, ()) = futures_util::try_join!(
        session.run(BEGIN),
        session.ask(&whole, &args),
        session.ask_one("SELECT coalesce(max(number), 0) FROM wharf.entries WHERE job = $1", &args),
        overrides(session),
        holders(session, number, true),
        holders(session, number, false),
        session.run("COMMIT"),
    )?;
    let Some(row) = job.first() else { return Ok(None) };
    let (job, is_ready) = (rows::job(row)?, row.get::<_, i16>("state") == READY);
    let why = match job.standing.state {
        State::Waiting { due } => {
            let table = declared.with_overrides(overrides);
            let limits = Limits { per_key: table.per_key(&job.lane), total: table.of(&job.lane.group).total };
            // One that is ready stays so, however the clock is set.
            let due = if is_ready { due.min(now) } else { due };
            Some(wait_reason(due, now, limits, lane, group))
        }
        _ => None,
    };
    Ok(Some(JobSnapshot { job, why, entries: last.get::<_, i64>(0) as u64 }))
}

/// Who holds slots in the lane of a job that waits, or in its whole group.
async fn holders(session: &Session, job: i64, lane: bool) -> Result<Holders, SessionError> {
    let named = bounds::HOLDERS_NAMED as i64;
    let of_key = if lane { "AND running.key = jobs.key" } else { "" };
    let text = format!(
        "SELECT running.id, running.started_at, count(*) OVER () FROM wharf.jobs
         JOIN wharf.held ON held.grp = jobs.grp CROSS JOIN LATERAL unnest(held.ids) AS each (id)
         JOIN wharf.jobs AS running ON running.id = each.id {of_key}
         WHERE jobs.id = $1 AND jobs.state < 2 ORDER BY running.id LIMIT $2"
    );
    let found = session.ask(&text, &[(&job, Type::INT8), (&named, Type::INT8)]).await?;
    let first = found
        .iter()
        .map(|row| Ok((job_id(row.get(0))?, moment(row, "started_at"))))
        .collect::<Result<_, SessionError>>()?;
    Ok(Holders { count: found.first().map_or(0, |row| row.get::<_, i64>(2) as u32), first })
}

pub(super) async fn jobs(session: &Session, wanted: &JobFilter) -> Result<JobPage, SessionError> {
    let max = wanted.max.clamp(1, bounds::PAGE_MAX) as usize;
    let limit = max as i64 + 1;
    let before = wanted.before.map(|id| signed(id.number()));
    let batch = wanted.batch.map(|id| signed(id.number()));
    let task = wanted.task.as_ref().map(|task| task.as_str());
    let key = wanted.key.as_ref().map(|key| key.as_str());
    let token = wanted.token.as_ref().map(|token| token.as_str().as_bytes());
    let mut args: Vec<Arg<'_>> = vec![(&limit, Type::INT8)];
    let mut tests = Vec::new();
    let given: [(Option<Arg<'_>>, &str); 5] = [
        (before.as_ref().map(|before| (before as _, Type::INT8)), "jobs.id < ?"),
        (batch.as_ref().map(|batch| (batch as _, Type::INT8)), "batch = ?"),
        (task.as_ref().map(|task| (task as _, Type::TEXT)), "task = (SELECT id FROM wharf.names WHERE text = ?)"),
        (key.as_ref().map(|key| (key as _, Type::TEXT)), "key = ?"),
        (token.as_ref().map(|token| (token as _, Type::BYTEA)), "token = ?"),
    ];
    for (arg, text) in given {
        if let Some(arg) = arg {
            args.push(arg);
            tests.push(text.replace('?', &format!("${}", args.len())));
        }
    }
    match wanted.state {
        None => {}
        Some(StateName::Waiting) if few_wait(session).await? => tests.push(
            "jobs.id = ANY(ARRAY(SELECT unnest(ids) FROM wharf.queued UNION ALL SELECT id FROM wharf.jobs WHERE delayed))"
                .to_owned(),
        ),
        Some(StateName::Waiting) => tests.push("state IN (0, 1)".to_owned()),
        Some(StateName::Running) => tests.push("jobs.id = ANY(ARRAY(SELECT unnest(ids) FROM wharf.held))".to_owned()),
        Some(StateName::Succeeded) => tests.push("state = 3".to_owned()),
        Some(StateName::Failed) => tests.push("unsuccessful = 4".to_owned()),
        Some(StateName::Cancelled) => tests.push("unsuccessful = 5".to_owned()),
    }
    let tests = if tests.is_empty() { "true".to_owned() } else { tests.join(" AND ") };
    let text = format!(
        "SELECT {JOB}, {}, NULL::bytea AS payload, NULL::bytea AS output
         FROM (SELECT * FROM wharf.jobs WHERE {tests} ORDER BY jobs.id DESC LIMIT $1) AS jobs {JOB_NAMES} ORDER BY jobs.id DESC",
        rows::STANDING
    );
    let found = session.ask_apart(&text, &args).await?;
    let mut jobs = found.iter().map(rows::job).collect::<Result<Vec<_>, _>>()?;
    let more = jobs.len() > max;
    jobs.truncate(max);
    Ok(JobPage { jobs, more })
}

async fn few_wait(session: &Session) -> Result<bool, SessionError> {
    let text =
        "SELECT (SELECT coalesce(sum(cardinality(ids)), 0) FROM (SELECT ids FROM wharf.queued LIMIT $1) AS ready)
                     + (SELECT count(*) FROM (SELECT FROM wharf.jobs WHERE delayed LIMIT $1) AS delayed)";
    let max = i64::from(bounds::WAITING_SORTED_MAX);
    let row = session.ask_one(text, &[(&max, Type::INT8)]).await?;
    Ok(row.get::<_, i64>(0) < max)
}

pub(super) async fn entries(
    session: &Session,
    id: JobId,
    after: u64,
    max: u32,
) -> Result<Vec<NumberedEntry>, SessionError> {
    // Cut by the server where a page has its bytes: what would not be shown is not sent.
    let text = "SELECT * FROM (
                    SELECT number, attempt, at, kind, amount, data,
                        sum(coalesce(length(data), 0)) OVER (ORDER BY number) - coalesce(length(data), 0) AS before_it
                    FROM (SELECT * FROM wharf.entries WHERE job = $1 AND number > $2 ORDER BY number LIMIT $3) AS first
                ) AS measured WHERE before_it < $4 ORDER BY number";
    let (id, after) = (signed(id.number()), i64::try_from(after).unwrap_or(i64::MAX));
    let (max, bytes) = (i64::from(max.clamp(1, bounds::PAGE_MAX)), bounds::PAGE_BYTES_MAX as i64);
    let args = [(&id as _, Type::INT8), (&after as _, Type::INT8), (&max as _, Type::INT8), (&bytes as _, Type::INT8)];
    log_page(session.ask(text, &args).await?.iter().map(numbered))
}

pub(super) async fn overrides(session: &Session) -> Result<Vec<Override>, SessionError> {
    let found = session.ask("SELECT grp, key, per_key, total FROM wharf.overrides ORDER BY grp, key", &[]).await?;
    found.iter().map(override_of).collect()
}

/// Counts the jobs that wait and run, each from its own index; what is finished costs nothing.
pub(super) async fn stats(session: &Session, now: Timestamp) -> Result<QueueStats, SessionError> {
    let by_task = "SELECT text, sum(waiting)::bigint, sum(running)::bigint FROM (
            SELECT task, sum(cardinality(ids)) AS waiting, 0 AS running FROM wharf.queued GROUP BY task
            UNION ALL SELECT task, count(*), 0 FROM wharf.jobs WHERE delayed GROUP BY task
            UNION ALL SELECT task, 0, count(*) FROM wharf.held CROSS JOIN LATERAL unnest(ids) AS each (id)
                JOIN wharf.jobs ON jobs.id = each.id GROUP BY task
        ) AS counted JOIN wharf.names ON names.id = task GROUP BY text ORDER BY text";
    let by_group = "SELECT text, sum(cardinality(ids)) FROM wharf.held JOIN wharf.names ON names.id = grp
        GROUP BY text ORDER BY text";
    let oldest = "SELECT least((SELECT min(due) FROM wharf.queued),
                               (SELECT min(due) FROM wharf.jobs WHERE delayed AND due <= $1))";
    let now = micros(now);
    let oldest_args = [(&now as _, Type::INT8)];
    let ((), tasks, groups, oldest, ()) = futures_util::try_join!(
        session.run(BEGIN),
        session.ask(by_task, &[]),
        session.ask(by_group, &[]),
        session.ask_one(oldest, &oldest_args),
        session.run("COMMIT"),
    )?;
    let number = |row: &Row, place: usize| row.get::<_, i64>(place) as u64;
    Ok(QueueStats {
        tasks: tasks
            .iter()
            .map(|row| Ok((parse("a task", row.get(0))?, number(row, 1), number(row, 2))))
            .collect::<Result<_, SessionError>>()?,
        oldest_due: oldest.get::<_, Option<i64>>(0).map(stamp),
        groups: groups
            .iter()
            .map(|row| Ok((parse("a group", row.get(0))?, number(row, 1))))
            .collect::<Result<_, SessionError>>()?,
    })
}
