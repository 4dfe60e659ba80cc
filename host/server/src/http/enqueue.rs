//! `POST /v1/jobs`: one job, many in one transaction, or the body as the payload; optionally waits for the result.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use wharf_core::bounds;
use wharf_core::budget::MemoryUse;
use wharf_core::ids::{JobId, PluginId};
use wharf_core::job::{Job as CoreJob, StateName};
use wharf_core::shared_bytes::SharedBytes;
use wharf_engine::Reservation;
use wharf_runner::{self as runner, BadRequest, EnqueueError, EnqueueRejection, Host, NoRoom, QueueFull};

use super::api::{EnqueueOutcome, EnqueueQuery, Enqueued, Job, JobRequest};
use super::bytes::{harmless_headers, payload_bytes};
use super::memory::{BodyMemory, held_for};
use super::problem::{Kind, Problem};
use super::scope::{forbidden, still_valid};
use super::shared_bytes::SharedName;
use super::{AppState, body, job_lookup, links, query};
use crate::access::Access;
use crate::config;

/// The longest JSON body, in bytes: the largest batch in base64, and one KiB for each job's other members.
const JSON_BYTES_MAX: u64 = bounds::BATCH_BYTES_MAX / 3 * 4 + bounds::BATCH_JOBS_MAX as u64 * bounds::KIB;
/// The longest time for which one request waits for a result.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// The jobs of one request.
enum Requests {
    One(runner::Request),
    Many(Vec<runner::Request>),
}

impl Requests {
    /// Returns the requests with the key that the client is bound to.
    ///
    /// # Errors
    /// If the client may not enqueue jobs of a task.
    fn allowed_to(mut self, access: &Access) -> Result<Requests, Problem> {
        let requests = match &mut self {
            Requests::One(request) => std::slice::from_mut(request),
            Requests::Many(requests) => requests.as_mut_slice(),
        };
        let any_task = access.enqueues_all();
        for request in requests {
            // What is no task is refused for that.
            if !any_task
                && let Ok(task) = request.task.parse()
                && !access.enqueues(&task)
            {
                return Err(forbidden(access, &format!("enqueue:{task}")));
            }
            request.only_key = access.key().cloned();
        }
        Ok(self)
    }
}

/// Enqueues the jobs of a request.
pub(crate) async fn enqueue(
    State(state): State<AppState>,
    access: Access,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let query: EnqueueQuery = query::query(&head.uri)?;
    body::no_idempotency_key(&head.headers, "give the job a `token`: with one token it is enqueued only once")?;
    let wait = query.wait.as_deref().map(wait_timeout).transpose()?;
    // The payload, and the copy of it that the store writes; of a document also the text that it stands in.
    let mut memory = BodyMemory::new(state.host.budget(), if query.task.is_some() { 2 } else { 3 });
    let requests = if query.task.is_some() {
        let payload = body::read(&head.headers, body, bounds::PAYLOAD_BYTES_MAX, &mut memory).await?;
        Requests::One(from_query(query, payload)?)
    } else {
        from_json(&query, &head.headers, body, &mut memory).await?
    };
    if wait.is_some() && !access.reads() {
        return Err(forbidden(&access, "read").hint("`wait` returns a job's result"));
    }
    still_valid(&access)?;
    match requests.allowed_to(&access)? {
        Requests::One(request) => {
            let result = enqueue_one(&state.host, request, memory.take_for_store()).await?;
            drop(memory);
            match (wait, result) {
                // Apart, since most requests do not wait: what one request holds is moved more than once on its way.
                (Some(timeout), (_, id, _)) => Box::pin(result_within(&state, &access, id, timeout)).await,
                (None, (status, id, document)) => {
                    Ok((status, [(header::LOCATION, links::job_from_jobs(id))], Json(document)).into_response())
                }
            }
        }
        Requests::Many(_) if wait.is_some() => {
            Err(Problem::bad_request("`wait` does not work with an array; follow each job at /v1/jobs/{id}/events"))
        }
        Requests::Many(requests) => {
            let results = state.host.enqueue_with_room(requests, memory.take_for_store()).await.map_err(problem)?;
            let documents: Vec<_> = results.iter().map(document).collect();
            Ok((StatusCode::ACCEPTED, Json(documents)).into_response())
        }
    }
}

/// Enqueues one job. Returns the status of the response, the job, and its document; a discarded job is a problem.
async fn enqueue_one(
    host: &Host,
    request: runner::Request,
    room: Option<Reservation>,
) -> Result<(StatusCode, JobId, Enqueued), Problem> {
    let results = host.enqueue_with_room(vec![request], room).await.map_err(problem)?;
    let Some(result) = results.first() else {
        let detail = "the host did not report what became of the job; look for it with GET /v1/jobs";
        return Err(Problem::new(Kind::INTERNAL, detail));
    };
    match result {
        runner::Enqueued::Added(id) => Ok((StatusCode::ACCEPTED, *id, document(result))),
        runner::Enqueued::Duplicate(id) => Ok((StatusCode::OK, *id, document(result))),
        runner::Enqueued::Discarded { holders } => Err(discarded(holders)),
    }
}

