//! A component in a file that a command names.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::sync::Arc;

use wharf_core::bounds;
use wharf_core::ids::PluginId;
use wharf_engine::PluginFile;
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
    // A pipe has no size: it is read to its end, and no further than the limit.
    let mut content = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(bounds::COMPONENT_BYTES_MAX + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > bounds::COMPONENT_BYTES_MAX {
        let max = bounds::COMPONENT_BYTES_MAX;
        return Err(CliError::usage(format!("{} is larger than the limit of {max} bytes", path.display())).into());
    }
    Ok(content.into())
}

/// Reads a component and the manifest beside it, as a host does.
pub(crate) fn plugin_file(path: &Path) -> anyhow::Result<PluginFile> {
    let manifest_path = path.with_extension("toml");
    // As in the plugin folder, a folder or a FIFO of this name is no manifest; a FIFO would be waited for.
    let is_manifest = std::fs::metadata(&manifest_path).map_or(true, |metadata| metadata.is_file());
    if !is_manifest {
        return Ok(PluginFile { component: component(path)?, manifest: None });
    }
    let manifest = match std::fs::File::open(&manifest_path) {
        Ok(file) if path.extension().is_some_and(|extension| extension == "wasm") => {
            let mut content = Vec::new();
            file.take(bounds::MANIFEST_BYTES_MAX + 1)
                .read_to_end(&mut content)
                .map_err(|error| CliError::usage(format!("could not read {}: {error}", manifest_path.display())))?;
            Some(content.into())
        }
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            return Err(CliError::usage(format!("could not read {}: {error}", manifest_path.display())).into());
        }
    };
    Ok(PluginFile { component: component(path)?, manifest })
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
