//! `wharf bindings`: the contract in C, Go or TypeScript, for projects whose own tools do not make it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use plugin_kit::{bindings, contract};

use super::cli_error::{Ending, Exit};

#[derive(Debug, Args)]
pub(crate) struct Bindings {
    language: Language,
    /// The folder they are written into
    folder: PathBuf,
    /// A folder of WIT, instead of the contract of this program
    #[arg(long, value_name = "FOLDER")]
    wit: Option<PathBuf>,
    /// The world that the plugin is of
    #[arg(long, default_value = contract::WORLD)]
    world: String,
}

/// The languages that have them from here.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Language {
    C,
    Go,
    #[value(name = "typescript")]
    TypeScript,
}

impl Bindings {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let binding = match self.language {
            Language::C => bindings::Binding::C,
            Language::Go => bindings::Binding::Go,
            Language::TypeScript => bindings::Binding::TypeScript,
        };
        bindings::write(binding, self.wit.as_deref(), &self.world, &self.folder)
            .map_err(|error| Ending::usage(format!("no bindings were made: {error:#}")))?;
        Ok(Exit::Done)
    }
}
