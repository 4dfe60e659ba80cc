//! `/v1/operations`: one act on all jobs that meet a filter.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::bulk::{self, Trial};
use wharf_core::ids::{JobId, ParseIdError};
use wharf_runner::{Host, OperationError, StartedOperation};
use wharf_store::StoreError;

use super::api::Moment;
use super::api::{BulkOperation, Job, OperationPage, OperationPreview, OperationRequest, OperationsQuery};
use super::author::RequestAuthor;
use super::path::Path;
use super::problem::{Kind, Problem};
use super::scope::still_valid;
use super::{body, filter, length, links, memory, query};
use crate::access::Access;

/// The longest body, in bytes: a filter may have 16 KiB, and JSON may escape each character of it.
const BODY_BYTES_MAX: u64 = 128 * 1024;
/// Number of operations on a page, if the query does not set it.
const PAGE_DEFAULT: u32 = 20;
/// Maximum number of operations on a page: each has a filter of up to 16 KiB.
const PAGE_MAX: u32 = 100;

/// Starts an operation, or returns what it would change.
pub(crate) async fn start(
    State(host): State<Host>,
    access: Access,
    RequestAuthor(author): RequestAuthor,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    body::no_idempotency_key(&head.headers, "give the operation a `token`: with one token it is started only once")?;
    let body = body::read_small(&head.headers, body, BODY_BYTES_MAX).await?;
    still_valid(&access)?;
    let OperationRequest { act, r#where, token, r#try, within, spread, attempts, priority, preview } =
        query::json(&body)?;
    let optional = |name: &str, text: Option<String>| text.map(|text| length::duration(name, &text)).transpose();
    let within = optional("within", within)?;
    if within.is_some() && r#try.is_none() {
        return Err(Problem::bad_request("`within`: it is the time of the jobs that `try` tries first; add `try`"));
    }
    let bad_token = |error: ParseIdError| Problem::bad_request(format!("`token`: {error}"));
    let request = wharf_runner::OperationRequest {
        act: act.into(),
        query: filter::parse("where", &r#where, host.now())?,
        author,
        token: token.map(|token| token.parse()).transpose().map_err(bad_token)?,
        trial: r#try.map(|jobs| Trial { jobs, within: within.unwrap_or(bounds::TRIAL_WITHIN) }),
        spread: optional("spread", spread)?.unwrap_or_default(),
        attempts,
        priority,
    };
    if preview {
        let found = host.preview_operation(request, bounds::PREVIEW_TIME).await.map_err(refused)?;
        let jobs = found.jobs.iter().map(Job::in_list).collect();
        let wharf_runner::Preview { filter, count, more, looked_at, until, .. } = found;
        let preview = OperationPreview { filter, count, more, looked_at, until: until.map(Moment), jobs };
        return Ok(Json(preview).into_response());
    }
    let StartedOperation { operation, is_known } = host.start_operation(request).await.map_err(refused)?;
    Ok(Json(BulkOperation { duplicate: is_known, ..BulkOperation::from(&operation) }).into_response())
}

/// Lists operations, newest first.
pub(crate) async fn list(State(host): State<Host>, uri: Uri) -> Result<Response, Problem> {
    memory::json(host.budget(), &page(&host, &uri).await?).await
}

/// Returns a page of the list.
///
/// # Errors
/// If a parameter is not valid, or the store failed.
pub(crate) async fn page(host: &Host, uri: &Uri) -> Result<OperationPage, Problem> {
    let OperationsQuery { before, limit } = query::query(uri)?;
    let max = query::page_size(limit, PAGE_DEFAULT, PAGE_MAX)?;
    let bad = |error: ParseIdError| Problem::bad_request(format!("`before`: {error}"));
    let before = before.as_deref().map(str::parse).transpose().map_err(bad)?;
    let mut found = host.operations(before, max + 1).await?;
    let more = found.len() > max as usize;
    found.truncate(max as usize);
    let last = found.last().filter(|_| more);
    let next = last.map(|last| links::page_from_page(&format!("limit={max}&before={}", last.id)));
    Ok(OperationPage { operations: found.iter().map(BulkOperation::from).collect(), next })
}

/// Shows one operation.
pub(crate) async fn show(State(host): State<Host>, Path(id): Path<String>) -> Result<Json<BulkOperation>, Problem> {
    Ok(Json(BulkOperation::from(&read(&host, &id).await?)))
}

/// Cancels an operation before its next step.
pub(crate) async fn cancel(
    State(host): State<Host>,
    RequestAuthor(by): RequestAuthor,
    Path(id): Path<String>,
) -> Result<Json<BulkOperation>, Problem> {
    Ok(Json(BulkOperation::from(&stop(&host, &id, by).await?)))
}

/// Reads one operation.
///
/// # Errors
/// If there is none of this ID, or the store failed.
pub(crate) async fn read(host: &Host, id: &str) -> Result<bulk::BulkOperation, Problem> {
    let bad = |error: ParseIdError| Problem::new(Kind::OPERATION_UNKNOWN, error.to_string());
    let number: JobId = id.parse().map_err(bad)?;
    let unknown =
        || Problem::new(Kind::OPERATION_UNKNOWN, format!("unknown operation {id}; they are kept for 90 days"));
    host.operation(number).await?.ok_or_else(unknown)
}

/// Stops one operation before its next step, and returns it.
///
/// # Errors
/// If there is none of this ID, it has ended, or the store failed.
pub(crate) async fn stop(host: &Host, id: &str, by: Author) -> Result<bulk::BulkOperation, Problem> {
    let found = read(host, id).await?;
    if let Some(cancelled) = host.cancel_operation(found.id, by).await? {
        return Ok(cancelled);
    }
    let ended = read(host, id).await?;
    let detail = format!("operation {id} has ended ({}); what it has changed stays changed", ended.state.as_str());
    Err(Problem::new(Kind::OPERATION_ENDED, detail))
}

/// Returns the problem of a request that was refused.
pub(crate) fn refused(error: OperationError) -> Problem {
    let text = error.to_string();
    match error {
        OperationError::Store(error @ StoreError::Unknown(_)) => Problem::new(
            Kind::OUTCOME_UNKNOWN,
            format!(
                "{error}; look at GET /v1/operations before you send the request again: the operation may have begun"
            ),
        ),
        OperationError::Store(error) => error.into(),
        OperationError::Invalid(_) => Problem::bad_request(text),
        OperationError::TooMany => Problem::new(Kind::TOO_MANY_OPERATIONS, text),
    }
}
