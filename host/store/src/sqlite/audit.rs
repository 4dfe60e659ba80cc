//! The table `audit`: one row for each act.

use rusqlite::{Connection, Row, params};
use wharf_core::audit::{Act, NewAct};
use wharf_core::author::Author;
use wharf_core::ids::JobId;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::time::Timestamp;

use super::ledger::SqliteLedger;
use crate::columns::{ActColumns, signed, timestamp_us};
use crate::store::{ActFilter, ActPage, Recorded};

impl SqliteLedger<'_> {
    /// Adds an act to the transaction.
    pub(super) fn write_act(&self, act: &NewAct) -> rusqlite::Result<()> {
        let mut write = self.conn.prepare_cached(
            "INSERT INTO audit (acted_at, author, address, act, target, detail, changed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        let (at, by) = (timestamp_us(self.now()), act.author());
        let (act, target, detail, changed) = (act.kind().as_str(), act.target(), act.detail(), signed(act.count()));
        write.execute(params![at, by.name(), by.address(), act, target, detail, changed])?;
        Ok(())
    }

    /// Applies the event of an operator, and adds the act if the event is not refused.
    pub(super) fn change_job(
        &mut self,
        id: JobId,
        event: &Event,
        by: &Author,
    ) -> rusqlite::Result<Result<Recorded, Refusal>> {
        let now = self.now();
        let recorded = self.apply(id, event, now)?;
        if recorded.is_ok()
            && let Some(act) = NewAct::of_event(by.clone(), id, event)
        {
            self.write_act(&act)?;
        }
        Ok(recorded)
    }

    /// Deletes at most `max` acts from before `before`, and returns how many.
    pub(super) fn delete_acts(&self, before: Timestamp, max: u32) -> rusqlite::Result<u32> {
        let mut delete = self.conn.prepare_cached(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE acted_at < ?1 ORDER BY acted_at, id LIMIT ?2)",
        )?;
        Ok(delete.execute(params![timestamp_us(before), max])? as u32)
    }
}

/// Returns a page of acts.
pub(super) fn page(conn: &Connection, filter: &ActFilter) -> rusqlite::Result<ActPage> {
    let mut find = conn.prepare_cached(
        "SELECT id, acted_at, author, address, act, target, detail, changed FROM audit
         WHERE acted_at >= ?1 AND (acted_at, id) < (?2, ?3) ORDER BY acted_at DESC, id DESC LIMIT ?4",
    )?;
    let since = timestamp_us(filter.since.unwrap_or_default());
    let (at, number) = filter.before.map_or((i64::MAX, i64::MAX), |id| (timestamp_us(id.at), signed(id.number)));
    filter.page(find.query_map(params![since, at, number, filter.read_max()], act)?)
}

fn act(row: &Row<'_>) -> rusqlite::Result<Act> {
    let columns = ActColumns {
        id: row.get(0)?,
        acted_at: row.get(1)?,
        author: row.get_ref(2)?.as_str_or_null()?,
        address: row.get_ref(3)?.as_str_or_null()?,
        act: row.get_ref(4)?.as_str()?,
        target: row.get(5)?,
        detail: row.get(6)?,
        count: row.get(7)?,
    };
    Ok(columns.act())
}
