//! `wharf call`: runs one job in this process, in the same sandbox as any other job, without a host or a store.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::signal::ctrl_c;
use wharf_core::ids::{JobId, JobIds};
use wharf_core::job::Stream;
use wharf_core::outcome::{Interruption, Outcome};
use wharf_core::rollcall::Reply;
use wharf_core::time::Timestamp;
use wharf_engine::spec::toml_diagnostics::nearest;
use wharf_engine::{
    AttemptEnd, AttemptHandle, AttemptLimits, Call as EngineCall, CallInput, Engine, GuestJob, HostCalls, KvAccess,
    Plugin, PluginFile, Task,
};

use super::call_job::{self, JobInput};
use super::client::Client;
use super::ephemeral_kv::EphemeralKv;
use crate::cli_error::{CliError, ExitStatus};
use crate::component_file::{plugin_file, plugin_id};
use crate::config::Settings;
use crate::http::json_or_base64;
use crate::in_process_engine::{runtime, single_call_engine};
use crate::output::{millis, print_bytes, print_json};
use crate::payload_input;
use crate::progress::{Progress, loading_step_text};
use crate::stderr::note;

#[derive(Debug, Args)]
pub(crate) struct Call {
    /// Task to run: PLUGIN/TASK in the plugin folder, or FILE.wasm#TASK
    #[arg(value_name = "PLUGIN/TASK|FILE.wasm#TASK", required_unless_present = "job")]
    target: Option<String>,
    /// Job of the running host whose task, payload and key are taken: it runs again here, and nothing changes there
    #[arg(long, value_name = "ID", conflicts_with = "input")]
    job: Option<String>,
    /// Payload: JSON, @FILE for the bytes of a file, or - for the standard input [default: null]
    #[arg(long, short, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    input: Option<String>,
    /// Key that the plugin sees [default: the one in the payload]
    #[arg(long)]
    key: Option<String>,
    /// Write the chunks to the standard output as they arrive, instead of the result
    #[arg(long)]
    chunks: bool,
    /// The job of `--job`, once it was read.
    #[arg(skip)]
    from_job: Option<JobInput>,
}

/// A component file and one of its tasks.
struct Target {
    file: PathBuf,
    /// `None` if the user relies on the file having only one task.
    task: Option<String>,
}

impl Call {
    /// Reads the job that `--job` names, if it does.
    pub(crate) fn with_job(mut self, client: impl FnOnce() -> Client) -> anyhow::Result<Call> {
        if let Some(id) = &self.job {
            let job = call_job::read(&client(), id)?;
            self.target = Some(job.target(self.target.as_deref())?);
            self.from_job = Some(job);
        }
        Ok(self)
    }

    fn target(&self) -> &str {
        self.target.as_deref().unwrap_or_default()
    }

    /// Returns the name of the plugin: what stands before the task, or the stem of the file.
    pub(crate) fn plugin(&self) -> &str {
        let (name, _) = self.target().split_once('#').unwrap_or((self.target(), ""));
        let path = Path::new(name);
        match name.strip_suffix(".wasm").and(path.file_stem()).and_then(|stem| stem.to_str()) {
            Some(stem) => stem,
            None => name.split_once('/').map_or(name, |(plugin, _)| plugin),
        }
    }

    pub(crate) fn run(self, settings: &Settings, json: bool) -> anyhow::Result<ExitStatus> {
        if json && self.chunks {
            let text = "--chunks and --json contradict each other about the standard output; remove one";
            return Err(CliError::usage(text).into());
        }
        let target = target(self.target(), &settings.plugins_dir)?;
        let payload = match &self.from_job {
            Some(job) => job.payload.clone(),
            None => payload_input::read(self.input.as_deref())?,
        };
        let file = plugin_file(&target.file)?;
        let ended = runtime()?.block_on(async {
            let engine = single_call_engine(settings)?;
            let plugin = load(&engine, &target, file, settings).await?;
            tell_missing_secrets(settings, plugin.id.as_str());
            let task = choose_task(&plugin, target.task.as_deref())?;
            let invalid_payload = |error: wharf_engine::PayloadError| {
                CliError::usage(format!("invalid payload for `{}`: {error}", task.name))
            };
            task.check_payload(&payload).map_err(invalid_payload)?;
            let key_of_job = self.from_job.as_ref().and_then(|job| job.key.as_ref());
            let key = match self.key.as_ref().or(key_of_job) {
                Some(key) => Some(key.clone()),
                None => task.key_of(&payload).map_err(invalid_payload)?.map(|key| key.to_string()),
            };
            let call = EngineCall {
                input: CallInput::Job {
                    id: JobIds::after(None).next(Timestamp::ZERO).to_string(),
                    task: task.name.task().to_owned(),
                    key,
                    payload: payload.into(),
                    attempt: 1,
                    tick: None,
                },
                limits: AttemptLimits::of(task),
            };
            let listener = Listener {
                progress: Progress::new(task.name.as_str()),
                chunks: self.chunks,
                ids: Mutex::new((JobIds::after(None), HashMap::new())),
                kv: EphemeralKv::of(plugin.id.clone()),
            };
            anyhow::Ok(attempt(&engine, Arc::clone(&plugin), call, listener).await)
        })?;
        print_end(&ended, json, self.chunks)
    }
}

