//! The durable queue: stores jobs, leases and the logs of attempts, and knows nothing of WebAssembly, HTTP or plugins.
//!
//! A backend reads rows, lets `wharf_core` decide, and writes rows, so that each rule exists once.

#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod clock;
mod store;
mod address_text;
mod node_list;
mod announced_plugins;
mod columns;
mod attempt_columns;
mod failure_columns;
mod operation_columns;
mod schedule_columns;
mod search_source;
mod search;
mod memory;
mod sqlite;
mod postgres;
mod open;
mod maintenance;

pub use address_text::without_password;
pub use clock::{Clock, SystemClock};
pub use maintenance::{backup, check, check_file, restore};
pub use memory::MemoryStore;
pub use open::open;
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;
pub use store::{
    ActFilter, ActPage, AttemptStore, AuditLog, BackupReport, CheckReport, Claim, Claimed, DueSchedules,
    ExpiredDeleted, ExpiredJobs, FailureCursor, FailureFilter, FailurePage, FailureStore, Fault, FindPage, FindRequest,
    HoldPage, HoldStore, Inserted, JobFilter, JobFinder, JobPage, JobSnapshot, KvStore, MaintenanceError, NodeMessages,
    NodeRegistry, Nudges, OpenError, OperationStore, PinnedLog, Queue, QueueStats, Recorded, Renewed, ScheduleFired,
    ScheduleStore, ScheduleWrite, ScheduleWritten, StepTaken, Store, StoreContents, StoreError, StoreFiles, StoreSize,
};
