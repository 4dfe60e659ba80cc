//! What people and plugins ask to be enqueued, checked against the catalog: all problems at once, before anything is written.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::bounds;
use wharf_core::ids::{Group, JobId, ParseIdError, PluginId, TaskName};
use wharf_core::job::{Due, NewJob, Token};
use wharf_core::key::{Key, Lane};
use wharf_core::limits::{LimitTable, OnConflict};
use wharf_core::time::Timestamp;
use wharf_engine::{GuestJob, PayloadError, Task};
use wharf_store::{Store, StoreError};

use crate::catalog::Catalog;
use crate::other_nodes::{Others, Terms, There};

/// A job as someone asks for it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// "plugin/task".
    pub task: String,
    pub payload: Vec<u8>,
    /// Instead of the key that the task finds in the payload.
    pub key: Option<String>,
    pub priority: i32,
    /// Not before this long from when it is in the queue.
    pub delay: Option<Duration>,
    /// Not before this moment; in place of `delay`.
    pub at: Option<Timestamp>,
    pub token: Option<String>,
}

/// Why a request cannot be taken. Variants are what a caller mends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("task: {0}")]
    BadTask(ParseIdError),
    #[error("task: `{task}` is not known: {}", unknown(.task, .nearest.as_ref(), .refused.as_deref()))]
    UnknownTask {
        task: TaskName,
        nearest: Option<TaskName>,
        /// The file of the plugin is there, but is not loaded: why.
        refused: Option<String>,
    },
    /// Passes: this node has just started, or the plugin is being made ready.
    #[error("task: {}", loading(.task, .at))]
    Loading { task: TaskName, at: LoadingWhere },
    /// Passes where the plugin comes to this node as well; else one of the others has to be asked.
    #[error(
        "task: plugin `{}` is not loaded on this host, and what a job of `{task}` needs is known only where it is: ask {}, or try again when it is loaded here",
        .task.plugin(), .nodes.join(" or ")
    )]
    Elsewhere {
        task: TaskName,
        /// By name.
        nodes: Vec<String>,
    },
    #[error("task: `{0}` is what a durable broadcast asks of its subscribers; send one to a topic of theirs instead")]
    OfBroadcasts(TaskName),
    #[error("payload: {0}")]
    PayloadError(PayloadError),
    #[error("payload: it has {bytes} bytes; {max} is the most")]
    PayloadTooLarge { bytes: u64, max: u64 },
    #[error("key: {0}")]
    ParseKeyError(ParseIdError),
    #[error("token: {0}")]
    BadToken(ParseIdError),
    #[error("delay: `at` is given, too, and only one of them can hold; leave one out")]
    DelayAndAt,
}

/// Where a plugin is being made ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadingWhere {
    Here,
    /// On the node of this name.
    There(String),
    /// Perhaps nowhere: this node has not gone through its folder yet, or not heard of the others.
    Unknown,
}

impl BadRequest {
    /// Whether the same request may be taken later, as it is.
    pub fn is_passing(&self) -> bool {
        matches!(self, BadRequest::Loading { .. } | BadRequest::Elsewhere { .. })
    }
}

/// Why none of the requests was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueRejection {
    /// Each problem with the number of its request, from 0.
    #[error("{}", each(.0))]
    Requests(Vec<(usize, BadRequest)>),
    #[error("there are {jobs} jobs in one request; {max} is the most: send them in parts")]
    TooMany { jobs: usize, max: usize },
    #[error("the payloads of one request have {bytes} bytes; {max} is the most: send them in parts")]
    TooLarge { bytes: u64, max: u64 },
}

impl EnqueueRejection {
    /// Tells of the first problems; one that passes is left out rather than one that does not.
    pub(crate) fn of(mut problems: Vec<(usize, BadRequest)>) -> EnqueueRejection {
        problems.sort_by_key(|(index, problem)| (problem.is_passing(), *index));
        problems.truncate(PROBLEMS_MAX);
        // Those of one request stay in their order.
        problems.sort_by_key(|(index, _)| *index);
        EnqueueRejection::Requests(problems)
    }

