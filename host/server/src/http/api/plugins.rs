//! Plugins that are loaded, and files that were refused.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wharf_core::ids::PluginId;
use wharf_core::kv;
use wharf_engine::spec::sources;
use wharf_engine::{Plugin, Task};
use wharf_runner::{Catalog, Loaded, Refused};

use super::moment::Moment;
use super::schedules::ScheduleRequest;
use super::values::{OnConflict, from_name};

/// A file of the plugin folder: a loaded plugin, or a file that was refused, or both if its newest version was refused.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct PluginFile {
    /// ID of the plugin; `null` if the file's name cannot be an ID.
    pub(crate) id: Option<String>,
    /// Path of the file.
    pub(crate) file: String,
    /// The version that is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) loaded: Option<LoadedVersion>,
    /// Reasons why the file as it is now could not be loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<Refusal>,
    /// Usage of the plugin's KV storage; only in the document of one plugin, if it has values or the grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kv: Option<KvUsage>,
}

/// Usage of a plugin's KV storage.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct KvUsage {
    /// Number of values.
    pub(crate) values: u64,
    /// Size of all keys and values in bytes.
    pub(crate) bytes: u64,
    /// The most bytes that the plugin may store; absent if it is loaded without the grant, or not loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_max: Option<u64>,
}

/// A loaded version of a plugin.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LoadedVersion {
    /// Name that its manifest declares.
    pub(crate) name: String,
    /// Version that its manifest declares.
    pub(crate) version: String,
    /// SHA-256 of the file.
    pub(crate) digest: String,
    /// Size of the file in bytes.
    pub(crate) bytes: u64,
    /// When it was loaded.
    pub(crate) since: Moment,
    /// True if its exports are async functions of the component model.
    pub(crate) is_async: bool,
    /// Interfaces that it imports.
    pub(crate) imports: Vec<String>,
    /// Its tasks.
    pub(crate) tasks: Vec<TaskDocument>,
    /// Topics to which it subscribes.
    pub(crate) topics: Vec<String>,
    /// Settings of its subscriber; limits and attempts apply to durable broadcasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) receive: Option<TaskDocument>,
    /// Schedules that it suggests: each does nothing until it is accepted, by `PUT /v1/schedules/{id}` with its definition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) schedules: Vec<SuggestedSchedule>,
}

/// A schedule that a plugin suggests.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct SuggestedSchedule {
    /// Name of the schedule.
    pub(crate) name: String,
    /// Its definition.
    pub(crate) definition: ScheduleRequest,
}

/// Reasons why a file could not be loaded.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Refusal {
    /// When it was refused.
    pub(crate) since: Moment,
    /// When it is loaded again, since the reason may have passed by then; absent if only another file can help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry: Option<Moment>,
    /// The problems, each with what to do about it.
    pub(crate) problems: Vec<String>,
}

/// A task with its effective settings: the manifest's, overridden by the operator's.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Task")]
pub(crate) struct TaskDocument {
    /// Name, as PLUGIN/TASK.
    pub(crate) task: String,
    /// Limit group of its jobs.
    pub(crate) group: String,
    /// Number of its jobs with one key that may run at once; `null` means unlimited.
    pub(crate) per_key: Option<u32>,
    /// Number of its jobs that may run at once; `null` means unlimited.
    pub(crate) total: Option<u32>,
    /// Rule for a new job whose lane is full.
    pub(crate) on_conflict: OnConflict,
    /// JSON pointer to the key in the payload; `null` if the payload has none.
    pub(crate) key: Option<String>,
    /// Number of attempts before a job fails.
    pub(crate) attempts: u32,
    /// Pause after the first failure, in milliseconds.
    pub(crate) backoff_min_ms: u64,
    /// The longest pause between two attempts, in milliseconds.
    pub(crate) backoff_max_ms: u64,
    /// Time that an attempt may take, in milliseconds.
    pub(crate) timeout_ms: u64,
    /// Processor time that an attempt may take, in milliseconds.
    pub(crate) cpu_ms: u64,
    /// Time that an attempt may go without any sign of progress, in milliseconds; `null` means unlimited.
    pub(crate) stall_ms: Option<u64>,
    /// Memory that an attempt may have, in bytes.
    pub(crate) memory_bytes: u64,
    /// The way in which its code is called.
    #[serde(default)]
    pub(crate) kind: TaskKind,
    /// JSON schema of its payloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_schema: Option<Box<RawValue>>,
    /// JSON schema of its results; absent if they may be anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result_schema: Option<Box<RawValue>>,
    /// Arguments of a program.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) args: Vec<String>,
    /// True if each line of a program's standard output is a chunk, and the result is empty.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) lines: bool,
    /// Exit statuses of a program after which its job is not retried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) discard_on: Vec<u8>,
    /// True if a job is not retried when its function returns an error.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) discard_errors: bool,
    /// The settings that are set, each with what set it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) set_by: BTreeMap<String, String>,
}

