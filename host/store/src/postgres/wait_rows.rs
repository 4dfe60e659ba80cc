//! The table `operation_waits`, as searches read it: what decided why jobs waited when a bulk operation began.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::find::{AsOf, WaitFact, WaitView};
use wharf_core::hold::HoldScope;

use super::session::{Session, SessionError, value};
use crate::columns::{signed, timestamp_us};
use crate::wait_columns::{HELD, WAIT_COLUMNS, WaitColumns, lost_waits, view_of};

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

/// Reads what decided why jobs waited, without the holds: these are read for the lanes that are looked at. `None` if the operation has
/// ended.
pub(super) async fn view(session: &Session, as_of: AsOf) -> Result<Option<WaitView>, SessionError> {
    let operation = signed(as_of.operation.number());
    let text = format!("SELECT {WAIT_COLUMNS} FROM $schema.operation_waits WHERE operation = $1 AND kind > {HELD}");
    let found = session.query(&text, &[(&operation, Type::INT8)]).await?;
    let view = view_of(as_of, found.iter().map(read))?;
    if view.is_none() {
        let text = "SELECT 1 FROM $schema.operations WHERE id = $1 AND ended_at IS NULL";
        if !session.query(text, &[(&operation, Type::INT8)]).await?.is_empty() {
            return Err(lost_waits(as_of.operation).into());
        }
    }
    Ok(view)
}

/// Reads the holds of exactly these scopes that were in force: those that have changed since, and those that have not.
pub(super) async fn holds(session: &Session, as_of: AsOf, scopes: &[HoldScope]) -> Result<Vec<WaitFact>, SessionError> {
    let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    let text = format!(
        "SELECT {WAIT_COLUMNS} FROM $schema.operation_waits WHERE operation = $1 AND kind = {HELD} AND name = ANY($2)
         UNION ALL SELECT {HELD}::smallint, scope, '', NULL, NULL FROM $schema.holds
             WHERE scope = ANY($2) AND held_at <= $3 AND (until_at IS NULL OR until_at > $3)"
    );
    let (operation, at) = (signed(as_of.operation.number()), timestamp_us(as_of.at));
    let args = [(&operation as _, Type::INT8), (&scopes as _, Type::TEXT_ARRAY), (&at as _, Type::INT8)];
    session.query_selective(&text, &args).await?.iter().map(read).collect()
}
