//! `wharf plugin`: the plugins that a running host has loaded, and the files that it refused.

use std::time::Duration;

use bytesize::ByteSize;
use clap::Subcommand;
use serde_json::value::RawValue;

use super::client::Client;
use crate::cli_error::ExitStatus;
use crate::config::HumanDuration;
use crate::http::api::{PluginFile, Refusal, TaskDocument, TaskKind, suggestion_text};
use crate::http::encode;
use crate::output::{Table, escape_line, print_json, print_line};
use crate::stderr::note;

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// List the plugins of a running host, and the files that it refused
    List,
    /// Show one plugin: its version, its tasks and topics, the problems of its file
    Show {
        /// ID of the plugin
        id: String,
    },
}

impl PluginCommand {
    pub(crate) fn run(self, client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
        match self {
            PluginCommand::List if json => print_json(&client.get::<Box<RawValue>>("/v1/plugins".to_owned())?)?,
            PluginCommand::List => list(&client.get::<Vec<PluginFile>>("/v1/plugins".to_owned())?)?,
            PluginCommand::Show { id } => {
                let path = format!("/v1/plugins/{}", encode(&id));
                if json {
                    print_json(&client.get::<Box<RawValue>>(path)?)?;
                } else {
                    show(&client.get(path)?)?;
                }
            }
        }
        Ok(ExitStatus::Done)
    }
}

fn list(plugins: &[PluginFile]) -> anyhow::Result<()> {
    let mut table = Table::new(&["PLUGIN", "VERSION", "DIGEST", "SIZE", "TASKS", "TOPICS", "STATE"]);
    for plugin in plugins {
        let name = plugin.id.clone().unwrap_or_else(|| plugin.file.clone());
        let state = match (&plugin.loaded, &plugin.refused) {
            (Some(_), None) => "loaded".to_owned(),
            (Some(_), Some(refused)) => format!("loaded; its new file was refused{}", reason(refused)),
            (None, Some(refused)) => format!("refused{}", reason(refused)),
            (None, None) => "refused".to_owned(),
        };
        let (version, digest, size, tasks, topics) = match &plugin.loaded {
            Some(loaded) => {
                let tasks: Vec<&str> = loaded.tasks.iter().map(|task| short(&task.task)).collect();
                let digest = loaded.digest.chars().take(12).collect();
                let size = ByteSize(loaded.bytes).display().iec().to_string();
                (loaded.version.clone(), digest, size, tasks.join(" "), loaded.topics.join(" "))
            }
            None => ["-"; 5].map(str::to_owned).into(),
        };
        table.row([name, version, digest, size, tasks, topics, state]);
    }
    if table.is_empty() {
        note("no plugins; put a .wasm file into the plugin folder");
        return Ok(());
    }
    Ok(table.print()?)
}

fn reason(refused: &Refusal) -> String {
    let again = if refused.retry.is_some() { ", is loaded again later" } else { "" };
    let first = refused.problems.first().map_or("", String::as_str);
    // The lines to paste are for `plugin show`: in a table they would stand in one line.
    match first.split_once('\n') {
        Some((line, _)) => format!("{again}: {line}; `wharf plugin show` has more"),
        None => format!("{again}: {first}"),
    }
}

fn short(task: &str) -> &str {
    task.split_once('/').map_or(task, |(_, task)| task)
}

