//! The size of a store.

use async_trait::async_trait;

use super::error::StoreError;

/// The size of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// Bytes of the file, or of the tables with their indexes. A part of them may be free for what comes next.
    pub bytes: u64,
    /// Bytes of the write-ahead log beside the file; `None` if the store has none of its own.
    pub log_bytes: Option<u64>,
}

/// The file or the tables that keep a store.
#[async_trait]
pub trait StoreFiles: Send + Sync {
    /// Returns the size of the store. It is cheap, however large the store is.
    async fn size(&self) -> Result<StoreSize, StoreError>;
}
