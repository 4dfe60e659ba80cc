//! The end of an attempt, as the engine reports it.

use std::time::Duration;

use wharf_core::outcome::{Outcome, Usage};

use crate::schedule::budget::Reservation;

/// The end of an attempt: its outcome, and what it used.
#[derive(Debug)]
pub struct AttemptEnd {
    /// The guest's outcome.
    pub outcome: Outcome,
    /// The resources that it used. `queue_wait` is zero: the engine does not know it.
    pub usage: Usage,
    /// Time for making the sandbox and for dropping it.
    pub sandbox: Duration,
    /// The most bytes that it held, or asked for, in its sandbox and in the host.
    pub held_bytes: u64,
    /// The room of what it leaves in the host: its result, its jobs and its values. `None` if that is little, or has room
    /// elsewhere. The sandbox has none any more.
    pub left: Option<Reservation>,
}
