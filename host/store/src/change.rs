//! What an event changes on a job: its standing by the law of `lifecycle`, and what the attempt leaves on it.

use wharf_core::job::{JobStatus, State};
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::outcome::{Bill, Report};
use wharf_core::time::Timestamp;

/// A change that the law allows; a store writes it down as it stands here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) standing: JobStatus,
    /// The event took the slot from a running attempt: its lane may have room now.
    pub(crate) attempt_ended: bool,
    /// Takes the place of the job's report; `None` leaves what is there.
    pub(crate) report: Option<Report>,
    /// Of the attempt that ended; takes the place of the job's bill if one did.
    pub(crate) bill: Option<Bill>,
    pub(crate) finished_at: Option<Timestamp>,
}

/// What `event` at `now` changes on a job that stands at `before`.
pub(crate) fn change(before: &JobStatus, event: &Event, now: Timestamp) -> Result<Change, Refusal> {
    let standing = before.after(event, now)?;
    let running = |standing: &JobStatus| matches!(standing.state, State::Running { .. });
    Ok(Change {
        standing,
        attempt_ended: running(before) && !running(&standing),
        // A request to cancel says how an attempt ended only once it did.
        report: if running(&standing) { None } else { event.report() },
        bill: match event {
            Event::Succeeded { bill, .. } | Event::Failed { bill, .. } | Event::Cancelled { bill, .. } => Some(*bill),
            _ => None,
        },
        finished_at: standing.state.name().is_final().then_some(now),
    })
}

/// Whether `record` takes this event. Leases are given by `claim` alone: only there limits are tested. That a job was not
/// taken is known where it was to be added.
pub(crate) fn recordable(event: &Event) -> bool {
    !matches!(event, Event::Claimed { .. } | Event::NotEnqueued(_))
}
