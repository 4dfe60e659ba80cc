//! `wharf job`: enqueue, list, show, follow, cancel, retry.

use clap::{Args, Subcommand};
use serde_json::value::RawValue;
use wharf_store::{Clock as _, SystemClock};

use super::cli_error::{Ending, Exit};
use super::client::{Ask, Client, query, when_loaded};
use super::follow::{Show, exit_of, follow, report_text};
use super::input;
use super::output::{Table, age, harmless, millis, print_bytes, print_json, print_line};
use crate::http::api::{EnqueueOutcome, Enqueued, Job, JobPage, JobRequest, JobState, Moment};
use crate::http::encode;
use crate::stderr::note;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a job to the queue; prints its id, or with --wait its result
    Enqueue(Enqueue),
    /// List jobs, newest first
    List(List),
    /// Show one job: where it stands, why it waits, what it cost
    Show { id: String },
    /// Follow a job: its chunks on the standard output, its log on the standard error
    Follow(Follow),
    /// Ask a job to end: at once if it waits, with a grace period if it runs
    Cancel {
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Try failed or cancelled jobs again
    Retry {
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Enqueue {
    /// The task, as PLUGIN/TASK
    task: String,
    /// The payload: JSON, @FILE for a file's bytes, or - for the standard input; null by default
    #[arg(long, short, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    input: Option<String>,
    /// On whose account it runs: what limits count
    #[arg(long)]
    key: Option<String>,
    /// Jobs of a higher priority go first
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Not before this long from now: 30s, 5m, 2h
    #[arg(long, value_name = "LENGTH")]
    delay: Option<String>,
    /// Not before this moment: 2030-01-31T12:00:00Z
    #[arg(long, value_name = "MOMENT", conflicts_with = "delay")]
    at: Option<String>,
    /// Idempotency token: the same token answers with the job that stands
    #[arg(long)]
    token: Option<String>,
    /// Wait for the end, and write the result's bytes to the standard output
    #[arg(long)]
    wait: bool,
    /// Like --wait, with chunks and log lines on the standard error as they come
    #[arg(long)]
    follow: bool,
    /// Enqueue this many of the same, in one transaction
    #[arg(long, value_name = "N", conflicts_with_all = ["wait", "follow", "token"], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// waiting, running, succeeded, failed or cancelled
    #[arg(long)]
    state: Option<String>,
    #[arg(long, value_name = "PLUGIN/TASK")]
    task: Option<String>,
    #[arg(long)]
    key: Option<String>,
    /// Only the jobs of one durable broadcast
    #[arg(long, value_name = "ID")]
    batch: Option<String>,
    /// Only jobs before this one: the last of the page before
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Follow {
    id: String,
    /// Chunks byte for byte, with nothing between them
    #[arg(long)]
    raw: bool,
}

impl Command {
    pub(crate) fn run(self, client: &Client, json: bool) -> anyhow::Result<Exit> {
        match self {
            Command::Enqueue(enqueue) => enqueue.run(client, json),
            Command::List(list) => list.run(client, json),
            Command::Show { id } => show(client, &id, json),
            Command::Follow(Follow { raw: true, .. }) if json => {
                Err(Ending::usage("--raw and --json say two things of how chunks are written; leave one out").into())
            }
            Command::Follow(Follow { id, raw }) => {
                let how = if json {
                    Show::Json
                } else if raw {
                    Show::Raw
                } else {
                    Show::Lines
                };
                Ok(exit_of(&follow(client, &encode(&id), how)?.job))
            }
            Command::Cancel { ids } => each(client, &ids, "cancel", json),
            Command::Retry { ids } => each(client, &ids, "retry", json),
        }
    }
}

impl Enqueue {
    fn run(self, client: &Client, json: bool) -> anyhow::Result<Exit> {
        let payload = input::payload(self.input.as_deref())?;
        if let Some(count) = self.count {
            return self.many(client, &payload, count, json);
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
        let ask = Ask { method: "POST", path: format!("/v1/jobs{options}"), body, ..Ask::default() };
        let (enqueued, whole): (Enqueued, _) = when_loaded(|| client.ask_whole(ask.clone()))?;
        let id = enqueued
            .id
            .clone()
            .ok_or_else(|| Ending::new(Exit::Refused, "the host did not say which id the job has"))?;
        if !self.wait && !self.follow {
            return printed(&enqueued, &whole, &id, json);
        }
        let how = if self.follow { Show::Aside } else { Show::Progress };
        let followed = follow(client, &id, how)?;
        let exit = exit_of(&followed.job);
        if json {
            print_json(&followed.whole)?;
        } else if exit == Exit::Done {
            print_bytes(&client.bytes(Ask {
                method: "GET",
                path: format!("/v1/jobs/{id}/result"),
                ..Ask::default()
            })?)?;
        }
        Ok(exit)
    }

    fn many(&self, client: &Client, payload: &[u8], count: u32, json: bool) -> anyhow::Result<Exit> {
        let at = self.at.as_deref().map(str::parse).transpose().map_err(Ending::usage)?;
        // What surrounds a value in JSON is not sent with it; it is part of the payload all the same.
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
        let ask = Ask { method: "POST", path: "/v1/jobs".to_owned(), body, ..Ask::default() };
        let (taken, whole): (Vec<Enqueued>, _) = when_loaded(|| client.ask_whole(ask.clone()))?;
        if json {
            print_json(&whole)?;
        } else {
            taken.iter().filter_map(|one| one.id.as_deref()).try_for_each(print_line)?;
        }
        let discarded = taken.iter().filter(|one| one.id.is_none()).count();
        if discarded > 0 {
            note(format_args!("wharf: {discarded} of {} jobs were not taken: their lane is full", taken.len()));
            return Ok(Exit::NotDone);
        }
        Ok(Exit::Done)
    }
}

fn printed(enqueued: &Enqueued, whole: &RawValue, id: &str, json: bool) -> anyhow::Result<Exit> {
    if json {
        print_json(whole)?;
    } else {
        print_line(id)?;
        if enqueued.outcome == EnqueueOutcome::Duplicate {
            note("wharf: a job with this token stands already");
        }
    }
    Ok(Exit::Done)
}

impl List {
    fn run(self, client: &Client, json: bool) -> anyhow::Result<Exit> {
        let options = query([
            ("state", self.state),
            ("task", self.task),
            ("key", self.key),
            ("batch", self.batch),
            ("before", self.before),
            ("limit", Some(self.limit.to_string())),
        ]);
        let path = format!("/v1/jobs{options}");
        if json {
            print_json(&client.get::<Box<RawValue>>(path)?)?;
            return Ok(Exit::Done);
        }
        let page: JobPage = client.get(path)?;
        let now = SystemClock.now();
        let mut table = Table::new(&["ID", "TASK", "KEY", "STATE", "ATTEMPT", "AGE", "REPORT"]);
        for job in &page.jobs {
            // An attempt that failed on the way to a success is told by `job show`.
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
        if page.next.is_some()
            && let Some(last) = page.jobs.last()
        {
            note(format_args!("there are more: --before {}", last.id));
        }
        Ok(Exit::Done)
    }
}

fn show(client: &Client, id: &str, json: bool) -> anyhow::Result<Exit> {
    let path = format!("/v1/jobs/{}", encode(id));
    if json {
        print_json(&client.get::<Box<RawValue>>(path)?)?;
        return Ok(Exit::Done);
    }
    let job: Job = client.get(path)?;
    for (name, value) in lines_of(&job) {
        let indented = harmless(&value).replace('\n', "\n            ");
        print_line(&format!("{name:<11} {indented}"))?;
    }
    Ok(Exit::Done)
}

fn lines_of(job: &Job) -> Vec<(&'static str, String)> {
    let moment = |moment: Moment| format!("{:.3}", moment.date());
    let mut lines = vec![("job", job.id.clone()), ("task", job.task.clone()), ("state", job.state.to_string())];
    let mut add = |name, value: Option<String>| lines.extend(value.map(|value| (name, value)));
    add("waits", job.wait.as_ref().map(|wait| wait.message.clone()));
    add("key", job.key.clone());
    add("group", (job.group != job.task).then(|| job.group.clone()));
    add("priority", (job.priority != 0).then(|| job.priority.to_string()));
    add("token", job.token.clone());
    add("broadcast", job.batch.clone());
    add("cancel", job.cancel_requested.then(|| "asked".to_owned()));
    let crashes = if job.crashes > 0 { format!(", {} ended with their host", job.crashes) } else { String::new() };
    add("attempt", (job.attempt > 0).then(|| format!("{} ({} failed{crashes})", job.attempt, job.failures)));
    add("enqueued", Some(moment(job.enqueued_at)));
    add("started", job.started_at.map(moment));
    add("finished", job.finished_at.map(moment));
    add("lease", job.lease.as_ref().map(|lease| format!("node {} until {}", lease.node, moment(lease.until))));
    add("payload", job.payload_bytes.map(|bytes| contents(bytes, job.payload.as_deref())));
    add("result", job.result_bytes.map(|bytes| contents(bytes, job.result.as_deref())));
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
                "queue {}, guest {}, wall {}, memory {}, in {}, out {}",
                millis(usage.queue_wait_ms),
                millis(usage.guest_ms),
                millis(usage.wall_ms),
                bytes(usage.memory_peak_bytes),
                bytes(usage.in_bytes),
                bytes(usage.out_bytes)
            )
        }),
    );
    add("report", job.report.as_ref().map(report_text));
    lines
}

/// A value in a line: JSON that is short as it is, else how much there is.
fn contents(bytes: usize, json: Option<&RawValue>) -> String {
    const SHOWN_BYTES_MAX: usize = 300;
    match json {
        Some(json) if bytes <= SHOWN_BYTES_MAX => json.get().to_owned(),
        Some(_) => format!("{} of JSON", bytesize::ByteSize(bytes as u64).display().iec()),
        None => format!("{}", bytesize::ByteSize(bytes as u64).display().iec()),
    }
}

/// Asks the same of each job; one that is refused does not keep the others from it.
fn each(client: &Client, ids: &[String], verb: &str, json: bool) -> anyhow::Result<Exit> {
    let mut exit = Exit::Done;
    for id in ids {
        let path = format!("/v1/jobs/{}/{verb}", encode(id));
        match client.ask_whole::<Job>(Ask { method: "POST", path, ..Ask::default() }) {
            Ok((_, whole)) if json => print_json(&whole)?,
            Ok((job, _)) => {
                let state = if job.cancel_requested { "asked to end".to_owned() } else { job.state.to_string() };
                print_line(&format!("{id} {state}"))?;
            }
            Err(error) => match error.downcast_ref::<Ending>() {
                Some(ending) if ending.exit == Exit::Refused && ids.len() > 1 => {
                    note(format_args!("wharf: {id}: {ending}"));
                    exit = Exit::Refused;
                }
                _ => return Err(error),
            },
        }
    }
    Ok(exit)
}
