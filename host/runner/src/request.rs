//! Requests to enqueue jobs, by clients and plugins, checked against the catalog: all problems at once, before anything is
//! written.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::bounds;
use wharf_core::ids::{Group, JobId, TaskName};
use wharf_core::job::{Due, Lineage, NewJob, Token};
use wharf_core::key::{Key, Lane};
use wharf_core::limits::OnConflict;
use wharf_core::schedule::TOKEN_PREFIX;
use wharf_core::time::Timestamp;
use wharf_engine::spec::payload::check_and_find;
use wharf_engine::{GuestJob, PayloadError, Task};
use wharf_store::{Store, StoreError};

use crate::other_nodes::{RemoteTask, TaskElsewhere};
use crate::plugin_view::{LoadingWhere, PluginView};
use crate::rejection::{BadRequest, EnqueueRejection, PROBLEMS_MAX};

/// A request to enqueue one job.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The task, such as "words/count".
    pub task: String,
    /// The payload, JSON or bytes as the task wants it.
    pub payload: Vec<u8>,
    /// The key, in place of the one that the task finds in the payload.
    pub key: Option<String>,
    /// The priority; jobs with a higher one start first.
    pub priority: i32,
    /// The job starts no earlier than this long after it was enqueued.
    pub delay: Option<Duration>,
    /// The job starts no earlier than this moment; excludes `delay`.
    pub at: Option<Timestamp>,
    /// The idempotency token: a second request with the same task, key and token adds no job.
    pub token: Option<String>,
    /// The only key that the client may enqueue jobs of. The job gets it if nothing else says a key; a request or payload that
    /// names another one is rejected.
    pub only_key: Option<Key>,
}

/// The jobs of valid requests.
pub(crate) struct Prepared {
    /// The jobs, each with the index of its request.
    pub(crate) jobs: Vec<(usize, NewJob)>,
    /// The requests whose task is not known here.
    pub(crate) absent: Vec<Absent>,
    /// Number of these jobs that have no token, by which a retry would find them.
    without_token: usize,
    /// The number of checks against schemas that the payloads so far may have taken.
    checks: u64,
    /// The limit groups of jobs whose task only other nodes have.
    pub(crate) groups_elsewhere: Vec<Group>,
}

/// A request for a task that is not known here.
pub(crate) struct Absent {
    pub(crate) index: usize,
    pub(crate) problem: BadRequest,
    /// The task and token by which the job may be known all the same, if it was enqueued earlier.
    pub(crate) token: Option<(TaskName, Token)>,
    /// The key of the request, or the only one that its client may use.
    pub(crate) key: Option<Key>,
    /// The payload. A job of the same token and without a key in its request is known by it, since only the task knows where
    /// the key stands in it.
    pub(crate) payload: Vec<u8>,
}

impl Prepared {
    /// Returns all jobs, in order.
    ///
    /// # Errors
    ///
    /// Returns the problems of the requests whose task is not known here.
    fn whole(self) -> Result<Vec<NewJob>, EnqueueRejection> {
        if self.absent.is_empty() {
            return Ok(self.jobs.into_iter().map(|(_, job)| job).collect());
        }
        Err(EnqueueRejection::of(self.absent.into_iter().map(|absent| (absent.index, absent.problem)).collect()))
    }
}

/// A task, on this node or another.
enum Target<'v> {
    Here(&'v Task),
    There(Arc<RemoteTask>),
}

impl Target<'_> {
    /// Checks a payload, and returns the key in it if `wants_key`. Adds to `checks` how many checks that may take; past the
    /// bound of them nothing is checked, and the caller rejects the whole request.
    fn read_payload(&self, payload: &[u8], wants_key: bool, checks: &mut u64) -> Result<Option<Key>, PayloadError> {
        if let Target::Here(task) = self {
            *checks += task.check_types(payload)?;
        }
        let (schema, pointer) = match self {
            Target::Here(task) => (task.schema.as_ref(), task.key.as_ref()),
            Target::There(task) => (task.schema()?, task.key()),
        };
        let counted = schema.map(|schema| (schema, schema.checks(payload)));
        // One that is refused for itself costs nothing.
        *checks += counted.map(|(_, wanted)| wanted).filter(|wanted| *wanted <= bounds::SCHEMA_CHECKS_MAX).unwrap_or(0);
        if *checks > bounds::BATCH_SCHEMA_CHECKS_MAX {
            return Ok(None);
        }
        check_and_find(counted, pointer.filter(|_| wants_key), payload)
    }

    /// Returns what a job of the task needs: its full name, its limit group, and what to do if its lane is full.
    fn job_terms(&self) -> (&TaskName, &Group, OnConflict) {
        match self {
            Target::Here(task) => (&task.name, &task.group, task.on_conflict),
            Target::There(task) => (&task.announcement.name, &task.announcement.group, task.announcement.on_conflict),
        }
    }
}

