//! What needs no group's lock: leases are prolonged row by row, old jobs are forgotten.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::ids::{JobId, NodeId};
use wharf_core::lease::Lease;
use wharf_core::time::Timestamp;

use super::node_marks::{self, Expired, MARK};
use super::rows::{job_id, length, micros, moment, signed};
use super::session::{Session, SessionError};
use super::time::{NOW, Time};
use crate::store::Renewed;

/// Less than this is no clock that was set: some renewal was just faster.
const GONE: Duration = Duration::from_secs(1);

/// Prolongs leases, each as long as it belongs to its attempt: `Lease::renewed`, in SQL. Rows are locked in order: two renewals never wait in a circle.
pub(super) async fn renew(
    session: &Session,
    time: &Time,
    leases: &[Lease],
    by: Duration,
) -> Result<Vec<Renewed>, SessionError> {
    let ids: Vec<i64> = leases.iter().map(|lease| signed(lease.job.number())).collect();
    let attempts: Vec<i32> = leases.iter().map(|lease| lease.attempt as i32).collect();
    let (asked, now, by) = (Instant::now(), time.given(), length(by));
    let text = format!(
        "WITH asked AS (SELECT DISTINCT * FROM unnest($1::bigint[], $2::int[]) AS asked (id, attempt)),
              held AS (SELECT jobs.id FROM wharf.jobs JOIN asked ON jobs.id = asked.id AND jobs.attempt = asked.attempt
                       WHERE state = 2 ORDER BY jobs.id FOR UPDATE OF jobs)
         UPDATE wharf.jobs SET lease_until = coalesce($3::bigint, {NOW}) + $4 FROM held WHERE jobs.id = held.id
         RETURNING jobs.id, attempt, node, lease_until, cancel_asked, {NOW} AS now"
    );
    let args = [
        (&ids as _, Type::INT8_ARRAY),
        (&attempts as _, Type::INT4_ARRAY),
        (&now as _, Type::INT8),
        (&by as _, Type::INT8),
    ];
    let renewed = session.ask_apart(&text, &args).await?;
    // First of all: leases that were written by a clock that was set back would else seem to be over.
    if let Some(row) = renewed.first() {
        time.heard(moment(row, "now"), asked);
    }
    let mut held: HashMap<(JobId, u32), (Lease, bool)> = HashMap::new();
    for row in renewed {
        let lease = Lease {
            job: job_id(row.get("id"))?,
            attempt: row.get::<_, i32>("attempt") as u32,
            node: NodeId(row.get::<_, i64>("node") as u64),
            until: moment(&row, "lease_until"),
        };
        held.insert((lease.job, lease.attempt), (lease, row.get("cancel_asked")));
    }
    let answer = |asked: &Lease| match held.get(&(asked.job, asked.attempt)) {
        Some((lease, true)) => Renewed::HeldCancelAsked(*lease),
        Some((lease, false)) => Renewed::Held(*lease),
        None => Renewed::Lost(*asked),
    };
    Ok(leases.iter().map(answer).collect())
}

/// Leases that end later than any could that is given now were given by a clock that was set back since. A host that lives
/// renews its own within a third of their length, and one that cannot has stopped what it ran after that length at most: from
/// now on they count from now.
pub(super) async fn end_those_of_a_gone_clock(session: &Session, time: &Time) -> Result<(), SessionError> {
    let (now, slack) = (time.given(), length(GONE));
    let text = format!(
        "WITH moment AS MATERIALIZED (SELECT coalesce($1::bigint, {NOW}) AS now),
              gone AS MATERIALIZED (
                  SELECT job.id, held.lease FROM moment CROSS JOIN wharf.held CROSS JOIN LATERAL unnest(ids) AS each (id)
                  CROSS JOIN LATERAL (SELECT * FROM wharf.jobs WHERE jobs.id = each.id OFFSET 0) AS job
                  WHERE state = 2 AND lease_until > now + held.lease + $2 ORDER BY job.id)
         UPDATE wharf.jobs SET lease_until = now + gone.lease FROM gone, moment
         WHERE jobs.id = gone.id AND state = 2 AND lease_until > now + gone.lease + $2"
    );
    session.ask_apart(&text, &[(&now, Type::INT8), (&slack, Type::INT8)]).await.map(drop)
}

