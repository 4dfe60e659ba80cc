//! `wharf bench plugin`: the plugin that is run, as a file for the folder of a running host.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::super::cli_error::Exit;
use super::ground::COMPONENT;

#[derive(Debug, Args)]
pub(crate) struct Plugin {
    /// Where it goes; its stem is the plugin's id, and --host expects `bench`
    #[arg(value_name = "FILE", default_value = "bench.wasm")]
    file: PathBuf,
}

impl Plugin {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        std::fs::write(&self.file, COMPONENT).with_context(|| format!("could not write {}", self.file.display()))?;
        Ok(Exit::Done)
    }
}
