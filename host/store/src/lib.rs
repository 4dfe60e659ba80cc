//! The durable queue: stores jobs, leases and the logs of attempts, and knows nothing of WebAssembly, HTTP or plugins.
//!
//! - [`open`] opens the store that an address names: [`MemoryStore`], [`SqliteStore`] or [`PostgresStore`].
//! - [`Store`] is what a host asks of any of them: the sum of [`Queue`], [`NodeRegistry`], [`KvStore`] and others, one for each subject.
//! - [`Clock`] is the time by which leases are judged. Several hosts on PostgreSQL go by the database's clock.
//! - [`StoreError`] says what a caller does next: ask again, give up, or find out what became of a write.
//!
//! A backend reads rows, lets `wharf_core` decide, and writes rows, so that each rule exists once. One suite of tests,
//! `tests/conformance`, holds for all of them.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use wharf_store::{JobFilter, SystemClock, open};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let store = open("sqlite:wharf.db", Arc::new(SystemClock)).await?;
//! let page = store.jobs(JobFilter { max: 10, ..JobFilter::default() }).await?;
//! for job in page.jobs {
//!     println!("{} {}", job.id, job.task);
//! }
//! # Ok(())
//! # }
//! ```

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
mod wait_columns;
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
