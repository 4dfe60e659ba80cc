//! `/v1/plugins`: what is loaded, what was refused and why. The documents, and the routes that answer with them.

use std::path::Path as FilePath;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wharf_core::ids::PluginId;
use wharf_core::kv::KvUsage;
use wharf_core::limits::OnConflict;
use wharf_engine::Task;
use wharf_runner::{Catalog, Loaded, Refused};

use super::app_state::Face;
use super::path::Path;
use super::problem::{Kind, Problem};
use super::wire::Moment;

/// A plugin, or a file of the plugin folder that is none.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Plugin {
    /// Absent where the file's name is no plugin's.
    pub(crate) id: Option<String>,
    pub(crate) file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) loaded: Option<LoadedVersion>,
    /// The file as it is now could not be loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<Refusal>,
    /// What it keeps in the store. Only where one plugin is asked for, and keeps or may keep something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kv: Option<KvDocument>,
}

/// How much a plugin keeps. Bytes are those of keys and values.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Kept")]
pub(crate) struct KvDocument {
    pub(crate) values: u64,
    pub(crate) bytes: u64,
    /// Absent where it is loaded without the grant, or not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_max: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LoadedVersion {
    pub(crate) name: String,
    pub(crate) version: String,
    /// SHA-256 of the file.
    pub(crate) digest: String,
    pub(crate) bytes: u64,
    pub(crate) since: Moment,
    /// Its exports are async functions of the component model.
    pub(crate) is_async: bool,
    pub(crate) imports: Vec<String>,
    pub(crate) tasks: Vec<TaskDocument>,
    /// What it subscribes to.
    pub(crate) topics: Vec<String>,
    /// How its subscriber is called; limits and attempts are of durable broadcasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) receive: Option<TaskDocument>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Refusal {
    pub(crate) since: Moment,
    /// What is wrong with it, each with what to do.
    pub(crate) problems: Vec<String>,
}

/// A kind of job, with everything that holds for it: the manifest, and the operator's settings on top.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Task")]
pub(crate) struct TaskDocument {
    pub(crate) task: String,
    pub(crate) group: String,
    pub(crate) per_key: Option<u32>,
    pub(crate) total: Option<u32>,
    pub(crate) on_conflict: String,
    /// Where the key is found in the payload, as a JSON pointer.
    pub(crate) key: Option<String>,
    pub(crate) attempts: u32,
    pub(crate) backoff_min_ms: u64,
    pub(crate) backoff_max_ms: u64,
    pub(crate) timeout_ms: u64,
    pub(crate) cpu_ms: u64,
    pub(crate) stall_ms: Option<u64>,
    pub(crate) memory_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_schema: Option<Box<RawValue>>,
}

pub(crate) async fn list(State(face): State<Arc<Face>>) -> Json<Vec<Plugin>> {
    Json(all(&face.host.catalog()))
}

pub(crate) async fn show(State(face): State<Arc<Face>>, Path(id): Path<String>) -> Result<Json<Plugin>, Problem> {
    let catalog = face.host.catalog();
    if let Some(id) = id.parse().ok()
        && let Some(plugin) = one(&catalog, &id)
    {
        let KvUsage { values, bytes } = face.host.kv_usage(&id).await?;
        let bytes_max = catalog.plugin(&id).and_then(|loaded| loaded.plugin.kv_bytes_max());
        let kv = (values > 0 || bytes_max.is_some()).then_some(KvDocument { values, bytes, bytes_max });
        return Ok(Json(Plugin { kv, ..plugin }));
    }
    let is_coming = catalog.pending().keys().any(|pending| pending.as_str() == id);
    if is_coming || !catalog.is_open() {
        let what = if is_coming { "is still being made ready" } else { "is not known yet: this host has just started" };
        let detail = format!("plugin `{id}` {what}; try again in a moment");
        return Err(Problem::new(Kind::PLUGIN_LOADING, detail).with("plugins", vec![id]));
    }
    Err({
        let known: Vec<&str> = catalog.plugins().keys().map(PluginId::as_str).collect();
        let hint = wharf_engine::spec::toml_diagnostics::nearest(&id, known.iter().copied())
            .map(|near| format!("; did you mean `{near}`?"));
        let detail =
            format!("there is no plugin `{id}`{}", hint.unwrap_or_else(|| "; GET /v1/plugins has all".to_owned()));
        Problem::new(Kind::PLUGIN_UNKNOWN, detail).with("plugin", id)
    })
}

fn all(catalog: &Catalog) -> Vec<Plugin> {
    let loaded = catalog.plugins().keys().filter_map(|id| one(catalog, id));
    let only_refused = catalog
        .refused()
        .values()
        .filter(|refused| refused.plugin.as_ref().is_none_or(|id| catalog.plugin(id).is_none()));
    loaded
        .chain(only_refused.map(|refused| document(refused.plugin.as_ref(), &refused.file, None, Some(refused))))
        .collect()
}

fn one(catalog: &Catalog, id: &PluginId) -> Option<Plugin> {
    let (loaded, refused) = (catalog.plugin(id), catalog.refusal(id));
    let file = loaded.map(|loaded| &loaded.file).or(refused.map(|refused| &refused.file))?;
    Some(document(Some(id), file, loaded, refused))
}

fn document(id: Option<&PluginId>, file: &FilePath, loaded: Option<&Loaded>, refused: Option<&Refused>) -> Plugin {
    Plugin {
        id: id.map(ToString::to_string),
        file: file.display().to_string(),
        loaded: loaded.map(|loaded| {
            let plugin = &loaded.plugin;
            LoadedVersion {
                name: plugin.manifest.name.clone(),
                version: plugin.manifest.version.clone(),
                digest: plugin.digest.clone(),
                bytes: plugin.bytes,
                since: Moment(loaded.since),
                is_async: plugin.is_async,
                imports: plugin.imports.clone(),
                tasks: plugin.manifest.tasks.values().map(task_document).collect(),
                topics: plugin.manifest.topics.iter().map(ToString::to_string).collect(),
                receive: plugin.manifest.receive.as_ref().map(|receive| task_document(&receive.task)),
            }
        }),
        refused: refused.map(|refused| Refusal {
            since: Moment(refused.since),
            problems: refused.why.problems.iter().map(ToString::to_string).collect(),
        }),
        kv: None,
    }
}

pub(crate) fn task_document(task: &Task) -> TaskDocument {
    let millis = |length: std::time::Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    TaskDocument {
        task: task.name.to_string(),
        group: task.group.to_string(),
        per_key: task.limits.per_key,
        total: task.limits.total,
        on_conflict: match task.on_conflict {
            OnConflict::Wait => "wait",
            OnConflict::Discard => "discard",
            OnConflict::ReplaceWaiting => "replace-waiting",
            OnConflict::CancelRunning => "cancel-running",
        }
        .to_owned(),
        key: task.key.as_ref().map(|pointer| pointer.as_str().to_owned()),
        attempts: task.retry.attempts,
        backoff_min_ms: millis(task.retry.backoff_min),
        backoff_max_ms: millis(task.retry.backoff_max),
        timeout_ms: millis(task.timeout),
        cpu_ms: millis(task.cpu),
        stall_ms: task.stall.map(millis),
        memory_bytes: task.memory_bytes,
        payload_schema: task.schema.as_ref().and_then(|schema| serde_json::from_str(schema.text()).ok()),
    }
}
