//! `wharf check`: validates plugins without loading them into a host.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;
use serde_json::{Value, json};
use wharf_engine::{CheckReport, Engine};

use super::plugins::task_text;
use crate::cli_error::{CliError, ExitStatus};
use crate::component_file::{plugin_file, stem};
use crate::config::{HumanDuration, Settings};
use crate::http::api::{TaskDocument, suggested, suggestion_text};
use crate::in_process_engine::{runtime, single_call_engine};
use crate::output::{print_json, print_line};
use crate::progress::{Progress, loading_step_text};

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Components, or folders with .wasm files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Check {
    pub(crate) fn run(self, settings: &Settings, json: bool) -> anyhow::Result<ExitStatus> {
        let files = component_files(self.files)?;
        let runtime = runtime()?;
        let checked = runtime.block_on(async {
            let engine = single_call_engine(settings)?;
            let mut all = Vec::new();
            for file in &files {
                all.push((file, check_file(&engine, file, settings).await?));
            }
            anyhow::Ok(all)
        })?;
        if json {
            print_json(&checked.iter().map(|(file, checked)| document(file, checked)).collect::<Vec<_>>())?;
        } else {
            for (file, checked) in &checked {
                print_line(report(file, checked).trim_end())?;
            }
        }
        Ok(if checked.iter().all(|(_, checked)| checked.problems.is_empty()) {
            ExitStatus::Done
        } else {
            ExitStatus::NotDone
        })
    }
}

/// Replaces each folder by the components in it.
fn component_files(files: Vec<PathBuf>) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for file in files {
        if !file.is_dir() {
            found.push(file);
            continue;
        }
        let read = std::fs::read_dir(&file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries =
            read.map_err(|error| CliError::usage(format!("could not read the folder {}: {error}", file.display())))?;
        let mut inside: Vec<PathBuf> = entries
            .into_iter()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "wasm"))
            .collect();
        if inside.is_empty() {
            return Err(CliError::usage(format!("{} contains no .wasm file", file.display())).into());
        }
        inside.sort();
        found.append(&mut inside);
    }
    Ok(found)
}

async fn check_file(engine: &Arc<Engine>, file: &Path, settings: &Settings) -> anyhow::Result<CheckReport> {
    let (id, content) = (stem(file), plugin_file(file)?);
    let progress = Progress::new(&format!("{}", file.display()));
    let on_progress = |step| progress.set_message(&format!("{}: {}", file.display(), loading_step_text(step)));
    Ok(engine.check(&id, content, &settings.plugin(&id), &on_progress).await)
}

/// Describes the result for one file.
fn report(file: &Path, checked: &CheckReport) -> String {
    let mut lines = Vec::new();
    let size = ByteSize(checked.bytes).display().iec();
    match &checked.plugin {
        Some(plugin) => {
            let manifest = &plugin.manifest;
            lines.push(format!(
                "{}: would be loaded as `{}`: {} {}, {size}",
                file.display(),
                plugin.id,
                manifest.name,
                manifest.version
            ));
            lines.extend(manifest.topics.iter().map(|topic| format!("  topic {topic}")));
            if let Some(receive) = &manifest.receive {
                let again = if receive.reentrant { ", also by its own broadcasts" } else { "" };
                lines.push(format!(
                    "  subscriber: called with timeout {}, cpu {}, memory {}{again}",
                    HumanDuration(receive.task.timeout),
                    HumanDuration(receive.task.cpu),
                    ByteSize(receive.task.memory_bytes).display().iec()
                ));
            }
            lines.extend(
                manifest
                    .tasks
                    .values()
                    .map(|task| format!("  task {}", task_text(&TaskDocument::from(task)).replace('\n', "\n  "))),
            );
            let suggestions = suggested(plugin);
            lines.extend(
                suggestions.iter().map(|one| format!("  schedule {}", suggestion_text(plugin.id.as_str(), one))),
            );
        }
        None => {
            lines.push(format!("{}: would be refused", file.display()));
            // The tools that built the component may be the cause.
            if !checked.producers.is_empty() {
                lines.push(format!("  built with {}", checked.producers.join(", ")));
            }
        }
    }
    lines.extend(
        checked.problems.iter().map(|problem| format!("  problem: {}", problem.to_string().replace('\n', "\n  "))),
    );
    lines.extend(checked.notes.iter().map(|note| format!("  note: {}", note.to_string().replace('\n', "\n  "))));
    lines.join("\n")
}

fn document(file: &Path, checked: &CheckReport) -> Value {
    let problems_json = |problems: &[wharf_engine::Problem]| -> Vec<Value> {
        let one = |p: &wharf_engine::Problem| json!({"what": p.what, "hint": p.hint, "line": p.at.map(|at| at.0), "column": p.at.map(|at| at.1)});
        problems.iter().map(one).collect()
    };
    json!({
        "file": file.display().to_string(),
        "would_load": checked.problems.is_empty(),
        "id": checked.plugin.as_ref().map(|plugin| plugin.id.to_string()),
        "name": checked.manifest().map(|manifest| &manifest.name),
        "version": checked.manifest().map(|manifest| &manifest.version),
        "digest": checked.digest,
        "bytes": checked.bytes,
        "is_async": checked.is_async,
        "imports": checked.imports,
        "exports": checked.exports,
        "made_by": checked.producers,
        "tasks": checked.manifest().map(|manifest| manifest.tasks.values().map(TaskDocument::from).collect::<Vec<_>>()),
        "topics": checked.manifest().map(|manifest| manifest.topics.iter().map(|topic| topic.as_str()).collect::<Vec<_>>()),
        "receive": checked.manifest().and_then(|manifest| manifest.receive.as_ref()).map(|receive| TaskDocument::from(&receive.task)),
        "reentrant": checked.manifest().and_then(|manifest| manifest.receive.as_ref()).map(|receive| receive.reentrant),
        "schedules": checked.plugin.as_deref().map(suggested),
        "problems": problems_json(&checked.problems),
        "notes": problems_json(&checked.notes),
    })
}
