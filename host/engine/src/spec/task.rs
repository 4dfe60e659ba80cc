//! A task as it holds: what is given of it, checked, and the defaults for the rest.

use std::time::Duration;

use wharf_core::bounds;
use wharf_core::ids::{Group, PluginId, TaskName};
use wharf_core::key::Key;
use wharf_core::limits::{Limits, OnConflict};
use wharf_core::retry::RetryPolicy;

use crate::spec::payload::{KeyPointer, PayloadError, Schema};
use crate::spec::problem::Problem;
use crate::spec::raw::RawTask;

/// A kind of job that a plugin handles.
#[derive(Clone, Debug)]
pub struct Task {
    pub name: TaskName,
    pub group: Group,
    pub limits: Limits,
    pub on_conflict: OnConflict,
    pub retry: RetryPolicy,
    pub timeout: Duration,
    pub cpu: Duration,
    pub stall: Option<Duration>,
    pub memory_bytes: u64,
    pub key: Option<KeyPointer>,
    pub schema: Option<Schema>,
}

impl Task {
    /// The key that a job with this payload has if its caller names none.
    ///
    /// # Errors
    /// When the payload has no key where one is looked for, but something else.
    pub fn key_of(&self, payload: &[u8]) -> Result<Option<Key>, PayloadError> {
        self.key.as_ref().map_or(Ok(None), |pointer| pointer.find(payload))
    }

    /// # Errors
    /// Every place where the payload does not fit the task's schema.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), PayloadError> {
        self.schema.as_ref().map_or(Ok(()), |schema| schema.check(payload))
    }
}

/// Where a task is declared, and what holds if nothing is said.
pub(crate) struct Place<'a> {
    pub(crate) plugin: &'a PluginId,
    /// The name within the plugin: "count".
    pub(crate) task: &'a str,
    /// As problems name it: "tasks.count".
    pub(crate) table: &'a str,
    pub(crate) timeout_default: Duration,
}

/// `None` if something is wrong, which `problems` then tell.
pub(crate) fn ready(at: &Place<'_>, given: RawTask, problems: &mut Vec<Problem>) -> Option<Task> {
    let before = problems.len();
    let (task, table) = (at.task, at.table);
    let mut bad = |key: &str, what: String| problems.push(Problem::new(format!("{table}.{key}: {what}")));

    let name = TaskName::new(at.plugin, task).map_err(|error| bad("name", error.to_string())).ok();
    let limit = given.limit.unwrap_or_default();
    let group = match limit.group.as_deref().map(str::parse::<Group>) {
        Some(Ok(group)) => Some(group),
        Some(Err(e)) => {
            bad("limit.group", e.to_string());
            None
        }
        None => name.as_ref().map(Group::from),
    };
    let schema =
        given.payload_schema.and_then(|text| Schema::parse(&text).map_err(|why| bad("payload-schema", why)).ok());
    let key = given.key.and_then(|text| KeyPointer::parse(&text).map_err(|why| bad("key", why)).ok());

    let retry = given.retry.unwrap_or_default();
    let attempts = retry.attempts.unwrap_or(bounds::RETRY_ATTEMPTS_DEFAULT);
    if attempts == 0 || attempts > bounds::RETRY_ATTEMPTS_MAX {
        bad("retry.attempts", format!("{attempts} is not between 1 and {}", bounds::RETRY_ATTEMPTS_MAX));
    }
    let timeout = given.timeout.map_or(at.timeout_default, |length| length.0);
    // A task that only says a shorter timeout needs no word on cpu.
    let cpu = given.cpu.map_or(bounds::CPU_DEFAULT.min(timeout), |length| length.0);
    for (key, length) in [("timeout", Some(timeout)), ("cpu", Some(cpu)), ("stall", given.stall.map(|length| length.0))]
    {
        if length.is_some_and(|length| length < bounds::TICK || length > bounds::TIMEOUT_MAX) {
            bad(
                key,
                format!("it is not between {:?} and {} hours", bounds::TICK, bounds::TIMEOUT_MAX.as_secs() / 3600),
            );
        }
    }
    let memory_bytes = given.memory.map_or(bounds::MEMORY_BYTES_DEFAULT, |size| size.0);
    if memory_bytes < 64 * bounds::KIB || memory_bytes > bounds::MEMORY_BYTES_MAX {
        let max = bytesize::ByteSize(bounds::MEMORY_BYTES_MAX).display().iec();
        bad(
            "memory",
            format!("{} is not between 64 KiB, one page, and {max}", bytesize::ByteSize(memory_bytes).display().iec()),
        );
    }
    if problems.len() > before {
        return None;
    }
    Some(Task {
        name: name?,
        group: group?,
        limits: Limits { per_key: limit.per_key, total: limit.total },
        on_conflict: limit.on_conflict.map(Into::into).unwrap_or_default(),
        retry: RetryPolicy {
            attempts,
            backoff_min: retry.backoff.map_or(bounds::BACKOFF_MIN_DEFAULT, |b| b.min),
            backoff_max: retry.backoff.map_or(bounds::BACKOFF_MAX_DEFAULT, |b| b.max),
        },
        timeout,
        cpu,
        stall: given.stall.map(|length| length.0),
        memory_bytes,
        key,
        schema,
    })
}
