//! Conditions on jobs. A job meets a query if it meets each of its conditions; an empty list is no condition.

use std::fmt;

use super::digest_prefix::DigestPrefix;
use super::json_path::JsonPath;
use super::moment::format_moment;
use super::wait_kind::{WaitKind, WaitView};
use crate::bounds;
use crate::fingerprint::Fingerprint;
use crate::ids::{JobId, PluginId, TaskName};
use crate::job::{Job, State, StateName};
use crate::key::Key;
use crate::outcome::OutcomeKind;
use crate::time::Timestamp;

/// A state in a query: a state of the lifecycle, or one kind of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFilter {
    /// Jobs in this state.
    State(StateName),
    /// Waiting jobs that wait for this reason.
    Waiting(WaitKind),
}

impl StateFilter {
    /// Returns the name used in filters.
    pub const fn as_str(self) -> &'static str {
        match self {
            StateFilter::State(state) => state.as_str(),
            StateFilter::Waiting(kind) => kind.as_str(),
        }
    }

    /// Returns every value, in the order of a job's life.
    pub fn all() -> impl Iterator<Item = StateFilter> {
        WaitKind::ALL.map(StateFilter::Waiting).into_iter().chain(StateName::ALL.map(StateFilter::State))
    }

    /// Returns the state of the lifecycle.
    pub const fn state(self) -> StateName {
        match self {
            StateFilter::State(state) => state,
            StateFilter::Waiting(_) => StateName::Waiting,
        }
    }
}

/// Conditions on jobs, as [`JobQuery::parse`] reads them. Its text reads back as an equal query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobQuery {
    pub(super) states: Vec<StateFilter>,
    pub(super) ids: Vec<JobId>,
    pub(super) tasks: Vec<TaskName>,
    pub(super) plugins: Vec<PluginId>,
    /// `None` stands for jobs without a key.
    pub(super) keys: Vec<Option<Key>>,
    pub(super) batch: Option<JobId>,
    pub(super) parent: Option<JobId>,
    pub(super) outcomes: Vec<OutcomeKind>,
    pub(super) fingerprints: Vec<Fingerprint>,
    /// The beginnings of digests.
    pub(super) digests: Vec<DigestPrefix>,
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
    pub(super) finished_since: Option<Timestamp>,
    pub(super) finished_until: Option<Timestamp>,
    pub(super) text: Option<String>,
    pub(super) payload: Vec<(JsonPath, String)>,
}

/// A job that may meet a query.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'j> {
    /// The job, with or without its payload.
    pub job: &'j Job,
    /// Its payload.
    pub payload: &'j [u8],
    /// The digests of its plugin in its attempts that ended without a result; only needed if [`JobQuery::digests`] has some.
    pub digests: &'j [String],
    /// False if the job waits and may not start yet, as far as its store has noticed.
    pub is_due: bool,
}

impl JobQuery {
    /// Returns true if every job meets the query.
    pub fn is_empty(&self) -> bool {
        *self == JobQuery::default()
    }

    /// Returns the query with the further condition that jobs have this key; `None` if no job meets both.
    pub fn with_key(mut self, key: &Key) -> Option<JobQuery> {
        let key = Some(key.clone());
        if !self.keys.is_empty() && !self.keys.contains(&key) {
            return None;
        }
        self.keys = vec![key];
        Some(self)
    }

    /// Returns the query with the further condition that jobs are in one of these states; `None` if no job meets both.
    pub fn with_states(mut self, states: &[StateFilter]) -> Option<JobQuery> {
        if self.states.is_empty() {
            self.states = states.to_vec();
            return Some(self);
        }
        let (wanted, allowed) = (narrowest(&self.states), narrowest(states));
        self.states = wanted.into_iter().filter(|state| allowed.contains(state)).collect();
        let kinds = |states: &[StateFilter]| states.iter().filter(|state| state.state() == StateName::Waiting).count();
        if kinds(&self.states) == WaitKind::ALL.len() {
            self.states.retain(|state| state.state() != StateName::Waiting);
            self.states.push(StateFilter::State(StateName::Waiting));
        }
        if self.states.is_empty() { None } else { Some(self) }
    }

