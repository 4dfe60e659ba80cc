//! Failure groups: the jobs that failed with one fingerprint, and the state that operators set.

use std::sync::Arc;
use std::time::Duration;

use crate::attempt::AttemptOrigin;
use crate::bounds;
use crate::change::Change;
use crate::fingerprint::{self, Fingerprint};
use crate::ids::{JobId, TaskName};
use crate::job::State;
use crate::key::Key;
use crate::outcome::OutcomeKind;
use crate::time::Timestamp;

/// The state of a failure group, which operators set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureState {
    /// Nobody has dealt with the group, or it came back after it was resolved.
    #[default]
    Open,
    /// The cause is removed. A failure by a digest that the store saw first after this opens the group again.
    Resolved,
    /// The group needs nobody's attention, whatever happens.
    Ignored,
}

impl FailureState {
    /// All states.
    pub const ALL: [FailureState; 3] = [FailureState::Open, FailureState::Resolved, FailureState::Ignored];

    /// Returns the name used in rows, JSON and filters. A name never changes once it is released.
    pub const fn as_str(self) -> &'static str {
        match self {
            FailureState::Open => "open",
            FailureState::Resolved => "resolved",
            FailureState::Ignored => "ignored",
        }
    }

    /// Returns the state with this name.
    pub fn from_name(name: &str) -> Option<FailureState> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// The last change of a group's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureStateChange {
    /// When the state changed, by the store's clock.
    pub at: Timestamp,
    /// The name of the operator's token. `None` if the host knows none, or if a regression opened the group.
    pub by: Option<String>,
}

/// A failure group, without what it has for each version and job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureGroup {
    /// The fingerprint of its failures.
    pub fingerprint: Fingerprint,
    /// The task of its jobs.
    pub task: TaskName,
    /// The outcome of their last attempts.
    pub outcome: OutcomeKind,
    /// The first line of their reports, without what differs from job to job.
    pub message: String,
    /// Number of times that a job failed. A job that was retried and failed again counts again.
    pub count: u64,
    /// Number of different keys of the jobs, counted up to `bounds::FAILURE_KEYS_MAX`.
    pub keys: u32,
    /// When a job failed first, by the store's clock.
    pub first_seen: Timestamp,
    /// When a job failed last, by the store's clock.
    pub last_seen: Timestamp,
    /// The state of the group.
    pub state: FailureState,
    /// The last change of the state; `None` if there was none.
    pub changed: Option<FailureStateChange>,
    /// When the group last came back after it was resolved.
    pub regressed: Option<Timestamp>,
}

/// The failures of one group by one version of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureVersion {
    /// The digest of the plugin's file.
    pub digest: String,
    /// The version of the plugin, from its manifest.
    pub version: String,
    /// Number of times that a job failed with this digest.
    pub count: u64,
    /// When a job failed first with this digest.
    pub first_seen: Timestamp,
    /// When a job failed last with this digest.
    pub last_seen: Timestamp,
}

/// A job of a failure group, as an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureSample {
    /// The job.
    pub job: JobId,
    /// When the job failed.
    pub at: Timestamp,
    /// The first line of its report, of at most `bounds::FAILURE_SAMPLE_BYTES_MAX` bytes.
    pub message: String,
}

/// A failure group with its versions and samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureDetails {
    /// The group.
    pub group: FailureGroup,
    /// The versions that failed last, the last one first: at most `bounds::FAILURE_VERSIONS_MAX`.
    pub versions: Vec<FailureVersion>,
    /// The jobs that failed last, the last one first: at most `bounds::FAILURE_SAMPLES_MAX`. Deleted jobs are not among them.
    pub samples: Vec<FailureSample>,
}

