//! The table `holds`, as readers and the writer read it.

use rusqlite::{Connection, Row, params};
use wharf_core::bounds;
use wharf_core::hold::{Hold, HoldScope, HoldTable};
use wharf_core::ids::TaskName;
use wharf_core::key::Lane;
use wharf_core::time::Timestamp;

use crate::columns::{HoldColumns, hold, timestamp_us};
use crate::store::HoldPage;

/// The columns that [`read_hold`] reads.
const COLUMNS: &str = "scope, until_at, reason, held_by, held_at";

/// Reads a row of `holds`.
pub(super) fn read_hold(row: &Row<'_>) -> rusqlite::Result<Hold> {
    let (scope, reason): (String, String) = (row.get(0)?, row.get(2)?);
    let columns =
        HoldColumns { scope: &scope, until_at: row.get(1)?, reason: &reason, by: row.get(3)?, at: row.get(4)? };
    Ok(hold(columns)?)
}

/// Returns a page of the holds in force at `now`, in the order of their scopes' texts.
pub(super) fn page(
    conn: &Connection,
    after: Option<&HoldScope>,
    max: u32,
    now: Timestamp,
) -> rusqlite::Result<HoldPage> {
    let max = max.clamp(1, bounds::PAGE_MAX) as usize;
    let after = after.map(ToString::to_string).unwrap_or_default();
    let mut find = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM holds WHERE scope > ?1 AND (until_at IS NULL OR until_at > ?2) ORDER BY scope LIMIT ?3"
    ))?;
    let found = find.query_map(params![after, timestamp_us(now), max as i64 + 1], read_hold)?;
    Ok(HoldPage::new(found.collect::<rusqlite::Result<_>>()?, max))
}

/// Returns the holds in force at `now` that have exactly one of these scopes.
pub(super) fn of_scopes(conn: &Connection, scopes: &[HoldScope], now: Timestamp) -> rusqlite::Result<Vec<Hold>> {
    let mut find = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM holds WHERE scope = ?1"))?;
    let mut holds = Vec::new();
    for scope in scopes {
        let mut rows = find.query([scope.to_string()])?;
        if let Some(row) = rows.next()? {
            holds.push(read_hold(row)?);
        }
    }
    holds.retain(|hold| hold.is_in_force(now));
    Ok(holds)
}

/// Returns the hold at `now` on a job of this task and lane.
pub(super) fn on_job(
    conn: &Connection,
    task: &TaskName,
    lane: &Lane,
    now: Timestamp,
) -> rusqlite::Result<Option<Hold>> {
    let table: HoldTable = of_scopes(conn, &HoldScope::of_job(task, lane), now)?.into_iter().collect();
    Ok(table.on_job(task, lane, now).cloned())
}
