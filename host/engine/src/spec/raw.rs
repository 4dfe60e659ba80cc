//! Manifests and the operator's settings for tasks and subscribers, as they are written. Both have the same vocabulary.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use wharf_core::keep::Keep;
use wharf_core::limits::OnConflict;
use wharf_core::topic::Pattern;

use crate::spec::duration::{DURATION_RULE, HumanDuration, parse_duration};
use crate::spec::suggestion::Suggestion;

/// A size in human notation, such as "128MiB" or "1GB", or a plain number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanSize(pub u64);

/// A range of delays between attempts, such as "1s..5m".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The delay after the first attempt.
    pub min: Duration,
    /// The longest delay.
    pub max: Duration,
}

/// A manifest as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawManifest {
    /// A name for users.
    pub name: Option<String>,
    /// The version.
    pub version: Option<String>,
    /// Patterns of the topics to which the plugin subscribes.
    #[serde(default)]
    pub topics: Vec<Subscription>,
    /// Call settings of the subscriber.
    pub receive: Option<RawReceive>,
    /// The tasks, by name.
    #[serde(default)]
    pub tasks: BTreeMap<String, RawTask>,
    /// Schedules that it suggests, by name.
    #[serde(default)]
    pub schedules: BTreeMap<String, Suggestion>,
}

/// A pattern of topics, such as "document.*".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription(pub Pattern);

/// The settings of a subscriber, as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawReceive {
    /// Limits of durable broadcasts.
    pub limit: Option<RawLimit>,
    /// The retry policy; for a subscriber, that of durable broadcasts.
    pub retry: Option<RawRetry>,
    /// Maximum wall time.
    pub timeout: Option<HumanDuration>,
    /// Maximum CPU time.
    pub cpu: Option<HumanDuration>,
    /// Maximum time without output and without progress.
    pub stall: Option<HumanDuration>,
    /// Maximum memory.
    pub memory: Option<HumanSize>,
    /// True if the subscriber may be called by a broadcast of its own.
    pub reentrant: Option<bool>,
}

/// The settings of a task, as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawTask {
    /// JSON Schema of the payload, as JSON text.
    pub payload_schema: Option<String>,
    /// JSON pointer to the key in the payload.
    pub key: Option<String>,
    /// Limits of jobs that run at once.
    pub limit: Option<RawLimit>,
    /// The retry policy.
    pub retry: Option<RawRetry>,
    /// Maximum wall time of an attempt.
    pub timeout: Option<HumanDuration>,
    /// Maximum CPU time of an attempt.
    pub cpu: Option<HumanDuration>,
    /// Maximum time of an attempt without output and without progress.
    pub stall: Option<HumanDuration>,
    /// Maximum memory of an attempt.
    pub memory: Option<HumanSize>,
    /// Arguments of a program.
    pub args: Option<Vec<String>>,
    /// The meaning of a program's standard output.
    pub stream: Option<RawStream>,
    /// Exit statuses of a program after which its job is not retried.
    pub discard_on: Option<Vec<u8>>,
    /// The effect on the job of the error of a function's `result`.
    pub on_error: Option<RawOnError>,
    /// Time for which jobs that succeeded are kept; only the operator sets this and the next two.
    pub keep_succeeded: Option<HumanDuration>,
    /// Time for which jobs that failed are kept.
    pub keep_failed: Option<HumanDuration>,
    /// Time for which cancelled jobs are kept.
    pub keep_cancelled: Option<HumanDuration>,
}

/// The meaning of a program's standard output, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RawStream {
    /// The whole output is the result.
    Result,
    /// Each line is a chunk, and the result is empty.
    Lines,
}

/// The effect on the job of the error of a function's `result`, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RawOnError {
    /// The job is retried.
    Retry,
    /// The job fails at once.
    Discard,
}

/// Limits of jobs that run at once, as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawLimit {
    /// Maximum for one key.
    pub per_key: Option<u32>,
    /// Maximum in all.
    pub total: Option<u32>,
    /// The group that shares these limits.
    pub group: Option<String>,
    /// Policy for a new job whose lane is full.
    pub on_conflict: Option<RawOnConflict>,
}

