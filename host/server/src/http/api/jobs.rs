//! Jobs as they are read, and lists of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wharf_core::job::{self, State};
use wharf_core::outcome;
use wharf_core::schedule::schedule_of_token;
use wharf_runner::JobView;

use super::moment::{Moment, millis};
use super::values::{JobState, Outcome};
use super::wait::Wait;
use crate::http::bytes::inline;

/// A job.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Job {
    /// ID: 13 characters from 0-9 and a-z. A newer job has a higher one.
    pub(crate) id: String,
    /// The task, as PLUGIN/TASK.
    pub(crate) task: String,
    /// The state.
    pub(crate) state: JobState,
    /// The reason why the job waits, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wait: Option<Wait>,
    /// The limit group: with the key, it is the job's lane.
    pub(crate) group: String,
    /// The key that limits count by; `null` if the job has none.
    pub(crate) key: Option<String>,
    /// Jobs with a higher priority start first.
    pub(crate) priority: i32,
    /// The idempotency token that the client chose.
    pub(crate) token: Option<String>,
    /// ID of the durable broadcast to which the job belongs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<String>,
    /// ID of the job whose attempt enqueued this one, itself or by a live broadcast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<String>,
    /// The tick of a schedule that the job was enqueued for; absent for any other job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tick: Option<JobTick>,
    /// Number of jobs in a row that enqueued one another and led to this one; 0 for a job of a client.
    pub(crate) generation: u32,
    /// When the job was enqueued.
    pub(crate) enqueued_at: Moment,
    /// The job does not start before this moment; absent unless it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) due_at: Option<Moment>,
    /// When the last attempt started.
    pub(crate) started_at: Option<Moment>,
    /// When the job reached its final state.
    pub(crate) finished_at: Option<Moment>,
    /// When an operator last retried the job; absent if nobody has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retried_at: Option<Moment>,
    /// Number of the last attempt that was started; 0 before the first.
    pub(crate) attempt: u32,
    /// Number of attempts that failed since `retried_at`, or since the job was enqueued.
    pub(crate) failures: u32,
    /// Number of attempts that ended with their host since `retried_at`, or since the job was enqueued.
    pub(crate) crashes: u32,
    /// True if somebody requested that the job is cancelled.
    pub(crate) cancel_requested: bool,
    /// The node that runs the job; absent unless it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lease: Option<Lease>,
    /// Report of the last attempt that did not return; its first line in lists.
    pub(crate) report: Option<AttemptReport>,
    /// Fingerprint of the failure, which names its failure group; absent unless the job failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    /// Resource usage of all attempts that ended and were measured, together: sums, and of the memory the peak.
    pub(crate) usage: Option<Usage>,
    /// Size of the payload in bytes; absent in lists and events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_bytes: Option<usize>,
    /// The payload as it was written, if it is JSON with at most 60 levels and not too long; absent in lists and events.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::raw_json::as_written")]
    pub(crate) payload: Option<Box<RawValue>>,
    /// The payload in base64, if it is not JSON, or JSON with more than 60 levels; absent in lists and events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_base64: Option<String>,
    /// Size of the result in bytes; absent in lists and events, and until the job succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result_bytes: Option<usize>,
    /// The result as the plugin wrote it, if it is JSON with at most 60 levels and not too long.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::raw_json::as_written")]
    pub(crate) result: Option<Box<RawValue>>,
    /// The result in base64, if it is not JSON, or JSON with more than 60 levels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result_base64: Option<String>,
    /// Number of the last entry in the job's log: a chunk, a log line or progress; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entries: Option<u64>,
}

/// The tick of a schedule that a job was enqueued for.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct JobTick {
    /// ID of the schedule.
    pub(crate) schedule: String,
    /// The tick, without the spread of the schedule.
    pub(crate) at: Moment,
    /// The last earlier tick that has a job; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) previous: Option<Moment>,
    /// Number of ticks before this one, and after `previous`, that have no job: missed, or skipped for any reason.
    pub(crate) missed: u64,
}

