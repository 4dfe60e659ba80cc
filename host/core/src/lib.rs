//! The rules of Wharf, and nothing else: no clock, no task, no lock, no disk, no network.
//! Modules stand in reading order; each uses only those above it.

pub mod bounds;
pub mod time;
pub mod ids;
pub mod key;
pub mod topic;
pub mod limits;
pub mod outcome;
pub mod retry;
pub mod node;
pub mod lease;
pub mod kv;
pub mod job;
pub mod log_page;
pub mod lifecycle;
pub mod change;
pub mod rollcall;
pub mod node_message;
pub mod admission;
pub mod conflict;
pub mod wait_reason;
pub mod planner;
