//! The closed sets of values in documents, and the names of server-sent events. Names are never changed once released.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::Error as NameError;
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Serialize};
use wharf_core::audit::ActKind;
use wharf_core::job::{StateName, Stream};
use wharf_core::outcome::OutcomeKind;
use wharf_core::placement::NodeReadiness;
use wharf_core::rollcall::Answer;
use wharf_core::{failure, limits, schedule};

/// Declares enums whose variants are written in kebab-case in JSON and by `Display`.
macro_rules! closed_sets {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case")]
        pub(crate) enum $name { $($variant,)+ }

        impl fmt::Display for $name {
            fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.serialize(to)
            }
        }
    )+};
}

closed_sets! {
    /// State of a job. The last three are final.
    JobState { Waiting, Running, Succeeded, Failed, Cancelled, }

    /// State of one subscriber's job in a durable broadcast: a job's state, or `discarded` if the subscriber's lane was
    /// full and its `on-conflict` is to discard.
    BatchJobState { Waiting, Running, Succeeded, Failed, Cancelled, Discarded, }

    /// Outcome of an attempt.
    Outcome { Returned, Failed, Trapped, TimedOut, OutOfMemory, OutputBound, Cancelled, Interrupted, }

    /// Reason why a job waits.
    WaitReasonName {
        NotDue, Held, LaneFull, GroupFull, Paused, PluginLoading, PluginAbsent, TaskAbsent, TooLarge, NoMemory, Draining,
        InTurn,
    }

    /// Readiness of a host to run a task, from the readiest to the one that is farthest from it.
    HostReadiness { Ready, Full, NoMemory, Loading, Draining, TooLarge, TaskAbsent, PluginAbsent, }

    /// Kind of the scope of a hold: every job, or the jobs of a plugin, a task, a limit group or a key.
    HoldKind { All, Plugin, Task, Group, Key, }

    /// Kind of an act in the audit log; `other` for one that only a newer version knows.
    ActName { JobRetry, JobCancel, LimitSet, LimitCleared, HoldSet, HoldReleased, FailureResolved, FailureIgnored, FailureReopened, OperationStarted, OperationCancelled, OperationEnded, ScheduleSet, ScheduleRemoved, ScheduleRetired, ScheduleRun, SchedulePaused, ScheduleResumed, NodeDrained, NodeResumed, SettingsChanged, Other, }

    /// State of a schedule; `retired` if no host's settings file has it any more.
    ScheduleState { Active, Paused, Retired, }

    /// The place where a schedule was defined.
    ScheduleSource { Api, File, }

    /// Policy for ticks that no host fired in time: the newest is fired, none, or all.
    MissedPolicy { Latest, None, All, }

    /// Policy for a tick that comes while jobs of earlier ticks have not finished: its job is enqueued, the tick is skipped, its
    /// job waits in place of one that has not begun, or replaces those that wait and asks those that run to end.
    OverlapPolicy { Allow, Skip, QueueOne, Replace, }

    /// Outcome of a tick: its job was enqueued, or why not.
    TickOutcome { Fired, Missed, NoHost, Overlap, Held, LaneFull, Duplicate, Refused, Paused, }

    /// Change of the clock that touches a moment: the clock skips its time, or shows it twice.
    ClockChange { Skipped, Repeated, }

    /// State of a failure group.
    FailureState { Open, Resolved, Ignored, }

    /// Result of a request to enqueue one job: `duplicate` if a job with the same token exists, `discarded` if its lane is
    /// full.
    EnqueueOutcome { Added, Duplicate, Discarded, }

    /// Outcome of one subscriber's call in a live broadcast.
    ReplyOutcome { Replied, Failed, Trapped, TimedOut, Skipped, }

    /// Disposition of a failure: the subscriber's request after it.
    Disposition { Retry, RetryAfter, Discard, }

    /// Stream to which a guest wrote a log line.
    LogStream { Stdout, Stderr, }

    /// Readiness of a host.
    ReadyStatus { Ready, NotReady, }

    /// Health of the process that answers: it has only one, as a process that is not alive does not answer.
    HealthStatus { Alive, }

    /// Rule for a new job whose lane is full.
    OnConflict { Wait, Discard, ReplaceWaiting, CancelRunning, }

    /// Name of a server-sent event of a job.
    JobEventName { Chunk, Log, LogDropped, Progress, State, StoreError, }

    /// Name of a server-sent event of a live broadcast.
    BroadcastEventName { Subscribers, Reply, End, }
}