/// Policy for a new job whose lane is full, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RawOnConflict {
    /// The job waits.
    Wait,
    /// The job is discarded.
    Discard,
    /// The job replaces one that waits.
    ReplaceWaiting,
    /// The running job is cancelled.
    CancelRunning,
}

/// A retry policy, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawRetry {
    /// Maximum number of attempts.
    pub attempts: Option<u32>,
    /// Delays between attempts.
    pub backoff: Option<Backoff>,
}

impl RawManifest {
    /// Returns this manifest with what `over` says in place of what it says itself.
    pub(crate) fn under(mut self, over: RawManifest) -> RawManifest {
        for (name, task) in over.tasks {
            let merged = self.tasks.remove(&name).unwrap_or_default().under(&task);
            self.tasks.insert(name, merged);
        }
        self.schedules.extend(over.schedules);
        RawManifest {
            name: over.name.or(self.name),
            version: over.version.or(self.version),
            topics: if over.topics.is_empty() { self.topics } else { over.topics },
            receive: merged(self.receive, over.receive.as_ref(), RawReceive::under),
            tasks: self.tasks,
            schedules: self.schedules,
        }
    }
}

impl RawTask {
    /// Returns the keys that are set.
    pub(crate) fn keys(&self) -> Vec<&'static str> {
        let RawTask {
            payload_schema,
            key,
            limit,
            retry,
            timeout,
            cpu,
            stall,
            memory,
            args,
            stream,
            discard_on,
            on_error,
            keep_succeeded,
            keep_failed,
            keep_cancelled,
        } = self;
        let all = [
            ("payload-schema", payload_schema.is_some()),
            ("key", key.is_some()),
            ("limit", limit.is_some()),
            ("retry", retry.is_some()),
            ("timeout", timeout.is_some()),
            ("cpu", cpu.is_some()),
            ("stall", stall.is_some()),
            ("memory", memory.is_some()),
            ("args", args.is_some()),
            ("stream", stream.is_some()),
            ("discard-on", discard_on.is_some()),
            ("on-error", on_error.is_some()),
            ("keep-succeeded", keep_succeeded.is_some()),
            ("keep-failed", keep_failed.is_some()),
            ("keep-cancelled", keep_cancelled.is_some()),
        ];
        all.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key).collect()
    }

    /// Returns these settings with those of `over` in place of them where `over` has some.
    #[must_use]
    pub fn under(self, over: &RawTask) -> RawTask {
        RawTask {
            payload_schema: over.payload_schema.clone().or(self.payload_schema),
            key: over.key.clone().or(self.key),
            limit: merged(self.limit, over.limit.as_ref(), RawLimit::under),
            retry: merged(self.retry, over.retry.as_ref(), RawRetry::under),
            timeout: over.timeout.or(self.timeout),
            cpu: over.cpu.or(self.cpu),
            stall: over.stall.or(self.stall),
            memory: over.memory.or(self.memory),
            args: over.args.clone().or(self.args),
            stream: over.stream.or(self.stream),
            discard_on: over.discard_on.clone().or(self.discard_on),
            on_error: over.on_error.or(self.on_error),
            keep_succeeded: over.keep_succeeded.or(self.keep_succeeded),
            keep_failed: over.keep_failed.or(self.keep_failed),
            keep_cancelled: over.keep_cancelled.or(self.keep_cancelled),
        }
    }

    /// Returns how long finished jobs of the task are kept; `of_all` holds where the task says nothing. Returns `None` if it says
    /// nothing at all.
    pub fn keep(&self, of_all: Keep) -> Option<Keep> {
        let or = |own: Option<HumanDuration>, default| own.map_or(default, |length| length.0);
        let keep = Keep {
            succeeded: or(self.keep_succeeded, of_all.succeeded),
            failed: or(self.keep_failed, of_all.failed),
            cancelled: or(self.keep_cancelled, of_all.cancelled),
        };
        (keep != of_all).then_some(keep)
    }
}

impl RawReceive {
    /// Returns these settings with those of `over` in place of them where `over` has some.
    #[must_use]
    pub fn under(self, over: &RawReceive) -> RawReceive {
        let reentrant = over.reentrant.or(self.reentrant);
        RawReceive { reentrant, ..RawReceive::from(self.into_task().under(&over.clone().into_task())) }
    }

