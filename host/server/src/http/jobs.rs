//! `/v1/jobs`: look up, list, cancel, retry.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use wharf_core::bounds;
use wharf_core::ids::{JobId, ParseIdError};
use wharf_core::job::StateName;
use wharf_core::lifecycle::Refusal;
use wharf_runner::{ChangeError, JobView};
use wharf_store::JobFilter;

use super::app_state::Face;
use super::bytes::harmless_headers;
use super::documents::{job_document, job_line};
use super::enqueue::finished;
use super::path::Path;
use super::problem::{Kind, Problem};
use super::query::query;
use super::wire::{Job, ListQuery, Page};

const PAGE_DEFAULT: u32 = 100;

pub(crate) async fn show(State(face): State<Arc<Face>>, Path(id): Path<String>) -> Result<Json<Job>, Problem> {
    let view = face.job(Face::job_id(&id)?).await?;
    Ok(Json(job_document(&view)))
}

/// The result as the plugin returned it, byte for byte.
pub(crate) async fn result(State(face): State<Arc<Face>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let JobView { seen, .. } = face.job(Face::job_id(&id)?).await?;
    match finished(&seen.job)? {
        Some(bytes) => Ok((harmless_headers(bytes), bytes.to_vec()).into_response()),
        None => {
            let state = seen.job.standing.state.name().as_str();
            let detail = format!("job {id} is {state}; follow /v1/jobs/{id}/events until it is over");
            Err(Problem::new(Kind::JOB_NOT_FINISHED, detail).with("state", state))
        }
    }
}

pub(crate) async fn list(State(face): State<Arc<Face>>, uri: Uri) -> Result<Json<Page>, Problem> {
    let asked: ListQuery = query(&uri)?;
    let page = face.host.jobs(wanted(&asked)?).await?;
    let next = page.jobs.last().filter(|_| page.more).map(|last| next_query(&asked, last.id));
    Ok(Json(Page { jobs: page.jobs.iter().map(job_line).collect(), next }))
}

fn wanted(asked: &ListQuery) -> Result<JobFilter, Problem> {
    let bad = |name: &'static str| move |error: ParseIdError| Problem::bad_request(format!("`{name}`: {error}"));
    let states = StateName::ALL.map(StateName::as_str).join(", ");
    let state = asked.state.as_deref().map(|name| {
        StateName::from_name(name)
            .ok_or_else(|| Problem::bad_request(format!("`state`: `{name}` is no state; {states} are")))
    });
    let max = asked.limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=bounds::PAGE_MAX).contains(&max) {
        return Err(Problem::bad_request(format!(
            "`limit`: {max} is out of bounds; 1 to {} is possible",
            bounds::PAGE_MAX
        )));
    }
    Ok(JobFilter {
        state: state.transpose()?,
        task: asked.task.as_deref().map(str::parse).transpose().map_err(bad("task"))?,
        key: asked.key.as_deref().map(str::parse).transpose().map_err(bad("key"))?,
        token: None,
        batch: asked.batch.as_deref().map(str::parse).transpose().map_err(bad("batch"))?,
        before: asked.before.as_deref().map(str::parse).transpose().map_err(bad("before"))?,
        max,
    })
}

/// The same query, for what comes after `last`.
fn next_query(asked: &ListQuery, last: JobId) -> String {
    let before = last.to_string();
    let limit = asked.limit.map(|limit| limit.to_string());
    let pairs = [
        ("state", asked.state.as_deref()),
        ("task", asked.task.as_deref()),
        ("key", asked.key.as_deref()),
        ("batch", asked.batch.as_deref()),
        ("limit", limit.as_deref()),
        ("before", Some(&before)),
    ];
    let encoded =
        pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", super::query::encode(value?))));
    format!("/v1/jobs?{}", encoded.collect::<Vec<_>>().join("&"))
}

pub(crate) async fn cancel(State(face): State<Arc<Face>>, Path(id): Path<String>) -> Result<Json<Job>, Problem> {
    let id = Face::job_id(&id)?;
    face.host.cancel(id).await.map_err(|error| refused(&face, id, error))?;
    Ok(Json(job_document(&face.job(id).await?)))
}

pub(crate) async fn retry(State(face): State<Arc<Face>>, Path(id): Path<String>) -> Result<Json<Job>, Problem> {
    let id = Face::job_id(&id)?;
    face.host.retry(id).await.map_err(|error| refused(&face, id, error))?;
    Ok(Json(job_document(&face.job(id).await?)))
}

fn refused(face: &Face, id: JobId, error: ChangeError) -> Problem {
    let refusal = match error {
        ChangeError::Store(error) => return error.into(),
        ChangeError::Refused(refusal) => refusal,
    };
    let kind = match refusal {
        Refusal::Unknown => return face.no_such_job(id),
        Refusal::Finished(_) => Kind::JOB_FINISHED,
        Refusal::NotFinished(_) | Refusal::Stale => Kind::JOB_NOT_FINISHED,
    };
    Problem::new(kind, refusal.to_string()).with("job", id.to_string())
}