/// Returns the value that has this name, such as the one of an event; `None` if the name is unknown.
pub(crate) fn from_name<T: DeserializeOwned>(name: &str) -> Option<T> {
    T::deserialize(IntoDeserializer::<NameError>::into_deserializer(name)).ok()
}

impl From<NodeReadiness> for HostReadiness {
    fn from(readiness: NodeReadiness) -> HostReadiness {
        match readiness {
            NodeReadiness::Ready => HostReadiness::Ready,
            NodeReadiness::Full => HostReadiness::Full,
            NodeReadiness::NoMemory => HostReadiness::NoMemory,
            NodeReadiness::Loading => HostReadiness::Loading,
            NodeReadiness::TooLarge => HostReadiness::TooLarge,
            NodeReadiness::Draining => HostReadiness::Draining,
            NodeReadiness::TaskAbsent => HostReadiness::TaskAbsent,
            NodeReadiness::PluginAbsent => HostReadiness::PluginAbsent,
        }
    }
}

/// Converts between the names of documents and the kinds of the core, in both directions.
macro_rules! act_names {
    ($($variant:ident)+) => {
        impl From<ActKind> for ActName {
            fn from(kind: ActKind) -> ActName {
                match kind { $(ActKind::$variant => ActName::$variant,)+ }
            }
        }

        impl From<ActName> for ActKind {
            fn from(name: ActName) -> ActKind {
                match name { $(ActName::$variant => ActKind::$variant,)+ }
            }
        }
    };
}

act_names! {
    JobRetry JobCancel LimitSet LimitCleared HoldSet HoldReleased FailureResolved FailureIgnored FailureReopened
    OperationStarted OperationCancelled OperationEnded ScheduleSet ScheduleRemoved ScheduleRetired ScheduleRun
    SchedulePaused ScheduleResumed NodeDrained NodeResumed SettingsChanged Other
}

/// Converts between closed sets of documents and of schedules, in both directions.
macro_rules! schedule_names {
    ($($type:ident { $($variant:ident)+ })+) => {$(
        impl From<schedule::$type> for $type {
            fn from(value: schedule::$type) -> $type {
                match value { $(schedule::$type::$variant => $type::$variant,)+ }
            }
        }

        impl From<$type> for schedule::$type {
            fn from(value: $type) -> schedule::$type {
                match value { $($type::$variant => schedule::$type::$variant,)+ }
            }
        }
    )+};
}

schedule_names! {
    MissedPolicy { Latest None All }
    OverlapPolicy { Allow Skip QueueOne Replace }
    ScheduleSource { Api File }
    TickOutcome { Fired Missed NoHost Overlap Held LaneFull Duplicate Refused Paused }
}

impl From<StateName> for JobState {
    fn from(state: StateName) -> JobState {
        match state {
            StateName::Waiting => JobState::Waiting,
            StateName::Running => JobState::Running,
            StateName::Succeeded => JobState::Succeeded,
            StateName::Failed => JobState::Failed,
            StateName::Cancelled => JobState::Cancelled,
        }
    }
}

impl From<JobState> for StateName {
    fn from(state: JobState) -> StateName {
        match state {
            JobState::Waiting => StateName::Waiting,
            JobState::Running => StateName::Running,
            JobState::Succeeded => StateName::Succeeded,
            JobState::Failed => StateName::Failed,
            JobState::Cancelled => StateName::Cancelled,
        }
    }
}

impl From<StateName> for BatchJobState {
    fn from(state: StateName) -> BatchJobState {
        match state {
            StateName::Waiting => BatchJobState::Waiting,
            StateName::Running => BatchJobState::Running,
            StateName::Succeeded => BatchJobState::Succeeded,
            StateName::Failed => BatchJobState::Failed,
            StateName::Cancelled => BatchJobState::Cancelled,
        }
    }
}

