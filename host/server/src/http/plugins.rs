//! `/v1/plugins`: plugins that are loaded, and files that were refused.

use axum::Json;
use axum::extract::State;
use wharf_core::ids::PluginId;
use wharf_engine::spec::toml_diagnostics::nearest;
use wharf_runner::{Catalog, Host};

use super::api::{PluginFile, loaded_or_refused, plugin_files};
use super::path::Path;
use super::problem::{Kind, Problem};

/// Lists every file of the plugin folder.
pub(crate) async fn list(State(host): State<Host>) -> Json<Vec<PluginFile>> {
    Json(plugin_files(&host.catalog()))
}

/// Shows one plugin, with the usage of its KV storage.
pub(crate) async fn show(State(host): State<Host>, Path(id): Path<String>) -> Result<Json<PluginFile>, Problem> {
    Ok(Json(read(&host, id).await?))
}

/// Reads one plugin, with the usage of its KV storage.
///
/// # Errors
/// If there is none of this ID, or the store failed.
pub(crate) async fn read(host: &Host, id: String) -> Result<PluginFile, Problem> {
    let catalog = host.catalog();
    if let Some(id) = id.parse().ok()
        && let Some(plugin) = loaded_or_refused(&catalog, &id)
    {
        let bytes_max = catalog.plugin(&id).and_then(|loaded| loaded.plugin.kv_bytes_max());
        return Ok(plugin.with_kv(host.kv_usage(&id).await?, bytes_max));
    }
    Err(unknown(&catalog, id))
}

fn unknown(catalog: &Catalog, id: String) -> Problem {
    let is_loading = catalog.pending().keys().any(|pending| pending.as_str() == id);
    if is_loading || !catalog.is_open() {
        let what = if is_loading { "is still loading" } else { "is not known yet: this host has just started" };
        let detail = format!("plugin `{id}` {what}; try again in a moment");
        return Problem::new(Kind::PLUGIN_LOADING, detail).with("plugins", vec![id]);
    }
    let known: Vec<&str> = catalog.plugins().keys().map(PluginId::as_str).collect();
    let hint = nearest(&id, known.iter().copied())
        .map_or_else(|| "GET /v1/plugins lists all plugins".to_owned(), |near| format!("did you mean `{near}`?"));
    Problem::new(Kind::PLUGIN_UNKNOWN, format!("unknown plugin `{id}`; {hint}")).with("plugin", id)
}