fn target(text: &str, plugins_dir: &Path) -> anyhow::Result<Target> {
    let (name, task) = text.split_once('#').map_or((text, None), |(name, task)| (name, Some(task.to_owned())));
    if name.ends_with(".wasm") {
        return Ok(Target { file: name.into(), task });
    }
    let task: wharf_core::ids::TaskName = text.parse().map_err(|error| {
        CliError::usage(format!("{error}; for a file outside the plugin folder write FILE.wasm#TASK"))
    })?;
    let file = plugins_dir.join(format!("{}.wasm", task.plugin()));
    if !file.exists() {
        return Err(CliError::usage(format!(
            "unknown plugin `{}`: {} does not exist; for a file outside the plugin folder write FILE.wasm#TASK",
            task.plugin(),
            file.display()
        ))
        .into());
    }
    Ok(Target { file, task: Some(task.task().to_owned()) })
}

/// Says which secrets of the plugin are not here: its requests have their placeholders.
fn tell_missing_secrets(settings: &Settings, plugin: &str) {
    for grant in settings.plugin(plugin).secrets.iter() {
        if let Some(why) = grant.missing() {
            let name = &grant.name;
            note(format!("the secret `{name}` is not here, so that requests have its placeholder: {why}"));
        }
    }
}

async fn load(
    engine: &Arc<Engine>,
    target: &Target,
    file: PluginFile,
    settings: &Settings,
) -> anyhow::Result<Arc<Plugin>> {
    let id = plugin_id(&target.file)?;
    let name = id.to_string();
    let progress = Progress::new(&name);
    let on_progress = |step| progress.set_message(&format!("{name}: {}", loading_step_text(step)));
    let loaded = engine.load(id, file, &settings.plugin(&name), &on_progress).await;
    loaded.map_err(|error| {
        CliError::new(ExitStatus::NotDone, format!("could not load {}:\n{error}", target.file.display())).into()
    })
}

fn choose_task<'p>(plugin: &'p Plugin, name: Option<&str>) -> anyhow::Result<&'p Task> {
    let tasks = &plugin.manifest.tasks;
    let known = || tasks.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    match (name, tasks.values().next()) {
        (None, Some(only)) if tasks.len() == 1 => Ok(only),
        (None, _) => Err(CliError::usage(format!(
            "`{}` has several tasks; write FILE.wasm#TASK with one of: {}",
            plugin.id,
            known()
        ))
        .into()),
        (Some(name), _) => tasks.get(name).ok_or_else(|| {
            let hint = nearest(name, tasks.keys().map(String::as_str))
                .map_or_else(|| format!("its tasks: {}", known()), |near| format!("did you mean `{near}`?"));
            CliError::usage(format!("unknown task `{name}` of `{}`; {hint}", plugin.id)).into()
        }),
    }
}

async fn attempt(engine: &Arc<Engine>, plugin: Arc<Plugin>, call: EngineCall, listener: Listener) -> AttemptEnd {
    let control = AttemptHandle::new();
    let running = engine.call(plugin, call, Arc::new(listener), control.clone());
    tokio::pin!(running);
    let mut cancel_requested = false;
    loop {
        tokio::select! {
            ended = &mut running => return ended,
            _ = ctrl_c() => {
                if cancel_requested {
                    control.stop(Interruption::Drain, "stopped by a second interrupt".to_owned());
                } else {
                    note("wharf: cancelling the job; interrupt again to stop it at once");
                    control.request_cancel();
                }
                cancel_requested = true;
            }
        }
    }
}

/// Prints what the attempt emits, and stands in for the parts of a host.
struct Listener {
    progress: Progress,
    /// Chunks are written to the standard output.
    chunks: bool,
    /// The ID source, and the IDs by task and token. Locked for a few assignments while a guest enqueues.
    ids: Mutex<(JobIds, HashMap<(String, String), JobId>)>,
    kv: EphemeralKv,
}