impl From<OutcomeKind> for Outcome {
    fn from(kind: OutcomeKind) -> Outcome {
        match kind {
            OutcomeKind::Returned => Outcome::Returned,
            OutcomeKind::Failed => Outcome::Failed,
            OutcomeKind::Trapped => Outcome::Trapped,
            OutcomeKind::TimedOut => Outcome::TimedOut,
            OutcomeKind::OutOfMemory => Outcome::OutOfMemory,
            OutcomeKind::OutputBound => Outcome::OutputBound,
            OutcomeKind::Cancelled => Outcome::Cancelled,
            OutcomeKind::Interrupted => Outcome::Interrupted,
        }
    }
}

impl From<failure::FailureState> for FailureState {
    fn from(state: failure::FailureState) -> FailureState {
        match state {
            failure::FailureState::Open => FailureState::Open,
            failure::FailureState::Resolved => FailureState::Resolved,
            failure::FailureState::Ignored => FailureState::Ignored,
        }
    }
}

impl From<FailureState> for failure::FailureState {
    fn from(state: FailureState) -> failure::FailureState {
        match state {
            FailureState::Open => failure::FailureState::Open,
            FailureState::Resolved => failure::FailureState::Resolved,
            FailureState::Ignored => failure::FailureState::Ignored,
        }
    }
}

impl From<&Answer> for ReplyOutcome {
    fn from(answer: &Answer) -> ReplyOutcome {
        match answer {
            Answer::Replied(_) => ReplyOutcome::Replied,
            Answer::Failed(_) => ReplyOutcome::Failed,
            Answer::Trapped(_) => ReplyOutcome::Trapped,
            Answer::TimedOut(_) => ReplyOutcome::TimedOut,
            Answer::Skipped(_) => ReplyOutcome::Skipped,
        }
    }
}

impl From<Stream> for LogStream {
    fn from(stream: Stream) -> LogStream {
        match stream {
            Stream::Stdout => LogStream::Stdout,
            Stream::Stderr => LogStream::Stderr,
        }
    }
}

impl From<limits::OnConflict> for OnConflict {
    fn from(rule: limits::OnConflict) -> OnConflict {
        match rule {
            limits::OnConflict::Wait => OnConflict::Wait,
            limits::OnConflict::Discard => OnConflict::Discard,
            limits::OnConflict::ReplaceWaiting => OnConflict::ReplaceWaiting,
            limits::OnConflict::CancelRunning => OnConflict::CancelRunning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_core() {
        for state in StateName::ALL {
            assert_eq!(JobState::from(state).to_string(), state.as_str());
            assert_eq!(StateName::from(JobState::from(state)), state);
            assert_eq!(BatchJobState::from(state).to_string(), state.as_str());
        }
        for kind in ActKind::ALL {
            assert_eq!(ActName::from(*kind).to_string(), kind.as_str());
            assert_eq!(ActKind::from(ActName::from(*kind)), *kind);
        }
        for kind in OutcomeKind::ALL {
            assert_eq!(Outcome::from(kind).to_string(), kind.as_str());
        }
        for state in failure::FailureState::ALL {
            assert_eq!(FailureState::from(state).to_string(), state.as_str());
            assert_eq!(failure::FailureState::from(FailureState::from(state)), state);
        }
        for kind in Answer::KINDS {
            assert_eq!(from_name::<ReplyOutcome>(kind).unwrap().to_string(), kind);
        }
    }

    #[test]
    fn a_value_is_written_as_in_json_and_read_by_its_name() {
        assert_eq!(format!("{:>10}", ReplyOutcome::TimedOut), " timed-out");
        assert_eq!(serde_json::to_string(&WaitReasonName::PluginAbsent).unwrap(), "\"plugin-absent\"");
        assert_eq!(from_name("log-dropped"), Some(JobEventName::LogDropped));
        assert_eq!(from_name::<JobEventName>("newer"), None);
    }
}
