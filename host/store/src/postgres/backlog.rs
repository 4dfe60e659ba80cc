//! What waits, by task: a bounded look at the lists of ready jobs and at the delayed ones.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::backlog::Backlog;
use wharf_core::bounds;
use wharf_core::hold::HoldScope;
use wharf_core::ids::TaskName;
use wharf_core::key::Lane;
use wharf_core::limits::LimitTable;
use wharf_core::line_walk::{LineWalk, SeenLine};
use wharf_core::time::Timestamp;

use super::find::{BEGIN, wait_view};
use super::session::{Session, SessionError, computed, value};
use super::{hold_rows, read};
use crate::columns::{key, parse, timestamp};

/// The running jobs, which are few.
const RUNNING: &str = "SELECT text, count(*) FROM $schema.running CROSS JOIN LATERAL unnest(ids) AS each (id)
    CROSS JOIN LATERAL (SELECT task FROM $schema.jobs WHERE jobs.id = each.id OFFSET 0) AS job
    JOIN $schema.names ON names.id = job.task GROUP BY text";

/// The lines of lists of ready jobs: how many jobs they have there, and since when the first one is due. The lines of `$4` are looked at
/// besides those behind one line and up to another.
const LINES: &str = "WITH first AS MATERIALIZED (
         SELECT lists.* FROM unnest($4::bigint[]) AS of (number) CROSS JOIN LATERAL (
             SELECT line, task, first_id, cardinality(ids) AS jobs, due_at FROM $schema.ready WHERE line = of.number
             ORDER BY rank, due_at, first_id LIMIT $5) AS lists
     ), in_order AS MATERIALIZED (
         SELECT line, task, first_id, cardinality(ids) AS jobs, due_at FROM $schema.ready WHERE line > $2 AND line <= $3
         ORDER BY line, rank, due_at, first_id LIMIT $1
     ), of_lines AS MATERIALIZED (
         SELECT is_first, line, task, min(first_id) AS one, sum(jobs)::bigint AS jobs, min(due_at) AS due_at, count(*) AS lists
         FROM (SELECT true AS is_first, * FROM first UNION ALL SELECT false, * FROM in_order) AS lists
         GROUP BY is_first, line, task
     )
     SELECT is_first, line, lists, t.text AS task, g.text AS limit_group, job.key, of_lines.due_at, of_lines.jobs FROM of_lines
     CROSS JOIN LATERAL (SELECT limit_group, key FROM $schema.jobs WHERE jobs.id = of_lines.one OFFSET 0) AS job
     JOIN $schema.names AS t ON t.id = of_lines.task JOIN $schema.names AS g ON g.id = job.limit_group";

/// The first delayed jobs: those that are due first.
const DELAYED: &str = "SELECT t.text AS task, g.text AS limit_group, job.key, job.due_at, job.attempt FROM (
         SELECT task, limit_group, key, due_at, attempt FROM $schema.jobs WHERE delayed ORDER BY due_at, id LIMIT $1) AS job
     JOIN $schema.names AS t ON t.id = job.task JOIN $schema.names AS g ON g.id = job.limit_group";

/// The ready jobs of each line that a look found.
#[derive(Default)]
struct Lines {
    jobs: BTreeMap<(i64, TaskName), DueJobs>,
    /// Number of lists that were looked at in order.
    lists: i64,
    /// The last of the lines that were looked at in order.
    last: Option<i64>,
}

impl Lines {
    /// Looks at the lists of the lines of `walk`, those behind the last look before the others.
    async fn look(session: &Session, walk: &LineWalk) -> Result<Lines, SessionError> {
        let mut lines = Lines::default();
        let first: Vec<i64> = walk.first().collect();
        lines.add(session, (walk.behind(), i64::MAX), &first, walk.share_of_first(bounds::BACKLOG_ROWS)).await?;
        if walk.behind() > i64::MIN && !lines.is_cut() {
            lines.add(session, (i64::MIN, walk.behind()), &[], 0).await?;
        }
        Ok(lines)
    }

    /// Returns true if as many lists were looked at as may be.
    fn is_cut(&self) -> bool {
        self.lists >= i64::from(bounds::BACKLOG_ROWS)
    }