    /// Returns false if no job in this state meets the query.
    pub fn may_be(&self, state: StateName) -> bool {
        let is_wanted = self.states.is_empty() || self.states.iter().any(|wanted| wanted.state() == state);
        let has_ended = self.finished_since.is_some() || self.finished_until.is_some();
        is_wanted
            && (state.is_final() || !has_ended)
            && (self.text.is_none() || state != StateName::Succeeded)
            && (self.fingerprints.is_empty() || state == StateName::Failed)
            && any(&self.outcomes, |kind| (*kind == OutcomeKind::Returned) == (state == StateName::Succeeded))
    }

    /// Returns true if the query asks why jobs wait that are due, so that it needs a [`WaitView`].
    pub fn needs_wait_view(&self) -> bool {
        use WaitKind as W;
        self.states.iter().any(|state| matches!(state, StateFilter::Waiting(W::Ready | W::Blocked | W::Held)))
    }

    /// Returns true if the query has an upper end of the times at which jobs were enqueued.
    pub fn has_until(&self) -> bool {
        self.until.is_some()
    }

    /// Returns true if the query needs the payloads of jobs.
    pub fn needs_payload(&self) -> bool {
        !self.payload.is_empty()
    }

    /// Returns true if it may take milliseconds to see whether one job meets the query, since a text of the job is searched.
    pub fn reads_texts(&self) -> bool {
        self.needs_payload() || self.text.is_some()
    }

    /// Returns the jobs to which the query is limited by their IDs, in no particular order; empty if it is not.
    pub fn ids(&self) -> &[JobId] {
        &self.ids
    }

    /// Returns the durable broadcast to whose jobs the query is limited.
    pub fn batch(&self) -> Option<JobId> {
        self.batch
    }

    /// Returns the fingerprints to whose jobs the query is limited; empty if it is not.
    pub fn fingerprints(&self) -> &[Fingerprint] {
        &self.fingerprints
    }

    /// Returns the digests of plugins to which the query is limited: a job meets it if an attempt that ended without a result ran
    /// with a plugin whose digest begins like one of them. Empty if the query is not limited.
    pub fn digests(&self) -> &[DigestPrefix] {
        &self.digests
    }

    /// Returns the job to whose children the query is limited.
    pub fn parent(&self) -> Option<JobId> {
        self.parent
    }

    /// Returns the tasks and the plugins to whose jobs the query is limited. An empty list is no limit.
    pub fn tasks_and_plugins(&self) -> (&[TaskName], &[PluginId]) {
        (&self.tasks, &self.plugins)
    }

    /// Returns the keys to whose jobs the query is limited; empty if it is not.
    pub fn keys(&self) -> &[Option<Key>] {
        &self.keys
    }

    /// Returns the times between which jobs finished: from the first, before the second.
    pub fn finished(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        (self.finished_since, self.finished_until)
    }

    /// Returns the lowest ID that a job which meets the query may have, and the ID below which all of them are.
    ///
    /// IDs grow with time, but an ID may have been made some time before its job was enqueued, and clocks differ or are set: the
    /// range is wider than the query by `bounds::ID_SLACK` on both sides. If IDs are ahead of the clock ([`JobId::is_ahead`]), they say nothing about
    /// when jobs were enqueued before now, and the range has no upper end.
    pub fn id_range(&self, ids_are_ahead: bool) -> (u64, u64) {
        let lowest = self.since.map_or(0, |since| JobId::first_number_at(since - bounds::ID_SLACK));
        let until = self.until.filter(|_| !ids_are_ahead);
        let below = until.map_or(0, |until| JobId::first_number_at(until + bounds::ID_SLACK));
        (lowest, if below == 0 { u64::MAX >> 1 } else { below })
    }

    /// Returns true if the job meets every condition. `view` decides why waiting jobs wait.
    pub fn matches(&self, candidate: Candidate<'_>, view: &WaitView) -> bool {
        let Candidate { job, is_due, .. } = candidate;
        let state = job.status.state.name();
        self.meets_all_but_kinds(candidate)
            && any(&self.states, |wanted| match wanted {
                StateFilter::State(wanted) => *wanted == state,
                StateFilter::Waiting(kind) => {
                    matches!(job.status.state, State::Waiting { .. }) && view.kind(job, is_due) == *kind
                }
            })
    }

