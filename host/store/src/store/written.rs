//! The results of writes: which jobs were added, changed or lost.

use wharf_core::conflict::placeholder;
use wharf_core::fingerprint::Fingerprint;
use wharf_core::ids::JobId;
use wharf_core::job::{JobStatus, NewJob, NotEnqueued, StateName};
use wharf_core::lease::Lease;
use wharf_core::lifecycle::Event;

/// The result of inserting a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The job was added.
    Added {
        /// The job's ID: its own, or a fresh one if another job had that.
        id: JobId,
        /// Waiting jobs that it replaced: they are cancelled.
        replaced: Vec<JobId>,
        /// Running jobs that were asked to cancel for it.
        cancel_requested: Vec<JobId>,
    },
    /// An earlier job has the same token.
    Duplicate {
        /// The earlier job.
        id: JobId,
    },
    /// The job was not added: its lane has no free slot, and its task discards jobs in that case.
    Discarded {
        /// The jobs in the way: those that use the slots, then those that wait (the first `bounds::HOLDERS_NAMED`).
        holders: Vec<JobId>,
    },
}

impl Inserted {
    /// Returns the job to insert under the ID of `new`, and the event that ends it then, if this result left no job under
    /// the ID.
    pub(crate) fn placeholder(&self, new: &NewJob) -> Option<(NewJob, Event)> {
        let why = match self {
            Inserted::Duplicate { id: known } if *known != new.id => NotEnqueued::Duplicate(*known),
            Inserted::Discarded { holders } => NotEnqueued::LaneFull(holders.clone()),
            Inserted::Added { .. } | Inserted::Duplicate { .. } => return None,
        };
        Some(placeholder(new, why))
    }
}

/// The result of an event that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The job's state after the event.
    pub state: StateName,
    /// True if the running attempt was asked to cancel.
    pub cancel_requested: bool,
    /// The result of inserting each child. A child that was not enqueued is stored under its ID as a cancelled job.
    pub children: Vec<Inserted>,
    /// The failure group of a job that failed, if the failure is a regression: the group was resolved, and is open again.
    pub regressed: Option<Fingerprint>,
}

impl Recorded {
    /// Returns the result of an event that left a job in this status.
    pub(crate) fn new(status: &JobStatus, children: Vec<Inserted>) -> Recorded {
        let (state, cancel_requested) = (status.state.name(), status.cancel_requested);
        Recorded { state, cancel_requested, children, regressed: None }
    }
}

/// The result of renewing a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The lease was extended.
    Renewed(Lease),
    /// The lease was extended, and the attempt was asked to cancel.
    RenewedCancelRequested(Lease),
    /// The job belongs to another attempt, or to none: the attempt must stop.
    Lost(Lease),
}