/// Returns the problem of a job that was discarded, as these hold the slots of its lane.
pub(crate) fn discarded(holders: &[JobId]) -> Problem {
    let ids: Vec<String> = holders.iter().map(ToString::to_string).collect();
    let detail = format!(
        "the job's lane is full, and its task discards new jobs then; the slots are held by {}",
        ids.join(", ")
    );
    Problem::new(Kind::LANE_FULL, detail).with("holders", ids)
}

/// Waits for the job and answers with its result, or with 202 and the job if it takes longer than `timeout`.
async fn result_within(state: &AppState, access: &Access, id: JobId, timeout: Duration) -> Result<Response, Problem> {
    let ended = tokio::select! {
        ended = state.host.wait(id, timeout) => ended?,
        () = access.end(state.stopping.clone()) => None,
    };
    let memory = ended.as_ref().and_then(|snapshot| snapshot.job.result.as_ref());
    let memory = memory.map(|result| state.host.budget().reserve_anyway(MemoryUse::Readers, result.len() as u64));
    let location = [(header::LOCATION, links::job_from_jobs(id))];
    if let Some(snapshot) = ended.filter(|snapshot| access.sees(snapshot.job.lane.key.as_ref()))
        && let Some(result) = finished(&snapshot.job)?
    {
        let result = Bytes::from_owner(result);
        let result = state.shared.share(SharedName::Result(id), held_for(result, memory));
        return Ok((location, harmless_headers(result.media_type().await), result.bytes()).into_response());
    }
    if access.revoked.is_cancelled() {
        let detail = format!("the token was revoked while the request waited for job {id}, which was enqueued");
        return Err(Problem::new(Kind::UNAUTHORIZED, detail).with("job", id.to_string()));
    }
    let view = job_lookup::job(&state.host, access, id).await?;
    Ok((StatusCode::ACCEPTED, location, Json(Job::whole(&view))).into_response())
}

/// Returns the result of a job that succeeded, and `None` if the job has not ended. A job that failed or was cancelled is a
/// problem.
pub(crate) fn finished(job: &CoreJob) -> Result<Option<SharedBytes>, Problem> {
    let (kind, without_report) = match job.status.state.name() {
        StateName::Succeeded => return Ok(Some(job.result.clone().unwrap_or_default())),
        StateName::Waiting | StateName::Running => return Ok(None),
        StateName::Failed => (Kind::JOB_FAILED, "the job failed without a report"),
        StateName::Cancelled => (Kind::JOB_CANCELLED, "the job was cancelled"),
    };
    let detail = job.report.as_ref().map_or(without_report, |report| report.text.as_str());
    let outcome = job.report.as_ref().map(|report| report.kind.as_str());
    Err(Problem::new(kind, detail).with("job", job.id.to_string()).with("outcome", outcome))
}

fn document(result: &runner::Enqueued) -> Enqueued {
    let enqueued = |outcome, id: &JobId| Enqueued {
        outcome,
        id: Some(id.to_string()),
        url: Some(links::job_from_jobs(*id)),
        holders: Vec::new(),
    };
    match result {
        runner::Enqueued::Added(id) => enqueued(EnqueueOutcome::Added, id),
        runner::Enqueued::Duplicate(id) => enqueued(EnqueueOutcome::Duplicate, id),
        runner::Enqueued::Discarded { holders } => Enqueued {
            outcome: EnqueueOutcome::Discarded,
            id: None,
            url: None,
            holders: holders.iter().map(ToString::to_string).collect(),
        },
    }
}

/// Returns the problem of requests that were not enqueued.
pub(crate) fn problem(error: EnqueueError) -> Problem {
    match error {
        EnqueueError::Store(error) => error.into(),
        EnqueueError::QueueFull(full) => queue_full(&full),
        EnqueueError::NoRoom(none @ NoRoom::Now) => {
            Problem::new(Kind::NO_MEMORY, format!("{none}; nothing was enqueued; send the request again"))
        }
        EnqueueError::NoRoom(none @ NoRoom::Ever { .. }) => Problem::new(Kind::TOO_LARGE, none.to_string()),
        EnqueueError::EnqueueRejection(rejection) => {
            let loading = rejection.plugins_loading();
            let kind = match &rejection {
                EnqueueRejection::Requests(_) if loading.is_some() => Kind::PLUGIN_LOADING,
                EnqueueRejection::Requests(_) if rejection.is_passing() => Kind::PLUGIN_ELSEWHERE,
                EnqueueRejection::Requests(problems) if problems.iter().all(is_of_another_key) => Kind::KEY_FORBIDDEN,
                EnqueueRejection::Requests(_) => Kind::JOB_INVALID,
                EnqueueRejection::TooMany { .. }
                | EnqueueRejection::TooLarge { .. }
                | EnqueueRejection::TooManyChecks { .. } => Kind::TOO_LARGE,
            };
            let problem = Problem::new(kind, rejection.to_string());
            match &rejection {
                EnqueueRejection::Requests(problems) => {
                    let each: Vec<_> = problems
                        .iter()
                        .map(|(index, reason)| json!({"index": index, "detail": reason.to_string()}))
                        .collect();
                    let problem = problem.with("problems", each);
                    match loading {
                        Some(plugins) => problem.with("plugins", ids(&plugins)),
                        None => problem,
                    }
                }
                _ => problem,
            }
        }
    }
}

