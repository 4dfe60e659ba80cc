//! The table `holds`, as readers and the writer read it.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::bounds;
use wharf_core::hold::{Hold, HoldScope};
use wharf_core::ids::JobId;
use wharf_core::time::Timestamp;

use super::session::{Session, SessionError, value};
use crate::columns::{HoldColumns, hold, signed, timestamp_us};
use crate::store::HoldPage;

/// The columns that [`read_hold`] reads.
pub(super) const COLUMNS: &str = "scope, until_at, reason, held_by, held_at";

/// Reads a row of `holds`.
pub(super) fn read_hold(row: &Row) -> Result<Hold, SessionError> {
    let columns = HoldColumns {
        scope: value(row, "holds", 0)?,
        until_at: value(row, "holds", 1)?,
        reason: value(row, "holds", 2)?,
        by: value(row, "holds", 3)?,
        at: value(row, "holds", 4)?,
    };
    Ok(hold(columns)?)
}

/// Reads a page of the holds in force at `now`, in the order of their scopes' texts.
pub(super) async fn page(
    session: &Session,
    after: Option<&HoldScope>,
    max: u32,
    now: Timestamp,
) -> Result<HoldPage, SessionError> {
    let max = max.clamp(1, bounds::PAGE_MAX) as usize;
    let after = after.map(ToString::to_string).unwrap_or_default();
    let text = format!(
        "SELECT {COLUMNS} FROM $schema.holds WHERE scope > $1 AND (until_at IS NULL OR until_at > $2) ORDER BY scope LIMIT $3"
    );
    let (now, limit) = (timestamp_us(now), max as i64 + 1);
    let args = [(&after as _, Type::TEXT), (&now as _, Type::INT8), (&limit as _, Type::INT8)];
    let found = session.query_selective(&text, &args).await?;
    Ok(HoldPage::new(found.iter().map(read_hold).collect::<Result<_, _>>()?, max))
}

/// Reads the holds in force at `now` that have exactly one of these scopes.
pub(super) async fn of_scopes(
    session: &Session,
    scopes: &[HoldScope],
    now: Timestamp,
) -> Result<Vec<Hold>, SessionError> {
    let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    let text = format!("SELECT {COLUMNS} FROM $schema.holds WHERE scope = ANY($1)");
    let found = session.query(&text, &[(&scopes as _, Type::TEXT_ARRAY)]).await?;
    let mut holds = found.iter().map(read_hold).collect::<Result<Vec<Hold>, _>>()?;
    holds.retain(|hold| hold.is_in_force(now));
    Ok(holds)
}

/// Reads the holds, in force or not, on a waiting job.
pub(super) async fn on_job(session: &Session, job: JobId) -> Result<Vec<Hold>, SessionError> {
    let text = format!(
        "SELECT {COLUMNS} FROM $schema.jobs JOIN $schema.names t ON t.id = jobs.task JOIN $schema.names g ON g.id = limit_group
         CROSS JOIN LATERAL (SELECT * FROM $schema.holds WHERE scope IN (
             'all', 'plugin:' || split_part(t.text, '/', 1), 'task:' || t.text, 'group:' || g.text, 'key:' || jobs.key,
             'group:' || g.text || ' key:' || jobs.key)) AS on_job
         WHERE jobs.id = $1 AND state < 2"
    );
    let id = signed(job.number());
    session.query(&text, &[(&id as _, Type::INT8)]).await?.iter().map(read_hold).collect()
}

/// Returns true if a hold has ended, or a lane is closed by one.
pub(super) async fn has_traces(session: &Session, now: Timestamp) -> Result<bool, SessionError> {
    let text = "SELECT EXISTS (SELECT FROM $schema.holds WHERE until_at <= $1)
                    OR EXISTS (SELECT FROM $schema.lines WHERE held_until_at IS NOT NULL)";
    let row = session.query_one(text, &[(&timestamp_us(now), Type::INT8)]).await?;
    value(&row, "holds", 0)
}
