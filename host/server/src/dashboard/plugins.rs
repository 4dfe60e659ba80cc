//! Plugins: what is loaded, what is being compiled, what was refused and why, what each asks for and has.

use std::time::Duration;

use axum::extract::State;
use maud::{Markup, html};
use wharf_core::ids::PluginId;
use wharf_runner::{Catalog, Host, Step};

use crate::config::HumanDuration;
use crate::http::api::{Moment, PluginFile, Refusal, TaskDocument, plugin_files};
use crate::http::{encode, plugins};

use super::answer::Answer;
use super::layout::{Frame, Section, page, state};
use super::listing::{Column, listing};
use super::page_path::PagePath;
use super::suggestions;
use super::text::{ago, brief, count, first_line, line, lines, size};
use super::visitor::Visitor;

/// The columns of the list.
const COLUMNS: [Column; 8] = [
    ("", "State"),
    ("grow", "Plugin"),
    ("", "Version"),
    ("c-id", "Digest"),
    ("num c-waited", "Size"),
    ("num c-ran", "Tasks"),
    ("num c-key", "Topics"),
    ("num", "Since"),
];
/// The number of files that the page shows.
const FILES: usize = 500;

/// Lists plugins.
pub(super) async fn list(State(host): State<Host>, visitor: Visitor) -> Answer {
    let main = html! { div id="plugins" { (content(&visitor, &host.catalog())) } };
    let frame = Frame { title: "Plugins", section: Section::Plugins, live: Some("live/plugins".into()) };
    Ok(page(&visitor, &frame, &main))
}

/// Returns the content of the list.
pub(super) fn content(visitor: &Visitor, catalog: &Catalog) -> Markup {
    let files = plugin_files(catalog);
    let pending = catalog.pending();
    let rows = html! {
        @for (id, file) in pending.iter().take(FILES) {
            tr {
                td class="c-state" { (state("running", step(file.step))) }
                td class="grow" {
                    span class="job" { (line(id.as_str())) }
                    span class="why" { (line(&file.file.display().to_string())) }
                }
                td {} td class="c-id" {} td class="c-waited" {} td class="c-ran" {} td class="c-key" {}
                td class="num" { (ago(Moment(file.since), visitor.now)) }
            }
        }
        @for file in files.iter().take(FILES) { (row(visitor, file)) }
    };
    html! {
        div class="head" { h1 { "Plugins" } span class="dim" { "of this host" } }
        (listing("Plugins", &COLUMNS, &rows))
        @if files.is_empty() && pending.is_empty() {
            p class="empty" { "None. Put a " code { ".wasm" } " file into the plugin folder." }
        }
    }
}

fn step(step: Step) -> &'static str {
    match step {
        Step::Reading => "reading",
        Step::WaitingToCompile => "next to compile",
        Step::Compiling => "compiling",
    }
}

fn badge(file: &PluginFile) -> Markup {
    match (&file.loaded, &file.refused) {
        (Some(_), None) => state("succeeded", "loaded"),
        (Some(_), Some(_)) => state("retrying", "new file refused"),
        (None, _) => state("failed", "refused"),
    }
}

fn row(visitor: &Visitor, file: &PluginFile) -> Markup {
    let name = file.id.as_deref().unwrap_or(&file.file);
    let loaded = file.loaded.as_ref();
    let reason = file.refused.as_ref().and_then(|refused| refused.problems.first());
    html! {
        tr {
            td class="c-state" { (badge(file)) }
            td class="grow" {
                @match &file.id { Some(id) => a class="job" href=(visitor.link(&format!("plugins/{}", encode(id)))) { (line(name)) }, None => span class="job" { (line(name)) } }
                @if let Some(reason) = reason {
                    span class="why" { (first_line(reason, 200)) }
                    span class="under" { (first_line(reason, 200)) }
                }
            }
            td { (loaded.map_or("–".into(), |loaded| first_line(&loaded.version, 24))) }
            td class="c-id mono dim" {
                (loaded.map_or(String::new(), |loaded| loaded.digest.chars().take(12).collect()))
            }
            td class="num c-waited" { (loaded.map_or(String::new(), |loaded| size(loaded.bytes))) }
            td class="num c-ran" { (loaded.map_or(0, |loaded| loaded.tasks.len())) }
            td class="num c-key" { (loaded.map_or(0, |loaded| loaded.topics.len())) }
            td class="num" {
                @match (loaded, &file.refused) { (_, Some(refused)) => (ago(refused.since, visitor.now)), (Some(loaded), None) => (ago(loaded.since, visitor.now)), (None, None) => {} }
            }
        }
    }
}

