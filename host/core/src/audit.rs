//! The audit log: each act of an operator that changed something, with its author.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::author::{Author, bounded};
use crate::bounds;
use crate::bulk::BulkOperation;
use crate::failure::FailureState;
use crate::fingerprint::Fingerprint;
use crate::hold::{Hold, HoldScope};
use crate::ids::{Group, JobId, NodeId, ParseIdError};
use crate::key::Key;
use crate::lifecycle::Event;
use crate::limits::{Limits, Override};
use crate::schedule::{Fired, Schedule, ScheduleFiring};
use crate::time::{Timestamp, length_text};

/// Declares the kinds of acts with their names, which are never changed once released.
macro_rules! act_kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// A kind of act.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ActKind {
            $($(#[$doc])* $variant,)+
            /// An act of a kind that only a newer version of Wharf knows.
            Other,
        }

        impl ActKind {
            /// Every kind that this version writes.
            pub const ALL: &[ActKind] = &[$(ActKind::$variant,)+];

            /// Returns the name of the kind, as it is stored and shown.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(ActKind::$variant => $name,)+
                    ActKind::Other => "other",
                }
            }

            /// Returns the kind with this name; `Other` if this version does not know it.
            pub fn from_name(name: &str) -> ActKind {
                match name {
                    $($name => ActKind::$variant,)+
                    _ => ActKind::Other,
                }
            }
        }
    };
}

act_kinds! {
    /// A job was given another attempt.
    JobRetry = "job-retry",
    /// A job was cancelled, or its running attempt was asked to cancel.
    JobCancel = "job-cancel",
    /// A limit was set in place of the declared one.
    LimitSet = "limit-set",
    /// A limit that had been set was removed.
    LimitCleared = "limit-cleared",
    /// Jobs were held.
    HoldSet = "hold-set",
    /// A hold was released.
    HoldReleased = "hold-released",
    /// A failure group was declared resolved.
    FailureResolved = "failure-resolved",
    /// A failure group was declared to need nobody's attention.
    FailureIgnored = "failure-ignored",
    /// A failure group was opened again.
    FailureReopened = "failure-reopened",
    /// A bulk operation was started.
    OperationStarted = "operation-started",
    /// A bulk operation was cancelled before it had gone through all jobs.
    OperationCancelled = "operation-cancelled",
    /// A bulk operation has ended: it has gone through all jobs, or was halted.
    OperationEnded = "operation-ended",
    /// A schedule was created, or got another definition.
    ScheduleSet = "schedule-set",
    /// A schedule was deleted.
    ScheduleRemoved = "schedule-removed",
    /// A schedule was retired: no host's file has it any more.
    ScheduleRetired = "schedule-retired",
    /// A job of a schedule was enqueued at once.
    ScheduleRun = "schedule-run",
    /// A schedule was paused.
    SchedulePaused = "schedule-paused",
    /// A schedule's pause was ended.
    ScheduleResumed = "schedule-resumed",
    /// A node was drained: it claims no jobs until it is resumed or starts again.
    NodeDrained = "node-drained",
    /// A drained node claims jobs again.
    NodeResumed = "node-resumed",
    /// A host read its settings again, and they were other ones.
    SettingsChanged = "settings-changed",
}

/// An act that is not stored yet. Its texts are bounded and have no control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAct {
    author: Author,
    kind: ActKind,
    target: String,
    detail: String,
    count: u64,
}

impl NewAct {
    /// Returns an act. `target` says on what: a job's ID, a scope such as "group:G key:K", a filter; `detail` says the rest in
    /// words; `count` is the number of things that changed.
    pub fn new(author: Author, kind: ActKind, target: &str, detail: &str, count: u64) -> NewAct {
        let target = bounded(target, bounds::ACT_TARGET_BYTES_MAX);
        let detail = bounded(detail, bounds::ACT_DETAIL_BYTES_MAX);
        NewAct { author, kind, target, detail, count }
    }

    /// Returns the act of an operator who caused this event; `None` for an event that no operator causes.
    pub fn of_event(author: Author, job: JobId, event: &Event) -> Option<NewAct> {
        let (kind, detail) = match event {
            Event::CancelRequested => (ActKind::JobCancel, String::new()),
            Event::RetryRequested { attempts, .. } if *attempts > 1 => {
                (ActKind::JobRetry, format!("{attempts} attempts"))
            }
            Event::RetryRequested { .. } => (ActKind::JobRetry, String::new()),
            _ => return None,
        };
        Some(NewAct::new(author, kind, &job.to_string(), &detail, 1))
    }

