//! `wharf job`: enqueue, list, show, follow, cancel, retry.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::value::RawValue;
use wharf_store::{Clock as _, SystemClock};

use super::client::{ApiRequest, Client, query, retry_while_away, retry_while_loading};
use super::follow::{FollowOutput, exit_of, follow, follow_enqueued, report_text};
use super::operations::{self, ActNumbers, FilterArgs, PaceArgs};
use crate::cli_error::{CliError, ExitStatus};
use crate::http::api::{
    AttemptList, EnqueueOutcome, Enqueued, Job, JobPage, JobRequest, JobState, JobTick, Moment, OperationAct,
};
use crate::http::encode;
use crate::output::{Table, age, escape_line, millis, print_bytes, print_json, print_line};
use crate::payload_input;
use crate::stderr::note;

/// Time for which `job list` looks for as many jobs as were asked for.
const SEARCH_TIME: Duration = Duration::from_secs(2);

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Add a job to the queue and print its ID, or with --wait its result
    Enqueue(Enqueue),
    /// List jobs, newest first
    List(List),
    /// Show one job: its status, why it waits, its resource usage, its attempts that ended without a result
    Show {
        /// ID of the job
        id: String,
    },
    /// Follow a job, with its chunks on the standard output and its log on the standard error
    Follow(Follow),
    /// Cancel jobs: a waiting job at once, a running job after a grace period
    Cancel {
        /// IDs of the jobs
        #[arg(required_unless_present = "filter", conflicts_with = "filter")]
        ids: Vec<String>,
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// Retry failed or cancelled jobs
    Retry {
        /// IDs of the jobs
        #[arg(required_unless_present = "filter", conflicts_with = "filter")]
        ids: Vec<String>,
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        pace: PaceArgs,
        /// Number of attempts that each job gets, whatever its task allows [default: 1]
        #[arg(long, value_name = "N")]
        attempts: Option<u32>,
    },
    /// Delete the finished jobs that meet a filter, with their payloads, results, reports and logs
    Delete(FilterArgs),
    /// Start waiting jobs that are not due and meet a filter as soon as they can
    RunNow(FilterArgs),
    /// Give the waiting jobs that meet a filter another priority
    SetPriority {
        /// The priority; jobs with a higher one start first
        #[arg(allow_negative_numbers = true)]
        priority: i32,
        #[command(flatten)]
        filter: FilterArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Enqueue {
    /// Task to run, as PLUGIN/TASK
    task: String,
    /// Payload: JSON, @FILE for the bytes of a file, or - for the standard input [default: null]
    #[arg(long, short, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    input: Option<String>,
    /// Key of the job; limits apply per key
    #[arg(long)]
    key: Option<String>,
    /// Priority; jobs with a higher one start first [default: 0]
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Start the job after this time at the earliest, such as 30s, 5m or 2h
    #[arg(long, value_name = "DURATION")]
    delay: Option<String>,
    /// Start the job at this time at the earliest, such as 2030-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "delay")]
    at: Option<String>,
    /// Idempotency token: enqueuing again with the same token returns the existing job
    #[arg(long)]
    token: Option<String>,
    /// Wait until the job has ended and write its result to the standard output
    #[arg(long)]
    wait: bool,
    /// Like --wait, and write chunks and log lines to the standard error as they arrive
    #[arg(long)]
    follow: bool,
    /// Enqueue this many copies of the job in one transaction
    #[arg(long, value_name = "N", conflicts_with_all = ["wait", "follow", "token"], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Filter, such as 'state:failed task:image/make payload./tenant=42'
    ///
    /// Terms with spaces between them: state, id, task, plugin, key, batch, parent, outcome, fingerprint, digest, since, until,
    /// finished-since, finished-until and text, each with one value or more, as in state:failed,cancelled. A value with spaces,
    /// commas or quotes is in quotes. payload./POINTER=VALUE looks into JSON payloads. Moments are in RFC 3339, or say how long ago, such as 2h.
    #[arg(long = "where", value_name = "FILTER")]
    filter: Option<String>,
    /// Only jobs in these states, with commas between: waiting, ready, delayed, retrying, blocked, held, running, succeeded,
    /// failed or cancelled
    #[arg(long)]
    state: Option<String>,
    /// Only jobs of this task
    #[arg(long, value_name = "PLUGIN/TASK")]
    task: Option<String>,
    /// Only jobs with this key
    #[arg(long)]
    key: Option<String>,
    /// Only the jobs of this durable broadcast
    #[arg(long, value_name = "ID")]
    batch: Option<String>,
    /// Order: newest, or finished for the jobs that finished last
    #[arg(long)]
    order: Option<String>,
    /// Only jobs behind this place: what the last list named, or the ID of a job
    #[arg(long, value_name = "PLACE")]
    before: Option<String>,
    /// Maximum number of jobs
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Follow {
    /// ID of the job
    id: String,
    /// Write chunks byte for byte, with nothing between them
    #[arg(long)]
    raw: bool,
}

impl JobCommand {
    pub(crate) fn run(self, client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
        match self {
            JobCommand::Enqueue(enqueue) => enqueue.run(client, json),
            JobCommand::List(list) => list.run(client, json),
            JobCommand::Show { id } => show(client, &id, json),
            JobCommand::Follow(Follow { raw: true, .. }) if json => {
                Err(CliError::usage("--raw and --json contradict each other about how chunks are written; remove one")
                    .into())
            }
            JobCommand::Follow(Follow { id, raw }) => {
                let output = if json {
                    FollowOutput::Json
                } else if raw {
                    FollowOutput::Raw
                } else {
                    FollowOutput::Lines
                };
                Ok(exit_of(&follow(client, &encode(&id), output)?.job))
            }
            JobCommand::Cancel { ids, .. } if !ids.is_empty() => send_each(client, &ids, "cancel", json),
            JobCommand::Cancel { filter, .. } => {
                operations::start(client, plain(OperationAct::Cancel), filter, PaceArgs::default(), json)
            }
            JobCommand::Retry { ids, attempts, .. } if !ids.is_empty() => {
                let options = query([("attempts", attempts.map(|attempts| attempts.to_string()))]);
                send_each(client, &ids, &format!("retry{options}"), json)
            }
            JobCommand::Retry { filter, pace, attempts, .. } => {
                let numbers = ActNumbers { attempts, ..ActNumbers::default() };
                operations::start(client, (OperationAct::Retry, numbers), filter, pace, json)
            }
            JobCommand::Delete(filter) => {
                operations::start(client, plain(OperationAct::Delete), filter, PaceArgs::default(), json)
            }
            JobCommand::RunNow(filter) => {
                operations::start(client, plain(OperationAct::RunNow), filter, PaceArgs::default(), json)
            }
            JobCommand::SetPriority { priority, filter } => {
                let numbers = ActNumbers { priority: Some(priority), ..ActNumbers::default() };
                let act = (OperationAct::SetPriority, numbers);
                operations::start(client, act, filter, PaceArgs::default(), json)
            }
        }
    }
}

impl Enqueue {
    fn run(self, client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
        let payload = payload_input::read(self.input.as_deref())?;
        if let Some(count) = self.count {
            return self.enqueue_copies(client, &payload, count, json);
        }
        let options = query([
            ("task", Some(self.task.clone())),
            ("key", self.key.clone()),
            ("priority", self.priority.map(|priority| priority.to_string())),
            ("delay", self.delay.clone()),
            ("at", self.at.clone()),
            ("token", self.token.clone()),
        ]);
        let body = Some(("application/octet-stream", payload.as_slice()));
        let request = ApiRequest { method: "POST", path: format!("/v1/jobs{options}"), body, ..ApiRequest::default() };
        let (enqueued, raw): (Enqueued, _) = retry_while_loading(|| client.request_with_raw(request.clone()))?;
        let id = enqueued
            .id
            .clone()
            .ok_or_else(|| CliError::new(ExitStatus::Refused, "the response of the host contains no job ID"))?;
        if !self.wait && !self.follow {
            return print_enqueued(&enqueued, &raw, &id, json);
        }
        let output = if self.follow { FollowOutput::Stderr } else { FollowOutput::Progress };
        let finished = follow_enqueued(client, &id, output)?;
        let exit = exit_of(&finished.job);
        if json {
            print_json(&finished.raw)?;
        } else if exit == ExitStatus::Done {
            let path = format!("/v1/jobs/{id}/result");
            let request = ApiRequest { method: "GET", path, ..ApiRequest::default() };
            print_bytes(&retry_while_away(|| client.bytes(request.clone()))?)?;
        }
        Ok(exit)
    }

    fn enqueue_copies(&self, client: &Client, payload: &[u8], count: u32, json: bool) -> anyhow::Result<ExitStatus> {
        let at = self.at.as_deref().map(str::parse).transpose().map_err(CliError::usage)?;
        // White space around a JSON value would be lost in the request, but it is part of the payload.
        let as_json: Option<Box<RawValue>> = serde_json::from_slice(payload).ok();
        let as_json = as_json.filter(|json| json.get().len() == payload.len());
        let one = JobRequest {
            task: self.task.clone(),
            payload_base64: as_json.is_none().then(|| crate::http::to_base64(payload)),
            payload: as_json,
            key: self.key.clone(),
            priority: self.priority,
            delay: self.delay.clone(),
            at,
            token: None,
        };
        let body = serde_json::to_vec(&vec![&one; count as usize])?;
        let body = Some(("application/json", body.as_slice()));
        let request = ApiRequest { method: "POST", path: "/v1/jobs".to_owned(), body, ..ApiRequest::default() };
        let (enqueued, raw): (Vec<Enqueued>, _) = retry_while_loading(|| client.request_with_raw(request.clone()))?;
        if json {
            print_json(&raw)?;
        } else {
            enqueued.iter().filter_map(|one| one.id.as_deref()).try_for_each(print_line)?;
        }
        let discarded = enqueued.iter().filter(|one| one.id.is_none()).count();
        if discarded > 0 {
            note(format_args!(
                "wharf: {discarded} of {} jobs were discarded because their lane is full",
                enqueued.len()
            ));
            return Ok(ExitStatus::NotDone);
        }
        Ok(ExitStatus::Done)
    }
}

fn print_enqueued(enqueued: &Enqueued, raw: &RawValue, id: &str, json: bool) -> anyhow::Result<ExitStatus> {
    if json {
        print_json(raw)?;
    } else {
        print_line(id)?;
        if enqueued.outcome == EnqueueOutcome::Duplicate {
            note("wharf: a job with this token exists already");
        }
    }
    Ok(ExitStatus::Done)
}

impl List {
    fn run(self, client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
        let options = query([
            ("where", self.filter),
            ("state", self.state),
            ("task", self.task),
            ("key", self.key),
            ("batch", self.batch),
            ("order", self.order),
            ("before", self.before),
            ("limit", Some(self.limit.to_string())),
        ]);
        let path = format!("/v1/jobs{options}");
        if json {
            print_json(&client.get::<Box<RawValue>>(path)?)?;
            return Ok(ExitStatus::Done);
        }
        let page = search(client, path, self.limit)?;
        let now = SystemClock.now();
        let mut table = Table::new(&["ID", "TASK", "KEY", "STATE", "ATTEMPT", "AGE", "REPORT"]);
        for job in &page.jobs {
            // `job show` has the report of an attempt that failed before a later one succeeded.
            let report = job.report.as_ref().filter(|_| job.state != JobState::Succeeded);
            let report = report.map(|report| report_text(report).lines().next().unwrap_or_default().to_owned());
            table.row([
                job.id.clone(),
                job.task.clone(),
                job.key.clone().unwrap_or_else(|| "-".to_owned()),
                if job.cancel_requested { "cancelling".to_owned() } else { job.state.to_string() },
                job.attempt.to_string(),
                age(job.enqueued_at.0, now),
                report.unwrap_or_default(),
            ]);
        }
        if table.is_empty() {
            note("no jobs");
        } else {
            table.print()?;
        }
        if let Some(place) = page.next.as_deref().and_then(place_of) {
            match page.looked_at.zip(page.until).filter(|_| page.jobs.len() < self.limit as usize) {
                Some((looked_at, until)) => note(format_args!(
                    "looked at {looked_at} jobs, back to {:.0}; go on with --before {place}",
                    until.date()
                )),
                None => note(format_args!("more jobs follow; list them with --before {place}")),
            }
        }
        Ok(ExitStatus::Done)
    }
}

/// Reads pages until there are enough jobs, the list has ended, or it has taken long. Returns them as one page.
fn search(client: &Client, path: String, limit: u32) -> anyhow::Result<JobPage> {
    let started = Instant::now();
    let mut whole: JobPage = client.get(path)?;
    let mut asked = limit as usize;
    while let Some(next) = &whole.next
        && whole.jobs.len() < limit as usize
        && started.elapsed() < SEARCH_TIME
    {
        // The next page has room for those that are missing.
        let missing = limit as usize - whole.jobs.len();
        let next = next.replace(&format!("limit={asked}&"), &format!("limit={missing}&"));
        asked = missing;
        let page: JobPage = client.get(format!("/v1/jobs{next}"))?;
        whole.jobs.extend(page.jobs);
        (whole.next, whole.until) = (page.next, page.until.or(whole.until));
        whole.looked_at = whole.looked_at.zip(page.looked_at).map(|(before, now)| before + now);
    }
    Ok(whole)
}

/// Returns the place that a reference to the next page names.
fn place_of(next: &str) -> Option<&str> {
    next.split(['?', '&']).find_map(|pair| pair.strip_prefix("before="))
}

fn show(client: &Client, id: &str, json: bool) -> anyhow::Result<ExitStatus> {
    let path = format!("/v1/jobs/{}", encode(id));
    if json {
        print_json(&client.get::<Box<RawValue>>(path)?)?;
        return Ok(ExitStatus::Done);
    }
    let job: Job = client.get(path.clone())?;
    for (name, value) in lines_of(&job) {
        let has_lines = matches!(name, "payload" | "result" | "report");
        let shown = if has_lines { value.into() } else { escape_line(&value) };
        print_line(&format!("{name:<11} {}", shown.replace('\n', "\n            ")))?;
    }
    let ends_otherwise = matches!(job.state, JobState::Running | JobState::Succeeded);
    if job.attempt > u32::from(ends_otherwise) {
        print_attempts(&client.get(format!("{path}/attempts"))?)?;
    }
    Ok(ExitStatus::Done)
}

/// Prints a line for each attempt that ended without a result.
fn print_attempts(list: &AttemptList) -> anyhow::Result<()> {
    let mut expected = 1;
    for attempt in &list.attempts {
        if attempt.number > expected {
            print_line(&format!("{:<11} {} more", "attempts", attempt.number - expected))?;
        }
        expected = attempt.number + 1;
        let ended = format!("{:.3}", attempt.ended_at.date());
        let version = match (&attempt.plugin_version, &attempt.digest) {
            (Some(version), Some(digest)) => format!(", {version} ({})", digest.get(..12).unwrap_or(digest)),
            _ => ", version unknown".to_owned(),
        };
        let node = attempt.node_name.as_deref().unwrap_or(&attempt.node);
        let line = format!("{ended}, node {node}{version}: {}: {}", attempt.outcome, attempt.summary);
        print_line(&format!("{:<11} {}", format!("attempt {}", attempt.number), escape_line(&line)))?;
    }
    Ok(())
}

fn lines_of(job: &Job) -> Vec<(&'static str, String)> {
    let time = |moment: Moment| format!("{:.3}", moment.date());
    let mut lines = vec![("job", job.id.clone()), ("task", job.task.clone()), ("state", job.state.to_string())];
    let mut add = |name, value: Option<String>| lines.extend(value.map(|value| (name, value)));
    add("waits", job.wait.as_ref().map(|wait| wait.message.clone()));
    add("key", job.key.clone());
    add("group", (job.group != job.task).then(|| job.group.clone()));
    add("priority", (job.priority != 0).then(|| job.priority.to_string()));
    add("token", job.token.clone());
    add("broadcast", job.batch.clone());
    add("parent", job.parent.clone());
    add("schedule", job.tick.as_ref().map(|tick| tick.schedule.clone()));
    add("tick", job.tick.as_ref().map(tick_text));
    add("generation", (job.generation != 0).then(|| job.generation.to_string()));
    add("cancel", job.cancel_requested.then(|| "requested".to_owned()));
    let crashes = if job.crashes > 0 { format!(", {} ended with their host", job.crashes) } else { String::new() };
    let since = if job.retried_at.is_some() { " since the last retry" } else { "" };
    add("attempt", (job.attempt > 0).then(|| format!("{} ({} failed{crashes}{since})", job.attempt, job.failures)));
    add("enqueued", Some(time(job.enqueued_at)));
    add("started", job.started_at.map(time));
    add("finished", job.finished_at.map(time));
    add("retried", job.retried_at.map(time));
    add("lease", job.lease.as_ref().map(|lease| format!("node {} until {}", lease.node, time(lease.until))));
    add("payload", job.payload_bytes.map(|bytes| value_summary(bytes, job.payload.as_deref())));
    add("result", job.result_bytes.map(|bytes| value_summary(bytes, job.result.as_deref())));
    add(
        "log",
        job.entries
            .filter(|entries| *entries > 0)
            .map(|entries| format!("{entries} entries; see them with `wharf job follow {}`", job.id)),
    );
    add(
        "usage",
        job.usage.as_ref().map(|usage| {
            let bytes = |n| bytesize::ByteSize(n).display().iec();
            format!(
                "queue {}, CPU {}, wall {}, memory {}, in {}, out {}",
                millis(usage.queue_wait_ms),
                millis(usage.cpu_ms),
                millis(usage.wall_ms),
                bytes(usage.memory_peak_bytes),
                bytes(usage.in_bytes),
                bytes(usage.out_bytes)
            )
        }),
    );
    add("failure", job.fingerprint.clone());
    add("report", job.report.as_ref().map(report_text));
    lines
}

/// Describes the tick of a job in one line, with the one before it.
fn tick_text(tick: &JobTick) -> String {
    let time = |moment: Moment| format!("{:.0}", moment.date());
    let before = match (tick.previous, tick.missed) {
        (None, 0) => "the first".to_owned(),
        (None, missed) => format!("the first with a job, after {missed} without one"),
        (Some(previous), 0) => format!("after {}", time(previous)),
        (Some(previous), missed) => format!("after {} and {missed} without a job", time(previous)),
    };
    format!("{}, {before}", time(tick.at))
}

/// Describes a value in one line: short JSON in full, any other value by its size.
fn value_summary(bytes: usize, json: Option<&RawValue>) -> String {
    const SHOWN_BYTES_MAX: usize = 300;
    match json {
        Some(json) if bytes <= SHOWN_BYTES_MAX => json.get().to_owned(),
        Some(_) => format!("{} of JSON", bytesize::ByteSize(bytes as u64).display().iec()),
        None => format!("{}", bytesize::ByteSize(bytes as u64).display().iec()),
    }
}

/// Returns an act without numbers.
fn plain(act: OperationAct) -> (OperationAct, ActNumbers) {
    (act, ActNumbers::default())
}

/// Sends the same request for each job; a refused one does not prevent the others.
fn send_each(client: &Client, ids: &[String], verb: &str, json: bool) -> anyhow::Result<ExitStatus> {
    let mut exit = ExitStatus::Done;
    for id in ids {
        let path = format!("/v1/jobs/{}/{verb}", encode(id));
        match client.request_with_raw::<Job>(ApiRequest { method: "POST", path, ..ApiRequest::default() }) {
            Ok((_, raw)) if json => print_json(&raw)?,
            Ok((job, _)) => {
                let state = if job.cancel_requested { "cancelling".to_owned() } else { job.state.to_string() };
                print_line(&format!("{id} {state}"))?;
            }
            Err(error) => match error.downcast_ref::<CliError>() {
                Some(error) if error.exit == ExitStatus::Refused && ids.len() > 1 => {
                    note(format_args!("wharf: {id}: {error}"));
                    exit = ExitStatus::Refused;
                }
                _ => return Err(error),
            },
        }
    }
    Ok(exit)
}
