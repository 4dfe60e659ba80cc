//! `/v1/failures`: the jobs that failed, by the fingerprint of their failures.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use wharf_core::bounds;
use wharf_core::failure::FailureState;
use wharf_core::fingerprint::Fingerprint;
use wharf_core::ids::ParseIdError;
use wharf_core::time::Timestamp;
use wharf_runner::Host;
use wharf_store::{FailureCursor, FailureFilter};

use super::api::{Failure, FailurePage, FailuresQuery};
use super::author::RequestAuthor;
use super::path::Path;
use super::problem::{Kind, Problem};
use super::query::{encode, page_size, query};
use super::{links, memory};

/// Number of groups on a page, if the query does not set it.
const PAGE_DEFAULT: u32 = 100;

/// Lists failure groups, the one that failed last first.
pub(crate) async fn list(State(host): State<Host>, uri: Uri) -> Result<Response, Problem> {
    memory::json(host.budget(), &page(&host, &uri).await?).await
}

/// Returns a page of the list.
///
/// # Errors
/// If a parameter is not valid, or the store failed.
pub(crate) async fn page(host: &Host, uri: &Uri) -> Result<FailurePage, Problem> {
    let query: FailuresQuery = query(uri)?;
    let page = host.failures(filter(&query)?).await?;
    let next = page.groups.last().filter(|_| page.more).map(|last| next_page(&query, &FailureCursor::of(last)));
    Ok(FailurePage { failures: page.groups.iter().map(Failure::from).collect(), next })
}

fn filter(query: &FailuresQuery) -> Result<FailureFilter, Problem> {
    let max = page_size(query.limit, PAGE_DEFAULT, bounds::PAGE_MAX)?;
    let of_task = |error: ParseIdError| Problem::bad_request(format!("`task`: {error}"));
    Ok(FailureFilter {
        state: query.state.map(FailureState::from),
        task: query.task.as_deref().map(str::parse).transpose().map_err(of_task)?,
        after: query.after.as_deref().map(cursor).transpose()?,
        max,
    })
}

/// Reads a place in the list: microseconds since 1970 and a fingerprint, with a hyphen between them.
fn cursor(text: &str) -> Result<FailureCursor, Problem> {
    let parsed = text.split_once('-').and_then(|(at, fingerprint)| {
        let last_seen = Timestamp::from_micros(at.parse().ok()?);
        Some(FailureCursor { last_seen, fingerprint: fingerprint.parse().ok()? })
    });
    parsed.ok_or_else(|| Problem::bad_request("`after`: expected the value that `next` of a page has"))
}

/// Returns the reference to the page that follows `last`, with the same filter.
fn next_page(query: &FailuresQuery, last: &FailureCursor) -> String {
    let after = format!("{}-{}", last.last_seen.as_micros(), last.fingerprint);
    let (state, limit) = (query.state.map(|state| state.to_string()), query.limit.map(|limit| limit.to_string()));
    let pairs = [
        ("state", state.as_deref()),
        ("task", query.task.as_deref()),
        ("limit", limit.as_deref()),
        ("after", Some(&*after)),
    ];
    let encoded = pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(value?))));
    links::page_from_page(&encoded.collect::<Vec<_>>().join("&"))
}

/// Shows one failure group.
pub(crate) async fn show(State(host): State<Host>, Path(text): Path<String>) -> Result<Json<Failure>, Problem> {
    Ok(Json(read(&host, &text).await?))
}

/// Reads one failure group.
///
/// # Errors
/// If there is none of this fingerprint, or the store failed.
pub(crate) async fn read(host: &Host, text: &str) -> Result<Failure, Problem> {
    let fingerprint = fingerprint(text)?;
    let details = host.failure(fingerprint).await?.ok_or_else(|| unknown(fingerprint))?;
    Ok(Failure::whole(&details))
}

/// Says that the cause of a failure group is removed.
pub(crate) async fn resolve(
    host: State<Host>,
    by: RequestAuthor,
    path: Path<String>,
) -> Result<Json<Failure>, Problem> {
    set_state(host, by, path, FailureState::Resolved).await
}

/// Says that a failure group needs nobody's attention.
pub(crate) async fn ignore(host: State<Host>, by: RequestAuthor, path: Path<String>) -> Result<Json<Failure>, Problem> {
    set_state(host, by, path, FailureState::Ignored).await
}

/// Takes back that a failure group is resolved or ignored.
pub(crate) async fn reopen(host: State<Host>, by: RequestAuthor, path: Path<String>) -> Result<Json<Failure>, Problem> {
    set_state(host, by, path, FailureState::Open).await
}

async fn set_state(
    State(host): State<Host>,
    RequestAuthor(by): RequestAuthor,
    Path(text): Path<String>,
    state: FailureState,
) -> Result<Json<Failure>, Problem> {
    let fingerprint = fingerprint(&text)?;
    let group = host.set_failure_state(fingerprint, state, by).await?;
    Ok(Json(Failure::from(&group.ok_or_else(|| unknown(fingerprint))?)))
}

/// Reads the fingerprint in an address.
pub(crate) fn fingerprint(text: &str) -> Result<Fingerprint, Problem> {
    text.parse().map_err(|error: ParseIdError| Problem::new(Kind::FAILURE_UNKNOWN, error.to_string()))
}

/// Returns the problem of a group that there is not.
pub(crate) fn unknown(fingerprint: Fingerprint) -> Problem {
    let detail = format!("unknown failure group {fingerprint}; a group is deleted 90 days after its last failure");
    Problem::new(Kind::FAILURE_UNKNOWN, detail).with("fingerprint", fingerprint.to_string())
}
