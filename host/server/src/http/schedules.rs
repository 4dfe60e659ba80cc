//! `/v1/schedules`: jobs that are enqueued at the moments of a clock.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::hold::{HoldLength, HoldReason};
use wharf_core::ids::{JobId, ParseIdError, ScheduleId};
use wharf_core::schedule::{Schedule as CoreSchedule, ScheduleSpec, Timing};
use wharf_runner::{EnqueueError, Host, ScheduleError};

use super::api::{PauseRequest, PutScheduleQuery, Schedule, SchedulePage, ScheduleRequest, ScheduleRun};
use super::author::RequestAuthor;
use super::bytes::payload_bytes;
use super::path::Path;
use super::problem::{Kind, Problem};
use super::scope::{forbidden, still_valid};
use super::{body, enqueue, length, links, query};
use crate::access::Access;

/// The longest body, in bytes: a payload in base64, and the other members.
const BODY_BYTES_MAX: u64 = bounds::SCHEDULE_PAYLOAD_BYTES_MAX / 3 * 4 + 16 * bounds::KIB;
/// The longest body of a request to pause, in bytes.
const PAUSE_BYTES_MAX: u64 = 16 * 1024;
/// Number of schedules on a page, if the query does not set it.
const PAGE_DEFAULT: u32 = 100;
/// Number of schedules that are read at a time.
const READ_MAX: usize = 64;

/// Lists schedules, in the order of their IDs.
pub(crate) async fn list(State(host): State<Host>, uri: Uri) -> Result<Json<SchedulePage>, Problem> {
    Ok(Json(page(&host, &uri).await?))
}

/// Returns a page of the list.
///
/// # Errors
/// If a parameter is not valid, or the store failed.
pub(crate) async fn page(host: &Host, uri: &Uri) -> Result<SchedulePage, Problem> {
    let (after, max) = query::page_after(uri, PAGE_DEFAULT, bounds::PAGE_MAX - 1)?;
    let (found, more) = read_page(host, after, max as usize).await?;
    let last = found.last().filter(|_| more);
    let next = last.map(|last| links::page_from_page(&format!("limit={max}&after={}", last.id)));
    let now = host.now();
    Ok(SchedulePage { schedules: found.iter().map(|schedule| Schedule::of(schedule, now)).collect(), next })
}

/// Reads schedules up to a number, and up to some bytes of payloads. Returns them, and true if there are more.
async fn read_page(
    host: &Host,
    mut after: Option<ScheduleId>,
    max: usize,
) -> Result<(Vec<CoreSchedule>, bool), Problem> {
    let (mut found, mut bytes): (Vec<CoreSchedule>, u64) = (Vec::new(), 0);
    loop {
        let wanted = (max + 1 - found.len()).min(READ_MAX);
        let page = host.schedules(after, wanted as u32).await?;
        let is_last = page.len() < wanted;
        for schedule in page {
            bytes += schedule.spec.payload.len() as u64;
            if found.len() == max || bytes > bounds::SCHEDULE_PAGE_BYTES_MAX && !found.is_empty() {
                return Ok((found, true));
            }
            found.push(schedule);
        }
        if is_last {
            return Ok((found, false));
        }
        after = found.last().map(|last| last.id.clone());
    }
}

/// Shows one schedule.
pub(crate) async fn show(State(host): State<Host>, Path(id): Path<String>) -> Result<Json<Schedule>, Problem> {
    Ok(Json(read(&host, &id).await?))
}

/// Reads one schedule.
///
/// # Errors
/// If there is no such schedule, or the store failed.
pub(crate) async fn read(host: &Host, id: &str) -> Result<Schedule, Problem> {
    let id = schedule_id(id)?;
    let found = host.schedule(id.clone()).await?.ok_or_else(|| refused(ScheduleError::Unknown(id)))?;
    Ok(Schedule::of(&found, host.now()))
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
    let replaces = !query::query::<PutScheduleQuery>(&head.uri)?.new.unwrap_or_default();
    let (schedule, is_new) = define(&host, &access, (id, query::json(&body)?), replaces, by).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(Schedule::of(&schedule, host.now()))).into_response())
}

/// Defines a schedule, if the client may enqueue jobs of its task; returns it, and whether it is new. Another schedule of the name is
/// replaced if `replaces` is true.
///
/// # Errors
/// The problem of a schedule that was not defined.
pub(crate) async fn define(
    host: &Host,
    access: &Access,
    (id, request): (ScheduleId, ScheduleRequest),
    replaces: bool,
    by: Author,
) -> Result<(CoreSchedule, bool), Problem> {
    let spec = spec(request)?;
    if !access.enqueues(&spec.task) {
        return Err(forbidden(access, &format!("enqueue:{}", spec.task)).hint("the schedule enqueues its jobs"));
    }
    host.put_schedule(id, spec, replaces, by).await.map_err(refused)
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
    let job = run_now(&host, &access, &id, by).await?;
    Ok(Json(ScheduleRun { job: job.to_string() }))
}