/// Returns an ID for each request. Requests beyond the limit get none: they are rejected later.
///
/// # Errors
///
/// Returns the store's error if it gives no IDs now.
pub(crate) fn draw_ids(store: &dyn Store, requests: usize) -> Result<Vec<JobId>, StoreError> {
    (0..requests.min(bounds::BATCH_JOBS_MAX)).map(|_| store.next_id()).collect()
}

/// Payloads that take longer than this to check, in checks, are checked apart: on the thread of a client's request or
/// of a guest they would delay others. It is about a tenth of a millisecond; to hand work to another thread and back
/// costs about a tenth of that.
const CHECKS_INLINE_MAX: u64 = 10_000;
/// Bytes of a payload that are read in the time of one check.
const BYTES_PER_CHECK: u64 = 8;

/// Returns true if reading and checking these payloads, each with its task, takes long enough to be done apart.
pub(crate) fn takes_long<'r>(view: &PluginView, payloads: impl Iterator<Item = (&'r str, &'r [u8])>) -> bool {
    let mut checks = 0_u64;
    for (task, payload) in payloads {
        checks = checks.saturating_add(payload.len() as u64 / BYTES_PER_CHECK);
        // Those past the bound of a payload, or of an unknown task, are rejected without a check.
        if checks > CHECKS_INLINE_MAX {
            return true;
        }
        let Ok(name) = task.parse::<TaskName>() else { continue };
        let wanted = match view.catalog.task(&name) {
            Some((_, task)) => Some(task.checks(payload)),
            None => match view.others.task(&name, view.now) {
                TaskElsewhere::Known(task) => task.checks(payload),
                TaskElsewhere::Unknown(_) | TaskElsewhere::Nowhere => Some(0),
            },
        };
        let Some(wanted) = wanted else { return true };
        checks = checks.saturating_add(wanted);
    }
    checks > CHECKS_INLINE_MAX
}

/// Returns true if reading this many bytes takes long enough to be done apart.
pub(crate) fn takes_long_to_read(bytes: usize) -> bool {
    bytes as u64 / BYTES_PER_CHECK > CHECKS_INLINE_MAX
}

/// Returns true if two payloads are the same JSON, apart from white space between its tokens. Numbers and texts must be written
/// in the same way, since a key is found as it is written.
pub(crate) fn is_same_json(one: &[u8], other: &[u8]) -> bool {
    fn significant(json: &[u8]) -> impl Iterator<Item = u8> + '_ {
        let (mut in_string, mut is_escaped) = (false, false);
        json.iter().copied().filter(move |byte| {
            if !in_string {
                in_string = *byte == b'"';
                return !byte.is_ascii_whitespace();
            }
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            true
        })
    }
    significant(one).eq(significant(other))
}

/// Turns requests into jobs, each with one of `ids`: all or none.
///
/// # Errors
///
/// Returns every problem of every request, or that there are too many requests or bytes. A task that is not known here is a
/// problem only beside others; else it is returned as absent.
pub(crate) fn prepare(
    view: &PluginView,
    requests: Vec<Request>,
    ids: Vec<JobId>,
) -> Result<Prepared, EnqueueRejection> {
    if requests.len() > bounds::BATCH_JOBS_MAX {
        return Err(EnqueueRejection::TooMany { jobs: requests.len(), max: bounds::BATCH_JOBS_MAX });
    }
    let bytes: u64 = requests.iter().map(|request| request.payload.len() as u64).sum();
    if bytes > bounds::BATCH_BYTES_MAX {
        return Err(EnqueueRejection::TooLarge { bytes, max: bounds::BATCH_BYTES_MAX });
    }
    let jobs = Vec::with_capacity(requests.len());
    let mut prepared = Prepared { jobs, absent: Vec::new(), without_token: 0, checks: 0, groups_elsewhere: Vec::new() };
    let mut problems = Vec::new();
    for (index, (request, id)) in requests.into_iter().zip(ids).enumerate() {
        let before = problems.len();
        let mut problem = |problem| problems.push((index, problem));
        let job = prepare_one(view, (index, request, id), &mut prepared, &mut problem);
        if prepared.checks > bounds::BATCH_SCHEMA_CHECKS_MAX {
            return Err(EnqueueRejection::TooManyChecks { max: bounds::BATCH_SCHEMA_CHECKS_MAX });
        }
        match job {
            Some(job) if problems.len() == before => prepared.jobs.push((index, job)),
            // The requests are rejected, whatever the rest is.
            _ if problems.len() + prepared.without_token >= PROBLEMS_MAX => break,
            _ => {}
        }
    }
    if problems.is_empty() {
        return Ok(prepared);
    }
    problems.extend(prepared.absent.into_iter().map(|absent| (absent.index, absent.problem)));
    Err(EnqueueRejection::of(problems))
}