/// Shows one plugin.
pub(super) async fn show(State(host): State<Host>, visitor: Visitor, PagePath(id): PagePath<String>) -> Answer {
    let file = plugins::read(&host, id.clone()).await?;
    let catalog = host.catalog();
    let id: Option<PluginId> = id.parse().ok();
    let suggested = match &id {
        Some(id) => Some(suggestions::of_plugin(&host, &visitor, &catalog, id).await?),
        None => None,
    };
    let title = file.id.clone().unwrap_or_else(|| file.file.clone());
    let loaded = file.loaded.as_ref();
    let main = html! {
        div class="head" {
            (badge(&file))
            h1 { (line(&title)) }
            @if let Some(loaded) = loaded { span class="dim" { (first_line(&loaded.version, 40)) } }
        }
        @if let Some(refused) = &file.refused { (refusal(&visitor, refused, loaded.is_some())) }
        @if let Some(loaded) = loaded {
            dl class="facts" {
                div { dt { "Name" } dd { (first_line(&loaded.name, 60)) } }
                div { dt { "Digest" } dd class="mono" { (loaded.digest) } }
                div { dt { "Size" } dd { (size(loaded.bytes)) } }
                div { dt { "Loaded" } dd { (ago(loaded.since, visitor.now)) } }
                @if loaded.is_async { div { dt { "Concurrent" } dd { "yes" } } }
                div { dt { "File" } dd class="mono" { (line(&file.file)) } }
            }
            div class="cols" {
                div {
                    @for task in &loaded.tasks { (task_section(&visitor, task)) }
                    @if let Some(receive) = &loaded.receive { (receive_section(receive, &loaded.topics)) }
                    @if let Some(suggested) = &suggested { (suggested) }
                }
                div {
                    (grants(&visitor, &catalog, id.as_ref(), &file))
                    section {
                        header { h2 { "Imports" } span class="dim" { "what it asks for" } }
                        p class="note chips" {
                            @for import in &loaded.imports { span class="chip" { (line(import)) } }
                            @if loaded.imports.is_empty() { "None." }
                        }
                    }
                }
            }
        }
    };
    let frame = Frame { title: &title, section: Section::Plugins, live: Some("live/health?depth=2".into()) };
    Ok(page(&visitor, &frame, &main))
}

fn refusal(visitor: &Visitor, refused: &Refusal, has_other: bool) -> Markup {
    html! {
        div class="say failed" {
            p {
                strong { "Refused " (ago(refused.since, visitor.now)) ". " }
                @if has_other { "The version that was loaded before goes on." }
            }
            @for problem in &refused.problems { pre class="plain" { (lines(problem)) } }
            @if let Some(retry) = refused.retry { p { "It is tried again " (ago(retry, visitor.now)) "." } }
        }
    }
}

fn limit(limit: Option<u32>) -> String {
    limit.map_or_else(|| "no limit".to_owned(), |limit| count(limit.into()))
}

fn human(ms: u64) -> String {
    HumanDuration(Duration::from_millis(ms)).to_string()
}

