//! The table `operation_waits`, as searches read it: what decided why jobs waited when a bulk operation began.

use rusqlite::{Connection, Row, params};
use wharf_core::find::{AsOf, WaitFact, WaitView};
use wharf_core::hold::HoldScope;

use crate::columns::signed;
use crate::wait_columns::{HELD, WAIT_COLUMNS, WaitColumns};

fn read(row: &Row<'_>) -> rusqlite::Result<WaitFact> {
    let columns =
        WaitColumns { kind: row.get(0)?, name: row.get(1)?, key: row.get(2)?, per_key: row.get(3)?, jobs: row.get(4)? };
    Ok(columns.fact()?)
}

/// Returns what decided why jobs waited, without the holds: these are read for the lanes that are looked at.
pub(super) fn view(conn: &Connection, as_of: AsOf) -> rusqlite::Result<WaitView> {
    let mut view = WaitView { now: as_of.at, ..WaitView::default() };
    let mut find = conn.prepare_cached(&format!(
        "SELECT {WAIT_COLUMNS} FROM operation_waits WHERE operation = ?1 AND kind > {HELD}"
    ))?;
    for fact in find.query_map([signed(as_of.operation.number())], read)? {
        view.add(fact?);
    }
    Ok(view)
}

/// Returns the holds of exactly these scopes that were in force.
pub(super) fn holds(conn: &Connection, as_of: AsOf, scopes: &[HoldScope]) -> rusqlite::Result<Vec<WaitFact>> {
    let mut find = conn.prepare_cached(&format!(
        "SELECT {WAIT_COLUMNS} FROM operation_waits WHERE operation = ?1 AND kind = {HELD} AND name = ?2"
    ))?;
    let mut held = Vec::new();
    for scope in scopes {
        held.extend(find.query_map(params![signed(as_of.operation.number()), scope.to_string()], read)?);
    }
    held.into_iter().collect()
}