    /// Whether the same requests may be taken later, as they are.
    pub fn is_passing(&self) -> bool {
        matches!(self, EnqueueRejection::Requests(problems) if problems.iter().all(|(_, problem)| problem.is_passing()))
    }

    /// The plugins that are waited for, where there is nothing else against the requests.
    pub fn plugins_loading(&self) -> Option<Vec<PluginId>> {
        let EnqueueRejection::Requests(problems) = self else { return None };
        let plugin = |(_, problem): &(usize, BadRequest)| match problem {
            BadRequest::Loading { task, .. } => Some(task.plugin()),
            _ => None,
        };
        let mut plugins = problems.iter().map(plugin).collect::<Option<Vec<_>>>()?;
        plugins.sort_unstable();
        plugins.dedup();
        Some(plugins)
    }
}

fn loading(task: &TaskName, at: &LoadingWhere) -> String {
    let making =
        |host: &str| format!("plugin `{}` is still being made ready on {host}; try again in a moment", task.plugin());
    match at {
        LoadingWhere::Here => making("this host"),
        LoadingWhere::There(node) => making(node),
        LoadingWhere::Unknown => {
            format!(
                "whether there is a task `{task}` is not known yet: this host has just started; try again in a moment"
            )
        }
    }
}

fn unknown(task: &TaskName, nearest: Option<&TaskName>, refused: Option<&str>) -> String {
    match (refused, nearest) {
        (Some(why), _) => format!("plugin `{}` could not be loaded: {why}", task.plugin()),
        (None, Some(near)) => format!("did you mean `{near}`?"),
        (None, None) => format!("no plugin here handles it; is `{}.wasm` in the plugin folder?", task.plugin()),
    }
}

fn each(problems: &[(usize, BadRequest)]) -> String {
    let one = |(index, problem): &(usize, BadRequest)| match problems {
        [_] if *index == 0 => problem.to_string(),
        _ => format!("job {index}: {problem}"),
    };
    problems.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// How many problems are told of one batch.
pub(crate) const PROBLEMS_MAX: usize = 20;

/// What a node knows of plugins at one moment: its own, and those of the others.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) others: Arc<Others>,
    pub(crate) now: Timestamp,
}

impl View {
    /// Whether a plugin may be there, or have more tasks, in a moment.
    pub(crate) fn making(&self, plugin: &PluginId) -> Option<LoadingWhere> {
        if self.catalog.pending().contains_key(plugin) {
            return Some(LoadingWhere::Here);
        }
        if !self.catalog.is_open() || !self.others.are_heard() {
            return Some(LoadingWhere::Unknown);
        }
        let node = self.others.awaited(self.now).find(|(_, awaited)| awaited.plugin == *plugin)?.0;
        Some(LoadingWhere::There(node.to_owned()))
    }

    /// What is declared here, and of these groups elsewhere.
    pub(crate) fn limits(&self, groups_elsewhere: &[Group]) -> Arc<LimitTable> {
        let here = self.catalog.limits();
        if groups_elsewhere.is_empty() {
            return Arc::clone(here);
        }
        Arc::new(self.others.limits(here, &groups_elsewhere.iter().cloned().collect(), self.now))
    }
}

/// What became of requests of which none is bad.
pub(crate) struct Prepared {
    /// With the number of the request.
    pub(crate) jobs: Vec<(usize, NewJob)>,
    /// Requests for what is not known here at this moment, if ever.
    pub(crate) absent: Vec<Absent>,
    /// How many of these cannot be known by a token.
    hopeless: usize,
    /// Limit groups of jobs for tasks that only others have.
    pub(crate) groups_elsewhere: Vec<Group>,
}

/// A request for a task that is not known here.
pub(crate) struct Absent {
    pub(crate) index: usize,
    pub(crate) problem: BadRequest,
    /// By these the job may be known all the same, which was enqueued earlier.
    pub(crate) known_by: Option<(TaskName, Token)>,
}

