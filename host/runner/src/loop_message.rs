//! What reaches the loop: the one closed list of all that can make a turn.

use std::time::Duration;

use wharf_core::ids::TaskName;
use wharf_core::lifecycle::Refusal;
use wharf_core::planner::{AttemptId, FinishedAttempt, Input, RecordResult, RenewResult};
use wharf_store::{Claimed, Recorded, Renewed};

pub(crate) enum LoopMessage {
    /// What the planner takes as it is.
    Input(Input),
    /// The store's answer to a claim.
    Claimed(Claimed),
    /// The attempt has progress that came too soon after the last, to be written when its time has come.
    ProgressLater(AttemptId),
    Over(Box<Over>),
    /// The store's answers to a record call, in its order.
    Recorded(Vec<Written>),
}

/// An attempt is over, with what only listeners want to know of it.
pub(crate) struct Over {
    pub(crate) ended: FinishedAttempt,
    pub(crate) sandbox: Duration,
    pub(crate) lines_dropped: u64,
}

/// An event that the store has taken or refused.
pub(crate) struct Written {
    pub(crate) said: Said,
    pub(crate) result: Result<Recorded, Refusal>,
}

impl Written {
    /// What the planner hears of it.
    pub(crate) fn answer(&self) -> RecordResult {
        match &self.result {
            Ok(recorded) => RecordResult::Stands { cancel_asked: recorded.cancel_asked },
            Err(refusal) => RecordResult::Refused(*refusal),
        }
    }
}

/// What the planner hears of a renewal.
pub(crate) fn confirmation(renewed: Renewed) -> RenewResult {
    match renewed {
        Renewed::Held(lease) => RenewResult::Held { lease, cancel_asked: false },
        Renewed::HeldCancelAsked(lease) => RenewResult::Held { lease, cancel_asked: true },
        Renewed::Lost(lease) => RenewResult::Lost(lease),
    }
}

/// What is remembered of an event while the store has it.
pub(crate) struct Said {
    pub(crate) attempt: AttemptId,
    /// Room on the attempt's desk that its entries took; `None` for an end.
    pub(crate) room: Option<usize>,
    /// The tasks of the jobs that come with it.
    pub(crate) children: Vec<TaskName>,
}
