//! The table `operation_waits`, as the writer changes it.

use rusqlite::params;
use wharf_core::bulk::BulkOperation;
use wharf_core::find::WaitView;
use wharf_core::key::Lane;
use wharf_core::limits::LimitTable;

use super::ledger::SqliteLedger;
use super::read::overrides;
use crate::columns::{signed, timestamp_us};
use crate::wait_columns::{HELD, WAIT_COLUMNS, WaitColumns};

impl SqliteLedger<'_> {
    /// Keeps what decides now why jobs wait with an operation that begins.
    pub(super) fn write_operation_waits(
        &mut self,
        operation: &BulkOperation,
        declared: &LimitTable,
    ) -> rusqlite::Result<()> {
        let (id, now) = (signed(operation.id.number()), self.now());
        let mut view = WaitView { limits: declared.with_overrides(overrides(self.conn)?), now, ..WaitView::default() };
        let running: Vec<Lane> = self.lanes.all_running().map(|(_, job)| self.lanes.lane(job.lane)).collect();
        running.iter().for_each(|lane| view.add_running(lane, 1));
        let mut write = self.conn.prepare_cached(&format!(
            "INSERT INTO operation_waits (operation, {WAIT_COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
        ))?;
        for fact in view.limits_and_running() {
            let WaitColumns { kind, name, key, per_key, jobs } = WaitColumns::from(&fact);
            write.execute(params![id, kind, name, key, per_key, jobs])?;
        }
        let mut copy = self.conn.prepare_cached(&format!(
            "INSERT INTO operation_waits (operation, kind, name, key)
             SELECT ?1, {HELD}, scope, '' FROM holds WHERE until_at IS NULL OR until_at > ?2"
        ))?;
        copy.execute(params![id, timestamp_us(now)]).map(drop)
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
