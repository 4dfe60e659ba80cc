//! `wharf bench plugin`: writes the plugin that the benchmarks run, for the plugin folder of a running host.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::workspace::COMPONENT;
use crate::cli_error::ExitStatus;

#[derive(Debug, Args)]
pub(crate) struct WritePlugin {
    /// File to write; its name without the extension is the plugin ID, which --host expects to be `bench`
    #[arg(value_name = "FILE", default_value = "bench.wasm")]
    file: PathBuf,
}

impl WritePlugin {
    pub(super) fn run(self) -> anyhow::Result<ExitStatus> {
        std::fs::write(&self.file, COMPONENT).with_context(|| format!("could not write {}", self.file.display()))?;
        Ok(ExitStatus::Done)
    }
}
