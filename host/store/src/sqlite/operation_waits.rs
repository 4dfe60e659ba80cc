//! The table `operation_waits`, as the writer changes it.

use rusqlite::params;
use wharf_core::bulk::BulkOperation;
use wharf_core::find::{WaitFact, WaitView};
use wharf_core::hold::HoldScope;
use wharf_core::key::Lane;
use wharf_core::limits::LimitTable;

use super::ledger::SqliteLedger;
use super::read::overrides;
use crate::columns::signed;
use crate::wait_columns::{HELD, WAIT_COLUMNS, WHOLE, WaitColumns};

impl SqliteLedger<'_> {
    /// Keeps what decides now why jobs wait with an operation that begins, but the holds: these are kept when they change.
    pub(super) fn write_operation_waits(
        &mut self,
        operation: &BulkOperation,
        declared: &LimitTable,
    ) -> rusqlite::Result<()> {
        let (id, now) = (signed(operation.id.number()), operation.created_at);
        let mut view = WaitView { limits: declared.with_overrides(overrides(self.conn)?), now, ..WaitView::default() };
        let running: Vec<Lane> = self.lanes.all_running().map(|(_, job)| self.lanes.lane(job.lane)).collect();
        running.iter().for_each(|lane| view.add_running(lane, 1));
        let mut write = self.conn.prepare_cached(&format!(
            "INSERT INTO operation_waits (operation, {WAIT_COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
        ))?;
        for fact in [WaitFact::Whole].into_iter().chain(view.limits_and_running()) {
            let WaitColumns { kind, name, key, per_key, jobs } = WaitColumns::from(&fact);
            write.execute(params![id, kind, name, key, per_key, jobs])?;
        }
        Ok(())
    }

    /// Keeps the hold of a scope, which is about to change, with the open operations at whose beginning it was in force.
    pub(super) fn keep_hold(&self, scope: &HoldScope) -> rusqlite::Result<()> {
        let mut keep = self.conn.prepare_cached(&format!(
            "INSERT OR IGNORE INTO operation_waits (operation, kind, name, key)
             SELECT operations.id, {HELD}, scope, '' FROM holds CROSS JOIN operations INDEXED BY operations_open
             WHERE scope = ?1 AND ended_at IS NULL AND held_at <= created_at AND (until_at IS NULL OR until_at > created_at)
             AND EXISTS (SELECT 1 FROM operation_waits WHERE operation = operations.id AND kind = {WHOLE})"
        ))?;
        keep.execute([scope.to_string()]).map(drop)
    }

    /// Forgets what was kept with an operation, once it has ended.
    pub(super) fn delete_operation_waits(&self, operation: &BulkOperation) -> rusqlite::Result<()> {
        if !operation.state.is_final() {
            return Ok(());
        }
        let mut delete = self.conn.prepare_cached("DELETE FROM operation_waits WHERE operation = ?1")?;
        delete.execute([signed(operation.id.number())]).map(drop)
    }
}
