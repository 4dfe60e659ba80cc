//! The load of a benchmark: the built-in plugin or one of the user's, a task of it, and its payload.

use std::path::PathBuf;

use clap::Args;
use wharf_runner::Request;

use super::report::BenchReport;
use super::workspace::{COMPONENT, Workspace};
use crate::cli_error::CliError;
use crate::component_file::{component, plugin_id};
use crate::payload_input;

#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// Plugin to run [default: a built-in one that does nothing]
    #[arg(long, value_name = "FILE", requires = "task")]
    pub(super) plugin: Option<PathBuf>,
    /// Task to run, as PLUGIN/TASK, or as TASK of --plugin [default: bench/noop]
    #[arg(long, value_name = "TASK")]
    pub(super) task: Option<String>,
    /// Payload: JSON, @FILE for the bytes of a file, or - for the standard input
    #[arg(long, short, value_name = "JSON|@FILE|-", allow_hyphen_values = true, conflicts_with = "payload_bytes")]
    pub(super) input: Option<String>,
    /// Size of a meaningless payload, in bytes [default: 64]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(2..=33_554_432))]
    pub(super) payload_bytes: Option<u32>,
}

const PAYLOAD_BYTES: u32 = 64;

/// A checked load.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) task: String,
    pub(super) payload: Vec<u8>,
    /// The plugin's ID, and its component.
    pub(super) plugin: (String, Vec<u8>),
}

impl LoadArgs {
    /// Reads and checks the load.
    pub(super) fn read(&self) -> anyhow::Result<Load> {
        let plugin = match &self.plugin {
            Some(file) => (plugin_id(file)?.to_string(), component(file)?.to_vec()),
            None => ("bench".to_owned(), COMPONENT.to_vec()),
        };
        let task = match self.task.as_deref() {
            Some(full) if full.contains('/') => full.to_owned(),
            Some(short) => format!("{}/{short}", plugin.0),
            None => "bench/noop".to_owned(),
        };
        if self.plugin.is_some() && task.split('/').next() != Some(&plugin.0) {
            let text = format!("the task `{task}` is not a task of --plugin, whose ID is `{}`", plugin.0);
            return Err(CliError::usage(text).into());
        }
        let payload = match &self.input {
            Some(_) => payload_input::read(self.input.as_deref())?,
            None => filler(self.payload_bytes.unwrap_or(PAYLOAD_BYTES)),
        };
        Ok(Load { task, payload, plugin })
    }
}

/// Returns a JSON string of this size in bytes, quotes included.
fn filler(bytes: u32) -> Vec<u8> {
    format!("\"{}\"", "x".repeat(bytes.saturating_sub(2) as usize)).into_bytes()
}

impl Load {
    /// Returns a load of the built-in plugin.
    pub(super) fn built_in(task: &str) -> Load {
        let plugin = ("bench".to_owned(), COMPONENT.to_vec());
        Load { task: format!("bench/{task}"), payload: filler(PAYLOAD_BYTES), plugin }
    }

    /// Adds the plugin to the plugin folder of the workspace.
    pub(super) fn put(&self, workspace: &Workspace) -> anyhow::Result<()> {
        workspace.put(&self.plugin.0, &self.plugin.1)
    }

    pub(super) fn request(&self, key: Option<String>) -> Request {
        Request { task: self.task.clone(), payload: self.payload.clone(), key, ..Request::default() }
    }

    /// Adds the task and the size of the payload to the report.
    pub(super) fn describe(&self, report: &mut BenchReport) {
        report.with("task", self.task.as_str());
        report.with("payload_bytes", self.payload.len());
    }
}
