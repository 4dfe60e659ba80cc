//! The interface of a store, by its parts. Every write is one transaction, and is durable when the call returns.

mod error;
mod written;
mod claim;
mod expired_jobs;
mod maintenance;
mod job_view;
mod queue;
mod attempt_store;
mod failure_store;
mod job_finder;
mod kv_store;
mod hold_store;
mod audit_log;
mod operation_store;
mod schedule_store;
mod node_registry;
mod node_messages;
mod store_files;

pub use attempt_store::AttemptStore;
pub use audit_log::{ActFilter, ActPage, AuditLog};
pub(crate) use claim::wake_at;
pub use claim::{Claim, Claimed};
pub use error::{OpenError, StoreError};
pub use expired_jobs::{ExpiredDeleted, ExpiredJobs};
pub use failure_store::{FailureCursor, FailureFilter, FailurePage, FailureStore};
pub use hold_store::{HoldPage, HoldStore};
pub use job_finder::{FindPage, FindRequest, JobFinder};
pub(crate) use job_view::by_plugin;
pub use job_view::{JobFilter, JobPage, JobSnapshot, QueueStats};
pub use kv_store::KvStore;
pub use maintenance::{BackupReport, CheckReport, Contents, Fault, MaintenanceError};
pub use node_messages::NodeMessages;
pub use node_registry::NodeRegistry;
pub use operation_store::{OperationStore, StepTaken};
pub use queue::{Nudges, Queue};
pub(crate) use schedule_store::FiringResults;
pub use schedule_store::{DueSchedules, ScheduleFired, ScheduleStore, ScheduleWrite, ScheduleWritten};
pub use store_files::{StoreFiles, StoreSize};
pub use written::{Inserted, Recorded, Renewed};

/// A durable queue with finding, bulk operations and schedules in it, the holds on it, the audit log, the attempts and jobs that failed, the kv
/// values of plugins and the nodes that use it: in SQLite, PostgreSQL or memory.
pub trait Store:
    Queue
    + JobFinder
    + OperationStore
    + ScheduleStore
    + HoldStore
    + AuditLog
    + AttemptStore
    + FailureStore
    + KvStore
    + NodeRegistry
    + StoreFiles
    + 'static
{
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
