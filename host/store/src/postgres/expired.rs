//! Deletes finished jobs that were kept long enough.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::ids::{JobId, TaskName};
use wharf_core::keep::FinishedPlace;
use wharf_core::time::Timestamp;

use super::operations::{self, COUNT_DELETED};
use super::session::{Session, SessionError, computed};
use crate::columns::{job_id, parse, signed, state_name, timestamp, timestamp_us};
use crate::store::{ExpiredDeleted, ExpiredJobs};

/// Lists of finished jobs that one transaction takes.
const LISTS_MAX: i64 = 128;

const BEGIN: &str =
    "BEGIN; SELECT set_config('jit', 'off', true), set_config('max_parallel_workers_per_gather', '0', true),
    set_config('idle_in_transaction_session_timeout', '10s', true)";

/// Jobs in the order in which they finished, from the lists that no other node is going through, and for each whether another job
/// needs it. A job that was retried since then has no state here. Each job by its ID (`OFFSET 0` keeps it so). Lists of the first moment
/// that begin before the place come besides the others: their next job may be behind the first ones of these.
const FINISHED: &str = "WITH lists AS MATERIALIZED (
        SELECT ctid AS list, finished_at, ids FROM $schema.finished
        WHERE finished_at >= $1 AND (finished_at > $1 OR ids[cardinality(ids)] > $2) AND finished_at < $3
        ORDER BY finished_at, first_id
        LIMIT least($4, $5) + (SELECT count(*) FROM $schema.finished WHERE finished_at = $1 AND first_id <= $2) FOR UPDATE SKIP LOCKED
    ), listed AS MATERIALIZED (
        SELECT list, finished_at, id FROM lists CROSS JOIN LATERAL unnest(ids) AS each (id)
        WHERE finished_at > $1 OR id > $2 ORDER BY finished_at, id LIMIT $4
    )
    SELECT listed.list::text, listed.finished_at, listed.id, job.state, job.task, job.is_needed FROM listed
    LEFT JOIN LATERAL (
        SELECT state, (SELECT text FROM $schema.names WHERE names.id = jobs.task) AS task,
            EXISTS (SELECT FROM $schema.jobs AS child WHERE child.parent IS NOT NULL AND child.parent = jobs.id AND child.state < 3)
            OR batch IS NOT NULL AND EXISTS (
                SELECT FROM $schema.jobs AS other
                WHERE other.batch IS NOT NULL AND other.batch = jobs.batch AND other.state < 3
            ) AS is_needed
        FROM $schema.jobs WHERE jobs.id = listed.id AND jobs.finished_at = listed.finished_at OFFSET 0
    ) AS job ON true
    ORDER BY listed.finished_at, listed.id";

/// Takes jobs out of the lists, each out of its own: a job that was retried is in another one, too.
const UNLIST: &str = "WITH removed AS MATERIALIZED (
        SELECT list::tid AS list, array_agg(id) AS ids FROM unnest($1::text[], $2::bigint[]) AS each (list, id) GROUP BY list
    ), kept AS MATERIALIZED (
        SELECT removed.list, ARRAY(
            SELECT id FROM unnest(finished.ids) WITH ORDINALITY AS each (id, place) WHERE id <> ALL (removed.ids) ORDER BY place
        ) AS ids FROM removed JOIN $schema.finished ON finished.ctid = removed.list
    ), emptied AS (
        DELETE FROM $schema.finished USING kept WHERE finished.ctid = kept.list AND cardinality(kept.ids) = 0
    )
    UPDATE $schema.finished SET first_id = kept.ids[1], ids = kept.ids FROM kept
    WHERE finished.ctid = kept.list AND cardinality(kept.ids) > 0";

/// A job as a list of finished jobs has it.
struct ListedJob {
    /// The place of the list in its table.
    list: String,
    finished: Timestamp,
    id: JobId,
}

/// The jobs of some lists.
#[derive(Default)]
struct Listed {
    expired: Vec<ListedJob>,
    /// Those that were retried since they finished: they are in another list, or will be.
    stale: Vec<ListedJob>,
    /// Number of jobs, without those that were retried.
    looked_at: u32,
    last: Option<FinishedPlace>,
}