/// Enqueues a job of a schedule at once, if the client may enqueue jobs of its task; returns its ID.
///
/// # Errors
/// The problem of a schedule that was not run.
pub(crate) async fn run_now(host: &Host, access: &Access, id: &str, by: Author) -> Result<JobId, Problem> {
    let run = host.run_schedule(schedule_id(id)?, by, &|task| access.enqueues(task)).await;
    run.map_err(|error| match error {
        ScheduleError::MayNotEnqueue(task) => {
            forbidden(access, &format!("enqueue:{task}")).hint("the schedule enqueues its jobs")
        }
        other => refused(other),
    })
}

/// Pauses a schedule.
pub(crate) async fn pause(
    State(host): State<Host>,
    access: Access,
    RequestAuthor(by): RequestAuthor,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Schedule>, Problem> {
    let (head, body) = request.into_parts();
    let body = body::read_small(&head.headers, body, PAUSE_BYTES_MAX).await?;
    still_valid(&access)?;
    let PauseRequest { until, length, reason } =
        if body.is_empty() { PauseRequest::default() } else { query::json(&body)? };
    let length = length::end(until, length.as_deref())?;
    let bad = |error: ParseIdError| Problem::bad_request(format!("`reason`: {error}"));
    let reason: HoldReason = reason.as_deref().unwrap_or_default().parse().map_err(bad)?;
    Ok(Json(pause_for(&host, &id, (length, reason), by).await?))
}

/// Pauses a schedule until it is resumed, or for a time.
///
/// # Errors
/// The problem of a schedule that was not paused.
pub(crate) async fn pause_for(
    host: &Host,
    id: &str,
    (length, reason): (Option<HoldLength>, HoldReason),
    by: Author,
) -> Result<Schedule, Problem> {
    let until = length.map(|length| length.end(host.now()));
    let pause = (until, reason.as_str().to_owned());
    let paused = host.pause_schedule(schedule_id(id)?, pause, by).await.map_err(refused)?;
    Ok(Schedule::of(&paused, host.now()))
}

/// Ends the pause of a schedule.
pub(crate) async fn resume(
    State(host): State<Host>,
    RequestAuthor(by): RequestAuthor,
    Path(id): Path<String>,
) -> Result<Json<Schedule>, Problem> {
    Ok(Json(resume_now(&host, &id, by).await?))
}

/// Ends the pause of a schedule.
///
/// # Errors
/// The problem of a schedule that was not resumed.
pub(crate) async fn resume_now(host: &Host, id: &str, by: Author) -> Result<Schedule, Problem> {
    let resumed = host.resume_schedule(schedule_id(id)?, by).await.map_err(refused)?;
    Ok(Schedule::of(&resumed, host.now()))
}

/// Returns the specification that a request writes. Its times are not checked yet.
///
/// # Errors
/// The problem of the first member that is not valid.
pub(crate) fn spec(request: ScheduleRequest) -> Result<ScheduleSpec, Problem> {
    let named = |name: &str, error: ParseIdError| Problem::bad_request(format!("`{name}`: {error}"));
    let timing = match (request.cron, request.every) {
        (Some(expression), None) => Timing::Cron { expression, zone: request.zone.unwrap_or_else(|| "UTC".to_owned()) },
        (None, Some(_)) if request.zone.is_some() => {
            return Err(Problem::bad_request("`zone`: only `cron` has one; an interval follows real time"));
        }
        (None, Some(every)) => Timing::Every(length::duration("every", &every)?),
        (Some(_), Some(_)) => return Err(Problem::bad_request("`cron` and `every` are both given; leave one out")),
        (None, None) => return Err(Problem::bad_request("`cron` or `every` is missing: when does the schedule tick?")),
    };
    let optional = |name: &str, text: Option<String>| text.map(|text| length::duration(name, &text)).transpose();
    let payload = payload_bytes(request.payload, request.payload_base64).map_err(Problem::bad_request)?;
    Ok(ScheduleSpec {
        task: request.task.parse().map_err(|error| named("task", error))?,
        payload: payload.into(),
        key: request.key.map(|key| key.parse().map_err(|error| named("key", error))).transpose()?,
        priority: request.priority.unwrap_or(0),
        timing,
        missed: request.missed.map(Into::into).unwrap_or_default(),
        window: optional("window", request.window)?.unwrap_or(bounds::SCHEDULE_WINDOW_DEFAULT),
        overlap: request.overlap.map(Into::into).unwrap_or_default(),
        spread: optional("spread", request.spread)?.unwrap_or_default(),
        pause_after: request.pause_after,
        tick_as: request.tick_as.map(|path| path.parse().map_err(|error| named("tick_as", error))).transpose()?,
    })
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
        ScheduleError::Exists(_) => Problem::new(Kind::SCHEDULE_EXISTS, text),
        ScheduleError::TooMany => Problem::new(Kind::TOO_MANY_SCHEDULES, text),
        ScheduleError::MayNotEnqueue(_) => Problem::new(Kind::FORBIDDEN, text),
        ScheduleError::NotRun(_) => Problem::new(Kind::SCHEDULE_NOT_RUN, text),
    }
}