impl Prepared {
    /// All jobs, in order.
    ///
    /// # Errors
    /// When anything is absent.
    fn whole(self) -> Result<Vec<NewJob>, EnqueueRejection> {
        if self.absent.is_empty() {
            return Ok(self.jobs.into_iter().map(|(_, job)| job).collect());
        }
        Err(EnqueueRejection::of(self.absent.into_iter().map(|absent| (absent.index, absent.problem)).collect()))
    }
}

/// A task, wherever it is.
enum Target<'v> {
    Here(&'v Task),
    There(Arc<Terms>),
}

impl Target<'_> {
    fn check_payload(&self, payload: &[u8]) -> Result<(), PayloadError> {
        match self {
            Target::Here(task) => task.check_payload(payload),
            Target::There(terms) => terms.check_payload(payload),
        }
    }

    fn key_of(&self, payload: &[u8]) -> Result<Option<Key>, PayloadError> {
        match self {
            Target::Here(task) => task.key_of(payload),
            Target::There(terms) => terms.key_of(payload),
        }
    }

    fn terms(&self) -> (&TaskName, &Group, OnConflict) {
        match self {
            Target::Here(task) => (&task.name, &task.group, task.on_conflict),
            Target::There(terms) => (&terms.told.name, &terms.told.group, terms.told.on_conflict),
        }
    }
}

/// An id for each of so many requests; more than one request may have are refused without.
pub(crate) fn draw_ids(store: &dyn Store, requests: usize) -> Result<Vec<JobId>, StoreError> {
    (0..requests.min(bounds::BATCH_JOBS_MAX)).map(|_| store.next_id()).collect()
}

/// Turns requests into jobs, each with its own of `ids`: all or none.
pub(crate) fn prepare(view: &View, requests: Vec<Request>, ids: Vec<JobId>) -> Result<Prepared, EnqueueRejection> {
    if requests.len() > bounds::BATCH_JOBS_MAX {
        return Err(EnqueueRejection::TooMany { jobs: requests.len(), max: bounds::BATCH_JOBS_MAX });
    }
    let bytes: u64 = requests.iter().map(|request| request.payload.len() as u64).sum();
    if bytes > bounds::BATCH_BYTES_MAX {
        return Err(EnqueueRejection::TooLarge { bytes, max: bounds::BATCH_BYTES_MAX });
    }
    let jobs = Vec::with_capacity(requests.len());
    let mut prepared = Prepared { jobs, absent: Vec::new(), hopeless: 0, groups_elsewhere: Vec::new() };
    let mut problems = Vec::new();
    for (index, (request, id)) in requests.into_iter().zip(ids).enumerate() {
        let before = problems.len();
        let mut problem = |problem| problems.push((index, problem));
        let made = ready(view, (index, request, id), &mut prepared, &mut problem);
        match made {
            Some(job) if problems.len() == before => prepared.jobs.push((index, job)),
            // They are refused, whatever is known of the others.
            _ if problems.len() + prepared.hopeless >= PROBLEMS_MAX => break,
            _ => {}
        }
    }
    if problems.is_empty() {
        return Ok(prepared);
    }
    problems.extend(prepared.absent.into_iter().map(|absent| (absent.index, absent.problem)));
    Err(EnqueueRejection::of(problems))
}

fn ready(
    view: &View,
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
    let key = request.key.map(|text| text.parse::<Key>().map_err(|bad| problem(BadRequest::ParseKeyError(bad))).ok());
    let name: TaskName = request.task.parse().map_err(|bad| problem(BadRequest::BadTask(bad))).ok()?;
    // Whoever asks for many that are not known is told of the first.
    let is_told = prepared.absent.len() < PROBLEMS_MAX;
    let task = match find(view, &name, is_told) {
        Ok(task) => task,
        Err(why @ BadRequest::OfBroadcasts(_)) => {
            problem(why);
            return None;
        }
        Err(why) => {
            let known_by = token.map(|token| (name, token));
            prepared.hopeless += usize::from(known_by.is_none());
            prepared.absent.push(Absent { index, problem: why, known_by });
            return None;
        }
    };
    if bytes <= bounds::PAYLOAD_BYTES_MAX
        && let Err(bad) = task.check_payload(&request.payload)
    {
        problem(BadRequest::PayloadError(bad));
        return None;
    }
    let key = match key {
        Some(explicit) => explicit,
        None => task.key_of(&request.payload).map_err(|bad| problem(BadRequest::PayloadError(bad))).ok()?,
    };
    let (name, group, on_conflict) = task.terms();
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
    })
}

