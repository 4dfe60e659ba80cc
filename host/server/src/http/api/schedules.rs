//! Schedules: jobs that are enqueued at the moments of a clock.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wharf_core::schedule::{self, Timing};
use wharf_core::time::Timestamp;
use wharf_runner::{ClockChange as Change, next_moments, zones_version};

use super::moment::{Moment, millis};
use super::values::{ClockChange, MissedPolicy, OverlapPolicy, ScheduleSource, ScheduleState, TickOutcome};
use crate::http::bytes::inline;

/// The effect of a change of the clock on the times of schedules, in words.
pub(crate) const CLOCK_LAW: &str = "a fixed time that it skips comes at the first moment after the gap, and one that it shows \
                                    twice comes once, the first time; hours with `*`, and `every`, follow real time";

/// A request to define a schedule. It ticks by `cron` or by `every`, not by both.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScheduleRequest {
    /// The task of its jobs, as PLUGIN/TASK.
    pub(crate) task: String,
    /// Cron expression: minute, hour, day of month, month, day of week.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cron: Option<String>,
    /// Time zone of the expression, such as `Europe/Berlin`; `UTC` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<String>,
    /// Interval, such as `15m`, in place of `cron`: it ticks at its multiples since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) every: Option<String>,
    /// The payload of its jobs as JSON, kept as it is written; `null` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<Box<RawValue>>,
    /// The payload as bytes that are not JSON, in base64 with padding; instead of `payload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_base64: Option<String>,
    /// The key of its jobs, if the task's manifest does not find it in the payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// The priority of its jobs; 0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<i32>,
    /// The policy for ticks that no host fired in time; `latest` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) missed: Option<MissedPolicy>,
    /// Age up to which missed ticks are fired, such as `2h`; `1h` by default, `7d` at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<String>,
    /// The policy for a tick that comes while jobs of earlier ticks have not finished; `allow` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) overlap: Option<OverlapPolicy>,
    /// Length of time by a fixed part of which all ticks come later, such as `5m`; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spread: Option<String>,
    /// Number of jobs in a row that fail until the schedule pauses; it never does by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pause_after: Option<u32>,
    /// JSON pointer to the member of the payload that each job's tick is put into, such as `/tick`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tick_as: Option<String>,
}

/// A schedule.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Schedule {
    /// ID of the schedule.
    pub(crate) id: String,
    /// State of the schedule.
    pub(crate) state: ScheduleState,
    /// The task of its jobs, as PLUGIN/TASK.
    pub(crate) task: String,
    /// Cron expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cron: Option<String>,
    /// Time zone of the expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<String>,
    /// Version of the time zone database of this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zones_version: Option<String>,
    /// Interval in milliseconds, in place of `cron`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) every_ms: Option<f64>,
    /// The payload of its jobs, if it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<Box<RawValue>>,
    /// The payload in base64, if it is not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_base64: Option<String>,
    /// The key of its jobs; `null` if the task finds it in the payload.
    pub(crate) key: Option<String>,
    /// The priority of its jobs.
    pub(crate) priority: i32,
    /// The policy for ticks that no host fired in time.
    pub(crate) missed: MissedPolicy,
    /// Age in milliseconds up to which missed ticks are fired.
    pub(crate) window_ms: f64,
    /// The policy for a tick that comes while jobs of earlier ticks have not finished.
    pub(crate) overlap: OverlapPolicy,
    /// Length of time in milliseconds by a fixed part of which all ticks come later.
    pub(crate) spread_ms: f64,
    /// Number of jobs in a row that fail until the schedule pauses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pause_after: Option<u32>,
    /// JSON pointer to the member of the payload that each job's tick is put into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tick_as: Option<String>,
    /// The place where it was defined: through the API, or in the settings file of a host.
    pub(crate) source: ScheduleSource,
    /// Name of the author of the definition; `null` if the host asks for no token.
    pub(crate) author: Option<String>,
    /// When it was created.
    pub(crate) created_at: Moment,
    /// When its definition changed last.
    pub(crate) changed_at: Moment,
    /// The next moments at which it fires, spread included; none while it is paused without an end, or retired.
    pub(crate) next: Vec<NextMoment>,
    /// The last tick that was fired.
    pub(crate) last_tick: Option<Moment>,
    /// Numbers of its ticks.
    pub(crate) ticks: TickCounts,
    /// Number of its jobs that have failed in a row, as far as the last firing knew.
    pub(crate) failures: u32,
    /// The pause in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pause: Option<Pause>,
    /// When it was retired: no host's settings file has it any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retired_at: Option<Moment>,
    /// Its last ticks, the newest first.
    pub(crate) recent: Vec<Tick>,
}

