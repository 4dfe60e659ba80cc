//! `wharf call`: one job, here and now, in the same sandbox as any other, without a host and without a store.

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
    Plugin, Task,
};

use super::cli_error::{Ending, Exit};
use super::ephemeral_kv::InMemory;
use super::in_process::{component, engine, runtime, settings_of, stem, step_text};
use super::input;
use super::output::{harmless, millis, print_bytes, print_json};
use super::progress::Progress;
use crate::config::Settings;
use crate::http::json_or_base64;
use crate::stderr::note;

#[derive(Debug, Args)]
pub(crate) struct Call {
    /// PLUGIN/TASK of the plugin folder, or FILE.wasm#TASK
    #[arg(value_name = "PLUGIN/TASK|FILE.wasm#TASK")]
    target: String,
    /// The payload: JSON, @FILE for a file's bytes, or - for the standard input; null by default
    #[arg(long, short, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    input: Option<String>,
    /// The key that the plugin sees, instead of the one in the payload
    #[arg(long)]
    key: Option<String>,
    /// Write the chunks to the standard output, as they come, instead of the result
    #[arg(long)]
    chunks: bool,
}

/// Which file, and which of its tasks.
struct Target {
    file: PathBuf,
    /// Absent where the file is said to have only one.
    task: Option<String>,
}

impl Call {
    pub(crate) fn run(self, settings: &Settings, json: bool) -> anyhow::Result<Exit> {
        if json && self.chunks {
            let both = "--chunks and --json both say what the standard output is; leave one out";
            return Err(Ending::usage(both).into());
        }
        let target = target(&self.target, &settings.plugins_dir)?;
        let (bytes, payload) = (component(&target.file)?, input::payload(self.input.as_deref())?);
        let ended = runtime()?.block_on(async {
            let engine = engine(settings)?;
            let plugin = load(&engine, &target, bytes, settings).await?;
            let task = chosen(&plugin, target.task.as_deref())?;
            let payload_fits = |error: wharf_engine::PayloadError| {
                Ending::usage(format!("the payload of `{}` is refused: {error}", task.name))
            };
            task.check_payload(&payload).map_err(payload_fits)?;
            let key = match &self.key {
                Some(key) => Some(key.clone()),
                None => task.key_of(&payload).map_err(payload_fits)?.map(|key| key.to_string()),
            };
            let call = EngineCall {
                input: CallInput::Job {
                    id: JobIds::after(None).next(Timestamp::ZERO).to_string(),
                    task: task.name.task().to_owned(),
                    key,
                    payload: payload.into(),
                    attempt: 1,
                },
                limits: AttemptLimits::of(task),
            };
            let listener = Listener {
                progress: Progress::new(task.name.as_str()),
                chunks: self.chunks,
                ids: Mutex::new((JobIds::after(None), HashMap::new())),
                kept: InMemory::of(plugin.id.clone()),
            };
            anyhow::Ok(attempt(&engine, Arc::clone(&plugin), call, listener).await)
        })?;
        shown(&ended, json, self.chunks)
    }
}

fn target(text: &str, plugins_dir: &Path) -> anyhow::Result<Target> {
    let (name, task) = text.split_once('#').map_or((text, None), |(name, task)| (name, Some(task.to_owned())));
    if name.ends_with(".wasm") {
        return Ok(Target { file: name.into(), task });
    }
    let task: wharf_core::ids::TaskName = text.parse().map_err(|error| {
        Ending::usage(format!("{error}; or FILE.wasm#TASK for a file that is not in the plugin folder"))
    })?;
    let file = plugins_dir.join(format!("{}.wasm", task.plugin()));
    if !file.exists() {
        return Err(Ending::usage(format!("there is no plugin `{}`: no file {}", task.plugin(), file.display())).into());
    }
    Ok(Target { file, task: Some(task.task().to_owned()) })
}

async fn load(
    engine: &Arc<Engine>,
    target: &Target,
    bytes: Arc<[u8]>,
    settings: &Settings,
) -> anyhow::Result<Arc<Plugin>> {
    // Compilers name their output with underscores; in the plugin folder the file must be renamed, here it need not.
    let name = stem(&target.file).replace('_', "-");
    let id = name.parse().map_err(|error| {
        Ending::usage(format!("{}: the file's name: {error}; rename the file", target.file.display()))
    })?;
    let progress = Progress::new(&name);
    let say = |step| progress.say(&format!("{name}: {}", step_text(step)));
    let loaded = engine.load(id, bytes, &settings_of(settings, &name), &say).await;
    loaded.map_err(|error| {
        Ending::new(Exit::NotDone, format!("{} is no plugin that can run:\n{error}", target.file.display())).into()
    })
}