/// The right of a node to run a job.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Lease {
    /// ID of the node.
    pub(crate) node: String,
    /// When the lease expires unless it is renewed.
    pub(crate) until: Moment,
}

/// Report of an attempt that did not return.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct AttemptReport {
    /// The outcome.
    pub(crate) outcome: Outcome,
    /// Description of what happened; its first line is a summary.
    pub(crate) text: String,
}

/// Resource usage of one attempt, or of several together.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Usage {
    /// Milliseconds from when the job was due until it was claimed.
    pub(crate) queue_wait_ms: f64,
    /// Milliseconds in the guest's code.
    pub(crate) cpu_ms: f64,
    /// Milliseconds from the claim until the end.
    pub(crate) wall_ms: f64,
    /// The most memory that the guest had at one time, in bytes.
    pub(crate) memory_peak_bytes: u64,
    /// Bytes that went into the sandbox: the payload, and what host functions returned.
    pub(crate) in_bytes: u64,
    /// Bytes that came out of the sandbox: the result, chunks and log lines.
    pub(crate) out_bytes: u64,
}

/// One page of a list of jobs, newest first.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct JobPage {
    /// The jobs of the page.
    pub(crate) jobs: Vec<Job>,
    /// Address of the next page, relative to the address of the request; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "uri-reference"))]
    pub(crate) next: Option<String>,
    /// Number of jobs that were looked at for this page; absent for a token that is bound to a key, since jobs of others are among them. A
    /// page may have fewer jobs than asked for, or none, and be followed by another: each is returned within a moment, however many jobs
    /// there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) looked_at: Option<u64>,
    /// The moment back to which the page goes: when the last job that was looked at was enqueued, or when it finished if the list is
    /// ordered by that; absent if there was none, and for a token that is bound to a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Moment>,
}

/// The order of a list of jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ListOrder {
    /// The newest job first.
    #[default]
    Newest,
    /// The job that finished last first; jobs that have not finished are left out.
    Finished,
}

/// The query of a list of jobs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// A filter, such as `state:failed task:image/make payload./tenant=42`. It has the other parameters as fields, and more;
    /// a condition is written once, here or as a parameter.
    pub(crate) r#where: Option<String>,
    /// Only jobs in these states, with commas between them. Those that wait are told apart as `ready`, `delayed`, `retrying`,
    /// `blocked` and `held`, too.
    pub(crate) state: Option<String>,
    /// Only jobs of these tasks, as PLUGIN/TASK, with commas between them.
    pub(crate) task: Option<String>,
    /// Only jobs of these plugins, with commas between them.
    pub(crate) plugin: Option<String>,
    /// Only jobs with this key.
    pub(crate) key: Option<String>,
    /// Only jobs of the durable broadcast with this ID.
    pub(crate) batch: Option<String>,
    /// Only jobs that the job with this ID enqueued.
    pub(crate) parent: Option<String>,
    /// Only jobs whose last attempt had one of these outcomes, with commas between them.
    pub(crate) outcome: Option<String>,
    /// Only jobs that failed with one of these fingerprints, with commas between them.
    pub(crate) fingerprint: Option<String>,
    /// Only jobs of which an attempt ended without a result and ran with a plugin whose digest begins like one of these, with commas
    /// between them.
    pub(crate) digest: Option<String>,
    /// Only jobs that were enqueued at this moment or later: RFC 3339 in UTC, or how long ago, such as `2h`.
    pub(crate) since: Option<String>,
    /// Only jobs that were enqueued before this moment.
    pub(crate) until: Option<String>,
    /// Only jobs that finished at this moment or later.
    pub(crate) finished_since: Option<String>,
    /// Only jobs that finished before this moment.
    pub(crate) finished_until: Option<String>,
    /// Only jobs whose report has this text, whatever the case of ASCII letters.
    pub(crate) text: Option<String>,
    /// The order of the list; `newest` by default.
    pub(crate) order: Option<ListOrder>,
    /// Only jobs behind this place in the list, as `next` has it: the ID of a job, or a moment and an ID.
    pub(crate) before: Option<String>,
    /// Number of jobs on a page; 100 by default.
    pub(crate) limit: Option<u32>,
}

