//! What a plugin says of itself, completed by what the operator says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wharf_core::bounds;
use wharf_core::ids::{Group, PluginId, TaskName};
use wharf_core::key::Key;
use wharf_core::limits::{Limits, OnConflict};
use wharf_core::retry::RetryPolicy;

use crate::given::{ManifestGiven, TaskGiven};
use crate::payload::{BadPayload, KeyPointer, Schema};
use crate::problem::Problem;
use crate::toml_text;

/// A plugin's manifest with the operator's settings on top: what holds.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Shown to people; the plugin's id is its file's.
    pub name: String,
    pub version: String,
    /// By the name within the plugin: "count".
    pub tasks: BTreeMap<String, Task>,
}

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
    pub fn key_of(&self, payload: &[u8]) -> Result<Option<Key>, BadPayload> {
        self.key.as_ref().map_or(Ok(None), |pointer| pointer.find(payload))
    }

    /// # Errors
    /// Every place where the payload does not fit the task's schema.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), BadPayload> {
        self.schema.as_ref().map_or(Ok(()), |schema| schema.check(payload))
    }
}

impl Manifest {
    /// Reads what `describe` returned, with `overlay` on top.
    ///
    /// # Errors
    /// Every problem of the manifest and of the overlay.
    pub fn read(
        plugin: &PluginId,
        text: &str,
        overlay: &BTreeMap<String, TaskGiven>,
    ) -> Result<Manifest, Vec<Problem>> {
        if text.len() as u64 > bounds::MANIFEST_BYTES_MAX {
            let size = bytesize::ByteSize(text.len() as u64).display().iec();
            let max = bytesize::ByteSize(bounds::MANIFEST_BYTES_MAX).display().iec();
            return Err(vec![Problem::new(format!("manifest: it is {size} long; {max} is the most"))]);
        }
        let within = |problem: Problem| problem.within("manifest");
        let given: ManifestGiven =
            toml_text::read(text).map_err(|found| found.into_iter().map(within).collect::<Vec<_>>())?;

        let mut problems: Vec<Problem> = Vec::new();
        let name = required("name", given.name, &mut problems);
        let version = required("version", given.version, &mut problems);
        if given.tasks.is_empty() {
            problems.push(
                Problem::new("manifest: no task is declared").hint("a plugin handles at least one: [tasks.NAME]"),
            );
        }
        if given.tasks.len() > bounds::TASKS_MAX {
            problems.push(Problem::new(format!(
                "manifest: {} tasks are declared; {} is the most",
                given.tasks.len(),
                bounds::TASKS_MAX
            )));
        }
        for stranger in overlay.keys().filter(|task| !given.tasks.contains_key(*task)) {
            let near = toml_text::nearest(stranger, given.tasks.keys().map(String::as_str));
            let hint = near.map_or_else(|| "remove it".to_owned(), |near| format!("did you mean `{near}`?"));
            problems.push(
                Problem::new(format!(
                    "settings: [plugins.{plugin}.tasks.{stranger}] is about a task that the plugin does not have"
                ))
                .hint(hint),
            );
        }
        let own: BTreeSet<String> = given.tasks.keys().map(|task| format!("{plugin}/{task}")).collect();
        let mut tasks = BTreeMap::new();
        for (task, mut given) in given.tasks {
            // A manifest's groups are its plugin's own: with limits of a shared one it could hold up another plugin's jobs.
            // What the operator says of a group is not asked about: tasks of several plugins are theirs to bind together.
            if let Some(group) = given.limit.as_mut().and_then(|limit| limit.group.as_mut()) {
                if !group.contains('/') {
                    *group = format!("{plugin}/{group}");
                } else if !own.contains(group) {
                    problems.push(
                        Problem::new(format!("tasks.{task}.limit.group: `{group}` is not a task of this plugin: its limits are not this manifest's to set"))
                            .hint("name a task of its own, or a group without `/`; the operator may join it to another plugin's task in wharf.toml"),
                    );
                }
            }
            let given = overlay.get(&task).map_or_else(|| given.clone(), |over| given.clone().under(over));
            if let Some(ready) = ready(plugin, &task, given, &mut problems) {
                tasks.insert(task, ready);
            }
        }
        if problems.is_empty() { Ok(Manifest { name, version, tasks }) } else { Err(problems) }
    }
}

fn required(key: &str, value: Option<String>, problems: &mut Vec<Problem>) -> String {
    match value {
        Some(value) if value.trim().is_empty() => problems.push(Problem::new(format!("manifest: `{key}` is empty"))),
        Some(value) if value.len() > bounds::NAME_BYTES_MAX || value.chars().any(char::is_control) => {
            problems.push(Problem::new(format!(
                "manifest: `{key}` is longer than {} bytes or has control characters",
                bounds::NAME_BYTES_MAX
            )))
        }
        Some(value) => return value,
        None => problems.push(
            Problem::new(format!("manifest: `{key}` is missing")).hint(format!("add {key} = \"...\" at its top")),
        ),
    }
    String::new()
}

/// A task as it holds: what is given, checked, and the defaults for the rest.
fn ready(plugin: &PluginId, task: &str, given: TaskGiven, problems: &mut Vec<Problem>) -> Option<Task> {
    let before = problems.len();
    let mut bad = |key: &str, what: String| problems.push(Problem::new(format!("tasks.{task}.{key}: {what}")));

    let name = TaskName::new(plugin, task).map_err(|e| bad("name", format!("`{task}` is no name: {}", e.reason))).ok();
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
    let timeout = given.timeout.map_or(bounds::TIMEOUT_DEFAULT, |length| length.0);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(limit: &str, overlay: &str) -> Result<Manifest, String> {
        let text = format!("name = \"B\"\nversion = \"1\"\n[tasks.first]\nlimit = {{ {limit} }}\n[tasks.second]\n");
        let settings: crate::grants::PluginSettings = toml_text::read(overlay).unwrap();
        let told = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<String>();
        Manifest::read(&"b".parse().unwrap(), &text, &settings.tasks).map_err(told)
    }

    #[test]
    fn a_manifest_sets_no_limits_of_another_plugin_s_tasks() {
        let told = read(r#"group = "words/count", total = 0"#, "").unwrap_err();
        assert!(
            told.contains("tasks.first.limit.group: `words/count` is not a task of this plugin")
                && told.contains("wharf.toml"),
            "{told}"
        );
        assert!(read(r#"group = "b/third""#, "").is_err());
        let group = |read: Result<Manifest, String>| read.unwrap().tasks["first"].group.to_string();
        assert_eq!(group(read(r#"group = "b/second""#, "")), "b/second");
        assert_eq!(group(read(r#"group = "hands""#, "")), "b/hands");
        assert_eq!(group(read("total = 1", "[tasks.first]\nlimit = { group = \"hands\" }")), "hands");
        assert_eq!(group(read("total = 1", "[tasks.first]\nlimit = { group = \"words/count\" }")), "words/count");
    }
}
