//! How an attempt ended, and which resources it used.

use std::time::Duration;

/// A failure that the plugin's own code reported, with what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Retry by the task's policy. The text is the plugin's message.
    Retry(String),
    /// Retry, but not before this delay has passed.
    RetryAfter(String, Duration),
    /// Do not retry.
    Discard(String),
}

/// The limit of time that an attempt exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeoutKind {
    /// Time since the attempt started.
    Wall,
    /// Time in the guest's code, without waiting for the host.
    Cpu,
    /// Time since the last chunk or progress.
    Stall,
}

/// The host's reason to end an attempt that did nothing wrong. None of these counts as a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interruption {
    /// The host is shutting down.
    Drain,
    /// The lease was not confirmed in time, or belongs to another attempt by now.
    LeaseLost,
    /// The host could not run the attempt: because of a bug of the host, for lack of memory to start a sandbox, or
    /// because the attempt needs a plugin that is still loading.
    Host,
}

/// The end of one attempt. Each attempt has exactly one outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The handler returned this result.
    Returned(Vec<u8>),
    /// The handler returned an error.
    Failed(Failure),
    /// The guest trapped. The text is a report for users: what happened, the backtrace, the last lines of stderr, what
    /// to do.
    Trapped(String),
    /// The attempt exceeded a limit of time.
    TimedOut {
        /// The limit that was exceeded.
        clock: TimeoutKind,
        /// The length of the limit.
        limit: Duration,
        /// A report for users.
        report: String,
    },
    /// The guest exceeded its memory limit.
    OutOfMemory {
        /// The limit in bytes.
        limit_bytes: u64,
        /// A report for users.
        report: String,
    },
    /// The result, the chunks, or the data between guest and host exceeded a bound. The text is a report for users.
    OutputBound(String),
    /// The attempt was cancelled on request.
    Cancelled,
    /// The host ended the attempt. The text is a report for users.
    Interrupted(Interruption, String),
}

/// The kind of an [`Outcome`], as it is stored, counted and displayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutcomeKind {
    /// The kind of [`Outcome::Returned`].
    Returned,
    /// The kind of [`Outcome::Failed`].
    Failed,
    /// The kind of [`Outcome::Trapped`].
    Trapped,
    /// The kind of [`Outcome::TimedOut`].
    TimedOut,
    /// The kind of [`Outcome::OutOfMemory`].
    OutOfMemory,
    /// The kind of [`Outcome::OutputBound`].
    OutputBound,
    /// The kind of [`Outcome::Cancelled`].
    Cancelled,
    /// The kind of [`Outcome::Interrupted`].
    Interrupted,
}

impl OutcomeKind {
    /// All kinds.
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

    /// Returns the name used in rows, metrics and JSON. A name never changes once it is released.
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

    /// Returns the kind with this name.
    pub fn from_name(name: &str) -> Option<OutcomeKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl Outcome {
    /// Returns the outcome's kind.
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

    /// Returns the report for users of an attempt that did not return a result; empty for one that did.
    pub fn report(&self) -> &str {
        match self {
            Outcome::Returned(_) => "",
            Outcome::Failed(Failure::Retry(text) | Failure::RetryAfter(text, _) | Failure::Discard(text)) => text,
            Outcome::Trapped(report)
            | Outcome::TimedOut { report, .. }
            | Outcome::OutOfMemory { report, .. }
            | Outcome::OutputBound(report)
            | Outcome::Interrupted(_, report) => report,
            Outcome::Cancelled => CANCELLED,
        }
    }
}

/// The report of an attempt or a job that was cancelled on request.
pub const CANCELLED: &str = "cancelled on request";

/// The report that an ended attempt leaves on its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Kind of the outcome.
    pub kind: OutcomeKind,
    /// An explanation for users.
    pub text: String,
}

/// Resource usage of one attempt, or of all measured attempts of a job together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time from when the job was due until it was claimed.
    pub queue_wait: Duration,
    /// CPU time in the guest's code, which the setting `cpu` bounds.
    pub cpu: Duration,
    /// Time from the claim to the end of the attempt.
    pub wall: Duration,
    /// The largest size of the sandbox's memories together, in bytes.
    pub memory_peak_bytes: u64,
    /// Bytes that the guest received: the payload, and what host functions returned.
    pub in_bytes: u64,
    /// Bytes that the guest sent: result, chunks and log.
    pub out_bytes: u64,
}

impl Usage {
    /// Returns the usage of a job after a further attempt: sums, and of the memory the larger peak.
    pub fn plus(&self, attempt: &Usage) -> Usage {
        Usage {
            queue_wait: self.queue_wait.saturating_add(attempt.queue_wait),
            cpu: self.cpu.saturating_add(attempt.cpu),
            wall: self.wall.saturating_add(attempt.wall),
            memory_peak_bytes: self.memory_peak_bytes.max(attempt.memory_peak_bytes),
            in_bytes: self.in_bytes.saturating_add(attempt.in_bytes),
            out_bytes: self.out_bytes.saturating_add(attempt.out_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_released_name_of_each_kind_still_reads_as_that_kind() {
        let released =
            ["returned", "failed", "trapped", "timed-out", "out-of-memory", "output-bound", "cancelled", "interrupted"];
        assert_eq!(OutcomeKind::ALL.map(OutcomeKind::as_str), released);
        assert_eq!(released.map(OutcomeKind::from_name), OutcomeKind::ALL.map(Some));
        assert_eq!(OutcomeKind::from_name("lost"), None);
    }

    #[test]
    fn every_attempt_without_a_result_explains_itself_to_users() {
        let text = || "why".to_owned();
        let limit = Duration::from_secs(1);
        for failed in [
            Outcome::Failed(Failure::Retry(text())),
            Outcome::Failed(Failure::RetryAfter(text(), limit)),
            Outcome::Failed(Failure::Discard(text())),
            Outcome::Trapped(text()),
            Outcome::TimedOut { clock: TimeoutKind::Wall, limit, report: text() },
            Outcome::OutOfMemory { limit_bytes: 1, report: text() },
            Outcome::OutputBound(text()),
            Outcome::Interrupted(Interruption::Drain, text()),
        ] {
            assert_eq!(failed.report(), "why", "{failed:?}");
        }
        assert_eq!(Outcome::Cancelled.report(), CANCELLED);
        assert_eq!(Outcome::Returned(vec![1]).report(), "");
    }
}