/// Looks through finished jobs, and deletes those that were kept long enough and that no other job needs. Lists that another node
/// is going through are skipped. Jobs that somebody else has locked, to retry or to delete them, stay listed: nobody waits for a
/// job here, so that nobody waits in a circle.
pub(super) async fn delete(
    session: &Session,
    expired: &ExpiredJobs,
    now: Timestamp,
) -> Result<ExpiredDeleted, SessionError> {
    let (mut from, mut looked_at, mut deleted) = (expired.from, 0, 0);
    let next = loop {
        session.execute(BEGIN).await?;
        let listed = list(session, &ExpiredJobs { from, max: expired.max - looked_at, ..expired.clone() }, now).await?;
        deleted += delete_listed(session, &listed).await?;
        session.execute("COMMIT").await?;
        looked_at += listed.looked_at;
        let Some(last) = listed.last else { break None };
        if looked_at >= expired.max {
            break Some(last);
        }
        from = last;
    };
    operations::delete_orphaned_counts(session).await?;
    Ok(ExpiredDeleted { deleted, next })
}

async fn list(session: &Session, expired: &ExpiredJobs, now: Timestamp) -> Result<Listed, SessionError> {
    let ExpiredJobs { rules, from: (from, behind), before, max } = expired;
    let (from, before, max) = (timestamp_us(*from), timestamp_us(*before), i64::from(*max));
    let behind = behind.map_or(-1, |id| signed(id.number()));
    let args = [
        (&from as _, Type::INT8),
        (&behind as _, Type::INT8),
        (&before as _, Type::INT8),
        (&max as _, Type::INT8),
        (&LISTS_MAX as _, Type::INT8),
    ];
    let mut listed = Listed::default();
    let mut tasks: BTreeMap<String, TaskName> = BTreeMap::new();
    for row in &session.query(FINISHED, &args).await? {
        let job = listed_job(row)?;
        let place = Some((job.finished, Some(job.id)));
        // A job that was retried and finished again at one moment is in two lists. The second one names no job once it is deleted.
        if listed.last == place {
            continue;
        }
        listed.last = place;
        let Some(state) = computed::<Option<i16>>(row, 3)? else {
            listed.stale.push(job);
            continue;
        };
        listed.looked_at += 1;
        let text: String = computed(row, 4)?;
        let task = match tasks.get(&text) {
            Some(task) => task,
            None => tasks.entry(text.clone()).or_insert(parse("task", &text)?),
        };
        if !computed::<bool>(row, 5)? && rules.is_expired(task, state_name(state)?, job.finished, now) {
            listed.expired.push(job);
        }
    }
    Ok(listed)
}

fn listed_job(row: &Row) -> Result<ListedJob, SessionError> {
    Ok(ListedJob { list: computed(row, 0)?, finished: timestamp(computed(row, 1)?), id: job_id(computed(row, 2)?)? })
}

/// Deletes the expired jobs, and takes them and those that were retried out of the lists. Returns how many were deleted.
async fn delete_listed(session: &Session, listed: &Listed) -> Result<u32, SessionError> {
    let text = format!(
        "WITH free AS MATERIALIZED (
             SELECT jobs.id FROM unnest($1::bigint[], $2::bigint[]) AS chosen (id, finished_at)
             JOIN $schema.jobs ON jobs.id = chosen.id AND jobs.finished_at = chosen.finished_at FOR UPDATE OF jobs SKIP LOCKED
         ), gone AS (
             DELETE FROM $schema.jobs USING free WHERE jobs.id = free.id
             RETURNING jobs.id, jobs.batch, jobs.state > 3 OR jobs.attempt > 1 AS may_have_attempts
         ), attempts AS (
             DELETE FROM $schema.attempts USING gone WHERE may_have_attempts AND job = gone.id
         ), samples AS (
             DELETE FROM $schema.failure_samples USING gone WHERE may_have_attempts AND job = gone.id
         ), entries AS (
             DELETE FROM $schema.entries USING gone WHERE job = gone.id
         ), {COUNT_DELETED}
         SELECT id FROM gone"
    );
    let ids: Vec<i64> = listed.expired.iter().map(|job| signed(job.id.number())).collect();
    let moments: Vec<i64> = listed.expired.iter().map(|job| timestamp_us(job.finished)).collect();
    let args = [(&ids as _, Type::INT8_ARRAY), (&moments as _, Type::INT8_ARRAY)];
    let mut gone = BTreeSet::new();
    if !ids.is_empty() {
        for row in &session.query(&text, &args).await? {
            gone.insert(job_id(computed(row, 0)?)?);
        }
    }
    let removed = listed.expired.iter().filter(|job| gone.contains(&job.id)).chain(&listed.stale);
    let (lists, removed): (Vec<&str>, Vec<i64>) =
        removed.map(|job| (job.list.as_str(), signed(job.id.number()))).unzip();
    let args = [(&lists as _, Type::TEXT_ARRAY), (&removed as _, Type::INT8_ARRAY)];
    session.query_if(!removed.is_empty(), UNLIST, &args).await?;
    Ok(gone.len() as u32)
}
