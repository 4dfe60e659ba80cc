//! The attempts of jobs that ended without a result.

use async_trait::async_trait;
use wharf_core::attempt::Attempt;
use wharf_core::ids::JobId;

use super::error::StoreError;

/// The attempts of a store's jobs. [`Queue::record`](super::Queue::record) and [`Queue::reclaim`](super::Queue::reclaim) add
/// each attempt that ends without a result, in the transaction of its end. They are deleted with their job.
#[async_trait]
pub trait AttemptStore: Send + Sync {
    /// Returns the attempts that a job keeps, in ascending order: the oldest and the newest of those that ended without a
    /// result. A job that does not exist has none.
    async fn attempts(&self, id: JobId) -> Result<Vec<Attempt>, StoreError>;
}