    /// Returns the act of an operator who set an override, or removed it if it has no limits.
    pub fn of_override(author: Author, change: &Override) -> NewAct {
        let number = |name: &str, limit: Option<u32>| limit.map(|limit| format!("{name} {limit}"));
        let Limits { per_key, total } = change.limits;
        let numbers: Vec<String> = [number("per key", per_key), number("total", total)].into_iter().flatten().collect();
        let kind = if numbers.is_empty() { ActKind::LimitCleared } else { ActKind::LimitSet };
        NewAct::new(author, kind, &lane_text(&change.group, change.key.as_ref()), &numbers.join(", "), 1)
    }

    /// Returns the act of an operator who set this hold; `None` if a plugin set it: the list of holds names the plugin.
    pub fn of_hold(author: Author, hold: &Hold) -> Option<NewAct> {
        if author.is_plugin() {
            return None;
        }
        let length = match hold.until {
            Some(until) => format!("for {}", length_text(shown_length(until.since(hold.since)))),
            None => "until it is released".to_owned(),
        };
        let reason = hold.reason.as_str();
        let detail = if reason.is_empty() { length } else { format!("{length}: {reason}") };
        Some(NewAct::new(author, ActKind::HoldSet, &hold.scope.to_string(), &detail, 1))
    }

    /// Returns the act of an operator who released the hold of this scope.
    pub fn of_release(author: Author, scope: &HoldScope) -> NewAct {
        NewAct::new(author, ActKind::HoldReleased, &scope.to_string(), "", 1)
    }

    /// Returns the act of an operator who set the state of a failure group.
    pub fn of_failure(author: Author, group: Fingerprint, state: FailureState) -> NewAct {
        let kind = match state {
            FailureState::Open => ActKind::FailureReopened,
            FailureState::Resolved => ActKind::FailureResolved,
            FailureState::Ignored => ActKind::FailureIgnored,
        };
        NewAct::new(author, kind, &group.to_string(), "", 1)
    }

    /// Returns the act of an operator who started this operation, or who cancelled it.
    pub fn of_operation(author: Author, operation: &BulkOperation) -> NewAct {
        let kind = match operation.state.is_final() {
            false => ActKind::OperationStarted,
            true => ActKind::OperationCancelled,
        };
        let detail = format!("{} where {}", operation.act_text(), operation.filter);
        NewAct::new(author, kind, &operation.id.to_string(), &detail, operation.changed)
    }

    /// Returns the act of an operator who drained a node, or had it claim jobs again.
    pub fn of_drain(author: Author, (node, name): (NodeId, &str), drained: bool) -> NewAct {
        let kind = if drained { ActKind::NodeDrained } else { ActKind::NodeResumed };
        NewAct::new(author, kind, name, &format!("node {node}"), 1)
    }

    /// Returns the act that says what an operation has changed which its last step ended; `None` if the operation has not ended. The author
    /// is who started it.
    pub fn of_ended_operation(operation: &BulkOperation) -> Option<NewAct> {
        if !operation.state.is_final() {
            return None;
        }
        let author = Author::from_parts(operation.author.as_deref(), None);
        let (act, filter) = (operation.act_text(), &operation.filter);
        let detail = format!("{}, {} skipped: {act} where {filter}", operation.state.as_str(), operation.skipped);
        Some(NewAct::new(author, ActKind::OperationEnded, &operation.id.to_string(), &detail, operation.changed))
    }

    /// Returns an act about this schedule.
    pub fn of_schedule(author: Author, kind: ActKind, schedule: &Schedule, detail: &str) -> NewAct {
        let what = format!("{} at {}", schedule.spec.task, schedule.spec.timing);
        let detail = if detail.is_empty() { what } else { format!("{what}: {detail}") };
        NewAct::new(author, kind, schedule.id.as_str(), &detail, 1)
    }

    /// Returns the act of a firing: an operator ran the schedule now, or it paused since its jobs fail; `None` for one by the
    /// clock.
    pub fn of_firing(firing: &ScheduleFiring, fired: &Fired) -> Option<NewAct> {
        let job = fired.run.as_ref().and_then(|run| run.job).map(|job| format!("job {job}"));
        let reason = fired.schedule.pause.as_ref().map(|pause| pause.reason.as_str()).unwrap_or_default();
        match (&firing.by, fired.paused) {
            (Some(by), _) => {
                let detail = job.unwrap_or_default();
                Some(NewAct::of_schedule(by.clone(), ActKind::ScheduleRun, &fired.schedule, &detail))
            }
            (None, true) => {
                Some(NewAct::of_schedule(Author::anyone(), ActKind::SchedulePaused, &fired.schedule, reason))
            }
            (None, false) => None,
        }
    }