/// Returns the problem of a plugin of which as many jobs wait as may. Jobs that are too many for an empty queue are not asked for
/// again.
pub(crate) fn queue_full(full: &QueueFull) -> Problem {
    let kind = if full.is_oversized() { Kind::TOO_LARGE } else { Kind::QUEUE_FULL };
    Problem::new(kind, full.to_string()).with("plugin", full.plugin.to_string()).with("limit", full.max)
}

fn is_of_another_key((_, problem): &(usize, BadRequest)) -> bool {
    matches!(problem, BadRequest::KeyForbidden { .. })
}

fn ids(plugins: &[PluginId]) -> Vec<String> {
    plugins.iter().map(ToString::to_string).collect()
}

fn wait_timeout(text: &str) -> Result<Duration, Problem> {
    match config::duration(text) {
        Ok(timeout) if timeout <= WAIT_MAX => Ok(timeout),
        Ok(_) => Err(Problem::bad_request(format!(
            "`wait`: the limit is {}m; follow the job's events to wait longer",
            WAIT_MAX.as_secs() / 60
        ))),
        Err(error) => Err(Problem::bad_request(format!("`wait`: {error}"))),
    }
}

fn delay(text: Option<&str>) -> Result<Option<Duration>, String> {
    text.map(config::duration).transpose().map_err(|error| format!("`delay`: {error}"))
}

fn from_query(query: EnqueueQuery, payload: Vec<u8>) -> Result<runner::Request, Problem> {
    Ok(runner::Request {
        task: query.task.unwrap_or_default(),
        payload,
        key: query.key,
        priority: query.priority.unwrap_or(0),
        delay: delay(query.delay.as_deref()).map_err(|text| Problem::new(Kind::JOB_INVALID, text))?,
        at: query.at.map(|moment| moment.0),
        token: query.token,
        only_key: None,
    })
}

async fn from_json(
    query: &EnqueueQuery,
    headers: &HeaderMap,
    body: Body,
    memory: &mut BodyMemory,
) -> Result<Requests, Problem> {
    let media_type = body::media_type(headers)?;
    if media_type.starts_with("image/") || media_type == "application/octet-stream" {
        return Err(Problem::bad_request(format!(
            "a body of type {media_type} is a payload; name its task with ?task=PLUGIN/TASK"
        )));
    }
    let EnqueueQuery { task: _, wait: _, key, priority, delay, at, token } = query;
    if key.is_some() || priority.is_some() || delay.is_some() || at.is_some() || token.is_some() {
        return Err(Problem::bad_request(
            "options in the query need `task` in the query, too, and the payload as the body; otherwise put them into the JSON",
        ));
    }
    let bytes = body::read(headers, body, JSON_BYTES_MAX, memory).await?;
    if bytes.trim_ascii_start().starts_with(b"[") {
        let documents: Vec<JobRequest> = query::json(&bytes)?;
        let requests = documents.into_iter().enumerate().map(|(index, document)| {
            from_document(document).map_err(|text| {
                let problems = vec![json!({"index": index, "detail": text})];
                Problem::new(Kind::JOB_INVALID, format!("job {index}: {text}")).with("problems", problems)
            })
        });
        return requests.collect::<Result<_, _>>().map(Requests::Many);
    }
    let request = from_document(query::json(&bytes)?).map_err(|text| Problem::new(Kind::JOB_INVALID, text))?;
    Ok(Requests::One(request))
}

fn from_document(document: JobRequest) -> Result<runner::Request, String> {
    Ok(runner::Request {
        task: document.task,
        payload: payload_bytes(document.payload, document.payload_base64)?,
        key: document.key,
        priority: document.priority.unwrap_or(0),
        delay: delay(document.delay.as_deref())?,
        at: document.at.map(|moment| moment.0),
        token: document.token,
        only_key: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_site_for_nginx_lets_every_body_pass_that_a_host_takes() {
        let site = include_str!("../../../docs/deploy/nginx.conf");
        let max = site.lines().find_map(|line| line.trim().strip_prefix("client_max_body_size ")?.strip_suffix("m;"));
        let max: u64 = max.and_then(|max| max.parse().ok()).unwrap();
        assert!(max * bounds::MIB >= JSON_BYTES_MAX, "{max} MiB, and a host takes {JSON_BYTES_MAX} bytes");
    }
}
