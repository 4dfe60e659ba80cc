//! An engine with the example plugins, and a host that records the calls of its attempts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use wharf_core::job::Stream;
use wharf_core::outcome::Outcome;
use wharf_core::rollcall::Reply;
use wharf_engine::{
    AttemptEnd, AttemptHandle, AttemptLimits, CacheSettings, Call, CallInput, Compile, CompileLimits, Engine, GuestJob,
    HostCalls, Plugin, PluginSettings, Settings, spec::toml_diagnostics,
};

/// A host that records the calls of attempts.
#[derive(Default)]
pub(crate) struct RecordingHost {
    pub(crate) chunks: Mutex<Vec<Vec<u8>>>,
    pub(crate) lines: Mutex<Vec<(Stream, String)>>,
    pub(crate) dropped: Mutex<u64>,
    pub(crate) progress: Mutex<Vec<(f32, String)>>,
    /// The threads of the calls with their niceness: one entry for each change.
    pub(crate) threads: Mutex<Vec<(String, i32)>>,
    pub(crate) jobs: Mutex<Vec<GuestJob>>,
    pub(crate) broadcasts: Mutex<Vec<Broadcast>>,
    /// The replies to each broadcast.
    pub(crate) replies: Vec<Reply>,
    /// If there is one, each chunk and each broadcast waits for a permit of it.
    pub(crate) gate: Option<Arc<Semaphore>>,
    /// Each broadcast takes all the time that it has, on the guest's own thread: no timeout is checked meanwhile.
    pub(crate) slow: bool,
}

/// A broadcast that a guest started.
pub(crate) struct Broadcast {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) timeout: Duration,
    pub(crate) remaining: Duration,
}

impl HostCalls for RecordingHost {
    fn emit(&self, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        async {
            if let Some(gate) = &self.gate {
                gate.acquire().await.unwrap().forget();
            }
            self.chunks.lock().unwrap().push(chunk);
            Ok(())
        }
        .boxed()
    }
    fn log(&self, stream: Stream, line: String) {
        self.lines.lock().unwrap().push((stream, line));
    }
    fn log_dropped(&self, lines: u64) {
        *self.dropped.lock().unwrap() += lines;
    }
    fn progress(&self, fraction: f32, note: String) {
        self.progress.lock().unwrap().push((fraction, note));
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let here = (name, rustix::process::getpriority_process(None).unwrap());
        let mut threads = self.threads.lock().unwrap();
        if threads.last() != Some(&here) {
            threads.push(here);
        }
    }
    fn enqueue(&self, jobs: Vec<GuestJob>) -> BoxFuture<'_, Result<Vec<String>, String>> {
        let mut all = self.jobs.lock().unwrap();
        let ids = (0..jobs.len()).map(|n| format!("job-{}", all.len() + n)).collect();
        all.extend(jobs);
        std::future::ready(Ok(ids)).boxed()
    }
    fn broadcast(
        &self,
        topic: String,
        payload: Vec<u8>,
        timeout: Duration,
        remaining: Duration,
    ) -> BoxFuture<'_, Result<Vec<Reply>, String>> {
        async move {
            self.broadcasts.lock().unwrap().push(Broadcast { topic, payload, timeout, remaining });
            if let Some(gate) = &self.gate {
                gate.acquire().await.unwrap().forget();
            }
            if self.slow {
                std::thread::sleep(timeout);
            }
            Ok(self.replies.clone())
        }
        .boxed()
    }
}

impl RecordingHost {
    pub(crate) fn stderr(&self) -> String {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|(stream, _)| *stream == Stream::Stderr).map(|(_, line)| format!("{line}\n")).collect()
    }
}

/// Concurrent broadcast calls at depth 1, and at each further depth at least one.
pub(crate) const BROADCAST_CALLS: u32 = 2;

pub(crate) struct Scene {
    pub(crate) engine: Arc<Engine>,
}

/// The cache that all tests share, since compiling is not what they test.
pub(crate) fn shared_cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("engine-cache")
}

/// Uses this test program as the compiling process, with arguments to run one test only: see
/// `loading::the_compiling_process`.
pub(crate) fn child() -> Compile {
    child_with(CompileLimits::default())
}

pub(crate) fn child_with(max: CompileLimits) -> Compile {
    let args = ["--exact", "loading::the_compiling_process", "--nocapture", "--"];
    Compile::Child { program: std::env::current_exe().unwrap(), args: args.map(OsString::from).into(), max }
}

