//! What is run: the plugin that the binary carries, or one of the user's own; and what it is given.

use std::path::PathBuf;

use clap::Args;
use wharf_runner::Request;

use super::super::cli_error::Ending;
use super::super::in_process;
use super::super::input;
use super::ground::{COMPONENT, Ground};
use super::report::Report;

#[derive(Debug, Args)]
pub(super) struct Load {
    /// A plugin of your own, instead of one that does nothing
    #[arg(long, value_name = "FILE", requires = "task")]
    plugin: Option<PathBuf>,
    /// The task that runs, as PLUGIN/TASK or as a TASK of --plugin [default: bench/noop]
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// The payload: JSON, @FILE for a file's bytes, or - for the standard input
    #[arg(long, short, value_name = "JSON|@FILE|-", allow_hyphen_values = true, conflicts_with = "payload_bytes")]
    input: Option<String>,
    /// The length of a payload that means nothing [default: 64]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(2..=33_554_432))]
    payload_bytes: Option<u32>,
}

const PAYLOAD_BYTES: u32 = 64;

/// A load that was read and checked.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    pub(super) task: String,
    pub(super) payload: Vec<u8>,
    /// The plugin's id, and its component.
    pub(super) plugin: (String, Vec<u8>),
}

impl Load {
    pub(super) fn ready(&self) -> anyhow::Result<Ready> {
        let plugin = match &self.plugin {
            Some(file) => (in_process::stem(file).replace('_', "-"), in_process::component(file)?.to_vec()),
            None => ("bench".to_owned(), COMPONENT.to_vec()),
        };
        let task = match self.task.as_deref() {
            Some(full) if full.contains('/') => full.to_owned(),
            Some(short) => format!("{}/{short}", plugin.0),
            None => "bench/noop".to_owned(),
        };
        if self.plugin.is_some() && task.split('/').next() != Some(&plugin.0) {
            let text = format!("the task `{task}` is not one of --plugin, which is called `{}`", plugin.0);
            return Err(Ending::usage(text).into());
        }
        let payload = match &self.input {
            Some(_) => input::payload(self.input.as_deref())?,
            None => meaningless(self.payload_bytes.unwrap_or(PAYLOAD_BYTES)),
        };
        Ok(Ready { task, payload, plugin })
    }
}

/// A JSON string of this length.
fn meaningless(bytes: u32) -> Vec<u8> {
    format!("\"{}\"", "x".repeat(bytes.saturating_sub(2) as usize)).into_bytes()
}

impl Ready {
    /// The plugin that the binary carries, with a task of it.
    pub(super) fn carried(task: &str) -> Ready {
        let plugin = ("bench".to_owned(), COMPONENT.to_vec());
        Ready { task: format!("bench/{task}"), payload: meaningless(PAYLOAD_BYTES), plugin }
    }

    pub(super) fn put(&self, ground: &Ground) -> anyhow::Result<()> {
        ground.put(&self.plugin.0, &self.plugin.1)
    }

    pub(super) fn request(&self, key: Option<String>) -> Request {
        Request { task: self.task.clone(), payload: self.payload.clone(), key, ..Request::default() }
    }

    pub(super) fn tell(&self, report: &mut Report) {
        report.with("task", self.task.as_str());
        report.with("payload_bytes", self.payload.len());
    }
}
