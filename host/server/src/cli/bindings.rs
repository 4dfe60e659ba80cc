//! `wharf bindings`: generates bindings for C, Go or TypeScript, for projects whose own tools do not.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use plugin_kit::{bindings, contract};

use crate::cli_error::{CliError, ExitStatus};

#[derive(Debug, Args)]
pub(crate) struct Bindings {
    /// Language of the bindings
    language: Language,
    /// Folder to write the bindings to
    folder: PathBuf,
    /// Folder with WIT files [default: the contract built into this program]
    #[arg(long, value_name = "FOLDER")]
    wit: Option<PathBuf>,
    /// World that the plugin implements
    #[arg(long, default_value = contract::WORLD)]
    world: String,
}

/// The languages whose bindings this program generates.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Language {
    C,
    Go,
    #[value(name = "typescript")]
    TypeScript,
}

impl Bindings {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        let binding = match self.language {
            Language::C => bindings::Binding::C,
            Language::Go => bindings::Binding::Go,
            Language::TypeScript => bindings::Binding::TypeScript,
        };
        bindings::write(binding, self.wit.as_deref(), &self.world, &self.folder)
            .map_err(|error| CliError::usage(format!("could not generate the bindings: {error:#}")))?;
        Ok(ExitStatus::Done)
    }
}