/// Leases that have run out: `Lease::is_expired`, in SQL. Looks at all running jobs: they are few, and an index of ends of leases would cost every
/// claim and renewal.
pub(super) async fn over(session: &Session, time: &Time, max: u32) -> Result<Vec<Expired>, SessionError> {
    let (now, max) = (time.given(), i64::from(max));
    // Each by its id (`OFFSET 0` keeps it so): the server would rather read through all jobs, also those that ended.
    let text = format!(
        "SELECT job.id, job.attempt, {MARK} FROM wharf.held CROSS JOIN LATERAL unnest(ids) AS each (id)
         CROSS JOIN LATERAL (SELECT * FROM wharf.jobs WHERE jobs.id = each.id OFFSET 0) AS job
         LEFT JOIN wharf.node_marks AS mark ON mark.node = job.node
         WHERE state = 2 AND lease_until <= coalesce($1::bigint, {NOW}) ORDER BY lease_until, job.id LIMIT $2"
    );
    let found = session.ask_apart(&text, &[(&now, Type::INT8), (&max, Type::INT8)]).await?;
    let expired = |row: &Row| {
        let (job, attempt) = (job_id(row.get(0))?, row.get::<_, i32>(1) as u32);
        Ok(Expired { job, attempt, mark: node_marks::mark(row, 2)?.about(job, attempt) })
    };
    found.iter().map(expired).collect()
}

/// Removes old jobs with all that belongs to them. What another node is removing at this moment is left to it.
pub(super) async fn delete_finished(session: &Session, before: Timestamp, max: u32) -> Result<u32, SessionError> {
    // Jobs stand in rows, in the order in which they ended, and are taken from the front of these.
    let text = "WITH rows AS MATERIALIZED (
                    SELECT ctid AS row, at, ids FROM wharf.ended WHERE at < $1 ORDER BY at, first LIMIT least($2, 128) FOR UPDATE SKIP LOCKED
                ), over AS MATERIALIZED (
                    SELECT row, at, id FROM rows CROSS JOIN LATERAL unnest(ids) AS each (id) ORDER BY at, id LIMIT $2
                ), taken AS MATERIALIZED (
                    SELECT row, count(*)::int AS count FROM over GROUP BY row
                ), whole AS (
                    DELETE FROM wharf.ended USING taken WHERE ended.ctid = taken.row AND cardinality(ids) = taken.count
                ), part AS (
                    UPDATE wharf.ended SET first = ids[taken.count + 1], ids = ids[taken.count + 1:] FROM taken
                    WHERE ended.ctid = taken.row AND cardinality(ids) > taken.count
                ), gone AS (
                    DELETE FROM wharf.jobs USING over WHERE jobs.id = over.id AND jobs.finished_at = over.at RETURNING jobs.id
                ), entries AS (
                    DELETE FROM wharf.entries USING gone WHERE job = gone.id
                ), last AS (
                    INSERT INTO wharf.last_forgotten (one, id) SELECT 1, max(id) FROM gone HAVING count(*) > 0
                    ON CONFLICT (one) DO UPDATE SET id = greatest(last_forgotten.id, excluded.id)
                )
                SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM over)";
    let (before, mut forgotten) = (micros(before), 0);
    while forgotten < max {
        let left = i64::from(max - forgotten);
        let row = session.ask_one(text, &[(&before, Type::INT8), (&left, Type::INT8)]).await?;
        forgotten += row.get::<_, i64>(0) as u32;
        // Those that were tried again since stand there, too, and are not counted.
        if row.get::<_, i64>(1) == 0 {
            break;
        }
    }
    Ok(forgotten)
}
