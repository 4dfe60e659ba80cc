//! `POST /v1/jobs`: one job, many in one transaction, or a payload as it is; and waiting for the result.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use wharf_core::bounds;
use wharf_core::ids::{JobId, PluginId};
use wharf_core::job::StateName;
use wharf_runner::{EnqueueError, EnqueueRejection, Enqueued, Request};

use super::app_state::Face;
use super::bytes::{from_base64, harmless_headers};
use super::documents::job_document;
use super::problem::{Kind, Problem};
use super::wire::{self, EnqueueQuery, JobAsked};
use super::{body, query};
use crate::config;

/// Room for the largest batch when it comes as base64, and for what stands around its payloads.
const JSON_BYTES_MAX: u64 = bounds::BATCH_BYTES_MAX / 3 * 4 + bounds::BATCH_JOBS_MAX as u64 * bounds::KIB;
/// Longer than this nobody waits in one request.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// What a request asks for.
enum Asked {
    One(Request),
    Many(Vec<Request>),
}

pub(crate) async fn enqueue(State(face): State<Arc<Face>>, request: HttpRequest) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let query: EnqueueQuery = query::query(&head.uri)?;
    body::no_idempotency_key(&head.headers, "give the job a `token`: the same job asked for again is enqueued once")?;
    let wait = query.wait.as_deref().map(wait_length).transpose()?;
    let asked = if query.task.is_some() {
        let payload = body::read(&head.headers, body, bounds::PAYLOAD_BYTES_MAX).await?;
        Asked::One(from_query(query, payload)?)
    } else {
        from_json(&query, &head.headers, body).await?
    };
    match asked {
        Asked::One(request) => one(&face, request, wait).await,
        Asked::Many(_) if wait.is_some() => {
            Err(Problem::bad_request("`wait` is for one job; follow the jobs of an array each by its id"))
        }
        Asked::Many(requests) => {
            let answers = face.host.enqueue(requests).await.map_err(problem)?;
            let documents: Vec<_> = answers.iter().map(document).collect();
            Ok((StatusCode::ACCEPTED, Json(documents)).into_response())
        }
    }
}

async fn one(face: &Face, request: Request, wait: Option<Duration>) -> Result<Response, Problem> {
    let answers = face.host.enqueue(vec![request]).await.map_err(problem)?;
    let Some(answer) = answers.first() else {
        return Err(Problem::new(
            Kind::INTERNAL,
            "the host did not say what became of the job; look for it with GET /v1/jobs",
        ));
    };
    let (status, id) = match answer {
        Enqueued::Added(id) => (StatusCode::ACCEPTED, *id),
        Enqueued::Duplicate(id) => (StatusCode::OK, *id),
        Enqueued::Discarded { holders } => {
            let ids: Vec<String> = holders.iter().map(ToString::to_string).collect();
            let detail = format!(
                "its key has no free slot, and its task says that it is then not taken; the slots are held by {}",
                ids.join(", ")
            );
            return Err(Problem::new(Kind::LANE_FULL, detail).with("holders", ids));
        }
    };
    match wait {
        Some(length) => result_within(face, id, length).await,
        None => Ok((status, [(header::LOCATION, url(id))], Json(document(answer))).into_response()),
    }
}

/// Waits for the job, and answers with its result; 202 with the job where it takes longer.
async fn result_within(face: &Face, id: JobId, length: Duration) -> Result<Response, Problem> {
    let seen = tokio::select! {
        seen = face.host.wait(id, length) => seen?,
        () = face.stopping.cancelled() => None,
    };
    let location = [(header::LOCATION, url(id))];
    if let Some(seen) = seen
        && let Some(result) = finished(&seen.job)?
    {
        return Ok((location, harmless_headers(result), result.to_vec()).into_response());
    }
    let view = face.job(id).await?;
    Ok((StatusCode::ACCEPTED, location, Json(job_document(&view))).into_response())
}

/// The result of a job that succeeded; `None` of one that is not over. A job that is over without one is a problem.
pub(crate) fn finished(job: &wharf_core::job::Job) -> Result<Option<&[u8]>, Problem> {
    let (kind, otherwise) = match job.standing.state.name() {
        StateName::Succeeded => return Ok(Some(job.result.as_deref().unwrap_or_default())),
        StateName::Waiting | StateName::Running => return Ok(None),
        StateName::Failed => (Kind::JOB_FAILED, "it failed without a report"),
        StateName::Cancelled => (Kind::JOB_CANCELLED, "it was cancelled"),
    };
    let detail = job.report.as_ref().map_or(otherwise, |report| report.text.as_str());
    let outcome = job.report.as_ref().map(|report| report.kind.as_str());
    Err(Problem::new(kind, detail).with("job", job.id.to_string()).with("outcome", outcome))
}

fn url(id: JobId) -> String {
    format!("/v1/jobs/{id}")
}

