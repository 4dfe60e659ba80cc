//! How one attempt ended, and what it cost.

use std::time::Duration;

/// What a plugin's own code says went wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Retry(String),
    /// Not before this long from now.
    RetryAfter(String, Duration),
    Discard(String),
}

/// Which clock ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeoutKind {
    /// Time since the attempt began.
    Wall,
    /// Time in the guest: waiting for the host is not counted.
    Cpu,
    /// Time since the last chunk or progress.
    Stall,
}

/// Why an attempt was ended by the host through no fault of its own. None of these costs the job an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interruption {
    /// The host is stopping.
    Drain,
    /// The lease could not be confirmed in time, or belongs to another attempt by now.
    LeaseLost,
    /// The host itself failed under the attempt: a bug of the host, no room to start a sandbox, or a plugin that the attempt
    /// needs and that is still being made ready.
    Host,
}

/// How one attempt ended. Exactly one per attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Returned(Vec<u8>),
    Failed(Failure),
    /// The text is a report for people: what happened, the backtrace, the last lines of stderr, what to do.
    Trapped(String),
    TimedOut {
        clock: TimeoutKind,
        limit: Duration,
        report: String,
    },
    OutOfMemory {
        limit_bytes: u64,
        report: String,
    },
    /// The result, the chunks or what crossed between guest and host grew past its bound.
    OutputBound(String),
    Cancelled,
    Interrupted(Interruption, String),
}

/// The kind of an outcome, as it is stored, counted and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutcomeKind {
    Returned,
    Failed,
    Trapped,
    TimedOut,
    OutOfMemory,
    OutputBound,
    Cancelled,
    Interrupted,
}

impl OutcomeKind {
    pub const ALL: [OutcomeKind; 8] = [
        OutcomeKind::Returned,
        OutcomeKind::Failed,
        OutcomeKind::Trapped,
        OutcomeKind::TimedOut,
        OutcomeKind::OutOfMemory,
        OutcomeKind::OutputBound,
        OutcomeKind::Cancelled,
        OutcomeKind::Interrupted,
    ];

    /// The name that rows, metrics and JSON carry. Never changed once released.
    pub const fn as_str(self) -> &'static str {
        match self {
            OutcomeKind::Returned => "returned",
            OutcomeKind::Failed => "failed",
            OutcomeKind::Trapped => "trapped",
            OutcomeKind::TimedOut => "timed-out",
            OutcomeKind::OutOfMemory => "out-of-memory",
            OutcomeKind::OutputBound => "output-bound",
            OutcomeKind::Cancelled => "cancelled",
            OutcomeKind::Interrupted => "interrupted",
        }
    }

    pub fn from_name(name: &str) -> Option<OutcomeKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl Outcome {
    pub const fn kind(&self) -> OutcomeKind {
        match self {
            Outcome::Returned(_) => OutcomeKind::Returned,
            Outcome::Failed(_) => OutcomeKind::Failed,
            Outcome::Trapped(_) => OutcomeKind::Trapped,
            Outcome::TimedOut { .. } => OutcomeKind::TimedOut,
            Outcome::OutOfMemory { .. } => OutcomeKind::OutOfMemory,
            Outcome::OutputBound(_) => OutcomeKind::OutputBound,
            Outcome::Cancelled => OutcomeKind::Cancelled,
            Outcome::Interrupted(..) => OutcomeKind::Interrupted,
        }
    }

    /// What people read of an attempt that did not return; empty for one that did.
    pub fn report(&self) -> &str {
        match self {
            Outcome::Returned(_) => "",
            Outcome::Failed(Failure::Retry(text) | Failure::RetryAfter(text, _) | Failure::Discard(text)) => text,
            Outcome::Trapped(report)
            | Outcome::TimedOut { report, .. }
            | Outcome::OutOfMemory { report, .. }
            | Outcome::OutputBound(report)
            | Outcome::Interrupted(_, report) => report,
            Outcome::Cancelled => "cancelled on request",
        }
    }
}

/// What an ended attempt leaves on its job: the kind, and the text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub kind: OutcomeKind,
    pub text: String,
}

/// What one attempt cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// From when the job was due until it was claimed.
    pub queue_wait: Duration,
    /// In the guest's code.
    pub guest: Duration,
    /// From the claim until the end.
    pub wall: Duration,
    pub memory_peak_bytes: u64,
    /// Payload, and what host functions answered.
    pub in_bytes: u64,
    /// Result, chunks and log.
    pub out_bytes: u64,
}
