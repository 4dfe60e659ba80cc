//! What the dispatch loop receives: the one closed list of everything that can cause a turn.

use std::time::Duration;

use tokio::sync::oneshot;
use wharf_core::ids::TaskName;
use wharf_core::lifecycle::Refusal;
use wharf_core::planner::{AttemptId, FinishedAttempt, Input, RecordResult, RenewResult};
use wharf_engine::Reservation;
use wharf_store::{Claimed, Recorded, Renewed};

/// A message to the dispatch loop.
pub(crate) enum LoopMessage {
    /// An input that the planner takes as it is.
    Input(Input),
    /// The store's result of a claim.
    Claimed(Claimed),
    /// The attempt has progress that came too soon after the last one, to be written when its interval is over.
    ProgressLater(AttemptId),
    /// An attempt finished, with what only listeners need to know of it.
    AttemptFinished {
        attempt: Box<FinishedAttempt>,
        /// Time to create the sandbox and to remove it.
        sandbox: Duration,
        /// Number of lines of its log that were dropped.
        lines_dropped: u64,
        /// The most bytes that it held or asked for; 0 if it never ran.
        held_bytes: u64,
        /// The room of what it leaves in the host, until that is counted.
        left: Option<Reservation>,
    },
    /// The store's results of a record call, in the order of its events.
    Recorded(Vec<RecordedEvent>),
    /// An operator drains this node, or lets it claim jobs again. `by` is the name of the operator's token.
    SetDrained { drained: bool, by: Option<String> },
    /// Somebody wants to know that the loop turns; it is answered when the loop takes this in.
    Turned(oneshot::Sender<()>),
}

/// The facts about an event that the loop needs while the store records it.
pub(crate) struct PendingEvent {
    pub(crate) attempt: AttemptId,
    /// The buffer bytes that its entries occupy in the attempt's host; `None` for the end of an attempt.
    pub(crate) entry_bytes: Option<usize>,
    /// The tasks of the jobs that the attempt enqueued.
    pub(crate) child_tasks: Vec<TaskName>,
}

/// An event that the store has recorded or refused.
pub(crate) struct RecordedEvent {
    pub(crate) event: PendingEvent,
    pub(crate) result: Result<Recorded, Refusal>,
}

impl RecordedEvent {
    /// Returns the result as the planner takes it.
    pub(crate) fn planner_result(&self) -> RecordResult {
        match &self.result {
            Ok(recorded) => RecordResult::Recorded { cancel_requested: recorded.cancel_requested },
            Err(refusal) => RecordResult::Refused(*refusal),
        }
    }
}

/// Returns the result of a renewal as the planner takes it.
pub(crate) fn renew_result(renewed: Renewed) -> RenewResult {
    match renewed {
        Renewed::Renewed(lease) => RenewResult::Renewed { lease, cancel_requested: false },
        Renewed::RenewedCancelRequested(lease) => RenewResult::Renewed { lease, cancel_requested: true },
        Renewed::Lost(lease) => RenewResult::Lost(lease),
    }
}