fn document(answer: &Enqueued) -> wire::Enqueued {
    let taken = |outcome: &str, id: &JobId| wire::Enqueued {
        outcome: outcome.to_owned(),
        id: Some(id.to_string()),
        url: Some(url(*id)),
        holders: Vec::new(),
    };
    match answer {
        Enqueued::Added(id) => taken("added", id),
        Enqueued::Duplicate(id) => taken("known", id),
        Enqueued::Discarded { holders } => wire::Enqueued {
            outcome: "discarded".to_owned(),
            id: None,
            url: None,
            holders: holders.iter().map(ToString::to_string).collect(),
        },
    }
}

fn problem(error: EnqueueError) -> Problem {
    match error {
        EnqueueError::Store(error) => error.into(),
        EnqueueError::EnqueueRejection(rejected) => {
            let loading = rejected.plugins_loading();
            let kind = match &rejected {
                EnqueueRejection::Requests(_) if loading.is_some() => Kind::PLUGIN_LOADING,
                EnqueueRejection::Requests(_) if rejected.is_passing() => Kind::PLUGIN_ELSEWHERE,
                EnqueueRejection::Requests(_) => Kind::JOB_INVALID,
                EnqueueRejection::TooMany { .. } | EnqueueRejection::TooLarge { .. } => Kind::TOO_LARGE,
            };
            let problem = Problem::new(kind, rejected.to_string());
            match &rejected {
                EnqueueRejection::Requests(problems) => {
                    let each: Vec<_> = problems
                        .iter()
                        .map(|(index, bad)| json!({"index": index, "detail": bad.to_string()}))
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

fn ids(plugins: &[PluginId]) -> Vec<String> {
    plugins.iter().map(ToString::to_string).collect()
}

fn wait_length(text: &str) -> Result<Duration, Problem> {
    match config::duration(text) {
        Ok(length) if length <= WAIT_MAX => Ok(length),
        Ok(_) => Err(Problem::bad_request("`wait` is at most 10m; follow the job's events to wait longer")),
        Err(error) => Err(Problem::bad_request(format!("`wait`: {error}"))),
    }
}

fn delay_length(text: Option<&str>) -> Result<Option<Duration>, String> {
    text.map(config::duration).transpose().map_err(|error| format!("delay: {error}"))
}

fn from_query(query: EnqueueQuery, payload: Vec<u8>) -> Result<Request, Problem> {
    Ok(Request {
        task: query.task.unwrap_or_default(),
        payload,
        key: query.key,
        priority: query.priority.unwrap_or(0),
        delay: delay_length(query.delay.as_deref()).map_err(|text| Problem::new(Kind::JOB_INVALID, text))?,
        at: query.at.map(|moment| moment.0),
        token: query.token,
    })
}

async fn from_json(query: &EnqueueQuery, headers: &axum::http::HeaderMap, body: Body) -> Result<Asked, Problem> {
    let media_type = body::media_type(headers)?;
    if media_type.starts_with("image/") || media_type == "application/octet-stream" {
        return Err(Problem::bad_request(format!(
            "a body of type {media_type} is a payload; say for which task with ?task=PLUGIN/TASK"
        )));
    }
    let EnqueueQuery { task: _, wait: _, key, priority, delay, at, token } = query;
    if key.is_some() || priority.is_some() || delay.is_some() || at.is_some() || token.is_some() {
        return Err(Problem::bad_request(
            "options in the query need `task` there too, with the payload as the body; else write them into the JSON",
        ));
    }
    let bytes = body::read(headers, body, JSON_BYTES_MAX).await?;
    if bytes.trim_ascii_start().starts_with(b"[") {
        let asked: Vec<JobAsked> = query::json(&bytes)?;
        let requests = asked.into_iter().enumerate().map(|(index, asked)| {
            from_document(asked).map_err(|text| {
                let problems = vec![json!({"index": index, "detail": text})];
                Problem::new(Kind::JOB_INVALID, format!("job {index}: {text}")).with("problems", problems)
            })
        });
        return requests.collect::<Result<_, _>>().map(Asked::Many);
    }
    let request = from_document(query::json(&bytes)?).map_err(|text| Problem::new(Kind::JOB_INVALID, text))?;
    Ok(Asked::One(request))
}

fn from_document(asked: JobAsked) -> Result<Request, String> {
    let payload = match (asked.payload, asked.payload_base64) {
        (Some(_), Some(_)) => {
            return Err("payload: it is given twice; use `payload` for JSON or `payload_base64` for bytes".to_owned());
        }
        (Some(json), None) => json.get().as_bytes().to_vec(),
        (None, Some(text)) => from_base64(&text).map_err(|error| format!("payload_base64: {error}"))?,
        (None, None) => b"null".to_vec(),
    };
    Ok(Request {
        task: asked.task,
        payload,
        key: asked.key,
        priority: asked.priority.unwrap_or(0),
        delay: delay_length(asked.delay.as_deref())?,
        at: asked.at.map(|moment| moment.0),
        token: asked.token,
    })
}