pub(crate) async fn component(name: &'static str) -> Arc<[u8]> {
    let path = tokio::task::spawn_blocking(move || plugins::build(name)).await.unwrap().unwrap();
    std::fs::read(path).unwrap().into()
}

pub(crate) fn settings(toml: &str) -> PluginSettings {
    toml_diagnostics::read(toml).unwrap_or_else(|problems| panic!("{problems:?}"))
}

impl Scene {
    pub(crate) fn new(attempts: u32) -> Scene {
        Scene::with_budget(attempts, 4 << 30)
    }

    /// A scene whose host has so many bytes of memory.
    pub(crate) fn with_budget(attempts: u32, memory_budget: u64) -> Scene {
        let settings = Settings {
            attempts,
            broadcast_calls: BROADCAST_CALLS,
            guest_threads: 2,
            cache: CacheSettings::in_folder(shared_cache()),
            compile: Compile::InProcess,
            memory_budget,
            extra_ca: None,
        };
        Scene { engine: Engine::new(settings).unwrap() }
    }

    pub(crate) async fn load(&self, name: &'static str) -> Arc<Plugin> {
        self.load_with(name, "").await
    }

    pub(crate) async fn load_with(&self, name: &'static str, toml: &str) -> Arc<Plugin> {
        let bytes = component(name).await;
        let loaded = self.engine.load(name.parse().unwrap(), bytes, &settings(toml), &|_| {}).await;
        loaded.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Starts an attempt whose calls `recorded` takes and which `handle` controls.
    pub(crate) fn begin(
        &self,
        plugin: &Arc<Plugin>,
        call: Call,
        recorded: &Arc<RecordingHost>,
        handle: &AttemptHandle,
    ) -> tokio::task::JoinHandle<AttemptEnd> {
        let host_calls: Arc<dyn HostCalls> = Arc::clone(recorded) as _;
        tokio::spawn(self.engine.call(Arc::clone(plugin), call, host_calls, handle.clone()))
    }

    pub(crate) async fn run(&self, plugin: &Arc<Plugin>, call: Call) -> (AttemptEnd, Arc<RecordingHost>) {
        let recorded = Arc::new(RecordingHost::default());
        let ended = self.begin(plugin, call, &recorded, &AttemptHandle::new()).await.unwrap();
        (ended, recorded)
    }

    /// Runs an attempt while a neighbour calls `words` again and again, which must always be prompt.
    pub(crate) async fn run_beside(
        &self,
        neighbour: &Arc<Plugin>,
        plugin: &Arc<Plugin>,
        call: Call,
    ) -> (AttemptEnd, Arc<RecordingHost>) {
        let recorded = Arc::new(RecordingHost::default());
        let mut running = self.begin(plugin, call, &recorded, &AttemptHandle::new());
        let mut served = 0;
        let ended = loop {
            let asked = Instant::now();
            let (words, _) = self.run(neighbour, words_call(neighbour)).await;
            assert_returned(&words);
            let took = asked.elapsed();
            assert!(took < Duration::from_secs(20), "a neighbour's small attempt took {took:?}");
            served += 1;
            if let Some(ended) = (&mut running).now_or_never() {
                break ended.unwrap();
            }
        };
        assert!(served > 0);
        (ended, recorded)
    }
}

pub(crate) fn call(plugin: &Plugin, task: &str, payload: impl Into<String>) -> Call {
    Call {
        input: CallInput::Job {
            id: "0000000000001".to_owned(),
            task: task.to_owned(),
            key: None,
            payload: payload.into().into_bytes().into(),
            attempt: 1,
            tick: None,
        },
        limits: AttemptLimits::of(&plugin.manifest.tasks[task]),
    }
}

pub(crate) fn message(plugin: &Plugin, topic: &str, payload: impl Into<String>) -> Call {
    Call {
        input: CallInput::Message {
            id: "0000000000002".to_owned(),
            topic: topic.to_owned(),
            payload: payload.into().into_bytes().into(),
        },
        limits: AttemptLimits::of(&plugin.manifest.receive.as_ref().unwrap().task),
    }
}

pub(crate) fn words_call(words: &Plugin) -> Call {
    call(words, "count", r#"{"text": "one two\nthree"}"#)
}

pub(crate) fn assert_returned(ended: &AttemptEnd) -> String {
    match &ended.outcome {
        Outcome::Returned(result) => String::from_utf8_lossy(result).into_owned(),
        other => panic!("expected a result: {other:?}"),
    }
}
