//! The table `operation_waits`, as the writer changes it.

use tokio_postgres::types::Type;
use wharf_core::bulk::BulkOperation;
use wharf_core::find::WaitFact;
use wharf_core::limits::LimitTable;

use super::find::wait_view;
use super::ledger::PostgresLedger;
use super::session::SessionError;
use super::unnest::unnest;
use crate::columns::signed;
use crate::wait_columns::{WAIT_COLUMNS, WaitColumns};

impl PostgresLedger<'_> {
    /// Keeps what decides now why jobs wait with an operation that begins, but the holds: these are kept when they change.
    pub(super) async fn write_operation_waits(
        &self,
        operation: &BulkOperation,
        declared: &LimitTable,
    ) -> Result<(), SessionError> {
        let id = signed(operation.id.number());
        let facts = wait_view(self.session, declared, self.now).await?.limits_and_running();
        let columns: Vec<WaitColumns> = [WaitFact::Whole].iter().chain(&facts).map(WaitColumns::from).collect();
        let kinds: Vec<i16> = columns.iter().map(|columns| columns.kind).collect();
        let names: Vec<&str> = columns.iter().map(|columns| columns.name.as_str()).collect();
        let keys: Vec<&str> = columns.iter().map(|columns| columns.key.as_str()).collect();
        let per_keys: Vec<Option<i64>> = columns.iter().map(|columns| columns.per_key).collect();
        let jobs: Vec<Option<i64>> = columns.iter().map(|columns| columns.jobs).collect();
        let text = format!(
            "INSERT INTO $schema.operation_waits ({WAIT_COLUMNS}, operation) SELECT new.*, $6::bigint FROM {} AS new",
            unnest("kind smallint, name text, key text, per_key bigint, jobs bigint")
        );
        let args = [
            (&kinds as _, Type::INT2_ARRAY),
            (&names as _, Type::TEXT_ARRAY),
            (&keys as _, Type::TEXT_ARRAY),
            (&per_keys as _, Type::INT8_ARRAY),
            (&jobs as _, Type::INT8_ARRAY),
            (&id as _, Type::INT8),
        ];
        self.session.query(&text, &args).await.map(drop)
    }

    /// Forgets what was kept with an operation, once it has ended.
    pub(super) async fn delete_operation_waits(&self, operation: &BulkOperation) -> Result<(), SessionError> {
        let id = signed(operation.id.number());
        let text = "DELETE FROM $schema.operation_waits WHERE operation = $1";
        self.session.query_if(operation.state.is_final(), text, &[(&id, Type::INT8)]).await.map(drop)
    }
}