    /// Returns the stored act.
    pub fn stored(self, id: ActId) -> Act {
        let NewAct { author, kind, target, detail, count } = self;
        Act { id, author, kind, target, detail, count }
    }

    /// Returns the author.
    pub fn author(&self) -> &Author {
        &self.author
    }

    /// Returns the kind.
    pub fn kind(&self) -> ActKind {
        self.kind
    }

    /// Returns the target, of at most `bounds::ACT_TARGET_BYTES_MAX` bytes.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns the detail, of at most `bounds::ACT_DETAIL_BYTES_MAX` bytes; may be empty.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns the number of things that changed.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// Returns the length of a hold as its act shows it: in whole seconds from a minute on, and where it is some milliseconds beside a whole
/// second, since a person may have named the moment of its end; otherwise in milliseconds.
fn shown_length(length: Duration) -> Duration {
    const LONG: Duration = Duration::from_secs(60);
    const NEAR: Duration = Duration::from_millis(10);
    let seconds = Duration::from_secs((length + Duration::from_millis(500)).as_secs());
    let millis = Duration::from_millis((length + Duration::from_micros(500)).as_millis() as u64);
    if length >= LONG || !seconds.is_zero() && length.abs_diff(seconds) <= NEAR {
        seconds
    } else if millis.is_zero() {
        length
    } else {
        millis
    }
}

/// Returns the text of a limit group, or of one key of it, as holds write it.
fn lane_text(group: &Group, key: Option<&Key>) -> String {
    match key.cloned() {
        Some(key) => HoldScope::Key { group: Some(group.clone()), key }.to_string(),
        None => HoldScope::Group(group.clone()).to_string(),
    }
}

/// An act in the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// The act's ID.
    pub id: ActId,
    /// The author.
    pub author: Author,
    /// The kind.
    pub kind: ActKind,
    /// The target, as a text.
    pub target: String,
    /// The rest in words; may be empty.
    pub detail: String,
    /// The number of things that changed.
    pub count: u64,
}

/// The ID of an act: its time and a number that tells apart the acts of one moment. IDs sort by time. The text of an ID is
/// both in hexadecimal, such as "62f1c4a9b2e40-2a".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActId {
    /// The time of the act, by the store's clock.
    pub at: Timestamp,
    /// The number.
    pub number: u64,
}

impl fmt::Display for ActId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.at.as_micros(), self.number)
    }
}

impl FromStr for ActId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<ActId, ParseIdError> {
        let number = |text: &str| u64::from_str_radix(text, 16).ok().filter(|number| i64::try_from(*number).is_ok());
        let parts = text.split_once('-').and_then(|(at, of)| Some((number(at)?, number(of)?)));
        let (at, number) =
            parts.ok_or_else(|| ParseIdError::new("ID of an act", text, "expected the ID of an act in a list"))?;
        Ok(ActId { at: Timestamp::from_micros(at), number })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bulk::{BulkAct, NewOperation, OperationState};
    use crate::find::JobQuery;
    use crate::hold::{HoldLength, NewHold};

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn ann() -> Author {
        Author::token("ann").at_address("10.0.0.1")
    }

    #[test]
    fn every_kind_has_a_name_of_its_own_and_a_name_of_a_newer_version_is_known_as_such() {
        for kind in ActKind::ALL {
            assert_eq!(ActKind::from_name(kind.as_str()), *kind);
        }
        assert_eq!(ActKind::from_name("moon-landed"), ActKind::Other);
        assert!(!ActKind::ALL.contains(&ActKind::Other));
    }

