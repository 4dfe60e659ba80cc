//! A task: its settings checked, with defaults for the rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use wharf_core::bounds;
use wharf_core::ids::{Group, PluginId, TaskName};
use wharf_core::key::Key;
use wharf_core::limits::{Limits, OnConflict};
use wharf_core::retry::RetryPolicy;

use crate::spec::payload::{KeyPointer, PayloadError, Schema};
use crate::spec::problem::Problem;
use crate::spec::raw::{RawOnError, RawStream, RawTask};
use crate::spec::sources::{Origin, TaskKind};

/// A kind of job that a plugin handles.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its full name.
    pub name: TaskName,
    /// The group whose limits it shares.
    pub group: Group,
    /// Limits of jobs that run at once.
    pub limits: Limits,
    /// Policy for a new job whose lane is full.
    pub on_conflict: OnConflict,
    /// The retry policy.
    pub retry: RetryPolicy,
    /// Maximum wall time of an attempt.
    pub timeout: Duration,
    /// Maximum CPU time of an attempt.
    pub cpu: Duration,
    /// Maximum time of an attempt without output and without progress.
    pub stall: Option<Duration>,
    /// Maximum memory of an attempt in bytes.
    pub memory_bytes: u64,
    /// Path to the job's key in the payload.
    pub key: Option<KeyPointer>,
    /// The schema of its payloads that its manifest or the operator declares.
    pub schema: Option<Schema>,
    /// Settings of a task whose plugin is called otherwise than by our contract.
    pub plain: PlainSettings,
    /// The way in which its code is called.
    pub kind: TaskKind,
    /// The keys that its author or the operator set, and where.
    pub origins: BTreeMap<&'static str, Origin>,
}

/// Settings of a task that is a program, or a function with types of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlainSettings {
    /// Arguments of a program, without its name.
    pub args: Arc<[String]>,
    /// True if each line of a program's standard output is a chunk.
    pub lines: bool,
    /// Exit statuses of a program after which its job is not retried.
    pub discard_on: Vec<u8>,
    /// True if a job is not retried when its function returns an error.
    pub discard_errors: bool,
}

impl PlainSettings {
    fn read(raw: &mut RawTask, bad: &mut impl FnMut(&str, String)) -> PlainSettings {
        let args = raw.args.take().unwrap_or_default();
        let bytes: usize = args.iter().map(String::len).sum();
        if args.len() > bounds::PROGRAM_ARGS_MAX || bytes > bounds::PROGRAM_ARGS_BYTES_MAX {
            bad(
                "args",
                format!(
                    "{} arguments with {bytes} bytes in all; the limits are {} and {}",
                    args.len(),
                    bounds::PROGRAM_ARGS_MAX,
                    bounds::PROGRAM_ARGS_BYTES_MAX
                ),
            );
        }
        if let Some(place) = args.iter().position(|arg| arg.contains('\0')) {
            bad("args", format!("argument {} has a zero byte, which no program can be given", place + 1));
        }
        let discard_on = raw.discard_on.take().unwrap_or_default();
        if discard_on.contains(&0) {
            bad("discard-on", "0 is the status of success; list statuses from 1 to 255".to_owned());
        }
        PlainSettings {
            args: args.into(),
            lines: raw.stream == Some(RawStream::Lines),
            discard_on,
            discard_errors: raw.on_error == Some(RawOnError::Discard),
        }
    }
}

impl Task {
    /// Returns the key of a job with this payload, for a caller that names none.
    ///
    /// # Errors
    /// [`PayloadError`] if the payload has a value that cannot be a key where the key is expected.
    pub fn key_of(&self, payload: &[u8]) -> Result<Option<Key>, PayloadError> {
        self.key.as_ref().map_or(Ok(None), |pointer| pointer.find(payload))
    }

    /// Returns how many checks a payload may take against the task's schema.
    pub fn checks(&self, payload: &[u8]) -> u64 {
        let of_types = match &self.kind {
            TaskKind::Function(function) => function.checks(payload),
            TaskKind::Contract | TaskKind::Program => 0,
        };
        self.schema.as_ref().map_or(0, |schema| schema.checks(payload)).saturating_add(of_types)
    }

    /// Returns true if members of the payload are taken only as WIT writes them, because the key or the declared schema looks for
    /// them by their names.
    pub fn is_spelled_as_wit(&self) -> bool {
        self.key.is_some() || self.schema.is_some()
    }

    /// Checks a payload against the types of the function that the task is, if it is one. Returns how many checks that took
    /// besides those of what the payload has.
    ///
    /// # Errors
    /// [`PayloadError`] with the first place where a value is not of its type.
    pub fn check_types(&self, payload: &[u8]) -> Result<u64, PayloadError> {
        match &self.kind {
            TaskKind::Function(function) => {
                function.check(payload, self.is_spelled_as_wit()).map_err(PayloadError::Types)
            }
            TaskKind::Contract | TaskKind::Program => Ok(0),
        }
    }

