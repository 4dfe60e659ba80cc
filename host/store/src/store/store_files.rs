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

/// The files or tables that a store is kept in.
#[async_trait]
pub trait StoreFiles: Send + Sync {
    /// Returns the size of the store. It is cheap, however large the store is.
    async fn size(&self) -> Result<StoreSize, StoreError>;

    /// Returns random bytes that were drawn when the store was made. All its hosts seal with them what they give to clients and read again.
    async fn seal_key(&self) -> Result<[u8; 32], StoreError>;
}
