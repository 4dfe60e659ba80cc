//! `/v1/holds`: which jobs operators keep waiting.
//!
//! What is held is in the query, as with limits: keys may have slashes and dots, which many proxies change in a path.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use wharf_core::bounds;
use wharf_core::hold::{HoldLength, HoldScope, NewHold};
use wharf_core::ids::ParseIdError;
use wharf_runner::{HoldError, Host};

use super::api::{Hold, HoldPage, HoldRequest, HoldsQuery, ReleaseQuery};
use super::author::RequestAuthor;
use super::problem::{Kind, Problem};
use super::query::encode;
use super::scope::still_valid;
use super::{body, links, query};
use crate::access::Access;
use crate::config;

/// The longest body, in bytes: far more than a scope and a reason need.
const BODY_BYTES_MAX: u64 = 16 * 1024;
/// Number of holds on a page, if the query does not set it.
const PAGE_DEFAULT: u32 = 100;

/// Lists the holds in force.
pub(crate) async fn list(State(host): State<Host>, uri: Uri) -> Result<Json<HoldPage>, Problem> {
    let HoldsQuery { after, limit } = query::query(&uri)?;
    let max = limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=bounds::PAGE_MAX).contains(&max) {
        return Err(Problem::bad_request(format!("`limit`: expected 1 to {}, got {max}", bounds::PAGE_MAX)));
    }
    let after = after.as_deref().map(|after| parsed("after", after)).transpose()?;
    let page = host.holds(after, max).await?;
    let last = page.holds.last().filter(|_| page.more);
    let next =
        last.map(|last| links::page_from_page(&format!("after={}&limit={max}", encode(&last.scope.to_string()))));
    Ok(Json(HoldPage { holds: page.holds.iter().map(Hold::from).collect(), next }))
}

/// Sets a hold.
pub(crate) async fn set(
    State(host): State<Host>,
    access: Access,
    RequestAuthor(by): RequestAuthor,
    request: Request,
) -> Result<Json<Hold>, Problem> {
    let (head, body) = request.into_parts();
    let body = body::read_small(&head.headers, body, BODY_BYTES_MAX).await?;
    still_valid(&access)?;
    let HoldRequest { all, plugin, task, group, key, until, length, reason } = query::json(&body)?;
    let scope = scope(ReleaseQuery { all, plugin, task, group, key })?;
    let length = match (until, length) {
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request("`until` and `for` are both given; leave one out"));
        }
        (Some(until), None) => Some(HoldLength::Until(until.0)),
        (None, Some(length)) => {
            let length = config::duration(&length).map_err(|error| Problem::bad_request(format!("`for`: {error}")))?;
            Some(HoldLength::For(length))
        }
        (None, None) => None,
    };
    let reason = parsed("reason", reason.as_deref().unwrap_or_default())?;
    let new = NewHold { scope, length, reason, by };
    let set = host.hold(new).await.map_err(refused)?;
    Ok(Json(Hold { known: Some(set.is_known), ..Hold::from(&set.hold) }))
}

/// Releases a hold.
pub(crate) async fn release(
    State(host): State<Host>,
    RequestAuthor(by): RequestAuthor,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    let scope = scope(query::query(&uri)?)?;
    match host.release(scope.clone(), by).await? {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(Problem::new(
            Kind::HOLD_UNKNOWN,
            format!(
                "unknown hold `{scope}`: none of exactly this scope is in force; a hold is released by the scope with which it was set"
            ),
        )),
    }
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
