//! The documents of the API: what is asked and answered in JSON. The commands read the same structs.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wharf_core::time::Timestamp;

mod broadcasts;

pub(crate) use broadcasts::*;

/// A moment on the wire: RFC 3339, to the microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl Moment {
    pub(crate) fn date(self) -> jiff::Timestamp {
        let micros = i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX);
        jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX)
    }
}

impl std::str::FromStr for Moment {
    type Err = String;
    fn from_str(text: &str) -> Result<Moment, String> {
        let date: jiff::Timestamp =
            text.trim().parse().map_err(|_| format!("`{text}` is no moment; write one as \"2030-01-31T12:00:00Z\""))?;
        Ok(Moment(Timestamp::from_micros(u64::try_from(date.as_microsecond()).unwrap_or_default())))
    }
}

impl Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:.6}", self.date()))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Moment, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// A job as it is asked for.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobAsked {
    /// As PLUGIN/TASK.
    pub(crate) task: String,
    /// Kept as it is written; `null` where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<Box<RawValue>>,
    /// Bytes that are no JSON, in base64 with padding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_base64: Option<String>,
    /// Where the task's manifest does not find it in the payload.
    pub(crate) key: Option<String>,
    /// The highest is first; 0 where none is given.
    pub(crate) priority: Option<i32>,
    /// How long it is not to begin, as "90s" or "5m".
    pub(crate) delay: Option<String>,
    /// Not before this moment, in place of `delay`.
    pub(crate) at: Option<Moment>,
    /// Of the client's own choice: the same job asked for again is enqueued once.
    pub(crate) token: Option<String>,
}

/// A value that is there is one, `null` too.
pub(crate) fn as_written<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(from).map(Some)
}

/// The query of a request to enqueue. With `task`, the body is the payload, byte for byte.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnqueueQuery {
    /// As PLUGIN/TASK: the body is then the payload as it is, and the other options stand here, too.
    pub(crate) task: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) priority: Option<i32>,
    pub(crate) delay: Option<String>,
    pub(crate) at: Option<Moment>,
    pub(crate) token: Option<String>,
    /// How long to wait for the result of one job, as "30s"; 10 minutes at most.
    pub(crate) wait: Option<String>,
}

/// What became of one job that was asked for.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Enqueued {
    /// "added"; "known" where a job with the same token stands; "discarded" where its lane is full.
    pub(crate) outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// The jobs that fill its lane.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) holders: Vec<String>,
}

/// A job as it is read.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) task: String,
    pub(crate) state: String,
    /// Why it does not run, while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waits: Option<Waits>,
    pub(crate) group: String,
    pub(crate) key: Option<String>,
    pub(crate) priority: i32,
    pub(crate) token: Option<String>,
    /// The durable broadcast that it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<String>,
    pub(crate) enqueued_at: Moment,
    /// Not before this moment, while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) due_at: Option<Moment>,
    pub(crate) started_at: Option<Moment>,
    pub(crate) finished_at: Option<Moment>,
    /// The number of the last attempt that was begun.
    pub(crate) attempt: u32,
    /// Attempts that failed, and those that ended with their host.
    pub(crate) failures: u32,
    pub(crate) crashes: u32,
    pub(crate) cancel_asked: bool,
    /// Where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lease: Option<Lease>,
    /// How the last attempt ended that did not return.
    pub(crate) report: Option<Report>,
    /// What the last ended attempt cost.
    pub(crate) bill: Option<Bill>,
    // What went in and came out: not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_bytes: Option<usize>,
    /// As it is written; `payload_base64` where it is no JSON, or JSON that is nested deeper than 60 levels.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "as_written")]
    pub(crate) payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result_bytes: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "as_written")]
    pub(crate) result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result_base64: Option<String>,
    /// The number of the last chunk, log line or progress in its log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entries: Option<u64>,
}

/// Why a job waits.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Waits {
    /// "not-due", "lane-full", "group-full", "paused", "plugin-loading", "plugin-absent", "task-absent", "draining" or "in-turn".
    pub(crate) reason: String,
    /// The same for people.
    pub(crate) text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) holders: Vec<Holder>,
}

