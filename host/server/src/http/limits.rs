//! `/v1/limits`: the limits in force, and overrides of them.
//!
//! A group may have a slash in its name; in an address it is written as one segment: `words%2Fcount`.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use wharf_core::ids::{Group, ParseIdError};
use wharf_core::key::Key;
use wharf_core::limits::Override;
use wharf_runner::{Host, LimitError};

use super::api::{Limit, LimitNumbers};
use super::path::Path;
use super::problem::{Kind, Problem};
use super::{body, query};

/// The longest body, in bytes: far more than two numbers need.
const BODY_BYTES_MAX: u64 = 4096;

/// Lists every limit group.
pub(crate) async fn list(State(host): State<Host>) -> Result<Json<Vec<Limit>>, Problem> {
    Ok(Json(host.limits().await?.iter().map(Limit::from).collect()))
}

/// Sets the limits of a group.
pub(crate) async fn set_group(
    State(host): State<Host>,
    Path(group): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Limit>, Problem> {
    let (group, _) = group_and_key(&group, None)?;
    set(&host, group, None, &body::read(&headers, body, BODY_BYTES_MAX).await?).await
}

/// Sets the limit of one key of a group.
pub(crate) async fn set_key(
    State(host): State<Host>,
    Path((group, key)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Limit>, Problem> {
    let (group, key) = group_and_key(&group, Some(&key))?;
    set(&host, group, key, &body::read(&headers, body, BODY_BYTES_MAX).await?).await
}

async fn set(host: &Host, group: Group, key: Option<Key>, body: &[u8]) -> Result<Json<Limit>, Problem> {
    let numbers: LimitNumbers = query::json(body)?;
    let change = Override { group: group.clone(), key: key.clone(), limits: numbers.into() };
    host.set_limit(change).await.map_err(|error| refused(error, &group, key.as_ref()))?;
    let all = host.limits().await?;
    let changed = all.iter().find(|limit| limit.group == group);
    changed
        .map(|limit| Json(limit.into()))
        .ok_or_else(|| Problem::new(Kind::INTERNAL, "the limit was set, but GET /v1/limits does not show it"))
}

/// Removes the limits that were set for a group.
pub(crate) async fn clear_group(State(host): State<Host>, Path(group): Path<String>) -> Result<StatusCode, Problem> {
    let (group, _) = group_and_key(&group, None)?;
    clear(&host, group, None).await
}

/// Removes the limit that was set for one key of a group.
pub(crate) async fn clear_key(
    State(host): State<Host>,
    Path((group, key)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (group, key) = group_and_key(&group, Some(&key))?;
    clear(&host, group, key).await
}

async fn clear(host: &Host, group: Group, key: Option<Key>) -> Result<StatusCode, Problem> {
    let of_key = key.as_ref().map(|key| format!(" of key `{key}`")).unwrap_or_default();
    match host.clear_limit(group.clone(), key.clone()).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(Problem::new(
            Kind::LIMIT_NOT_SET,
            format!("the limit{of_key} of group `{group}` is not set; the declared limit applies"),
        )),
        Err(error) => Err(refused(error, &group, key.as_ref())),
    }
}

fn group_and_key(group: &str, key: Option<&str>) -> Result<(Group, Option<Key>), Problem> {
    let bad = |error: ParseIdError| Problem::bad_request(error.to_string());
    Ok((group.parse().map_err(bad)?, key.map(str::parse).transpose().map_err(bad)?))
}

fn refused(error: LimitError, group: &Group, key: Option<&Key>) -> Problem {
    // A client that sends `/words/count` most likely means the task.
    let hint = match key {
        Some(key) if format!("{group}/{key}").parse::<Group>().is_ok() => {
            format!("; for the task `{group}/{key}` write it as one segment: {group}%2F{key}")
        }
        _ => String::new(),
    };
    let text = format!("{error}{hint}");
    match error {
        LimitError::Store(error) => error.into(),
        LimitError::TotalOfKey | LimitError::Nothing => Problem::bad_request(text),
        LimitError::Loading(_) => Problem::new(Kind::PLUGIN_LOADING, text),
        LimitError::UnknownGroup { .. } => Problem::new(Kind::GROUP_UNKNOWN, text).with("group", group.to_string()),
    }
}