fn chosen<'p>(plugin: &'p Plugin, asked: Option<&str>) -> anyhow::Result<&'p Task> {
    let tasks = &plugin.manifest.tasks;
    let known = || tasks.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    match (asked, tasks.values().next()) {
        (None, Some(only)) if tasks.len() == 1 => Ok(only),
        (None, _) => Err(Ending::usage(format!(
            "`{}` has several tasks; write FILE.wasm#TASK with one of: {}",
            plugin.id,
            known()
        ))
        .into()),
        (Some(name), _) => tasks.get(name).ok_or_else(|| {
            let hint = nearest(name, tasks.keys().map(String::as_str))
                .map_or_else(|| format!("it has: {}", known()), |near| format!("did you mean `{near}`?"));
            Ending::usage(format!("`{}` has no task `{name}`; {hint}", plugin.id)).into()
        }),
    }
}

async fn attempt(engine: &Arc<Engine>, plugin: Arc<Plugin>, call: EngineCall, listener: Listener) -> AttemptEnd {
    let control = AttemptHandle::new();
    let running = engine.call(plugin, call, Arc::new(listener), control.clone());
    tokio::pin!(running);
    let mut asked = false;
    loop {
        tokio::select! {
            ended = &mut running => return ended,
            _ = ctrl_c() => {
                if asked {
                    control.stop(Interruption::Drain, "stopped by a second interrupt".to_owned());
                } else {
                    note("wharf: asked the plugin to end; interrupt again to stop it at once");
                    control.request_cancel();
                }
                asked = true;
            }
        }
    }
}

/// Shows what the attempt tells.
struct Listener {
    progress: Progress,
    /// Chunks are the output.
    chunks: bool,
    /// With those that it gave out for tokens. Locked for a few assignments while a guest enqueues.
    ids: Mutex<(JobIds, HashMap<(String, String), JobId>)>,
    kept: InMemory,
}

impl HostCalls for Listener {
    fn emit(&self, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        let sent = if self.chunks {
            self.progress
                .aside(|| print_bytes(&chunk))
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
        self.progress.line(&format!("log | {lines} lines were dropped: the log of an attempt is bounded"));
    }

    fn progress(&self, fraction: f32, note: String) {
        self.progress.say(&format!("{:.0} % {note}", fraction * 100.0));
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
        let why = "broadcasts need a running host: `wharf call` runs one plugin by itself";
        std::future::ready(Err(why.to_owned())).boxed()
    }

    fn kv(&self) -> Option<&dyn KvAccess> {
        Some(&self.kept)
    }
}

/// What came of the job, with the result as it is written.
#[derive(Serialize)]
struct Document<'e> {
    outcome: &'static str,
    report: Option<&'e str>,
    result: Option<Box<RawValue>>,
    result_base64: Option<String>,
    bill: Bill,
    sandbox_ms: f64,
}

#[derive(Serialize)]
struct Bill {
    guest_ms: f64,
    wall_ms: f64,
    memory_peak_bytes: u64,
    in_bytes: u64,
    out_bytes: u64,
}

fn shown(ended: &AttemptEnd, json: bool, chunks: bool) -> anyhow::Result<Exit> {
    let bill = &ended.usage;
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
            bill: Bill {
                guest_ms: ms(bill.guest),
                wall_ms: ms(bill.wall),
                memory_peak_bytes: bill.memory_peak_bytes,
                in_bytes: bill.in_bytes,
                out_bytes: bill.out_bytes,
            },
            sandbox_ms: ms(ended.sandbox),
        })?;
    } else if let Some(bytes) = result.filter(|_| !chunks) {
        print_bytes(bytes)?;
    }
    if result.is_some() {
        return Ok(Exit::Done);
    }
    if !json {
        let cost = format!(
            "guest {}, wall {}, memory {}",
            millis(ms(bill.guest)),
            millis(ms(bill.wall)),
            bytesize::ByteSize(bill.memory_peak_bytes).display().iec()
        );
        note(format_args!(
            "wharf: the job {} ({cost}): {}",
            ended.outcome.kind().as_str(),
            harmless(ended.outcome.report())
        ));
    }
    Ok(Exit::NotDone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_task_of_the_folder_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("words.wasm"), "").unwrap();
        let found = target("words/count", folder.path()).unwrap();
        assert_eq!((found.file, found.task.as_deref()), (folder.path().join("words.wasm"), Some("count")));
        let found = target("out/my_plugin.wasm#make", folder.path()).unwrap();
        assert_eq!((found.file.as_path(), found.task.as_deref()), (Path::new("out/my_plugin.wasm"), Some("make")));
        assert!(
            target("sums/add", folder.path())
                .err()
                .unwrap()
                .to_string()
                .starts_with("there is no plugin `sums`: no file")
        );
        assert!(target("words", folder.path()).err().unwrap().to_string().contains("FILE.wasm#TASK"));
    }
}