fn task_section(visitor: &Visitor, task: &TaskDocument) -> Markup {
    let known = visitor.reading.as_ref().and_then(|reading| reading.known.as_ref());
    let summary = known.and_then(|known| known.summary.tasks.iter().find(|summary| summary.task == task.task));
    let hour = summary.and_then(|summary| summary.hour.as_ref());
    html! {
        section {
            header {
                h2 { a href=(visitor.link(&format!("jobs?where=task:{}", encode(&task.task)))) { (line(&task.task)) } }
                span class="gap" {}
                @if visitor.may_enqueue() {
                    a class="btn" href=(visitor.link(&format!("run?task={}", encode(&task.task)))) { "Run a job" }
                }
            }
            dl class="bill" {
                dt { "At once" } dd { (limit(task.per_key)) " per key, " (limit(task.total)) " in all" }
                @if let Some(key) = &task.key { dt { "Key from" } dd class="mono" { (line(key)) } }
                @if task.group != task.task { dt { "Limit group" } dd { (line(&task.group)) } }
                dt { "When its lane is full" } dd { (task.on_conflict.to_string()) }
                dt { "Attempts" } dd {
                    (task.attempts)
                    ", "
                    (human(task.backoff_min_ms))
                    " to "
                    (human(task.backoff_max_ms))
                    " apart"
                }
                dt { "Each attempt" } dd {
                    "up to "
                    (human(task.timeout_ms))
                    ", "
                    (human(task.cpu_ms))
                    " of it in the guest"
                }
                dt { "Memory" } dd { (size(task.memory_bytes)) }
                @if let Some(hour) = hour {
                    dt { "Ended, last hour" } dd { (count(hour.ended)) ", " (count(hour.failed)) " failed" }
                    dt { "CPU, last hour" } dd { (brief(hour.cpu_ms)) }
                    dt { "Peak memory, last hour" } dd { (size(hour.memory_peak_bytes)) }
                }
            }
            @if let Some(schema) = &task.payload_schema {
                details {
                    summary { "Schema of its payload" }
                    pre tabindex="0" role="region" aria-label="Schema" {
                        (super::content::json(&crate::output::spread(schema.get())))
                    }
                }
            }
        }
    }
}

fn receive_section(receive: &TaskDocument, topics: &[String]) -> Markup {
    html! {
        section {
            header { h2 { "Broadcasts" } }
            p class="note chips" { @for topic in topics { span class="chip" { (line(topic)) } } }
            dl class="bill" {
                dt { "Each reply" }
                dd { "up to " (human(receive.timeout_ms)) }
                dt { "Memory" }
                dd { (size(receive.memory_bytes)) }
            }
        }
    }
}

/// Returns what the operator's settings grant, to whom may read the settings. Values of the environment and of its configuration may
/// be secrets: their names are shown.
fn grants(visitor: &Visitor, catalog: &Catalog, id: Option<&PluginId>, file: &PluginFile) -> Markup {
    let settings = id.and_then(|id| catalog.settings().plugins.get(id)).filter(|_| visitor.is_admin());
    let notes = id.and_then(|id| catalog.plugin(id)).map(|loaded| &loaded.plugin.notes);
    let mut granted: Vec<(&str, String)> = Vec::new();
    if let Some(settings) = settings {
        granted.extend(settings.http.iter().map(|grant| ("HTTP", grant.to_string())));
        granted.extend(settings.dirs.iter().map(|dir| {
            let how = if dir.writable { "read and write" } else { "read" };
            ("Folder", format!("{} as {}, {how}", dir.host.display(), dir.guest))
        }));
        granted.extend(settings.env.keys().map(|name| ("Variable", name.clone())));
        granted.extend(settings.config.keys().map(|name| ("Value", name.clone())));
    }
    html! {
        section {
            header { h2 { "Grants" } span class="dim" { "what it has" } }
            @if !visitor.is_admin() { p class="note" { "What the settings grant is shown to a token that is `admin`." } }
            @else if granted.is_empty() && file.kv.is_none() {
                p class="note" { "None: no network, no files, no environment, nothing kept." }
            }
            dl class="bill" {
                @for (kind, what) in &granted { dt { (kind) } dd class="mono" { (line(what)) } }
                @if let Some(kv) = &file.kv {
                    dt { "Values kept" }
                    dd {
                        (count(kv.values))
                        ", "
                        (size(kv.bytes))
                        @if let Some(max) = kv.bytes_max { " of " (size(max)) }
                    }
                }
            }
            @for note in notes.into_iter().flatten().filter(|_| visitor.is_admin()) { p class="note" { (lines(&note.to_string())) } }
        }
    }
}
