//! What people and plugins ask to be enqueued, checked against the catalog: all problems at once, before anything is written.

use std::time::Duration;

use wharf_core::bounds;
use wharf_core::ids::{BadId, JobId, TaskName};
use wharf_core::job::{Due, NewJob, Token};
use wharf_core::key::{Key, Lane};
use wharf_core::time::Timestamp;
use wharf_engine::{BadPayload, GuestJob, Task};
use wharf_store::{Store, StoreError};

use crate::catalog::Catalog;

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
    /// Not before this moment; of `delay` and `at` the later one holds.
    pub at: Option<Timestamp>,
    pub token: Option<String>,
}

/// Why a request cannot be taken. Variants are what a caller mends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("task: {0}")]
    BadTask(BadId),
    #[error("task: `{task}` is not known: {}", unknown(.task, .nearest.as_ref(), .refused.as_deref()))]
    UnknownTask {
        task: TaskName,
        nearest: Option<TaskName>,
        /// The file of the plugin is there, but is not loaded: why.
        refused: Option<String>,
    },
    #[error("task: `{0}` is what a durable broadcast asks of its subscribers; send one to a topic of theirs instead")]
    OfBroadcasts(TaskName),
    #[error("payload: {0}")]
    BadPayload(BadPayload),
    #[error("payload: it has {bytes} bytes; {most} is the most")]
    PayloadTooLarge { bytes: u64, most: u64 },
    #[error("key: {0}")]
    BadKey(BadId),
    #[error("token: {0}")]
    BadToken(BadId),
}

/// Why none of the requests was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Each problem with the number of its request, from 0.
    #[error("{}", each(.0))]
    Requests(Vec<(usize, BadRequest)>),
    #[error("there are {jobs} jobs in one request; {most} is the most: send them in parts")]
    TooMany { jobs: usize, most: usize },
    #[error("the payloads of one request have {bytes} bytes; {most} is the most: send them in parts")]
    TooLarge { bytes: u64, most: u64 },
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
const PROBLEMS_MAX: usize = 20;

/// An id for each of so many requests; more than one request may have are refused without.
pub(crate) fn draw_ids(store: &dyn Store, requests: usize) -> Result<Vec<JobId>, StoreError> {
    (0..requests.min(bounds::BATCH_JOBS_MAX)).map(|_| store.next_id()).collect()
}

/// Turns requests into jobs, each with its own of `ids`: all or none.
pub(crate) fn prepare(
    catalog: &Catalog,
    requests: Vec<Request>,
    now: Timestamp,
    ids: Vec<JobId>,
) -> Result<Vec<NewJob>, Rejected> {
    if requests.len() > bounds::BATCH_JOBS_MAX {
        return Err(Rejected::TooMany { jobs: requests.len(), most: bounds::BATCH_JOBS_MAX });
    }
    let bytes: u64 = requests.iter().map(|request| request.payload.len() as u64).sum();
    if bytes > bounds::BATCH_BYTES_MAX {
        return Err(Rejected::TooLarge { bytes, most: bounds::BATCH_BYTES_MAX });
    }
    let mut problems = Vec::new();
    let mut jobs = Vec::with_capacity(requests.len());
    for (index, (request, id)) in requests.into_iter().zip(ids).enumerate() {
        let before = problems.len();
        let mut problem = |problem| problems.push((index, problem));
        let made = ready(catalog, request, now, id, &mut problem);
        match made {
            Some(job) if problems.len() == before => jobs.push(job),
            _ if problems.len() >= PROBLEMS_MAX => break,
            _ => {}
        }
    }
    if problems.is_empty() { Ok(jobs) } else { Err(Rejected::Requests(problems)) }
}

fn ready(
    catalog: &Catalog,
    request: Request,
    now: Timestamp,
    id: JobId,
    problem: &mut impl FnMut(BadRequest),
) -> Option<NewJob> {
    let bytes = request.payload.len() as u64;
    if bytes > bounds::PAYLOAD_BYTES_MAX {
        problem(BadRequest::PayloadTooLarge { bytes, most: bounds::PAYLOAD_BYTES_MAX });
    }
    let token = request.token.map(|text| text.parse::<Token>().map_err(|bad| problem(BadRequest::BadToken(bad))).ok());
    let key = request.key.map(|text| text.parse::<Key>().map_err(|bad| problem(BadRequest::BadKey(bad))).ok());
    let task = known(catalog, &request.task).map_err(&mut *problem).ok()?;
    if bytes <= bounds::PAYLOAD_BYTES_MAX
        && let Err(bad) = task.check_payload(&request.payload)
    {
        problem(BadRequest::BadPayload(bad));
        return None;
    }
    let key = match key {
        Some(explicit) => explicit,
        None => task.key_of(&request.payload).map_err(|bad| problem(BadRequest::BadPayload(bad))).ok()?,
    };
    Some(NewJob {
        id,
        task: task.name.clone(),
        lane: Lane { group: task.group.clone(), key },
        payload: request.payload.into(),
        priority: request.priority,
        due: due(request.delay, request.at, now),
        token: token.flatten(),
        on_conflict: task.on_conflict,
        batch: None,
    })
}

/// Of two, the later one.
fn due(delay: Option<Duration>, at: Option<Timestamp>, now: Timestamp) -> Option<Due> {
    match at {
        Some(at) if at > now + delay.unwrap_or_default() => Some(Due::At(at)),
        _ => delay.map(Due::In),
    }
}

fn known<'a>(catalog: &'a Catalog, text: &str) -> Result<&'a Task, BadRequest> {
    let name: TaskName = text.parse().map_err(BadRequest::BadTask)?;
    if let Some((_, task)) = catalog.task(&name) {
        return Ok(task);
    }
    if catalog.runs().any(|run| run.name == name) {
        return Err(BadRequest::OfBroadcasts(name));
    }
    let refused = match catalog.plugin(&name.plugin()) {
        // It runs, in an earlier version perhaps: the name is what is wrong.
        Some(_) => None,
        None => catalog.refusal(&name.plugin()).map(|refused| refused.why.first_line()),
    };
    Err(BadRequest::UnknownTask { nearest: catalog.nearest_task(text), refused, task: name })
}

/// Adds what a guest enqueues to what its attempt has enqueued before, and answers with the new ids.
/// The error is what the guest is told; then none of these jobs was added.
pub(crate) fn add_children(
    catalog: &Catalog,
    store: &dyn Store,
    jobs: Vec<GuestJob>,
    children: &mut Vec<NewJob>,
) -> Result<Vec<String>, String> {
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
    let ids = draw_ids(store, requests.len()).map_err(|error| error.to_string())?;
    let new = prepare(catalog, requests, store.now(), ids).map_err(|rejected| rejected.to_string())?;
    let (count, bytes) = (children.len() + new.len(), payload_bytes(children) + payload_bytes(&new));
    if count > bounds::BATCH_JOBS_MAX {
        return Err(format!("one attempt may enqueue {} jobs; these would be {count}", bounds::BATCH_JOBS_MAX));
    }
    if bytes > bounds::BATCH_BYTES_MAX {
        return Err(format!(
            "one attempt may enqueue payloads of {} bytes; these would be {bytes}",
            bounds::BATCH_BYTES_MAX
        ));
    }
    let ids = new.iter().map(|job| job.id.to_string()).collect();
    children.extend(new);
    Ok(ids)
}

fn payload_bytes(jobs: &[NewJob]) -> u64 {
    jobs.iter().map(|job| job.payload.len() as u64).sum()
}