/// A running job that holds a slot of a limit.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Holder {
    pub(crate) id: String,
    pub(crate) since: Moment,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Lease {
    pub(crate) node: String,
    pub(crate) until: Moment,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Report {
    pub(crate) outcome: String,
    pub(crate) text: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Bill {
    pub(crate) queue_wait_ms: f64,
    pub(crate) guest_ms: f64,
    pub(crate) wall_ms: f64,
    pub(crate) memory_peak_bytes: u64,
    pub(crate) in_bytes: u64,
    pub(crate) out_bytes: u64,
}

/// One page of a list of jobs, newest first.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "JobPage")]
pub(crate) struct Page {
    pub(crate) jobs: Vec<Job>,
    /// The query that asks for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

/// The query of a list of jobs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// "waiting", "running", "succeeded", "failed" or "cancelled".
    pub(crate) state: Option<String>,
    pub(crate) task: Option<String>,
    pub(crate) key: Option<String>,
    /// Jobs of one durable broadcast, by its id.
    pub(crate) batch: Option<String>,
    /// Jobs older than this one, by its id.
    pub(crate) before: Option<String>,
    /// How many, 100 where it is not given.
    pub(crate) limit: Option<u32>,
}

/// One entry of a job's log, as the data of a server-sent event.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Entry {
    pub(crate) attempt: u32,
    pub(crate) at: Option<Moment>,
    /// Of a chunk that is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
    /// Of any other chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base64: Option<String>,
    /// Of a log line: "stdout" or "stderr".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<String>,
    /// Log lines that were dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lines: Option<u64>,
    /// Progress, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fraction: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// Whether the host takes and runs jobs.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Ready {
    /// "ready" or "not-ready".
    pub(crate) status: String,
    /// Why it is not.
    pub(crate) because: Vec<String>,
    /// Attempts that run on this host, and how many may at once.
    pub(crate) running: u32,
    pub(crate) capacity: u32,
}

impl Ready {
    pub(crate) fn new(because: Vec<String>, running: u32, capacity: u32) -> Ready {
        let status = if because.is_empty() { "ready" } else { "not-ready" };
        Ready { status: status.to_owned(), because, running, capacity }
    }
}

/// The process answers.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Health {
    /// "alive".
    pub(crate) status: String,
}

/// A limit group: what is in force, from whom, and how much of it is held.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Limit {
    pub(crate) group: String,
    /// Tasks of loaded plugins that share it.
    pub(crate) tasks: Vec<String>,
    /// In force now.
    pub(crate) per_key: Option<u32>,
    pub(crate) total: Option<u32>,
    /// What manifests and wharf.toml say.
    pub(crate) declared: LimitNumbers,
    /// What was set while running, for the group and for single keys.
    pub(crate) set: Option<LimitNumbers>,
    pub(crate) keys: Vec<KeyLimit>,
    /// Jobs of the group that run now.
    pub(crate) running: u64,
}

/// A limit that was set for one key.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct KeyLimit {
    pub(crate) key: String,
    pub(crate) per_key: Option<u32>,
}

/// The two numbers of a limit; `null` or absent is no limit, zero is a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitNumbers {
    #[serde(default)]
    pub(crate) per_key: Option<u32>,
    #[serde(default)]
    pub(crate) total: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_back_and_carry_their_zone() {
        let moment: Moment = "2030-01-31T12:00:00+02:00".parse().unwrap();
        let written = serde_json::to_string(&moment).unwrap();
        assert_eq!(written, "\"2030-01-31T10:00:00.000000Z\"");
        assert_eq!(serde_json::from_str::<Moment>(&written).unwrap(), moment);
        assert!("tomorrow".parse::<Moment>().unwrap_err().contains("is no moment"));
    }

    #[test]
    fn a_payload_stays_as_it_was_written() {
        let asked: JobAsked = serde_json::from_str(r#"{"task":"a/b","payload":{"b": 1e400, "a": 2}}"#).unwrap();
        assert_eq!(asked.payload.unwrap().get(), r#"{"b": 1e400, "a": 2}"#);
    }

    #[test]
    fn a_null_that_is_read_is_there() {
        let job = |payload: &str| {
            let rest = r#""id":"","task":"","state":"","group":"","key":null,"priority":0,"token":null,
                "enqueued_at":"2030-01-31T12:00:00Z","attempt":0,"failures":0,"crashes":0,"cancel_asked":false"#;
            serde_json::from_str::<Job>(&format!("{{{rest}{payload}}}"))
                .unwrap()
                .payload
                .map(|json| json.get().to_owned())
        };
        assert_eq!((job(r#","payload": null"#).as_deref(), job("")), (Some("null"), None));
    }

    #[test]
    fn what_is_given_twice_is_refused() {
        for twice in [r#"{"task":"a/b","key":"a","key":"b"}"#, r#"{"task":"a/b","payload":1,"pay\u006coad":2}"#] {
            assert!(
                serde_json::from_str::<JobAsked>(twice).unwrap_err().to_string().contains("duplicate field"),
                "{twice}"
            );
        }
        assert!(serde_json::from_str::<LimitNumbers>(r#"{"total":1,"total":null}"#).is_err());
        assert!(serde_json::from_str::<BroadcastAsked>(r#"{"mode":"all","mode":"quorum"}"#).is_err());
    }

    #[test]
    fn an_unknown_member_is_refused() {
        let error = serde_json::from_str::<JobAsked>(r#"{"task":"a/b","prority":1}"#).unwrap_err().to_string();
        assert!(error.starts_with("unknown field `prority`, expected one of `task`, `payload`"), "{error}");
    }
}