/// A moment at which a schedule will fire.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct NextMoment {
    /// The moment.
    pub(crate) at: Moment,
    /// The time in the schedule's zone, with the distance from UTC.
    pub(crate) local: String,
    /// The change of the clock that touches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) change: Option<ClockChange>,
}

/// Numbers of a schedule's ticks.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct TickCounts {
    /// Ticks whose jobs were enqueued.
    pub(crate) fired: u64,
    /// Ticks that no host fired.
    pub(crate) missed: u64,
    /// Ticks whose jobs were not enqueued for any other reason.
    pub(crate) skipped: u64,
}

/// A pause of a schedule.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Pause {
    /// When it was set.
    pub(crate) since: Moment,
    /// When it ends by itself; `null` if somebody has to resume the schedule.
    pub(crate) until: Option<Moment>,
    /// Name of the operator's token; `null` if the host asks for none, or the schedule paused by itself.
    pub(crate) by: Option<String>,
    /// The reason; may be empty.
    pub(crate) reason: String,
}

/// The outcome of a tick.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Tick {
    /// The tick, without the spread; the newest of several that became the same.
    pub(crate) tick: Moment,
    /// Number of ticks.
    pub(crate) count: u64,
    /// The outcome.
    pub(crate) outcome: TickOutcome,
    /// Its job, or the one that was in its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) job: Option<String>,
    /// The rest in words; may be empty.
    pub(crate) reason: String,
}

/// A page of a list of schedules, in the order of their IDs. It has fewer than asked for where their payloads are large.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct SchedulePage {
    /// The schedules.
    pub(crate) schedules: Vec<Schedule>,
    /// Address of the next page, relative to the address of the request; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "uri-reference"))]
    pub(crate) next: Option<String>,
}

/// The query of a request to define a schedule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutScheduleQuery {
    /// True to replace no other schedule of the name; the same definition again is no error.
    pub(crate) new: Option<bool>,
}

/// A request to pause a schedule.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PauseRequest {
    /// Moment at which the pause ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Moment>,
    /// Length of time after which the pause ends by itself, such as `2h`; instead of `until`.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub(crate) length: Option<String>,
    /// Reason: one line of at most 500 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// The job that was enqueued for a schedule at once.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ScheduleRun {
    /// ID of the job.
    pub(crate) job: String,
}

impl Schedule {
    /// Returns the document of a schedule at `now`.
    pub(crate) fn of(schedule: &schedule::Schedule, now: Timestamp) -> Schedule {
        let spec = &schedule.spec;
        let (cron, zone, every_ms) = match &spec.timing {
            Timing::Cron { expression, zone } => (Some(expression.clone()), Some(zone.clone()), None),
            Timing::Every(interval) => (None, None, Some(millis(*interval))),
        };
        let (payload, payload_base64) = inline(&spec.payload);
        let pause = schedule.pause_at(now).map(|pause| Pause {
            since: Moment(pause.since),
            until: pause.until.map(Moment),
            by: pause.by.clone(),
            reason: pause.reason.clone(),
        });
        let state = match (schedule.retired_at, &pause) {
            (Some(_), _) => ScheduleState::Retired,
            (None, Some(_)) => ScheduleState::Paused,
            (None, None) => ScheduleState::Active,
        };
        let next = next_moments(schedule).into_iter().map(|moment| NextMoment {
            at: Moment(moment.at),
            local: moment.local,
            change: moment.change.map(|change| match change {
                Change::Skipped => ClockChange::Skipped,
                Change::Repeated => ClockChange::Repeated,
            }),
        });
        let tick = |record: &schedule::TickRecord| Tick {
            tick: Moment(record.tick),
            count: record.count,
            outcome: record.outcome.into(),
            job: record.job.map(|job| job.to_string()),
            reason: record.reason.clone(),
        };
        Schedule {
            id: schedule.id.to_string(),
            state,
            task: spec.task.to_string(),
            zones_version: cron.as_ref().map(|_| zones_version().to_owned()),
            cron,
            zone,
            every_ms,
            payload,
            payload_base64,
            key: spec.key.as_ref().map(ToString::to_string),
            priority: spec.priority,
            missed: spec.missed.into(),
            window_ms: millis(spec.window),
            overlap: spec.overlap.into(),
            spread_ms: millis(spec.spread),
            pause_after: spec.pause_after,
            tick_as: spec.tick_as.as_ref().map(ToString::to_string),
            source: schedule.source.into(),
            author: schedule.author.clone(),
            created_at: Moment(schedule.created_at),
            changed_at: Moment(schedule.changed_at),
            next: next.collect(),
            last_tick: schedule.last_tick.map(Moment),
            ticks: TickCounts { fired: schedule.fired, missed: schedule.missed, skipped: schedule.skipped },
            failures: schedule.failures,
            pause,
            retired_at: schedule.retired_at.map(Moment),
            recent: schedule.recent.iter().rev().map(tick).collect(),
        }
    }
}