/// The way in which a task's code is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TaskKind {
    /// The contract of `wharf:plugin`.
    #[default]
    Contract,
    /// A program: the payload is its standard input, and its standard output is the result.
    Program,
    /// An exported function: the payload is JSON of its parameters, and the result is JSON of its result.
    Function,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Returns the documents of all plugins and of all refused files.
pub(crate) fn plugin_files(catalog: &Catalog) -> Vec<PluginFile> {
    let loaded = catalog.plugins().keys().filter_map(|id| loaded_or_refused(catalog, id));
    let only_refused = catalog
        .refused()
        .values()
        .filter(|refused| refused.plugin.as_ref().is_none_or(|id| catalog.plugin(id).is_none()));
    loaded
        .chain(only_refused.map(|refused| PluginFile::new(refused.plugin.as_ref(), &refused.file, None, Some(refused))))
        .collect()
}

/// Returns the document of one plugin, loaded or refused.
pub(crate) fn loaded_or_refused(catalog: &Catalog, id: &PluginId) -> Option<PluginFile> {
    let (loaded, refused) = (catalog.plugin(id), catalog.refusal(id));
    let file = loaded.map(|loaded| &loaded.file).or(refused.map(|refused| &refused.file))?;
    Some(PluginFile::new(Some(id), file, loaded, refused))
}

impl PluginFile {
    fn new(id: Option<&PluginId>, file: &Path, loaded: Option<&Loaded>, refused: Option<&Refused>) -> PluginFile {
        PluginFile {
            id: id.map(ToString::to_string),
            file: file.display().to_string(),
            loaded: loaded.map(LoadedVersion::from),
            refused: refused.map(|refused| Refusal {
                since: Moment(refused.since),
                retry: refused.retry.map(Moment),
                problems: refused.why.problems.iter().map(ToString::to_string).collect(),
            }),
            kv: None,
        }
    }

    /// Adds the usage of the plugin's KV storage, of which it may use `bytes_max`, unless it neither has values nor the grant.
    pub(crate) fn with_kv(self, usage: kv::KvUsage, bytes_max: Option<u64>) -> PluginFile {
        let kv::KvUsage { values, bytes } = usage;
        let kv = (values > 0 || bytes_max.is_some()).then_some(KvUsage { values, bytes, bytes_max });
        PluginFile { kv, ..self }
    }
}

impl From<&Loaded> for LoadedVersion {
    fn from(loaded: &Loaded) -> LoadedVersion {
        let plugin = &loaded.plugin;
        LoadedVersion {
            name: plugin.manifest.name.clone(),
            version: plugin.manifest.version.clone(),
            digest: plugin.digest.clone(),
            bytes: plugin.bytes,
            since: Moment(loaded.since),
            is_async: plugin.is_async,
            imports: plugin.imports.clone(),
            tasks: plugin.manifest.tasks.values().map(TaskDocument::from).collect(),
            topics: plugin.manifest.topics.iter().map(ToString::to_string).collect(),
            receive: plugin.manifest.receive.as_ref().map(|receive| TaskDocument::from(&receive.task)),
            schedules: suggested(plugin),
        }
    }
}