/// Turns one request into a job. Reports each problem to `problem`; a task that is not known here goes to `prepared`.
fn prepare_one(
    view: &PluginView,
    (index, request, id): (usize, Request, JobId),
    prepared: &mut Prepared,
    problem: &mut impl FnMut(BadRequest),
) -> Option<NewJob> {
    let bytes = request.payload.len() as u64;
    if bytes > bounds::PAYLOAD_BYTES_MAX {
        problem(BadRequest::PayloadTooLarge { bytes, max: bounds::PAYLOAD_BYTES_MAX });
    }
    if request.delay.is_some() && request.at.is_some() {
        problem(BadRequest::DelayAndAt);
    }
    let token = request.token.map(|text| text.parse::<Token>().map_err(|bad| problem(BadRequest::BadToken(bad))).ok());
    let token = token.flatten();
    if token.as_ref().is_some_and(|token| token.as_str().starts_with(TOKEN_PREFIX)) {
        problem(BadRequest::TokenOfSchedules);
    }
    let key = request.key.map(|text| text.parse::<Key>().map_err(|bad| problem(BadRequest::ParseKeyError(bad))).ok());
    let name: TaskName = request.task.parse().map_err(|bad| problem(BadRequest::BadTask(bad))).ok()?;
    // Before the task is looked for: a job of another key is found by its token without its task.
    if let (Some(only), Some(Some(named))) = (&request.only_key, &key)
        && named != only
    {
        let (only, named) = (only.clone(), named.clone());
        problem(BadRequest::KeyForbidden { only, place: "the request", named });
        return None;
    }
    // Of many unknown tasks only the first are reported: searching for a similar name takes time.
    let suggest = prepared.absent.len() < PROBLEMS_MAX;
    let task = match find(view, &name, suggest) {
        Ok(task) => task,
        Err(why @ BadRequest::OfBroadcasts(_)) => {
            problem(why);
            return None;
        }
        Err(why) => {
            let token = token.map(|token| (name, token));
            prepared.without_token += usize::from(token.is_none());
            let key = request.only_key.or(key.flatten());
            prepared.absent.push(Absent { index, problem: why, token, key, payload: request.payload });
            return None;
        }
    };
    if bytes > bounds::PAYLOAD_BYTES_MAX {
        return None;
    }
    let wants_key = key.is_none() || request.only_key.is_some();
    let found = task.read_payload(&request.payload, wants_key, &mut prepared.checks);
    let found = found.map_err(|bad| problem(BadRequest::PayloadError(bad))).ok()?;
    let key = match request.only_key {
        None => key.unwrap_or(found),
        Some(only) => {
            if let Some(named) = found.filter(|found| *found != only) {
                problem(BadRequest::KeyForbidden { only, place: "the payload", named });
                return None;
            }
            Some(only)
        }
    };
    let (name, group, on_conflict) = task.job_terms();
    if let Target::There(_) = &task {
        prepared.groups_elsewhere.push(group.clone());
    }
    Some(NewJob {
        id,
        task: name.clone(),
        lane: Lane { group: group.clone(), key },
        payload: request.payload.into(),
        priority: request.priority,
        due: due(request.delay, request.at, view.now),
        token,
        on_conflict,
        batch: None,
        lineage: Lineage::default(),
        tick: None,
    })
}

fn due(delay: Option<Duration>, at: Option<Timestamp>, now: Timestamp) -> Option<Due> {
    delay.map(Due::In).or(at.filter(|at| *at > now).map(Due::At))
}

