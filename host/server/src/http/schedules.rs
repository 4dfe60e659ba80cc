//! `/v1/schedules`: jobs that are enqueued at the moments of a clock.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use wharf_core::bounds;
use wharf_core::hold::HoldReason;
use wharf_core::ids::{ParseIdError, ScheduleId};
use wharf_core::schedule::{ScheduleSpec, Timing};
use wharf_runner::{EnqueueError, Host, ScheduleError};

use super::api::{PauseRequest, Schedule, SchedulePage, ScheduleRequest, ScheduleRun, SchedulesQuery};
use super::author::RequestAuthor;
use super::bytes::payload_bytes;
use super::path::Path;
use super::problem::{Kind, Problem};
use super::scope::{forbidden, still_valid};
use super::{body, enqueue, links, query};
use crate::access::Access;
use crate::config;

/// The longest body, in bytes: a payload in base64, and the other members.
const BODY_BYTES_MAX: u64 = bounds::SCHEDULE_PAYLOAD_BYTES_MAX / 3 * 4 + 16 * bounds::KIB;
/// The longest body of a request to pause, in bytes.
const PAUSE_BYTES_MAX: u64 = 16 * 1024;
/// Number of schedules on a page, if the query does not set it.
const PAGE_DEFAULT: u32 = 100;

/// Lists schedules, in the order of their IDs.
pub(crate) async fn list(State(host): State<Host>, uri: Uri) -> Result<Json<SchedulePage>, Problem> {
    let SchedulesQuery { after, limit } = query::query(&uri)?;
    let max = limit.unwrap_or(PAGE_DEFAULT);
    if !(1..bounds::PAGE_MAX).contains(&max) {
        return Err(Problem::bad_request(format!("`limit`: expected 1 to {}, got {max}", bounds::PAGE_MAX - 1)));
    }
    let bad = |error: ParseIdError| Problem::bad_request(format!("`after`: {error}"));
    let after = after.as_deref().map(str::parse).transpose().map_err(bad)?;
    let mut found = host.schedules(after, max + 1).await?;
    let more = found.len() > max as usize;
    found.truncate(max as usize);
    let last = found.last().filter(|_| more);
    let next = last.map(|last| links::page_from_page(&format!("limit={max}&after={}", last.id)));
    let now = host.now();
    Ok(Json(SchedulePage { schedules: found.iter().map(|schedule| Schedule::of(schedule, now)).collect(), next }))
}

/// Shows one schedule.
pub(crate) async fn show(State(host): State<Host>, Path(id): Path<String>) -> Result<Json<Schedule>, Problem> {
    let id = schedule_id(&id)?;
    let found = host.schedule(id.clone()).await?.ok_or_else(|| refused(ScheduleError::Unknown(id)))?;
    Ok(Json(Schedule::of(&found, host.now())))
}

/// Defines a schedule.
pub(crate) async fn put(
    State(host): State<Host>,
    access: Access,
    RequestAuthor(by): RequestAuthor,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let id: ScheduleId = id.parse().map_err(|error: ParseIdError| Problem::bad_request(error.to_string()))?;
    let (head, body) = request.into_parts();
    let body = body::read_small(&head.headers, body, BODY_BYTES_MAX).await?;
    still_valid(&access)?;
    let spec = spec(query::json(&body)?)?;
    if !access.enqueues(&spec.task) {
        return Err(forbidden(&access, &format!("enqueue:{}", spec.task)).hint("the schedule enqueues its jobs"));
    }
    let (schedule, is_new) = host.put_schedule(id, spec, by).await.map_err(refused)?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(Schedule::of(&schedule, host.now()))).into_response())
}