    #[test]
    fn only_events_of_operators_are_acts() {
        let job = JobId::from_number(7).unwrap();
        let kind = |event| NewAct::of_event(ann(), job, &event).map(|act| act.kind());
        assert_eq!(kind(Event::CancelRequested), Some(ActKind::JobCancel));
        assert_eq!(kind(Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }), Some(ActKind::JobRetry));
        assert_eq!(kind(Event::Replaced), None);
        let retry = |attempts| NewAct::of_event(ann(), job, &Event::RetryRequested { delay: Duration::ZERO, attempts });
        assert_eq!([1, 50].map(|attempts| retry(attempts).unwrap().detail().to_owned()), ["", "50 attempts"]);
        let act = NewAct::of_event(ann(), job, &Event::CancelRequested).unwrap();
        assert_eq!((act.target(), act.count(), act.author()), (job.to_string().as_str(), 1, &ann()));
    }

    #[test]
    fn an_operation_that_has_ended_says_what_it_changed() {
        let new = NewOperation::at_once(
            JobId::from_number(7).unwrap(),
            BulkAct::Delete,
            JobQuery::parse("key:acme", NOW).unwrap(),
            ann(),
        );
        let open = new.started_at(NOW);
        assert_eq!(NewAct::of_ended_operation(&open), None);
        let done = BulkOperation { state: OperationState::Done, changed: 1_000_000, skipped: 3, ..open };
        let act = NewAct::of_ended_operation(&done).unwrap();
        assert_eq!((act.kind(), act.count(), act.author().name()), (ActKind::OperationEnded, 1_000_000, Some("ann")));
        assert_eq!(act.detail(), "done, 3 skipped: delete where key:acme");
    }

    #[test]
    fn each_state_of_a_failure_group_is_an_act_of_its_own() {
        let group: Fingerprint = "f1:00ff3ad41b2c9e07".parse().unwrap();
        let acts = FailureState::ALL.map(|state| NewAct::of_failure(ann(), group, state));
        let kinds = acts.each_ref().map(|act| act.kind().as_str());
        assert_eq!(kinds, ["failure-reopened", "failure-resolved", "failure-ignored"]);
        assert!(acts.iter().all(|act| act.target() == group.to_string()));
    }

    #[test]
    fn an_act_says_what_was_set_and_for_how_long() {
        let change = |per_key, total, key: Option<&str>| {
            let (group, key) = ("words/count".parse().unwrap(), key.map(|key| key.parse().unwrap()));
            let act = NewAct::of_override(ann(), &Override { group, key, limits: Limits { per_key, total } });
            (act.kind(), act.target().to_owned(), act.detail().to_owned())
        };
        let of = |kind, target: &str, detail: &str| (kind, target.to_owned(), detail.to_owned());
        assert_eq!(change(Some(2), Some(5), None), of(ActKind::LimitSet, "group:words/count", "per key 2, total 5"));
        assert_eq!(change(Some(0), None, Some("a b")), of(ActKind::LimitSet, "group:words/count key:a b", "per key 0"));
        assert_eq!(change(None, None, None), of(ActKind::LimitCleared, "group:words/count", ""));

        let hold = |length, reason: &str| {
            let reason = reason.parse().unwrap();
            let new = NewHold { scope: HoldScope::All, length, reason, by: ann() };
            NewAct::of_hold(ann(), &new.set_at(NOW)).unwrap().detail().to_owned()
        };
        assert_eq!(hold(None, ""), "until it is released");
        assert_eq!(hold(Some(HoldLength::For(Duration::from_secs(90))), "429"), "for 90s: 429");
        assert_eq!(hold(Some(HoldLength::Until(NOW + Duration::from_secs(5))), ""), "for 5s");
        let until = |micros| hold(Some(HoldLength::Until(NOW + Duration::from_micros(micros))), "");
        assert_eq!(until(599_999_123), "for 10m", "a person named the end");
        assert_eq!((until(4_990_123), until(5_009_999)), ("for 5s".to_owned(), "for 5s".to_owned()));
        assert_eq!((until(1_500_000), until(1_499_600)), ("for 1500ms".to_owned(), "for 1500ms".to_owned()));
        assert_eq!((until(4_980_000), until(250_000)), ("for 4980ms".to_owned(), "for 250ms".to_owned()));
        assert_eq!((until(792_345_678), until(120)), ("for 792s".to_owned(), "for 120us".to_owned()));
    }

    #[test]
    fn hostile_texts_are_bounded_and_without_control_characters() {
        let hostile = "\u{1b}[2J\n".repeat(10_000);
        let act = NewAct::new(ann(), ActKind::SettingsChanged, &hostile, &hostile, 1);
        assert!(
            act.target().len() <= bounds::ACT_TARGET_BYTES_MAX && act.detail().len() <= bounds::ACT_DETAIL_BYTES_MAX
        );
        assert!(!act.target().chars().chain(act.detail().chars()).any(char::is_control));
    }

    #[test]
    fn ids_sort_by_time_and_read_back() {
        let id = |at, number| ActId { at: Timestamp::from_micros(at), number };
        assert!(id(1, 9) < id(2, 1) && id(2, 1) < id(2, 2));
        for one in [id(0, 0), id(1_700_000_000_123_456, 42), id(i64::MAX as u64, i64::MAX as u64)] {
            assert_eq!(one.to_string().parse::<ActId>().unwrap(), one);
        }
        for bad in ["", "-", "1", "1-", "x-1", "1-2-3", "ffffffffffffffff-1"] {
            assert!(bad.parse::<ActId>().is_err(), "{bad}");
        }
    }
}