/// The query of a retry.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryQuery {
    /// Number of attempts that the job gets, whatever its task allows; 1 by default.
    pub(crate) attempts: Option<u32>,
}

impl Job {
    /// Returns the document of one job, with its payload and its result.
    pub(crate) fn whole(view: &JobView) -> Job {
        let snapshot = &view.seen;
        let (payload, payload_base64) = inline(&snapshot.job.payload);
        let (result, result_base64) = snapshot.job.result.as_deref().map(inline).unwrap_or_default();
        Job {
            payload_bytes: Some(snapshot.job.payload.len()),
            payload,
            payload_base64,
            result_bytes: snapshot.job.result.as_deref().map(<[u8]>::len),
            result,
            result_base64,
            ..Job::in_event(view)
        }
    }

    /// Returns the document of one job as events carry it: without payload and result.
    pub(crate) fn in_event(view: &JobView) -> Job {
        Job { wait: Wait::of(view), entries: Some(view.seen.entries), ..Job::in_list(&view.seen.job) }
    }

    /// Returns the document of one job as lists carry it: without payload, result, log and the reason why it waits.
    pub(crate) fn in_list(job: &job::Job) -> Job {
        let status = &job.status;
        Job {
            id: job.id.to_string(),
            task: job.task.to_string(),
            state: status.state.name().into(),
            wait: None,
            group: job.lane.group.to_string(),
            key: job.lane.key.as_ref().map(ToString::to_string),
            priority: job.priority,
            token: job.token.as_ref().map(|token| token.as_str().to_owned()),
            batch: job.batch.as_ref().map(|batch| batch.id.to_string()),
            parent: job.lineage.parent.map(|parent| parent.to_string()),
            tick: JobTick::of(job),
            generation: job.lineage.generation,
            enqueued_at: Moment(job.enqueued_at),
            due_at: match status.state {
                State::Waiting { due } => Some(Moment(due)),
                _ => None,
            },
            started_at: job.started_at.map(Moment),
            finished_at: job.finished_at.map(Moment),
            retried_at: job.retried_at.map(Moment),
            attempt: status.attempt,
            failures: status.failures.failed(),
            crashes: status.crashes,
            cancel_requested: status.cancel_requested,
            lease: match status.state {
                State::Running { lease } => Some(Lease { node: lease.node.to_string(), until: Moment(lease.until) }),
                _ => None,
            },
            report: job.report.as_ref().map(AttemptReport::from),
            fingerprint: job.fingerprint.map(|fingerprint| fingerprint.to_string()),
            usage: job.usage.as_ref().map(Usage::from),
            payload_bytes: None,
            payload: None,
            payload_base64: None,
            result_bytes: None,
            result: None,
            result_base64: None,
            entries: None,
        }
    }
}

impl JobTick {
    /// Returns the tick of a job. Its schedule is the one that its token names: only schedules enqueue such tokens.
    fn of(job: &job::Job) -> Option<JobTick> {
        let tick = job.tick.as_deref()?;
        let schedule = schedule_of_token(job.token.as_ref()?)?;
        let (at, previous) = (Moment(tick.tick), tick.previous.map(Moment));
        Some(JobTick { schedule: schedule.to_string(), at, previous, missed: tick.missed })
    }
}

impl From<&outcome::Report> for AttemptReport {
    fn from(report: &outcome::Report) -> AttemptReport {
        AttemptReport { outcome: report.kind.into(), text: report.text.clone() }
    }
}

impl From<&outcome::Usage> for Usage {
    fn from(usage: &outcome::Usage) -> Usage {
        Usage {
            queue_wait_ms: millis(usage.queue_wait),
            cpu_ms: millis(usage.cpu),
            wall_ms: millis(usage.wall),
            memory_peak_bytes: usage.memory_peak_bytes,
            in_bytes: usage.in_bytes,
            out_bytes: usage.out_bytes,
        }
    }
}
