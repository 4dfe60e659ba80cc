//! `/v1/jobs`: look up, list, cancel, retry.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use wharf_core::bounds;
use wharf_core::find::{JobCursor, JobOrder};
use wharf_core::ids::{JobId, ParseIdError};
use wharf_core::lifecycle::Refusal;
use wharf_runner::{ChangeError, Host, JobView};

use super::api::{Job, JobPage, ListOrder, ListQuery, Moment, RetryQuery};
use super::author::RequestAuthor;
use super::bytes::harmless_headers;
use super::enqueue::{finished, queue_full};
use super::path::Path;
use super::problem::{Kind, Problem};
use super::query::{encode, page_size, query};
use super::sealed_place::{SealKey, open, seal};
use super::shared_bytes::{SharedBytes, SharedName};
use super::{filter, job_lookup, links, memory};
use crate::access::Access;

/// Number of jobs on a page, if the query does not set it.
const PAGE_DEFAULT: u32 = 100;

/// Shows one job.
pub(crate) async fn show(
    State(host): State<Host>,
    access: Access,
    Path(id): Path<String>,
) -> Result<Json<Job>, Problem> {
    let view = job_lookup::job(&host, &access, job_lookup::job_id(&id)?).await?;
    Ok(Json(Job::whole(&view)))
}

/// Returns the result of one job as the plugin returned it, byte for byte.
pub(crate) async fn result(
    State(host): State<Host>,
    State(shared): State<Arc<SharedBytes>>,
    access: Access,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = job_lookup::job_id(&id)?;
    // A result that is shared is known without its job.
    job_lookup::check(&host, &access, id).await?;
    let result = shared.get_or_load(SharedName::Result(id), read_bytes(&host, &access, id, BytesOf::Result)).await?;
    Ok((harmless_headers(result.media_type().await), result.bytes()).into_response())
}

/// The bytes of a job that are sent as they are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BytesOf {
    Payload,
    Result,
}

/// Reads the payload or the result of a job from the store, and holds room for the bytes until they are sent. Where there is no room,
/// the job is read again when there is.
///
/// # Errors
/// If the client does not see the job, there is no such result, or the store failed.
pub(crate) async fn read_bytes(host: &Host, access: &Access, id: JobId, of: BytesOf) -> Result<Bytes, Problem> {
    let length = {
        let _reading = memory::to_read_a_job(host.budget()).await;
        let bytes = stored_bytes(host, access, id, of).await?;
        if let Some(bytes) = memory::with_room_now(host.budget(), &bytes) {
            return Ok(bytes);
        }
        bytes.len()
    };
    let room = memory::room_to_send(host.budget(), length).await?;
    let _reading = memory::to_read_a_job(host.budget()).await;
    Ok(memory::held_for(stored_bytes(host, access, id, of).await?, Some(room)))
}

async fn stored_bytes(host: &Host, access: &Access, id: JobId, of: BytesOf) -> Result<Bytes, Problem> {
    let JobView { seen, .. } = job_lookup::whole_job(host, access, id).await?;
    if let BytesOf::Payload = of {
        return Ok(Bytes::from_owner(seen.job.payload));
    }
    if let Some(result) = finished(&seen.job)? {
        return Ok(Bytes::from_owner(result));
    }
    let state = seen.job.status.state.name().as_str();
    let detail = format!("job {id} is {state}; follow its events at /v1/jobs/{id}/events until it ends");
    Err(Problem::new(Kind::JOB_NOT_FINISHED, detail).with("state", state))
}

/// Lists jobs that meet a filter.
pub(crate) async fn list(State(host): State<Host>, access: Access, uri: Uri) -> Result<Response, Problem> {
    memory::json(host.budget(), &page(&host, &access, &uri).await?).await
}