/// Deletes a schedule; its jobs stay.
pub(crate) async fn remove(
    State(host): State<Host>,
    RequestAuthor(by): RequestAuthor,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    host.remove_schedule(schedule_id(&id)?, by).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Enqueues a job of a schedule at once.
pub(crate) async fn run(
    State(host): State<Host>,
    access: Access,
    RequestAuthor(by): RequestAuthor,
    Path(id): Path<String>,
) -> Result<Json<ScheduleRun>, Problem> {
    let run = host.run_schedule(schedule_id(&id)?, by, &|task| access.enqueues(task)).await;
    let job = run.map_err(|error| match error {
        ScheduleError::MayNotEnqueue(task) => {
            forbidden(&access, &format!("enqueue:{task}")).hint("the schedule enqueues its jobs")
        }
        other => refused(other),
    })?;
    Ok(Json(ScheduleRun { job: job.to_string() }))
}

/// Pauses a schedule.
pub(crate) async fn pause(
    State(host): State<Host>,
    access: Access,
    RequestAuthor(by): RequestAuthor,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Schedule>, Problem> {
    let id = schedule_id(&id)?;
    let (head, body) = request.into_parts();
    let body = body::read_small(&head.headers, body, PAUSE_BYTES_MAX).await?;
    still_valid(&access)?;
    let PauseRequest { until, length, reason } =
        if body.is_empty() { PauseRequest::default() } else { query::json(&body)? };
    let until = match (until, length) {
        (Some(_), Some(_)) => return Err(Problem::bad_request("`until` and `for` are both given; leave one out")),
        (until, None) => until.map(|until| until.0),
        (None, Some(text)) => Some(host.now() + duration("for", &text)?),
    };
    let bad = |error: ParseIdError| Problem::bad_request(format!("`reason`: {error}"));
    let reason: HoldReason = reason.as_deref().unwrap_or_default().parse().map_err(bad)?;
    let paused = host.pause_schedule(id, (until, reason.as_str().to_owned()), by).await.map_err(refused)?;
    Ok(Json(Schedule::of(&paused, host.now())))
}

/// Ends the pause of a schedule.
pub(crate) async fn resume(
    State(host): State<Host>,
    RequestAuthor(by): RequestAuthor,
    Path(id): Path<String>,
) -> Result<Json<Schedule>, Problem> {
    let resumed = host.resume_schedule(schedule_id(&id)?, by).await.map_err(refused)?;
    Ok(Json(Schedule::of(&resumed, host.now())))
}

fn spec(request: ScheduleRequest) -> Result<ScheduleSpec, Problem> {
    let named = |name: &str, error: ParseIdError| Problem::bad_request(format!("`{name}`: {error}"));
    let timing = match (request.cron, request.every) {
        (Some(expression), None) => Timing::Cron { expression, zone: request.zone.unwrap_or_else(|| "UTC".to_owned()) },
        (None, Some(_)) if request.zone.is_some() => {
            return Err(Problem::bad_request("`zone`: only `cron` has one; an interval follows real time"));
        }
        (None, Some(every)) => Timing::Every(duration("every", &every)?),
        (Some(_), Some(_)) => return Err(Problem::bad_request("`cron` and `every` are both given; leave one out")),
        (None, None) => return Err(Problem::bad_request("`cron` or `every` is missing: when does the schedule tick?")),
    };
    let length = |name: &str, text: Option<String>| text.map(|text| duration(name, &text)).transpose();
    let payload = payload_bytes(request.payload, request.payload_base64).map_err(Problem::bad_request)?;
    Ok(ScheduleSpec {
        task: request.task.parse().map_err(|error| named("task", error))?,
        payload: payload.into(),
        key: request.key.map(|key| key.parse().map_err(|error| named("key", error))).transpose()?,
        priority: request.priority.unwrap_or(0),
        timing,
        missed: request.missed.map(Into::into).unwrap_or_default(),
        window: length("window", request.window)?.unwrap_or(bounds::SCHEDULE_WINDOW_DEFAULT),
        overlap: request.overlap.map(Into::into).unwrap_or_default(),
        spread: length("spread", request.spread)?.unwrap_or_default(),
        pause_after: request.pause_after,
        tick_as: request.tick_as.map(|path| path.parse().map_err(|error| named("tick_as", error))).transpose()?,
    })
}

fn duration(name: &str, text: &str) -> Result<Duration, Problem> {
    config::duration(text).map_err(|error| Problem::bad_request(format!("`{name}`: {error}")))
}

fn schedule_id(text: &str) -> Result<ScheduleId, Problem> {
    text.parse().map_err(|error: ParseIdError| Problem::new(Kind::SCHEDULE_UNKNOWN, error.to_string()))
}

fn refused(error: ScheduleError) -> Problem {
    let text = error.to_string();
    match error {
        ScheduleError::Store(error) => error.into(),
        ScheduleError::Rejected(rejection) => enqueue::problem(EnqueueError::EnqueueRejection(rejection)),
        ScheduleError::Invalid(_) => Problem::bad_request(text),
        ScheduleError::Unknown(_) => Problem::new(Kind::SCHEDULE_UNKNOWN, text),
        ScheduleError::InFile(_) => Problem::new(Kind::SCHEDULE_IN_FILE, text),
        ScheduleError::TooMany => Problem::new(Kind::TOO_MANY_SCHEDULES, text),
        ScheduleError::MayNotEnqueue(_) => Problem::new(Kind::FORBIDDEN, text),
        ScheduleError::NotRun(_) => Problem::new(Kind::SCHEDULE_NOT_RUN, text),
    }
}
