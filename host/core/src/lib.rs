//! The rules of Wharf's job queue, without I/O: no clock, no task, no lock, no disk, no network.
//!
//! The crate decides, and its callers carry it out. Three parts are driven from outside:
//!
//! - [`lifecycle`] defines what each [`lifecycle::Event`] does to a [`job::JobStatus`]. A store applies it to every
//!   change of a job.
//! - [`admission`] chooses the waiting jobs that a claim starts. A store calls [`admission::admit`] inside its claiming
//!   transaction and implements [`admission::QueueView`] for it.
//! - [`planner::Planner`] decides what one node does next. The host's loop feeds it inputs and carries out its actions.
//!
//! Time is always an argument:
//!
//! ```
//! use wharf_core::job::{JobStatus, StateName};
//! use wharf_core::lifecycle::{Event, Refusal};
//! use wharf_core::time::Timestamp;
//!
//! let now = Timestamp::from_millis(1_700_000_000_000);
//! let waiting = JobStatus::new(now);
//! let cancelled = waiting.after(&Event::CancelRequested, now)?;
//! assert_eq!(cancelled.state.name(), StateName::Cancelled);
//! assert_eq!(cancelled.after(&Event::CancelRequested, now), Err(Refusal::Finished(StateName::Cancelled)));
//! # Ok::<(), Refusal>(())
//! ```
//!
//! The modules are declared in reading order. Each uses only those above it.

#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod bounds;
pub mod text;
pub mod shared_bytes;
pub mod time;
pub mod ids;
pub mod key;
pub mod author;
pub mod hold;
pub mod topic;
pub mod limits;
pub mod outcome;
pub mod fingerprint;
pub mod retry;
pub mod attempt;
pub mod histogram;
pub mod top_keys;
pub mod activity;
pub mod node;
pub mod lease;
pub mod kv;
pub mod tick;
pub mod job;
pub mod log_page;
pub mod keep;
pub mod clock_watch;
pub mod lifecycle;
pub mod change;
pub mod failure;
pub mod rollcall;
pub mod node_message;
pub mod room;
pub mod budget;
pub mod admission;
pub mod conflict;
pub mod wait_reason;
pub mod placement;
pub mod find;
pub mod backlog;
pub mod line_walk;
pub mod bulk;
pub mod schedule;
pub mod audit;
pub mod planner;
