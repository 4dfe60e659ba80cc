//! What waits, by task: a bounded look at the lists of ready jobs and at the delayed ones.

use std::collections::BTreeSet;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::backlog::Backlog;
use wharf_core::bounds;
use wharf_core::hold::HoldScope;
use wharf_core::ids::TaskName;
use wharf_core::key::Lane;
use wharf_core::limits::LimitTable;
use wharf_core::time::Timestamp;

use super::find::{BEGIN, wait_view};
use super::session::{Session, SessionError, computed, value};
use super::{hold_rows, read};
use crate::columns::{key, parse, timestamp};

/// The running jobs, which are few.
const RUNNING: &str = "SELECT text, count(*) FROM $schema.running CROSS JOIN LATERAL unnest(ids) AS each (id)
    CROSS JOIN LATERAL (SELECT task FROM $schema.jobs WHERE jobs.id = each.id OFFSET 0) AS job
    JOIN $schema.names ON names.id = job.task GROUP BY text";

/// The lines of the first lists of ready jobs: how many jobs they have there, and since when the first one is due.
const LINES: &str = "WITH rows AS MATERIALIZED (
         SELECT line, task, first_id, cardinality(ids) AS jobs, due_at FROM $schema.ready
         ORDER BY line, rank, due_at, first_id LIMIT $1
     ), of_lines AS MATERIALIZED (
         SELECT task, min(first_id) AS one, sum(jobs)::bigint AS jobs, min(due_at) AS due_at FROM rows GROUP BY line, task
     )
     SELECT t.text AS task, g.text AS limit_group, job.key, of_lines.due_at, of_lines.jobs FROM of_lines
     CROSS JOIN LATERAL (SELECT limit_group, key FROM $schema.jobs WHERE jobs.id = of_lines.one OFFSET 0) AS job
     JOIN $schema.names AS t ON t.id = of_lines.task JOIN $schema.names AS g ON g.id = job.limit_group";

/// The first delayed jobs: those that are due first.
const DELAYED: &str = "SELECT t.text AS task, g.text AS limit_group, job.key, job.due_at, job.attempt FROM (
         SELECT task, limit_group, key, due_at, attempt FROM $schema.jobs WHERE delayed ORDER BY due_at, id LIMIT $1) AS job
     JOIN $schema.names AS t ON t.id = job.task JOIN $schema.names AS g ON g.id = job.limit_group";

/// Jobs of a task and a lane that are due.
struct DueJobs {
    task: TaskName,
    lane: Lane,
    jobs: u64,
    oldest: Timestamp,
}

impl DueJobs {
    fn read(row: &Row, jobs: u64) -> Result<DueJobs, SessionError> {
        let group = parse("limit group", computed(row, "limit_group")?)?;
        Ok(DueJobs {
            task: parse("task", computed(row, "task")?)?,
            lane: Lane { group, key: key(value(row, "jobs", "key")?)? },
            jobs,
            oldest: timestamp(computed(row, "due_at")?),
        })
    }
}

/// Counts what waits and runs.
pub(super) async fn backlog(session: &Session, declared: &LimitTable, now: Timestamp) -> Result<Backlog, SessionError> {
    session.execute(BEGIN).await?;
    let backlog = count(session, declared, now).await?;
    session.execute("COMMIT").await?;
    Ok(backlog)
}

async fn count(session: &Session, declared: &LimitTable, now: Timestamp) -> Result<Backlog, SessionError> {
    let mut view = wait_view(session, declared, now).await?;
    let mut backlog = Backlog::of_running(&view);
    for (task, waiting) in read::waiting_jobs(session).await? {
        backlog.task(&task).waiting = waiting;
    }
    let rows_max = i64::from(bounds::BACKLOG_ROWS);
    let args = [(&rows_max as _, Type::INT8)];
    let (running, lines, delayed) = futures_util::try_join!(
        session.query(RUNNING, &[]),
        session.query(LINES, &args),
        session.query(DELAYED, &args),
    )?;
    for row in &running {
        let task: TaskName = parse("task", value(row, "names", 0)?)?;
        backlog.task(&task).running = computed::<i64>(row, 1)? as u64;
    }
    let mut due = Vec::new();
    for row in &lines {
        due.push(DueJobs::read(row, computed::<i64>(row, "jobs")? as u64)?);
    }
    for row in &delayed {
        let job = DueJobs::read(row, 1)?;
        // Some are due, and no claim has noticed it.
        if job.oldest <= now {
            due.push(job);
        } else {
            backlog.add_delayed(&job.task, value::<i32>(row, "jobs", "attempt")? as u32);
        }
    }
    let scopes: BTreeSet<HoldScope> = due.iter().flat_map(|jobs| HoldScope::of_job(&jobs.task, &jobs.lane)).collect();
    if !scopes.is_empty() {
        let scopes: Vec<HoldScope> = scopes.into_iter().collect();
        hold_rows::of_scopes(session, &scopes, now).await?.into_iter().for_each(|hold| view.holds.set(hold));
    }
    for DueJobs { task, lane, jobs, oldest } in &due {
        backlog.add_due(&view, (task, lane), *jobs, *oldest);
    }
    Ok(backlog)
}
