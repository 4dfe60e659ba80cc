//! The bulk operations of a store.

use std::sync::Arc;

use async_trait::async_trait;
use wharf_core::author::Author;
use wharf_core::bulk::{BulkOperation, NewOperation, OperationStep};
use wharf_core::ids::JobId;
use wharf_core::limits::LimitTable;
use wharf_core::time::Timestamp;

use super::error::StoreError;

/// The bulk operations of a store. An operation changes nothing by itself: hosts find its jobs and take its steps.
#[async_trait]
pub trait OperationStore: Send + Sync {
    /// Begins an operation, and adds the act to the audit log. If its query asks why jobs wait, what decides that now is kept with it;
    /// `declared` are the limits that manifests and settings declare. An operation that came of a request with the same token is returned in its
    /// place, with its own ID (see `NewOperation::has_become`). Returns `None`, and changes nothing, if there is no room
    /// beside those that have not ended (see `NewOperation::has_room`).
    async fn start_operation(
        &self,
        new: NewOperation,
        declared: Arc<LimitTable>,
    ) -> Result<Option<BulkOperation>, StoreError>;

    /// Returns an operation.
    async fn operation(&self, id: JobId) -> Result<Option<BulkOperation>, StoreError>;

    /// Returns at most `max` operations with lower IDs than `before`, the newest first.
    async fn operations(&self, before: Option<JobId>, max: u32) -> Result<Vec<BulkOperation>, StoreError>;

    /// Returns the operations that have not ended, the oldest first.
    async fn open_operations(&self) -> Result<Vec<BulkOperation>, StoreError>;

    /// Takes a step of an operation, in one transaction: each of its jobs that is still as it was found is changed, and the
    /// operation goes on behind them. The step that ends the operation adds an act to the audit log. Returns `None`, and changes nothing, if the step is not the operation's next one.
    async fn take_operation_step(&self, step: OperationStep) -> Result<Option<StepTaken>, StoreError>;

    /// Ends an operation before its next step, and adds the act to the audit log. Returns it as it was left; `None` if there is none, or it has ended.
    async fn cancel_operation(&self, id: JobId, by: Author) -> Result<Option<BulkOperation>, StoreError>;

    /// Deletes at most `max` operations that ended before `before`. Returns how many.
    async fn delete_ended_operations(&self, before: Timestamp, max: u32) -> Result<u32, StoreError>;
}

/// A step that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepTaken {
    /// The operation after it.
    pub operation: BulkOperation,
    /// The jobs that it changed.
    pub changed: Vec<JobId>,
}
