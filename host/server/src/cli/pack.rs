//! `wharf pack`: converts a core Wasm module into a component.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use plugin_kit::{contract, pack};

use crate::cli_error::{CliError, ExitStatus};
use crate::component_file::component;

#[derive(Debug, Args)]
pub(crate) struct Pack {
    /// Core module, from any compiler
    #[arg(value_name = "CORE.wasm")]
    core: PathBuf,
    /// File to write the component to
    #[arg(long, short, value_name = "PLUGIN.wasm")]
    output: PathBuf,
    /// Folder with WIT files [default: the WIT in the module, or the contract built into this program]
    #[arg(long, value_name = "FOLDER")]
    wit: Option<PathBuf>,
    /// World that the module implements; not used if the module contains its world
    #[arg(long, default_value = contract::WORLD)]
    world: String,
    /// Manifest in TOML that is written into the file; a component, and a program for WASI preview 1, stay what they are
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

impl Pack {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        let shown = self.core.display();
        let core = component(&self.core)?;
        let manifest = self.manifest.as_deref().map(std::fs::read_to_string).transpose().map_err(|error| {
            let file = self.manifest.as_deref().unwrap_or_else(|| "".as_ref()).display();
            CliError::usage(format!("could not read {file}: {error}"))
        })?;
        let is_whole = pack::is_component(&core) || (self.wit.is_none() && pack::is_program_as_it_is(&core));
        let mut packed = if manifest.is_some() && is_whole {
            core.to_vec()
        } else {
            pack::pack(&core, self.wit.as_deref(), &self.world)
                .map_err(|error| CliError::new(ExitStatus::NotDone, format!("could not convert {shown}: {error:#}")))?
        };
        if let Some(manifest) = manifest {
            packed = pack::with_manifest(&packed, &manifest).map_err(|error| {
                CliError::new(ExitStatus::NotDone, format!("could not write the manifest: {error:#}"))
            })?;
        }
        // By rename, so that a host that watches the folder sees the whole file or none of it.
        let temporary = self.output.with_extension("new");
        std::fs::write(&temporary, packed)
            .and_then(|()| std::fs::rename(&temporary, &self.output))
            .with_context(|| format!("could not write {}", self.output.display()))?;
        Ok(ExitStatus::Done)
    }
}
