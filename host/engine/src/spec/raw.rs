//! What a manifest and the operator's settings may say of a task and of a subscriber, as typed. One vocabulary for both.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use wharf_core::limits::OnConflict;
use wharf_core::topic::Pattern;

use super::duration::{DURATION_RULE, HumanDuration, parse_duration};

/// A size as people write it: "128MiB", "1GB", or a plain number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanSize(pub u64);

/// Two durations, the shorter first: "1s..5m".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub min: Duration,
    pub max: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawManifest {
    pub name: Option<String>,
    pub version: Option<String>,
    #[serde(default)]
    pub topics: Vec<Subscription>,
    pub receive: Option<RawReceive>,
    #[serde(default)]
    pub tasks: BTreeMap<String, RawTask>,
}

/// A pattern of topics: "document.*".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription(pub Pattern);

/// How a subscriber is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawReceive {
    /// Of the durable form, as `retry` is.
    pub limit: Option<RawLimit>,
    pub retry: Option<RawRetry>,
    pub timeout: Option<HumanDuration>,
    pub cpu: Option<HumanDuration>,
    pub stall: Option<HumanDuration>,
    pub memory: Option<HumanSize>,
    /// Whether it may be called by what it broadcasts itself.
    pub reentrant: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawTask {
    /// JSON Schema, as JSON text.
    pub payload_schema: Option<String>,
    /// JSON pointer into the payload.
    pub key: Option<String>,
    pub limit: Option<RawLimit>,
    pub retry: Option<RawRetry>,
    pub timeout: Option<HumanDuration>,
    pub cpu: Option<HumanDuration>,
    pub stall: Option<HumanDuration>,
    pub memory: Option<HumanSize>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawLimit {
    pub per_key: Option<u32>,
    pub total: Option<u32>,
    pub group: Option<String>,
    pub on_conflict: Option<RawOnConflict>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RawOnConflict {
    Wait,
    Discard,
    ReplaceWaiting,
    CancelRunning,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawRetry {
    pub attempts: Option<u32>,
    pub backoff: Option<Backoff>,
}

impl RawTask {
    /// What `over` says, and where it is silent what this says.
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
        }
    }
}

impl RawReceive {
    /// What `over` says, and where it is silent what this says.
    #[must_use]
    pub fn under(self, over: &RawReceive) -> RawReceive {
        let reentrant = over.reentrant.or(self.reentrant);
        RawReceive { reentrant, ..RawReceive::from(self.as_task().under(&over.clone().as_task())) }
    }

    /// The same as a task says it, which has neither schema nor key.
    pub(crate) fn as_task(self) -> RawTask {
        let RawReceive { limit, retry, timeout, cpu, stall, memory, reentrant: _ } = self;
        RawTask { limit, retry, timeout, cpu, stall, memory, ..RawTask::default() }
    }
}

impl From<RawTask> for RawReceive {
    fn from(task: RawTask) -> RawReceive {
        let RawTask { limit, retry, timeout, cpu, stall, memory, payload_schema: _, key: _ } = task;
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
    fn from(given: RawOnConflict) -> OnConflict {
        match given {
            RawOnConflict::Wait => OnConflict::Wait,
            RawOnConflict::Discard => OnConflict::Discard,
            RawOnConflict::ReplaceWaiting => OnConflict::ReplaceWaiting,
            RawOnConflict::CancelRunning => OnConflict::CancelRunning,
        }
    }
}

const SIZE_RULE: &str = "a size, such as \"128MiB\" or \"1GB\"";
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
    let (min, max) = text.split_once("..").ok_or_else(|| format!("`{text}` is not {BACKOFF_RULE}"))?;
    let (min, max) = (parse_duration(min)?, parse_duration(max)?);
    if min > max {
        return Err(format!("`{text}` begins with the longer of its two times; write the shorter one first"));
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
                read.map(|size| HumanSize(size.as_u64())).map_err(|_| E::custom(format!("`{text}` is not {SIZE_RULE}")))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<HumanSize, E> {
                u64::try_from(bytes).map(HumanSize).map_err(|_| E::custom(format!("`{bytes}` is not {SIZE_RULE}")))
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<HumanSize, E> {
                Ok(HumanSize(bytes))
            }
        }
        from.deserialize_any(Either)
    }
}

/// A value that is written as a string, with a rule that every error quotes.
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
