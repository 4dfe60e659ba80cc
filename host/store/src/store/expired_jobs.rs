//! The deletion of finished jobs that were kept long enough.

use std::sync::Arc;

use wharf_core::keep::{FinishedPlace, KeepRules};
use wharf_core::time::Timestamp;

/// The finished jobs to look through.
#[derive(Clone, Debug)]
pub struct ExpiredJobs {
    /// The rules of how long jobs are kept.
    pub rules: Arc<KeepRules>,
    /// The place from which on jobs are looked at.
    pub from: FinishedPlace,
    /// Only jobs that finished before this moment are looked at.
    pub before: Timestamp,
    /// Number of jobs to look at.
    pub max: u32,
}

/// The result of a deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpiredDeleted {
    /// Number of jobs that were deleted.
    pub deleted: u32,
    /// The place from which on to look next; `None` if no job is left.
    pub next: Option<FinishedPlace>,
}