    /// Checks a payload against the task's types and its schema.
    ///
    /// # Errors
    /// [`PayloadError`] with the places where the payload does not match.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), PayloadError> {
        self.check_types(payload)?;
        self.schema.as_ref().map_or(Ok(()), |schema| schema.check(payload))
    }
}

/// The declaration of a task, and its default timeout.
pub(crate) struct TaskContext<'a> {
    pub(crate) plugin: &'a PluginId,
    /// The name within the plugin, such as "count".
    pub(crate) task: &'a str,
    /// The table as problems name it, such as "tasks.count".
    pub(crate) table: &'a str,
    pub(crate) timeout_default: Duration,
}

/// Returns the keys that are set and have no meaning for a task of this kind, with what they are for.
fn misplaced(raw: &RawTask, kind: &TaskKind) -> Vec<(&'static str, &'static str)> {
    const PROGRAM: &str = "a program";
    const FUNCTION: &str = "an exported function";
    let is_program = matches!(kind, TaskKind::Program);
    let is_function = matches!(kind, TaskKind::Function(_));
    let all = [
        ("args", raw.args.is_some() && !is_program, PROGRAM),
        ("stream", raw.stream.is_some() && !is_program, PROGRAM),
        ("discard-on", raw.discard_on.is_some() && !is_program, PROGRAM),
        ("on-error", raw.on_error.is_some() && !is_function, FUNCTION),
    ];
    all.into_iter().filter(|(_, is_misplaced, _)| *is_misplaced).map(|(key, _, needed)| (key, needed)).collect()
}

/// Checks a task's settings and adds defaults. Returns `None` if something is wrong, which is then in `problems`.
pub(crate) fn build(
    at: &TaskContext<'_>,
    mut raw: RawTask,
    kind: TaskKind,
    problems: &mut Vec<Problem>,
) -> Option<Task> {
    let before = problems.len();
    let (task, table) = (at.task, at.table);
    let mut bad = |key: &str, what: String| problems.push(Problem::new(format!("{table}.{key}: {what}")));

    let name =
        TaskName::new(at.plugin, task).map_err(|e| bad("name", format!("invalid name `{task}`: {}", e.reason))).ok();
    for (key, needed) in misplaced(&raw, &kind) {
        bad(key, format!("it is for {needed}, which this task is not; remove it"));
    }
    let plain = PlainSettings::read(&mut raw, &mut bad);
    let limit = raw.limit.unwrap_or_default();
    let group = match limit.group.as_deref().map(str::parse::<Group>) {
        Some(Ok(group)) => Some(group),
        Some(Err(e)) => {
            bad("limit.group", e.to_string());
            None
        }
        None => name.as_ref().map(Group::from),
    };
    let schema =
        raw.payload_schema.and_then(|text| Schema::parse(&text).map_err(|why| bad("payload-schema", why)).ok());
    let key = raw.key.and_then(|text| KeyPointer::parse(&text).map_err(|why| bad("key", why)).ok());

    if let (Some(pointer), TaskKind::Function(function)) = (&key, &kind)
        && !function.may_have(pointer.as_str())
    {
        let what = format!(
            "no payload has a value at `{}`; expected a pointer to a parameter of the function, or to a member, as WIT writes it",
            pointer.as_str()
        );
        bad("key", what);
    }

    let retry = raw.retry.unwrap_or_default();
    let attempts = retry.attempts.unwrap_or(bounds::RETRY_ATTEMPTS_DEFAULT);
    if attempts == 0 || attempts > bounds::RETRY_ATTEMPTS_MAX {
        bad("retry.attempts", format!("{attempts} is out of range; expected 1 to {}", bounds::RETRY_ATTEMPTS_MAX));
    }
    let timeout = raw.timeout.map_or(at.timeout_default, |length| length.0);
    // A task that only shortens its timeout needs no setting for cpu.
    let cpu = raw.cpu.map_or(bounds::CPU_DEFAULT.min(timeout), |length| length.0);
    for (key, length) in [("timeout", Some(timeout)), ("cpu", Some(cpu)), ("stall", raw.stall.map(|length| length.0))] {
        if length.is_some_and(|length| length < bounds::TICK || length > bounds::TIMEOUT_MAX) {
            bad(
                key,
                format!("out of range; expected {:?} to {} h", bounds::TICK, bounds::TIMEOUT_MAX.as_secs() / 3600),
            );
        }
    }
    let memory_bytes = raw.memory.map_or(bounds::MEMORY_BYTES_DEFAULT, |size| size.0);
    if !(64 * bounds::KIB..=bounds::MEMORY_BYTES_MAX).contains(&memory_bytes) {
        let max = bytesize::ByteSize(bounds::MEMORY_BYTES_MAX).display().iec();
        bad(
            "memory",
            format!(
                "{} is out of range; expected 64 KiB, which is one page, to {max}",
                bytesize::ByteSize(memory_bytes).display().iec()
            ),
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
        stall: raw.stall.map(|length| length.0),
        memory_bytes,
        key,
        schema,
        plain,
        kind,
        origins: BTreeMap::new(),
    })
}
