//! `/v1/limits`: the limits in force, and overrides of them.
//!
//! Groups and keys are in the query: they may have slashes and dots, which many proxies decode, merge and resolve in a path.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use wharf_core::ids::{Group, ParseIdError};
use wharf_core::key::Key;
use wharf_core::limits::Override;
use wharf_runner::{Host, LimitError};

use super::api::{Limit, LimitNumbers, LimitQuery};
use super::author::RequestAuthor;
use super::problem::{Kind, Problem};
use super::scope::still_valid;
use super::{body, query};
use crate::access::Access;

/// The longest body, in bytes: far more than two numbers need.
const BODY_BYTES_MAX: u64 = 4096;

/// Lists every limit group.
pub(crate) async fn list(State(host): State<Host>) -> Result<Json<Vec<Limit>>, Problem> {
    Ok(Json(host.limits().await?.iter().map(Limit::from).collect()))
}

/// Sets the limits of a group, or of one key of it.
pub(crate) async fn set(
    State(host): State<Host>,
    access: Access,
    RequestAuthor(by): RequestAuthor,
    request: Request,
) -> Result<Json<Limit>, Problem> {
    let (head, body) = request.into_parts();
    let (group, key) = group_and_key(&head.uri)?;
    let body = body::read_small(&head.headers, body, BODY_BYTES_MAX).await?;
    let numbers: LimitNumbers = query::json(&body)?;
    still_valid(&access)?;
    let change = Override { group: group.clone(), key: key.clone(), limits: numbers.into() };
    host.set_limit(change, by).await.map_err(|error| refused(error, &group))?;
    let all = host.limits().await?;
    let changed = all.iter().find(|limit| limit.group == group);
    changed
        .map(|limit| Json(limit.into()))
        .ok_or_else(|| Problem::new(Kind::INTERNAL, "the limit was set, but GET /v1/limits does not show it"))
}

/// Removes the limits that were set for a group, or for one key of it.
pub(crate) async fn clear(
    State(host): State<Host>,
    RequestAuthor(by): RequestAuthor,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    let (group, key) = group_and_key(&uri)?;
    let of_key = key.as_ref().map(|key| format!(" of key `{key}`")).unwrap_or_default();
    match host.clear_limit(group.clone(), key.clone(), by).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(Problem::new(
            Kind::LIMIT_NOT_SET,
            format!("the limit{of_key} of group `{group}` is not set; the declared limit applies"),
        )),
        Err(error) => Err(refused(error, &group)),
    }
}

/// Reads the group and the key that the query names.
fn group_and_key(uri: &Uri) -> Result<(Group, Option<Key>), Problem> {
    let LimitQuery { group, key } = query::query(uri)?;
    let bad = |name: &'static str| move |error: ParseIdError| Problem::bad_request(format!("`{name}`: {error}"));
    Ok((group.parse().map_err(bad("group"))?, key.as_deref().map(str::parse).transpose().map_err(bad("key"))?))
}

/// Returns the problem of a request that was refused.
pub(crate) fn refused(error: LimitError, group: &Group) -> Problem {
    let text = error.to_string();
    match error {
        LimitError::Store(error) => error.into(),
        LimitError::TotalOfKey | LimitError::Nothing => Problem::bad_request(text),
        LimitError::Loading(_) => Problem::new(Kind::PLUGIN_LOADING, text),
        LimitError::UnknownGroup { .. } => Problem::new(Kind::GROUP_UNKNOWN, text).with("group", group.to_string()),
    }
}
