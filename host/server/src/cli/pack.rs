//! `wharf pack`: a core module becomes a component.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use plugin_kit::{contract, pack};

use super::cli_error::{Ending, Exit};
use super::in_process::component;

#[derive(Debug, Args)]
pub(crate) struct Pack {
    /// The core module, of any compiler
    #[arg(value_name = "CORE.wasm")]
    core: PathBuf,
    /// Where the component goes
    #[arg(long, short, value_name = "PLUGIN.wasm")]
    output: PathBuf,
    /// A folder of WIT, instead of what the module carries or the contract of this program
    #[arg(long, value_name = "FOLDER")]
    wit: Option<PathBuf>,
    /// The world that it is of; a module that carries its world needs none
    #[arg(long, default_value = contract::WORLD)]
    world: String,
}

impl Pack {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let shown = self.core.display();
        let core = component(&self.core)?;
        let packed = pack::pack(&core, self.wit.as_deref(), &self.world)
            .map_err(|error| Ending::new(Exit::NotDone, format!("{shown} was not packed: {error:#}")))?;
        // By rename: a host that watches the folder sees a whole file or none.
        let beside = self.output.with_extension("new");
        std::fs::write(&beside, packed)
            .and_then(|()| std::fs::rename(&beside, &self.output))
            .with_context(|| format!("could not write {}", self.output.display()))?;
        Ok(Exit::Done)
    }
}