    /// Returns the settings as those of a task without schema and key.
    pub(crate) fn into_task(self) -> RawTask {
        let RawReceive { limit, retry, timeout, cpu, stall, memory, reentrant: _ } = self;
        RawTask { limit, retry, timeout, cpu, stall, memory, ..RawTask::default() }
    }
}

impl From<RawTask> for RawReceive {
    fn from(task: RawTask) -> RawReceive {
        let RawTask { limit, retry, timeout, cpu, stall, memory, .. } = task;
        RawReceive { limit, retry, timeout, cpu, stall, memory, reentrant: None }
    }
}

impl RawLimit {
    fn under(self, over: &RawLimit) -> RawLimit {
        RawLimit {
            per_key: over.per_key.or(self.per_key),
            total: over.total.or(self.total),
            group: over.group.clone().or(self.group),
            on_conflict: over.on_conflict.or(self.on_conflict),
        }
    }
}

impl RawRetry {
    fn under(self, over: &RawRetry) -> RawRetry {
        RawRetry { attempts: over.attempts.or(self.attempts), backoff: over.backoff.or(self.backoff) }
    }
}

fn merged<T: Clone>(below: Option<T>, over: Option<&T>, under: impl Fn(T, &T) -> T) -> Option<T> {
    match (below, over) {
        (Some(below), Some(over)) => Some(under(below, over)),
        (below, over) => over.cloned().or(below),
    }
}

impl From<RawOnConflict> for OnConflict {
    fn from(raw: RawOnConflict) -> OnConflict {
        match raw {
            RawOnConflict::Wait => OnConflict::Wait,
            RawOnConflict::Discard => OnConflict::Discard,
            RawOnConflict::ReplaceWaiting => OnConflict::ReplaceWaiting,
            RawOnConflict::CancelRunning => OnConflict::CancelRunning,
        }
    }
}

const SIZE_RULE: &str = "a number of bytes with or without a unit, such as \"128MiB\" or \"1GB\"";
const TOPIC_RULE: &str = "a topic or a pattern of topics, such as \"document.saved\", \"document.*\" or \"document.>\"";
const BACKOFF_RULE: &str = "two durations, such as \"1s..5m\"";

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<HumanDuration, D::Error> {
        from.deserialize_any(Text { rule: DURATION_RULE, read: |text: &str| text.parse() })
    }
}

impl<'de> Deserialize<'de> for Subscription {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Subscription, D::Error> {
        let read =
            |text: &str| text.parse().map(Subscription).map_err(|bad: wharf_core::ids::ParseIdError| bad.to_string());
        from.deserialize_any(Text { rule: TOPIC_RULE, read })
    }
}

impl<'de> Deserialize<'de> for Backoff {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Backoff, D::Error> {
        from.deserialize_any(Text { rule: BACKOFF_RULE, read: backoff })
    }
}

fn backoff(text: &str) -> Result<Backoff, String> {
    let (min, max) =
        text.split_once("..").ok_or_else(|| format!("invalid backoff `{text}`: expected {BACKOFF_RULE}"))?;
    let (min, max) = (parse_duration(min)?, parse_duration(max)?);
    if min > max {
        return Err(format!("invalid backoff `{text}`: the first duration is longer than the second"));
    }
    Ok(Backoff { min, max })
}

impl<'de> Deserialize<'de> for HumanSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<HumanSize, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = HumanSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SIZE_RULE)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanSize, E> {
                let read = text.trim().parse::<bytesize::ByteSize>();
                read.map(|size| HumanSize(size.as_u64()))
                    .map_err(|_| E::custom(format!("invalid size `{text}`: expected {SIZE_RULE}")))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<HumanSize, E> {
                u64::try_from(bytes)
                    .map(HumanSize)
                    .map_err(|_| E::custom(format!("invalid size `{bytes}`: expected {SIZE_RULE}")))
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<HumanSize, E> {
                Ok(HumanSize(bytes))
            }
        }
        from.deserialize_any(Either)
    }
}

/// Deserializes a value that is written as a string, with a rule that every error quotes.
struct Text<F> {
    rule: &'static str,
    read: F,
}

impl<T, F: Fn(&str) -> Result<T, String>> Visitor<'_> for Text<F> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(E::custom)
    }
}