/// Returns a page of the list.
///
/// # Errors
/// If a parameter is not valid, or the store failed.
pub(crate) async fn page(host: &Host, access: &Access, uri: &Uri) -> Result<JobPage, Problem> {
    let parameters: ListQuery = query(uri)?;
    let max = page_size(parameters.limit, PAGE_DEFAULT, bounds::PAGE_MAX)?;
    let order = match parameters.order.unwrap_or_default() {
        ListOrder::Newest => JobOrder::Newest,
        ListOrder::Finished => JobOrder::Finished,
    };
    // A client that is bound to a key goes on from a place that it cannot read.
    let seal_key = if access.key().is_some() { Some(host.seal_key().await?) } else { None };
    let after = place(&parameters, order, seal_key.as_ref())?;
    let none = JobPage { jobs: Vec::new(), next: None, looked_at: seal_key.is_none().then_some(0), until: None };
    let Some(wanted) = filter::seen_by(access, filter::of_parameters(&parameters, host.now())?) else {
        return Ok(none);
    };
    let page = host.find(Arc::new(wanted), order, after, max).await?;
    let listed = |job| {
        let listed = Job::in_list(job);
        // It may be a job of another key.
        if seal_key.is_some() { Job { parent: None, ..listed } } else { listed }
    };
    let place_text = |next: JobCursor| seal_key.as_ref().map_or_else(|| next.to_string(), |key| seal(key, &next));
    Ok(JobPage {
        jobs: page.jobs.iter().map(listed).collect(),
        next: page.next.map(|next| next_page(&parameters, &place_text(next))),
        looked_at: seal_key.is_none().then_some(page.looked_at),
        until: page.until.filter(|_| seal_key.is_none()).map(Moment),
    })
}

/// Reads the place from which a list goes on. It may be sealed if the list is of a client that is bound to a key.
fn place(parameters: &ListQuery, order: JobOrder, seal_key: Option<&SealKey>) -> Result<Option<JobCursor>, Problem> {
    let Some(before) = parameters.before.as_deref() else { return Ok(None) };
    let place = match seal_key.and_then(|key| open(key, before)) {
        Some(place) => place,
        None => before.parse().map_err(|error: ParseIdError| Problem::bad_request(format!("`before`: {error}")))?,
    };
    if place.order() != order {
        let detail = "`before`: it is a place in a list of another order; take it from `next` of a list of this order";
        return Err(Problem::bad_request(detail));
    }
    Ok(Some(place))
}

/// Returns the reference to the page that begins at a place, with the same parameters.
fn next_page(parameters: &ListQuery, before: &str) -> String {
    let limit = parameters.limit.map(|limit| limit.to_string());
    let order = parameters.order.map(|order| match order {
        ListOrder::Newest => "newest",
        ListOrder::Finished => "finished",
    });
    let others = [("order", order), ("limit", limit.as_deref()), ("before", Some(before))];
    let pairs = filter::pairs(parameters).into_iter().chain(others);
    let encoded = pairs.filter_map(|(name, value)| Some(format!("{name}={}", encode(value?))));
    links::page_from_page(&encoded.collect::<Vec<_>>().join("&"))
}

/// Requests that a job is cancelled.
pub(crate) async fn cancel(
    State(host): State<Host>,
    access: Access,
    RequestAuthor(by): RequestAuthor,
    Path(id): Path<String>,
) -> Result<Json<Job>, Problem> {
    let id = job_lookup::job_id(&id)?;
    job_lookup::check(&host, &access, id).await?;
    host.cancel(id, by).await.map_err(|error| refused(id, error))?;
    Ok(Json(Job::whole(&job_lookup::job(&host, &access, id).await?)))
}

/// Gives a failed or cancelled job another attempt, or as many as the query says.
pub(crate) async fn retry(
    State(host): State<Host>,
    access: Access,
    RequestAuthor(by): RequestAuthor,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<Job>, Problem> {
    let id = job_lookup::job_id(&id)?;
    let attempts = query::<RetryQuery>(&uri)?.attempts.unwrap_or(1);
    if !(1..=bounds::RETRY_ATTEMPTS_MAX).contains(&attempts) {
        let max = bounds::RETRY_ATTEMPTS_MAX;
        return Err(Problem::bad_request(format!("`attempts`: expected 1 to {max}, got {attempts}")));
    }
    job_lookup::check(&host, &access, id).await?;
    host.retry(id, attempts, by).await.map_err(|error| refused(id, error))?;
    Ok(Json(Job::whole(&job_lookup::job(&host, &access, id).await?)))
}

/// Returns the problem of a change of a job that was refused.
pub(crate) fn refused(id: JobId, error: ChangeError) -> Problem {
    let refusal = match error {
        ChangeError::Store(error) => return error.into(),
        ChangeError::QueueFull(full) => return queue_full(&full),
        ChangeError::Refused(refusal) => refusal,
    };
    let kind = match refusal {
        Refusal::Unknown => return job_lookup::unknown(id),
        Refusal::Finished(_) => Kind::JOB_FINISHED,
        Refusal::NotFinished(_) | Refusal::NotWaiting(_) | Refusal::Stale => Kind::JOB_NOT_FINISHED,
    };
    Problem::new(kind, refusal.to_string()).with("job", id.to_string())
}