    /// Adds the lines behind one and up to another, in order, and before these some lists of the lines of `first`.
    async fn add(
        &mut self,
        session: &Session,
        (behind, to): (i64, i64),
        first: &[i64],
        of_first: u32,
    ) -> Result<(), SessionError> {
        let max = i64::from(bounds::BACKLOG_ROWS) - self.lists;
        let args = [
            (&max as _, Type::INT8),
            (&behind as _, Type::INT8),
            (&to as _, Type::INT8),
            (&first as _, Type::INT8_ARRAY),
            (&i64::from(of_first) as _, Type::INT8),
        ];
        let mut last = None;
        for row in &session.query(LINES, &args).await? {
            let (is_first, line): (bool, i64) = (computed(row, "is_first")?, computed(row, "line")?);
            if !is_first {
                self.lists += computed::<i64>(row, "lists")?;
                last = last.max(Some(line));
            }
            let found = DueJobs::read(row, computed::<i64>(row, "jobs")? as u64)?;
            // One of the first lines may follow once more, with more of its lists or fewer.
            match self.jobs.entry((line, found.task.clone())) {
                Entry::Vacant(entry) => _ = entry.insert(found),
                Entry::Occupied(mut known) => {
                    let known = known.get_mut();
                    known.jobs = known.jobs.max(found.jobs);
                    known.oldest = known.oldest.min(found.oldest);
                }
            }
        }
        self.last = last.or(self.last);
        Ok(())
    }
}

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
pub(super) async fn backlog(
    session: &Session,
    walk: &Mutex<LineWalk>,
    declared: &LimitTable,
    now: Timestamp,
) -> Result<Backlog, SessionError> {
    let before = walk.lock().unwrap_or_else(PoisonError::into_inner).clone();
    session.execute(BEGIN).await?;
    let (backlog, after) = count(session, &before, declared, now).await?;
    session.execute("COMMIT").await?;
    *walk.lock().unwrap_or_else(PoisonError::into_inner) = after;
    Ok(backlog)
}

async fn count(
    session: &Session,
    walk: &LineWalk,
    declared: &LimitTable,
    now: Timestamp,
) -> Result<(Backlog, LineWalk), SessionError> {
    let mut view = wait_view(session, declared, now).await?;
    let mut backlog = Backlog::of_running(&view);
    for (task, waiting) in read::waiting_jobs(session).await? {
        backlog.task(&task).waiting = waiting;
    }
    let rows_max = i64::from(bounds::BACKLOG_ROWS);
    let of_delayed = [(&rows_max as _, Type::INT8)];
    let (running, lines, delayed) = futures_util::try_join!(
        session.query(RUNNING, &[]),
        Lines::look(session, walk),
        session.query(DELAYED, &of_delayed),
    )?;
    for row in &running {
        let task: TaskName = parse("task", value(row, "names", 0)?)?;
        backlog.task(&task).running = computed::<i64>(row, 1)? as u64;
    }
    let cut_at = lines.last.filter(|_| lines.is_cut());
    let mut due: Vec<(Option<i64>, DueJobs)> = lines.jobs.into_iter().map(|((line, _), of)| (Some(line), of)).collect();
    for row in &delayed {
        let job = DueJobs::read(row, 1)?;
        // Some are due, and no claim has noticed it.
        if job.oldest <= now {
            due.push((None, job));
        } else {
            backlog.add_delayed(&job.task, value::<i32>(row, "jobs", "attempt")? as u32);
        }
    }
    let scopes: BTreeSet<HoldScope> =
        due.iter().flat_map(|(_, jobs)| HoldScope::of_job(&jobs.task, &jobs.lane)).collect();
    if !scopes.is_empty() {
        let scopes: Vec<HoldScope> = scopes.into_iter().collect();
        hold_rows::of_scopes(session, &scopes, now).await?.into_iter().for_each(|hold| view.holds.set(hold));
    }
    let mut seen = Vec::new();
    for (line, DueJobs { task, lane, jobs, oldest }) in due {
        let kind = backlog.add_due(&view, (&task, &lane), jobs, oldest);
        if let (Some(line), Some(kind)) = (line, kind) {
            seen.push(SeenLine { line, task, kind, oldest });
        }
    }
    Ok((backlog, walk.after(cut_at, seen)))
}
