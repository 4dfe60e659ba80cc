//! `/v1/limits`: what holds, and overrides of it.
//!
//! A group may have a slash in its name; in an address it is written as one segment: `words%2Fcount`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use wharf_core::ids::{Group, ParseIdError};
use wharf_core::key::Key;
use wharf_core::limits::{Limits, Override};
use wharf_runner::{GroupLimits, LimitError};

use super::app_state::Face;
use super::path::Path;
use super::problem::{Kind, Problem};
use super::wire::{KeyLimit, Limit, LimitNumbers};
use super::{body, query};

const BODY_BYTES_MAX: u64 = 4096;

pub(crate) async fn list(State(face): State<Arc<Face>>) -> Result<Json<Vec<Limit>>, Problem> {
    Ok(Json(face.host.limits().await?.iter().map(document).collect()))
}

pub(crate) async fn set_group(
    State(face): State<Arc<Face>>,
    Path(group): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Limit>, Problem> {
    let (group, _) = place(&group, None)?;
    set(&face, group, None, &body::read(&headers, body, BODY_BYTES_MAX).await?).await
}

pub(crate) async fn set_key(
    State(face): State<Arc<Face>>,
    Path((group, key)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Limit>, Problem> {
    let (group, key) = place(&group, Some(&key))?;
    set(&face, group, key, &body::read(&headers, body, BODY_BYTES_MAX).await?).await
}

async fn set(face: &Face, group: Group, key: Option<Key>, body: &[u8]) -> Result<Json<Limit>, Problem> {
    let numbers: LimitNumbers = query::json(body)?;
    let limits = Limits { per_key: numbers.per_key, total: numbers.total };
    let change = Override { group: group.clone(), key: key.clone(), limits };
    face.host.set_limit(change).await.map_err(|error| refused(error, &group, key.as_ref()))?;
    let all = face.host.limits().await?;
    let found = all.iter().find(|limit| limit.group == group);
    found
        .map(|limit| Json(document(limit)))
        .ok_or_else(|| Problem::new(Kind::INTERNAL, "the limit is set, but does not show"))
}

pub(crate) async fn clear_group(
    State(face): State<Arc<Face>>,
    Path(group): Path<String>,
) -> Result<StatusCode, Problem> {
    let (group, _) = place(&group, None)?;
    clear(&face, group, None).await
}

pub(crate) async fn clear_key(
    State(face): State<Arc<Face>>,
    Path((group, key)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (group, key) = place(&group, Some(&key))?;
    clear(&face, group, key).await
}

async fn clear(face: &Face, group: Group, key: Option<Key>) -> Result<StatusCode, Problem> {
    let whose = key.as_ref().map(|key| format!(" of key `{key}`")).unwrap_or_default();
    match face.host.clear_limit(group.clone(), key.clone()).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(Problem::new(
            Kind::LIMIT_NOT_SET,
            format!("no limit{whose} is set for the group `{group}`; what is declared holds"),
        )),
        Err(error) => Err(refused(error, &group, key.as_ref())),
    }
}

fn place(group: &str, key: Option<&str>) -> Result<(Group, Option<Key>), Problem> {
    let bad = |error: ParseIdError| Problem::bad_request(error.to_string());
    Ok((group.parse().map_err(bad)?, key.map(str::parse).transpose().map_err(bad)?))
}

fn refused(error: LimitError, group: &Group, key: Option<&Key>) -> Problem {
    // What is meant by `/words/count` is most likely the task.
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

fn document(limit: &GroupLimits) -> Limit {
    let numbers = |limits: Limits| LimitNumbers { per_key: limits.per_key, total: limits.total };
    Limit {
        group: limit.group.to_string(),
        tasks: limit.tasks.iter().map(ToString::to_string).collect(),
        per_key: limit.in_force.per_key,
        total: limit.in_force.total,
        declared: numbers(limit.declared),
        set: limit.set.map(numbers),
        keys: limit
            .keys
            .iter()
            .map(|(key, limits)| KeyLimit { key: key.to_string(), per_key: limits.per_key })
            .collect(),
        running: limit.running,
    }
}