/// Returns the schedules that a plugin suggests, as requests that define them.
pub(crate) fn suggested(plugin: &Plugin) -> Vec<SuggestedSchedule> {
    let suggestions = plugin.manifest.schedules.iter().map(|(name, suggestion)| {
        let suggestion = suggestion.clone();
        SuggestedSchedule {
            name: name.clone(),
            definition: ScheduleRequest {
                task: format!("{}/{}", plugin.id, suggestion.task),
                cron: suggestion.cron,
                zone: suggestion.zone,
                every: suggestion.every,
                payload: RawValue::from_string(suggestion.payload.0).ok(),
                payload_base64: None,
                key: suggestion.key,
                priority: None,
                missed: suggestion.missed.as_deref().and_then(from_name),
                window: suggestion.window,
                overlap: suggestion.overlap.as_deref().and_then(from_name),
                spread: suggestion.spread,
                pause_after: suggestion.pause_after,
                tick_as: suggestion.tick_as,
            },
        }
    });
    suggestions.collect()
}

/// Returns in one line when a suggested schedule ticks, and how it is accepted.
pub(crate) fn suggestion_text(plugin: &str, suggested: &SuggestedSchedule) -> String {
    let SuggestedSchedule { name, definition } = suggested;
    let (task, when) = (&definition.task, suggestion_times(definition));
    format!("{name}: {task}, {when}; suggested, accept it with `wharf schedule accept {plugin}/{name}`")
}

/// Returns when a suggested schedule ticks, as its author wrote it.
pub(crate) fn suggestion_times(definition: &ScheduleRequest) -> String {
    match (&definition.cron, &definition.every) {
        (Some(expression), _) => format!("{expression} {}", definition.zone.as_deref().unwrap_or("UTC")),
        (None, every) => format!("every {}", every.as_deref().unwrap_or("?")),
    }
}

/// Returns the schema that a task's payloads meet: of its types, and the one that is declared, if both are there both.
fn payload_schema(task: &Task) -> Option<Box<RawValue>> {
    let declared = task.schema.as_ref().map(|schema| schema.text());
    let text = match (&task.kind, declared) {
        (sources::TaskKind::Function(function), None) => function.payload_schema(),
        (sources::TaskKind::Function(function), Some(declared)) => {
            let types: serde_json::Value = serde_json::from_str(&function.payload_schema()).ok()?;
            let declared: serde_json::Value = serde_json::from_str(declared).ok()?;
            // With a name of its own each refers to its own parts.
            let named = |id: &str, mut schema: serde_json::Value| {
                if let Some(schema) = schema.as_object_mut() {
                    schema.entry("$id").or_insert_with(|| id.into());
                }
                schema
            };
            serde_json::json!({"allOf": [named("urn:wharf:types", types), named("urn:wharf:declared", declared)]})
                .to_string()
        }
        (_, declared) => declared?.to_owned(),
    };
    serde_json::from_str(&text).ok()
}

impl From<&Task> for TaskDocument {
    fn from(task: &Task) -> TaskDocument {
        let millis = |length: std::time::Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        TaskDocument {
            task: task.name.to_string(),
            group: task.group.to_string(),
            per_key: task.limits.per_key,
            total: task.limits.total,
            on_conflict: task.on_conflict.into(),
            key: task.key.as_ref().map(|pointer| pointer.as_str().to_owned()),
            attempts: task.retry.attempts,
            backoff_min_ms: millis(task.retry.backoff_min),
            backoff_max_ms: millis(task.retry.backoff_max),
            timeout_ms: millis(task.timeout),
            cpu_ms: millis(task.cpu),
            stall_ms: task.stall.map(millis),
            memory_bytes: task.memory_bytes,
            kind: match &task.kind {
                sources::TaskKind::Contract => TaskKind::Contract,
                sources::TaskKind::Program => TaskKind::Program,
                sources::TaskKind::Function(_) => TaskKind::Function,
            },
            payload_schema: payload_schema(task),
            result_schema: match &task.kind {
                sources::TaskKind::Function(function) => {
                    function.result_schema().and_then(|schema| serde_json::from_str(&schema).ok())
                }
                sources::TaskKind::Contract | sources::TaskKind::Program => None,
            },
            args: task.plain.args.to_vec(),
            lines: task.plain.lines,
            discard_on: task.plain.discard_on.clone(),
            discard_errors: task.plain.discard_errors,
            set_by: {
                let plugin = task.name.plugin();
                task.origins.iter().map(|(key, by)| ((*key).to_owned(), by.name(&plugin).into_owned())).collect()
            },
        }
    }
}