impl HostCalls for Listener {
    fn emit(&self, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        let sent = if self.chunks {
            self.progress
                .suspend(|| print_bytes(&chunk))
                .map_err(|error| format!("the standard output is closed: {error}"))
        } else {
            match std::str::from_utf8(&chunk) {
                Ok(text) => text.lines().for_each(|line| self.progress.line(&format!("chunk | {line}"))),
                Err(_) => self.progress.line(&format!("chunk | {} bytes", chunk.len())),
            }
            Ok(())
        };
        std::future::ready(sent).boxed()
    }

    fn log(&self, stream: Stream, line: String) {
        let name = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        self.progress.line(&format!("{name} | {line}"));
    }

    fn log_dropped(&self, lines: u64) {
        self.progress.line(&format!("log | {lines} lines were dropped: the attempt reached the limit of its log"));
    }

    fn progress(&self, fraction: f32, note: String) {
        self.progress.set_message(&format!("{:.0} % {note}", fraction * 100.0));
    }

    fn enqueue(&self, jobs: Vec<GuestJob>) -> BoxFuture<'_, Result<Vec<String>, String>> {
        for job in &jobs {
            self.progress.line(&format!(
                "jobs | would enqueue {} with {} bytes of payload",
                job.task,
                job.payload.len()
            ));
        }
        let (ids, known) = &mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let id = |job: GuestJob| {
            let new = ids.next(Timestamp::ZERO);
            job.token.map_or(new, |token| *known.entry((job.task, token)).or_insert(new)).to_string()
        };
        std::future::ready(Ok(jobs.into_iter().map(id).collect())).boxed()
    }

    fn broadcast(&self, _: String, _: Vec<u8>, _: Duration, _: Duration) -> BoxFuture<'_, Result<Vec<Reply>, String>> {
        let text = "broadcasts need a running host; `wharf call` runs one plugin on its own";
        std::future::ready(Err(text.to_owned())).boxed()
    }

    fn kv(&self) -> Option<&dyn KvAccess> {
        Some(&self.kv)
    }
}

/// The outcome of the job as JSON, with the result as the plugin wrote it.
#[derive(Serialize)]
struct Document<'e> {
    outcome: &'static str,
    report: Option<&'e str>,
    result: Option<Box<RawValue>>,
    result_base64: Option<String>,
    usage: Usage,
    sandbox_ms: f64,
}

#[derive(Serialize)]
struct Usage {
    cpu_ms: f64,
    wall_ms: f64,
    memory_peak_bytes: u64,
    in_bytes: u64,
    out_bytes: u64,
}

fn print_end(ended: &AttemptEnd, json: bool, chunks: bool) -> anyhow::Result<ExitStatus> {
    let usage = &ended.usage;
    let ms = |length: std::time::Duration| length.as_secs_f64() * 1000.0;
    let result = match &ended.outcome {
        Outcome::Returned(bytes) => Some(bytes),
        _ => None,
    };
    if json {
        let (json, base64) = result.map(|bytes| json_or_base64(bytes)).unwrap_or_default();
        print_json(&Document {
            outcome: ended.outcome.kind().as_str(),
            report: result.is_none().then(|| ended.outcome.report()),
            result: json,
            result_base64: base64,
            usage: Usage {
                cpu_ms: ms(usage.cpu),
                wall_ms: ms(usage.wall),
                memory_peak_bytes: usage.memory_peak_bytes,
                in_bytes: usage.in_bytes,
                out_bytes: usage.out_bytes,
            },
            sandbox_ms: ms(ended.sandbox),
        })?;
    } else if let Some(bytes) = result.filter(|_| !chunks) {
        print_bytes(bytes)?;
    }
    if result.is_some() {
        return Ok(ExitStatus::Done);
    }
    if !json {
        let cost = format!(
            "CPU {}, wall {}, memory {}",
            millis(ms(usage.cpu)),
            millis(ms(usage.wall)),
            bytesize::ByteSize(usage.memory_peak_bytes).display().iec()
        );
        note(format_args!("wharf: the job {} ({cost}): {}", ended.outcome.kind().as_str(), ended.outcome.report()));
    }
    Ok(ExitStatus::NotDone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_task_in_the_folder_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("words.wasm"), "").unwrap();
        let found = target("words/count", folder.path()).unwrap();
        assert_eq!((found.file, found.task.as_deref()), (folder.path().join("words.wasm"), Some("count")));
        let found = target("out/my_plugin.wasm#make", folder.path()).unwrap();
        assert_eq!((found.file.as_path(), found.task.as_deref()), (Path::new("out/my_plugin.wasm"), Some("make")));
        assert!(target("sums/add", folder.path()).err().unwrap().to_string().starts_with("unknown plugin `sums`: "));
        assert!(target("words", folder.path()).err().unwrap().to_string().contains("FILE.wasm#TASK"));
    }
}
