//! `/v1/holds`: which jobs operators keep waiting.
//!
//! What is held is in the query, as with limits: keys may have slashes and dots, which many proxies change in a path.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::hold::{HoldReason, HoldScope, NewHold};
use wharf_core::ids::ParseIdError;
use wharf_runner::{HoldError, HoldSet, Host};

use super::api::{Hold, HoldPage, HoldRequest, ReleaseQuery};
use super::author::RequestAuthor;
use super::problem::{Kind, Problem};
use super::query::encode;
use super::scope::still_valid;
use super::{body, length, links, query};
use crate::access::Access;

/// The longest body, in bytes: as many keys as one request may name, and a reason.
const BODY_BYTES_MAX: u64 = 512 * 1024;
/// Number of holds on a page, if the query does not set it.
const PAGE_DEFAULT: u32 = 100;

/// Lists the holds in force.
pub(crate) async fn list(State(host): State<Host>, uri: Uri) -> Result<Json<HoldPage>, Problem> {
    let (after, max) = query::page_after(&uri, PAGE_DEFAULT, bounds::PAGE_MAX)?;
    let page = host.holds(after, max).await?;
    let last = page.holds.last().filter(|_| page.more);
    let next =
        last.map(|last| links::page_from_page(&format!("after={}&limit={max}", encode(&last.scope.to_string()))));
    Ok(Json(HoldPage { holds: page.holds.iter().map(Hold::from).collect(), next }))
}

/// Sets a hold, or one for each of many keys.
pub(crate) async fn set(
    State(host): State<Host>,
    access: Access,
    RequestAuthor(by): RequestAuthor,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let body = body::read_small(&head.headers, body, BODY_BYTES_MAX).await?;
    still_valid(&access)?;
    let HoldRequest { all, plugin, task, group, key, keys, until, length, reason } = query::json(&body)?;
    let length = length::end(until, length.as_deref())?;
    let reason: HoldReason = parsed("reason", reason.as_deref().unwrap_or_default())?;
    let new = |scope| NewHold { scope, length, reason: reason.clone(), by: by.clone() };
    let document = |set: &HoldSet| Hold { known: Some(set.is_known), ..Hold::from(&set.hold) };
    let Some(keys) = keys else {
        let set = host.hold(new(scope(ReleaseQuery { all, plugin, task, group, key })?)).await.map_err(refused)?;
        return Ok(Json(document(&set)).into_response());
    };
    if !(1..=bounds::HOLD_KEYS_MAX).contains(&keys.len()) {
        let max = bounds::HOLD_KEYS_MAX;
        return Err(Problem::bad_request(format!("`keys`: expected 1 to {max} keys, got {}", keys.len())));
    }
    if all == Some(true) || plugin.is_some() || task.is_some() || key.is_some() {
        return Err(Problem::bad_request("`keys`: expected no other member beside it but `group`, which limits it"));
    }
    let of_key = |key| scope(ReleaseQuery { group: group.clone(), key: Some(key), ..ReleaseQuery::default() });
    let scopes: Vec<HoldScope> = keys.into_iter().map(of_key).collect::<Result<_, _>>()?;
    let set = host.hold_many(scopes.into_iter().map(new).collect()).await.map_err(|error| {
        refused(error).hint("some of the keys may be held already; the same request may be sent again")
    })?;
    Ok(Json(HoldPage { holds: set.iter().map(document).collect(), next: None }).into_response())
}

/// Releases a hold.
pub(crate) async fn release(
    State(host): State<Host>,
    RequestAuthor(by): RequestAuthor,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    let scope = scope(query::query(&uri)?)?;
    release_scope(&host, scope, by).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Releases the hold of exactly this scope.
///
/// # Errors
/// If there is none, or the store failed.
pub(crate) async fn release_scope(host: &Host, scope: HoldScope, by: Author) -> Result<(), Problem> {
    if host.release(scope.clone(), by).await?.is_some() {
        return Ok(());
    }
    let detail = format!(
        "unknown hold `{scope}`: none of exactly this scope is in force; a hold is released by the scope with which it was set"
    );
    Err(Problem::new(Kind::HOLD_UNKNOWN, detail))
}

/// Reads what is to be held or released.
fn scope(named: ReleaseQuery) -> Result<HoldScope, Problem> {
    let ReleaseQuery { all, plugin, task, group, key } = named;
    match (all == Some(true), plugin, task, group, key) {
        (true, None, None, None, None) => Ok(HoldScope::All),
        (false, Some(plugin), None, None, None) => parsed("plugin", &plugin).map(HoldScope::Plugin),
        (false, None, Some(task), None, None) => parsed("task", &task).map(HoldScope::Task),
        (false, None, None, Some(group), None) => parsed("group", &group).map(HoldScope::Group),
        (false, None, None, group, Some(key)) => {
            let group = group.as_deref().map(|group| parsed("group", group)).transpose()?;
            Ok(HoldScope::Key { group, key: parsed("key", &key)? })
        }
        _ => Err(Problem::bad_request(
            "invalid hold: expected exactly one of `all`, `plugin`, `task`, `group` and `key`, or `group` and `key` together",
        )),
    }
}

fn parsed<T: std::str::FromStr<Err = ParseIdError>>(name: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error| Problem::bad_request(format!("`{name}`: {error}")))
}

/// Returns the problem of a request that was refused.
pub(crate) fn refused(error: HoldError) -> Problem {
    let text = error.to_string();
    match error {
        HoldError::Store(error) => error.into(),
        HoldError::Ended => Problem::bad_request(text),
        HoldError::TooMany(_) => Problem::new(Kind::TOO_MANY_HOLDS, text),
    }
}
