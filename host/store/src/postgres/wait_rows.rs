//! The table `operation_waits`, as searches read it: what decided why jobs waited when a bulk operation began.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::find::{AsOf, WaitFact, WaitView};
use wharf_core::hold::HoldScope;

use super::session::{Session, SessionError, value};
use crate::columns::signed;
use crate::wait_columns::{HELD, WAIT_COLUMNS, WaitColumns};

fn read(row: &Row) -> Result<WaitFact, SessionError> {
    const TABLE: &str = "operation_waits";
    let columns = WaitColumns {
        kind: value(row, TABLE, 0)?,
        name: value(row, TABLE, 1)?,
        key: value(row, TABLE, 2)?,
        per_key: value(row, TABLE, 3)?,
        jobs: value(row, TABLE, 4)?,
    };
    Ok(columns.fact()?)
}

/// Reads what decided why jobs waited, without the holds: these are read for the lanes that are looked at.
pub(super) async fn view(session: &Session, as_of: AsOf) -> Result<WaitView, SessionError> {
    let text = format!("SELECT {WAIT_COLUMNS} FROM $schema.operation_waits WHERE operation = $1 AND kind > {HELD}");
    let mut view = WaitView { now: as_of.at, ..WaitView::default() };
    for row in session.query(&text, &[(&signed(as_of.operation.number()), Type::INT8)]).await? {
        view.add(read(&row)?);
    }
    Ok(view)
}

/// Reads the holds of exactly these scopes that were in force.
pub(super) async fn holds(session: &Session, as_of: AsOf, scopes: &[HoldScope]) -> Result<Vec<WaitFact>, SessionError> {
    let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    let text = format!(
        "SELECT {WAIT_COLUMNS} FROM $schema.operation_waits WHERE operation = $1 AND kind = {HELD} AND name = ANY($2)"
    );
    let args = [(&signed(as_of.operation.number()) as _, Type::INT8), (&scopes as _, Type::TEXT_ARRAY)];
    session.query(&text, &args).await?.iter().map(read).collect()
}
