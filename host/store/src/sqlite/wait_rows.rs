//! The table `operation_waits`, as searches read it: what decided why jobs waited when a bulk operation began.

use rusqlite::{Connection, Row, params};
use wharf_core::find::{AsOf, WaitFact, WaitView};
use wharf_core::hold::HoldScope;

use crate::columns::{signed, timestamp_us};
use crate::wait_columns::{HELD, WAIT_COLUMNS, WaitColumns, lost_waits, view_of};

fn read(row: &Row<'_>) -> rusqlite::Result<WaitFact> {
    let columns =
        WaitColumns { kind: row.get(0)?, name: row.get(1)?, key: row.get(2)?, per_key: row.get(3)?, jobs: row.get(4)? };
    Ok(columns.fact()?)
}

/// Returns what decided why jobs waited, without the holds: these are read for the lanes that are looked at. `None` if the operation has
/// ended.
pub(super) fn view(conn: &Connection, as_of: AsOf) -> rusqlite::Result<Option<WaitView>> {
    let operation = signed(as_of.operation.number());
    let mut find = conn.prepare_cached(&format!(
        "SELECT {WAIT_COLUMNS} FROM operation_waits WHERE operation = ?1 AND kind > {HELD}"
    ))?;
    let view = view_of(as_of, find.query_map([operation], read)?)?;
    if view.is_none() {
        let mut find = conn.prepare_cached("SELECT 1 FROM operations WHERE id = ?1 AND ended_at IS NULL")?;
        if find.exists([operation])? {
            return Err(lost_waits(as_of.operation).into());
        }
    }
    Ok(view)
}

/// Returns the holds of exactly these scopes that were in force: those that have changed since, and those that have not.
pub(super) fn holds(conn: &Connection, as_of: AsOf, scopes: &[HoldScope]) -> rusqlite::Result<Vec<WaitFact>> {
    let mut find = conn.prepare_cached(&format!(
        "SELECT {WAIT_COLUMNS} FROM operation_waits WHERE operation = ?1 AND kind = {HELD} AND name = ?2
         UNION ALL SELECT {HELD}, scope, '', NULL, NULL FROM holds
             WHERE scope = ?2 AND held_at <= ?3 AND (until_at IS NULL OR until_at > ?3)"
    ))?;
    let (operation, at) = (signed(as_of.operation.number()), timestamp_us(as_of.at));
    let mut held = Vec::new();
    for scope in scopes {
        held.extend(find.query_map(params![operation, scope.to_string(), at], read)?);
    }
    held.into_iter().collect()
}