fn show(plugin: &PluginFile) -> anyhow::Result<()> {
    let mut lines =
        vec![("plugin", plugin.id.clone().unwrap_or_else(|| "-".to_owned())), ("file", plugin.file.clone())];
    if let Some(loaded) = &plugin.loaded {
        let name = &loaded.name;
        lines.extend([
            ("name", name.clone()),
            ("version", loaded.version.clone()),
            ("digest", loaded.digest.clone()),
            ("size", ByteSize(loaded.bytes).display().iec().to_string()),
            ("since", format!("{:.0}", loaded.since.date())),
            ("imports", loaded.imports.join("\n")),
        ]);
        lines.extend(loaded.tasks.iter().map(|task| ("task", task_text(task))));
        lines.extend(loaded.topics.iter().map(|topic| ("topic", topic.clone())));
        let id = plugin.id.as_deref().unwrap_or_default();
        lines.extend(loaded.schedules.iter().map(|schedule| ("schedule", suggestion_text(id, schedule))));
        lines.extend(loaded.receive.iter().map(|receive| ("receive", task_text(receive))));
    }
    if let Some(usage) = &plugin.kv {
        let size = |bytes: u64| ByteSize(bytes).display().iec().to_string();
        let max =
            usage.bytes_max.map_or_else(|| "no longer granted".to_owned(), |max| format!("{} granted", size(max)));
        let values = if usage.values == 1 { "value" } else { "values" };
        lines.push(("kv", format!("{} {values} with {}; {max}", usage.values, size(usage.bytes))));
    }
    if let Some(refused) = &plugin.refused {
        lines.push(("refused", refused.problems.join("\n")));
        lines.extend(refused.retry.map(|at| ("again", format!("{:.0}", at.date()))));
    }
    for (name, value) in lines {
        let has_lines = matches!(name, "imports" | "task" | "receive" | "refused");
        let shown = if has_lines { value.into() } else { escape_line(&value) };
        print_line(&format!("{name:<9} {}", shown.replace('\n', "\n          ")))?;
    }
    Ok(())
}

/// Everything that holds for a task, in a few lines.
pub(crate) fn task_text(task: &TaskDocument) -> String {
    let limit = |limit: Option<u32>| limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
    let seconds = |ms: u64| HumanDuration(Duration::from_millis(ms)).to_string();
    let mut text = vec![task.task.clone()];
    match task.kind {
        TaskKind::Contract => {}
        TaskKind::Program => {
            let output =
                if task.lines { "each line of standard output is a chunk" } else { "standard output is the result" };
            text.push(format!("a program: the payload is standard input, {output}"));
            if !task.args.is_empty() {
                let args: Vec<String> = task.args.iter().map(|arg| format!("{arg:?}")).collect();
                text.push(format!("arguments: {}", args.join(" ")));
            }
            if !task.discard_on.is_empty() {
                let statuses: Vec<String> = task.discard_on.iter().map(u8::to_string).collect();
                text.push(format!("not retried after exit status {}", statuses.join(", ")));
            }
        }
        TaskKind::Function => {
            text.push("a function: payload and result are JSON".to_owned());
            if let Some(schema) = &task.payload_schema {
                text.push(format!("payload: {}", escape_line(schema.get())));
            }
            text.push(match &task.result_schema {
                Some(schema) => format!("result: {}", escape_line(schema.get())),
                None => "result: bytes".to_owned(),
            });
            text.push(format!(
                "if it returns an error, the job {}",
                if task.discard_errors { "fails" } else { "is retried" }
            ));
        }
    }
    if let Some(pointer) = &task.key {
        text.push(format!("key from {pointer}"));
    }
    let group = if task.group == task.task { String::new() } else { format!(", with all of the group {}", task.group) };
    let conflict = if task.per_key.is_some() || task.total.is_some() {
        format!("; on conflict: {}", task.on_conflict)
    } else {
        String::new()
    };
    text.push(format!("at once: {} per key, {} in total{group}{conflict}", limit(task.per_key), limit(task.total)));
    text.push(format!(
        "attempts: {}, {} to {} apart, each up to {}, {} of it in the plugin{}",
        task.attempts,
        seconds(task.backoff_min_ms),
        seconds(task.backoff_max_ms),
        seconds(task.timeout_ms),
        seconds(task.cpu_ms),
        task.stall_ms.map(|ms| format!(", not silent for {}", seconds(ms))).unwrap_or_default(),
    ));
    text.push(format!("memory: {}", ByteSize(task.memory_bytes).display().iec()));
    if !task.set_by.is_empty() {
        let set: Vec<String> = task.set_by.iter().map(|(key, by)| format!("{key} by {by}")).collect();
        text.push(format!("set: {}", set.join(", ")));
    }
    text.join("\n  ")
}
