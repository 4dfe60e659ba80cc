//! Work on leases that needs no lock of a limit group: renewals, expired leases.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::ids::{JobId, NodeId};
use wharf_core::lease::Lease;

use super::node_marks::{self, ExpiredLease, MARK_COLUMNS};
use super::rows::{self, job_id};
use super::session::{Session, SessionError, computed, value};
use super::time::{NOW, Time};
use crate::columns::{duration_us, signed, timestamp};
use crate::store::Renewed;

/// A smaller difference does not show that the clock was set back: some renewal was just faster.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// Renews leases for the length `by` from now, each only if it belongs to its attempt. Rows are locked in order, so two renewals
/// never wait for each other in a circle.
pub(super) async fn renew(
    session: &Session,
    time: &Time,
    leases: &[Lease],
    by: Duration,
) -> Result<Vec<Renewed>, SessionError> {
    let ids: Vec<i64> = leases.iter().map(|lease| signed(lease.job.number())).collect();
    let attempts: Vec<i32> = leases.iter().map(|lease| lease.attempt as i32).collect();
    let (sent, now, by) = (Instant::now(), time.manual_micros(), duration_us(by));
    let text = format!(
        "WITH wanted AS (SELECT DISTINCT * FROM unnest($1::bigint[], $2::int[]) AS wanted (id, attempt)),
              owned AS (SELECT jobs.id FROM $schema.jobs JOIN wanted ON jobs.id = wanted.id AND jobs.attempt = wanted.attempt
                        WHERE state = 2 ORDER BY jobs.id FOR UPDATE OF jobs)
         UPDATE $schema.jobs SET lease_expires_at = coalesce($3::bigint, {NOW}) + $4 FROM owned WHERE jobs.id = owned.id
         RETURNING jobs.id, attempt, node, lease_expires_at, cancel_requested, {NOW} AS now"
    );
    let args = [
        (&ids as _, Type::INT8_ARRAY),
        (&attempts as _, Type::INT4_ARRAY),
        (&now as _, Type::INT8),
        (&by as _, Type::INT8),
    ];
    let renewed = session.query_selective(&text, &args).await?;
    // Before anything else: otherwise leases that were written after the clock was set back would seem to have expired.
    if let Some(row) = renewed.first() {
        time.observe(timestamp(computed(row, "now")?), sent);
    }
    let mut owned: HashMap<(JobId, u32), (Lease, bool)> = HashMap::new();
    for row in renewed {
        let lease = Lease {
            job: job_id(&row, "jobs", "id")?,
            attempt: value::<i32>(&row, "jobs", "attempt")? as u32,
            node: NodeId(value::<i64>(&row, "jobs", "node")? as u64),
            until: rows::timestamp(&row, "jobs", "lease_expires_at")?,
        };
        owned.insert((lease.job, lease.attempt), (lease, value(&row, "jobs", "cancel_requested")?));
    }
    let result = |wanted: &Lease| match owned.get(&(wanted.job, wanted.attempt)) {
        Some((lease, true)) => Renewed::RenewedCancelRequested(*lease),
        Some((lease, false)) => Renewed::Renewed(*lease),
        None => Renewed::Lost(*wanted),
    };
    Ok(leases.iter().map(result).collect())
}

/// Shortens leases that end later than any that can start now: they date from before the clock was set back. A live host renews
/// its leases within a third of their length, and one that can't has stopped its attempts after that length at most: from now
/// on these leases count from now.
pub(super) async fn shorten_after_clock_jump(session: &Session, time: &Time) -> Result<(), SessionError> {
    let (now, slack) = (time.manual_micros(), duration_us(CLOCK_SLACK));
    // Each job by its id (`OFFSET 0` keeps it so): the server would rather read all jobs, finished ones included.
    let text = format!(
        "WITH moment AS MATERIALIZED (SELECT coalesce($1::bigint, {NOW}) AS now),
              jumped AS MATERIALIZED (
                  SELECT job.id, running.lease_us
                  FROM moment CROSS JOIN $schema.running CROSS JOIN LATERAL unnest(ids) AS each (id)
                  CROSS JOIN LATERAL (SELECT * FROM $schema.jobs WHERE jobs.id = each.id OFFSET 0) AS job
                  WHERE state = 2 AND lease_expires_at > now + running.lease_us + $2 ORDER BY job.id)
         UPDATE $schema.jobs SET lease_expires_at = now + jumped.lease_us FROM jumped, moment
         WHERE jobs.id = jumped.id AND state = 2 AND lease_expires_at > now + jumped.lease_us + $2"
    );
    session.query_selective(&text, &[(&now, Type::INT8), (&slack, Type::INT8)]).await.map(drop)
}

/// Reads up to `max` expired leases. Checks all running jobs: they are few, and an index of the ends of leases would cost every
/// claim and renewal.
pub(super) async fn expired(session: &Session, time: &Time, max: u32) -> Result<Vec<ExpiredLease>, SessionError> {
    let (now, max) = (time.manual_micros(), i64::from(max));
    // Each job by its id (`OFFSET 0` keeps it so): the server would rather read all jobs, finished ones included.
    let text = format!(
        "SELECT job.id, job.attempt, {MARK_COLUMNS} FROM $schema.running CROSS JOIN LATERAL unnest(ids) AS each (id)
         CROSS JOIN LATERAL (SELECT * FROM $schema.jobs WHERE jobs.id = each.id OFFSET 0) AS job
         LEFT JOIN $schema.node_marks AS mark ON mark.node = job.node
         WHERE state = 2 AND lease_expires_at <= coalesce($1::bigint, {NOW}) ORDER BY lease_expires_at, job.id LIMIT $2"
    );
    let found = session.query_selective(&text, &[(&now, Type::INT8), (&max, Type::INT8)]).await?;
    let expired = |row: &Row| {
        let (job, attempt) = (job_id(row, "jobs", 0)?, value::<i32>(row, "jobs", 1)? as u32);
        Ok(ExpiredLease { job, attempt, mark: node_marks::mark(row, 2)?.about(job, attempt) })
    };
    found.iter().map(expired).collect()
}
