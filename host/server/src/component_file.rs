//! A component in a file that a command names.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use wharf_core::bounds;
use wharf_core::ids::PluginId;
use wharf_engine::spec::file_name;

use crate::cli_error::CliError;

/// Reads a component; a file that is larger than a plugin may be is refused before it is read.
pub(crate) fn component(path: &Path) -> anyhow::Result<Arc<[u8]>> {
    let unreadable = |error| CliError::usage(format!("could not read {}: {error}", path.display()));
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > bounds::COMPONENT_BYTES_MAX {
        let max = bounds::COMPONENT_BYTES_MAX;
        return Err(CliError::usage(format!("{} is {bytes} bytes; the limit is {max}", path.display())).into());
    }
    Ok(std::fs::read(path).map_err(unreadable)?.into())
}

/// Returns the file's name without its extension, which is the plugin's ID.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
}

/// Returns the plugin's ID, by the rule that holds in the plugin folder.
pub(crate) fn plugin_id(path: &Path) -> Result<PluginId, CliError> {
    file_name::plugin_id(&stem(path))
        .map_err(|problem| CliError::usage(format!("could not load {}:\n{problem}", path.display())))
}