/// A job that failed just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFailure {
    /// The fingerprint of the failure.
    pub fingerprint: Fingerprint,
    /// The job's task.
    pub task: TaskName,
    /// The outcome of the last attempt.
    pub outcome: OutcomeKind,
    /// The first line of the report, without what differs from job to job.
    pub message: String,
    /// The job, as an example.
    pub sample: FailureSample,
    /// The hash of the job's key; `None` if the job has none. Keys are counted and not kept.
    pub key_hash: Option<u64>,
    /// The node and the plugin of the last attempt; `None` if the node did not record the end.
    pub origin: Option<Arc<AttemptOrigin>>,
}

impl NewFailure {
    /// Returns the failure that a change of a job is; `None` if the job did not fail by it.
    pub fn of(job: JobId, task: &TaskName, key: Option<&Key>, change: &Change, now: Timestamp) -> Option<NewFailure> {
        let (Some(attempt), Some(report), State::Failed) = (&change.unsuccessful, &change.report, change.status.state)
        else {
            return None;
        };
        let first = report.text.lines().next().unwrap_or_default();
        let message = first[..first.floor_char_boundary(bounds::FAILURE_SAMPLE_BYTES_MAX)].to_owned();
        Some(NewFailure {
            fingerprint: Fingerprint::of(task, report),
            task: task.clone(),
            outcome: report.kind,
            message: fingerprint::normalised_message(report),
            sample: FailureSample { job, at: now, message },
            key_hash: key.map(|key| fingerprint::hash(key.as_str())),
            origin: attempt.origin.clone(),
        })
    }
}

impl FailureGroup {
    /// Returns the group of a failure that has none yet. It counts nothing.
    pub fn new(failure: &NewFailure) -> FailureGroup {
        FailureGroup {
            fingerprint: failure.fingerprint,
            task: failure.task.clone(),
            outcome: failure.outcome,
            message: failure.message.clone(),
            count: 0,
            keys: 0,
            first_seen: failure.sample.at,
            last_seen: failure.sample.at,
            state: FailureState::Open,
            changed: None,
            regressed: None,
        }
    }

    /// Counts a failure at `now`. `digest_seen` is when the store saw the digest first that failed; `None` if nobody knows
    /// which that was. Returns true if the failure is a regression, which opens the group again.
    ///
    /// A digest that the store knew when the group was resolved may still run on nodes that get the next one later: its
    /// failures are no regression.
    pub fn count(&mut self, digest_seen: Option<Timestamp>, now: Timestamp) -> bool {
        self.count = self.count.saturating_add(1);
        self.last_seen = self.last_seen.max(now);
        let resolved = self.changed.as_ref().filter(|_| self.state == FailureState::Resolved).map(|change| change.at);
        let regresses = resolved.zip(digest_seen).is_some_and(|(resolved, seen)| seen > resolved);
        if regresses {
            self.state = FailureState::Open;
            self.changed = Some(FailureStateChange { at: now, by: None });
            self.regressed = Some(now);
        }
        regresses
    }

    /// Sets the state at `now`, as an operator wants. `newest_digest` is when the store saw the newest digest of the plugin first: a resolve is later
    /// than all of these, though the clock was set back since.
    pub fn set_state(
        &mut self,
        state: FailureState,
        by: Option<String>,
        now: Timestamp,
        newest_digest: Option<Timestamp>,
    ) {
        let at = newest_digest.filter(|_| state == FailureState::Resolved).map_or(now, |newest| newest.max(now));
        self.state = state;
        self.changed = Some(FailureStateChange { at, by });
    }
}