fn due(delay: Option<Duration>, at: Option<Timestamp>, now: Timestamp) -> Option<Due> {
    delay.map(Due::In).or(at.filter(|at| *at > now).map(Due::At))
}

/// The task, or why it is not known here.
fn find<'v>(view: &'v View, name: &TaskName, is_told: bool) -> Result<Target<'v>, BadRequest> {
    let catalog = &view.catalog;
    if let Some((_, task)) = catalog.task(name) {
        return Ok(Target::Here(task));
    }
    if catalog.runs().any(|run| run.name == *name) {
        return Err(BadRequest::OfBroadcasts(name.clone()));
    }
    let untold = match view.others.task(name, view.now) {
        There::Known(terms) if terms.of_broadcasts => return Err(BadRequest::OfBroadcasts(name.clone())),
        There::Known(terms) => return Ok(Target::There(terms)),
        There::Untold(nodes) => Some(nodes),
        There::Nowhere => None,
    };
    let plugin = name.plugin();
    if let Some(at) = view.making(&plugin) {
        return Err(BadRequest::Loading { task: name.clone(), at });
    }
    if let Some(nodes) = untold {
        return Err(BadRequest::Elsewhere { task: name.clone(), nodes });
    }
    let refused = match catalog.plugin(&plugin) {
        // It runs, in an earlier version perhaps: the name is what is wrong.
        Some(_) => None,
        None => catalog.refusal(&plugin).map(|refused| refused.why.first_line()),
    };
    let nearest = is_told.then(|| catalog.nearest_task(name.as_str())).flatten();
    Err(BadRequest::UnknownTask { nearest, refused, task: name.clone() })
}

/// Why jobs of a guest are not taken.
pub(crate) struct NotAdded {
    /// What the guest is told.
    pub(crate) why: String,
    /// A plugin is still being made ready: the attempt is better given back than failed for that.
    pub(crate) passes: bool,
}

/// Turns what a guest asks for into jobs, none of them added yet.
///
/// # Errors
/// Then there is none of them.
pub(crate) fn prepare_children(view: &View, store: &dyn Store, jobs: Vec<GuestJob>) -> Result<Vec<NewJob>, NotAdded> {
    let asked = |job: GuestJob| Request {
        task: job.task,
        payload: job.payload,
        key: job.key,
        priority: job.priority,
        delay: job.delay,
        at: None,
        token: job.token,
    };
    let requests: Vec<Request> = jobs.into_iter().map(asked).collect();
    let ids = draw_ids(store, requests.len()).map_err(|error| NotAdded { why: error.to_string(), passes: true })?;
    let new = prepare(view, requests, ids).and_then(Prepared::whole);
    new.map_err(|rejected| NotAdded { why: rejected.to_string(), passes: rejected.plugins_loading().is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_passes_is_told_among_much_that_does() {
        let passes = || BadRequest::Loading { task: "words/count".parse().unwrap(), at: LoadingWhere::Here };
        let never = BadRequest::PayloadTooLarge { bytes: 2, max: 1 };
        let mut problems: Vec<_> = (0..2 * PROBLEMS_MAX).map(|index| (index, passes())).collect();
        assert!(EnqueueRejection::of(problems.clone()).plugins_loading().is_some());
        problems.push((2 * PROBLEMS_MAX, never.clone()));
        let rejected = EnqueueRejection::of(problems);
        assert!(!rejected.is_passing() && rejected.plugins_loading().is_none());
        let EnqueueRejection::Requests(told) = rejected else { panic!("problems are told") };
        assert_eq!((told.len(), told.last()), (PROBLEMS_MAX, Some(&(2 * PROBLEMS_MAX, never))));
    }
}