    /// Returns true if the job meets every condition but those on why it waits: one of them may be met if it waits.
    pub(super) fn meets_all_but_kinds(&self, candidate: Candidate<'_>) -> bool {
        let Candidate { job, payload, digests, .. } = candidate;
        self.may_be(job.status.state.name())
            && any(&self.ids, |id| *id == job.id)
            && any(&self.tasks, |task| *task == job.task)
            && any(&self.plugins, |plugin| job.task.plugin() == *plugin)
            && any(&self.keys, |key| *key == job.lane.key)
            && self.batch.is_none_or(|batch| job.batch.as_ref().is_some_and(|of| of.id == batch))
            && self.parent.is_none_or(|parent| job.lineage.parent == Some(parent))
            && self.since.is_none_or(|since| job.enqueued_at >= since)
            && self.until.is_none_or(|until| job.enqueued_at < until)
            && self.finished_since.is_none_or(|since| job.finished_at.is_some_and(|at| at >= since))
            && self.finished_until.is_none_or(|until| job.finished_at.is_some_and(|at| at < until))
            && any(&self.outcomes, |kind| outcome(job) == Some(*kind))
            && any(&self.fingerprints, |fingerprint| job.fingerprint == Some(*fingerprint))
            && any(&self.digests, |wanted| digests.iter().any(|digest| wanted.begins(digest)))
            && self.text.as_ref().is_none_or(|text| {
                job.report.as_ref().is_some_and(|report| contains(report.text.as_bytes(), text.as_bytes()))
            })
            && self.payload.iter().all(|(path, wanted)| path.finds(payload, wanted))
    }
}

/// Returns these states with each kind of waiting in place of `waiting`, each once.
fn narrowest(states: &[StateFilter]) -> Vec<StateFilter> {
    let has = |state: StateFilter| states.contains(&state) || states.contains(&StateFilter::State(state.state()));
    let whole = StateFilter::State(StateName::Waiting);
    StateFilter::all().filter(|state| *state != whole && has(*state)).collect()
}

fn any<T>(wanted: &[T], is: impl FnMut(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(is)
}

/// Returns how a job's last attempt ended that counts: a job that succeeded after a failure returned.
fn outcome(job: &Job) -> Option<OutcomeKind> {
    match job.status.state {
        State::Succeeded => Some(OutcomeKind::Returned),
        _ => job.report.as_ref().map(|report| report.kind),
    }
}

/// Returns true if a text contains another one, whatever the case of ASCII letters.
fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

impl fmt::Display for JobQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut terms: Vec<String> = Vec::new();
        let mut list = |name: &str, values: Vec<String>| {
            if !values.is_empty() {
                let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
                terms.push(format!("{name}:{}", values.join(",")));
            }
        };
        let moment = |at: &Option<Timestamp>| at.map(format_moment).into_iter().collect();
        list("state", self.states.iter().map(|state| state.as_str().to_owned()).collect());
        list("id", texts(&self.ids));
        list("task", texts(&self.tasks));
        list("plugin", texts(&self.plugins));
        list("key", self.keys.iter().map(|key| key.as_ref().map(Key::to_string).unwrap_or_default()).collect());
        list("batch", texts(self.batch.as_slice()));
        list("parent", texts(self.parent.as_slice()));
        list("outcome", self.outcomes.iter().map(|kind| kind.as_str().to_owned()).collect());
        list("fingerprint", texts(&self.fingerprints));
        list("digest", texts(&self.digests));
        list("since", moment(&self.since));
        list("until", moment(&self.until));
        list("finished-since", moment(&self.finished_since));
        list("finished-until", moment(&self.finished_until));
        list("text", self.text.iter().cloned().collect());
        let payload = self.payload.iter();
        terms.extend(payload.map(|(path, value)| format!("payload.{}={}", quoted(&path.to_string()), quoted(value))));
        f.write_str(&terms.join(" "))
    }
}

fn texts<T: fmt::Display>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// Writes a value, in quotes if it needs them.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:+@~".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}
