//! The durable queue: jobs, leases and what attempts wrote. Knows nothing of Wasm, HTTP or plugins.
//! The SQL reads rows, asks `wharf_core`, writes rows: each rule exists once.

mod clock;
mod store;
mod change;
mod conflict;
mod wait_reason;
mod page;
mod node_list;
mod columns;
mod memory;
mod sqlite;
mod postgres;
mod open;

pub use clock::{Clock, SystemClock};
pub use memory::MemoryStore;
pub use open::open;
pub use postgres::{PostgresStore, without_password};
pub use sqlite::SqliteStore;
pub use store::{
    Claim, Claimed, Inserted, JobFilter, JobPage, JobSnapshot, Nudges, OpenError, PinnedLog, QueueStats, Recorded,
    Renewed, Store, StoreError,
};