/// Returns when a digest of a plugin is seen first that no host had loaded before `now`. `resolved` is the last moment at which a group of the
/// plugin was resolved that still is: the digest is later, though the clock was set back since.
pub fn digest_first_seen(now: Timestamp, resolved: Option<Timestamp>) -> Timestamp {
    resolved.map_or(now, |resolved| now.max(resolved + Duration::from_micros(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use crate::job::JobStatus;
    use crate::lease::Lease;
    use crate::lifecycle::Event;
    use crate::outcome::{Report, Usage};

    const SECOND: Duration = Duration::from_secs(1);
    const NOW: Timestamp = Timestamp::from_millis(100_000);

    fn failure(retry_in: Option<Duration>) -> Option<NewFailure> {
        let job = JobId::from_number(7).unwrap();
        let lease = Lease { job, attempt: 1, node: NodeId(1), until: NOW };
        let running = JobStatus::new(NOW).after(&Event::Claimed { lease }, NOW).unwrap();
        let report = Report { kind: OutcomeKind::Failed, text: format!("no order 17 {}\nmore", "é".repeat(2000)) };
        let event = Event::Failed { attempt: 1, report, retry_in, usage: Usage::default(), origin: None };
        let change = Change::of(&running, &event, NOW).unwrap();
        NewFailure::of(job, &"shop/pay".parse().unwrap(), Some(&"acme".parse().unwrap()), &change, NOW)
    }

    #[test]
    fn only_a_job_that_failed_for_good_is_a_failure_and_its_sample_is_short() {
        assert_eq!(failure(Some(SECOND)), None);
        let failure = failure(None).unwrap();
        assert!(failure.message.starts_with("no order # é") && failure.sample.message.starts_with("no order 17 é"));
        assert!(failure.sample.message.len() <= bounds::FAILURE_SAMPLE_BYTES_MAX && !failure.message.contains("more"));
        assert_eq!(failure.key_hash, Some(fingerprint::hash("acme")));
    }

    #[test]
    fn a_failure_by_a_digest_that_came_after_the_resolve_is_a_regression_and_one_of_a_rolling_upgrade_is_none() {
        let mut group = FailureGroup::new(&failure(None).unwrap());
        assert!(!group.count(Some(NOW), NOW));
        group.set_state(FailureState::Resolved, Some("ann".to_owned()), NOW + SECOND, Some(NOW));
        for old in [None, Some(NOW), Some(NOW + SECOND)] {
            assert!(!group.count(old, NOW + 9 * SECOND), "{old:?}");
        }
        assert_eq!((group.state, group.count), (FailureState::Resolved, 4));
        assert!(group.count(Some(NOW + 2 * SECOND), NOW + 9 * SECOND));
        assert_eq!((group.state, group.regressed), (FailureState::Open, Some(NOW + 9 * SECOND)));
        assert!(!group.count(Some(NOW + 2 * SECOND), NOW + 10 * SECOND), "it is told once");
        group.set_state(FailureState::Ignored, None, NOW + 11 * SECOND, Some(NOW + 12 * SECOND));
        assert!(!group.count(Some(NOW + 12 * SECOND), NOW + 13 * SECOND));
        assert_eq!((group.state, group.last_seen, group.count), (FailureState::Ignored, NOW + 13 * SECOND, 7));
    }

    #[test]
    fn a_resolve_and_a_digest_are_in_their_order_whatever_the_clock_says() {
        let mut group = FailureGroup::new(&failure(None).unwrap());
        let ahead = NOW + 3600 * SECOND;
        group.set_state(FailureState::Resolved, None, NOW, Some(ahead));
        assert!(!group.count(Some(ahead), NOW), "the digest was there");
        let resolved = group.changed.clone().unwrap().at;
        assert_eq!(resolved, ahead);
        assert_eq!(digest_first_seen(NOW, None), NOW);
        assert!(group.count(Some(digest_first_seen(NOW, Some(resolved))), NOW));
        group.set_state(FailureState::Ignored, None, NOW, Some(ahead));
        assert_eq!(group.changed.unwrap().at, NOW);
    }

    #[test]
    fn a_clock_that_is_set_back_takes_nothing_back() {
        let mut group = FailureGroup::new(&failure(None).unwrap());
        group.count(None, NOW - SECOND);
        assert_eq!((group.first_seen, group.last_seen), (NOW, NOW));
    }

    #[test]
    fn each_state_has_a_name() {
        assert_eq!(FailureState::ALL.map(FailureState::as_str), ["open", "resolved", "ignored"]);
        assert_eq!(["open", "resolved", "ignored"].map(FailureState::from_name), FailureState::ALL.map(Some));
        assert_eq!(FailureState::from_name("closed"), None);
    }
}