/// Returns the task, or why it is not known here.
fn find<'v>(view: &'v PluginView, name: &TaskName, suggest: bool) -> Result<Target<'v>, BadRequest> {
    let catalog = &view.catalog;
    if let Some((_, task)) = catalog.task(name) {
        return Ok(Target::Here(task));
    }
    if catalog.runs().any(|run| run.name == *name) {
        return Err(BadRequest::OfBroadcasts(name.clone()));
    }
    let elsewhere = match view.others.task(name, view.now) {
        TaskElsewhere::Known(task) if task.is_receive => return Err(BadRequest::OfBroadcasts(name.clone())),
        TaskElsewhere::Known(task) => return Ok(Target::There(task)),
        TaskElsewhere::Unknown(nodes) => Some(nodes),
        TaskElsewhere::Nowhere => None,
    };
    let plugin = name.plugin();
    if let Some(at) = view.loading(&plugin) {
        return Err(BadRequest::Loading { task: name.clone(), at });
    }
    if let Some(nodes) = elsewhere {
        return Err(BadRequest::Elsewhere { task: name.clone(), nodes });
    }
    if catalog.plugin(&plugin).is_none()
        && let Some(refused) = catalog.refusal(&plugin).filter(|refused| refused.retry.is_some())
    {
        return Err(BadRequest::Loading { task: name.clone(), at: LoadingWhere::Again(refused.why.first_line()) });
    }
    let refused = match catalog.plugin(&plugin) {
        // The plugin runs, perhaps in an earlier version: the name of the task is wrong.
        Some(_) => None,
        None => catalog.refusal(&plugin).map(|refused| refused.why.first_line()),
    };
    let nearest = suggest.then(|| catalog.nearest_task(name.as_str())).flatten();
    Err(BadRequest::UnknownTask { nearest, refused, task: name.clone() })
}

/// Turns the request of a schedule into a job. The caller gives it the token of its tick, which no request may have.
///
/// # Errors
///
/// Returns why the request is rejected.
pub(crate) fn prepare_tick(view: &PluginView, request: Request, id: JobId) -> Result<NewJob, EnqueueRejection> {
    let jobs = prepare(view, vec![request], vec![id]).and_then(Prepared::whole)?;
    // One request becomes one job.
    jobs.into_iter().next().ok_or(EnqueueRejection::Requests(Vec::new()))
}

/// Why the jobs of a guest were rejected.
pub(crate) struct ChildrenRejected {
    /// The error that the guest gets.
    pub(crate) why: String,
    /// Only a plugin that is still loading is missing: the attempt is better given back than failed for that.
    pub(crate) passes: bool,
}

/// Turns the jobs that a guest enqueues into new jobs, none of them added yet.
///
/// # Errors
///
/// Returns why the jobs are rejected, all together.
pub(crate) fn prepare_children(
    view: &PluginView,
    store: &dyn Store,
    jobs: Vec<GuestJob>,
) -> Result<Vec<NewJob>, ChildrenRejected> {
    let request = |job: GuestJob| Request {
        task: job.task,
        payload: job.payload,
        key: job.key,
        priority: job.priority,
        delay: job.delay,
        at: None,
        token: job.token,
        only_key: None,
    };
    let requests: Vec<Request> = jobs.into_iter().map(request).collect();
    let no_ids = |error: StoreError| ChildrenRejected { why: error.to_string(), passes: true };
    let ids = draw_ids(store, requests.len()).map_err(no_ids)?;
    let new = prepare(view, requests, ids).and_then(Prepared::whole);
    new.map_err(|rejected| ChildrenRejected { why: rejected.to_string(), passes: rejected.plugins_loading().is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_compared_without_the_white_space_between_its_tokens() {
        let same = |one: &str, other: &str| is_same_json(one.as_bytes(), other.as_bytes());
        assert!(same(r#"{"a": [1, "b c"]}"#, "{\n  \"a\":[1,\"b c\"]\n}"));
        assert!(same(r#"{"a\" b": 1}"#, r#"{"a\" b":1}"#));
        for (one, other) in [
            (r#"{"a":"b c"}"#, r#"{"a":"bc"}"#),
            (r#"{"a":12345678901234567890}"#, r#"{"a":12345678901234567891}"#),
            (r#"{"a":1}"#, r#"{"a":1.0}"#),
            (r#"{"a":"\\"}"#, r#"{"a":"\\ "}"#),
            (r#"{"a":1}"#, r#"{"a":1}}"#),
        ] {
            assert!(!same(one, other), "{one} {other}");
        }
    }
}
