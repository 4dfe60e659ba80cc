//! The interface of a store, by its parts. Every write is one transaction, and is durable when the call returns.

mod error;
mod written;
mod claim;
mod job_view;
mod queue;
mod kv_store;
mod hold_store;
mod node_registry;
mod node_messages;

pub(crate) use claim::wake_at;
pub use claim::{Claim, Claimed};
pub use error::{OpenError, StoreError};
pub use hold_store::{HoldPage, HoldStore};
pub(crate) use job_view::by_plugin;
pub use job_view::{JobFilter, JobPage, JobSnapshot, QueueStats};
pub use kv_store::KvStore;
pub use node_messages::NodeMessages;
pub use node_registry::NodeRegistry;
pub use queue::{Nudges, Queue};
pub use written::{Inserted, Recorded, Renewed};

/// A durable queue with the holds on it, the kv values of plugins and the nodes that use it: in SQLite, PostgreSQL or memory.
pub trait Store: Queue + HoldStore + KvStore + NodeRegistry + 'static {
    /// Returns the messages between the nodes of the store; `None` if only one node can use it.
    fn messages(&self) -> Option<&dyn NodeMessages>;

    /// Returns the store's write-ahead log if it grows because another program prevents it from being copied into the
    /// database file.
    fn pinned_log(&self) -> Option<PinnedLog> {
        None
    }
}

/// A write-ahead log that grows, as [`Store::pinned_log`] reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedLog {
    /// The path of the log file.
    pub log: String,
    /// The size of the log file in bytes.
    pub bytes: u64,
}
