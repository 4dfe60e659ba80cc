//! What the benches of the engine share: an engine without limits of its own, a host that keeps nothing, and the median.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Runtime};
use wharf_core::bounds;
use wharf_core::job::Stream;
use wharf_core::rollcall::Reply;
use wharf_engine::{CacheSettings, Compile, Engine, GuestJob, HostCalls, Plugin, PluginSettings, Settings};

/// The threads of each runtime, and of the guests.
const THREADS: usize = 2;

/// A host that keeps nothing of what a guest says.
pub(crate) struct Deaf;

impl HostCalls for Deaf {
    fn emit(&self, _: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        async { Ok(()) }.boxed()
    }
    fn log(&self, _: Stream, _: String) {}
    fn log_dropped(&self, _: u64) {}
    fn progress(&self, _: f32, _: String) {}
    fn enqueue(&self, _: Vec<GuestJob>) -> BoxFuture<'_, Result<Vec<String>, String>> {
        async { Ok(Vec::new()) }.boxed()
    }
    fn broadcast(&self, _: String, _: Vec<u8>, _: Duration, _: Duration) -> BoxFuture<'_, Result<Vec<Reply>, String>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(THREADS).enable_all().build().unwrap()
}

/// Returns an engine that keeps compiled code below `folder`.
pub(crate) fn engine(folder: &Path) -> Arc<Engine> {
    let settings = Settings {
        attempts: bounds::ATTEMPTS_DEFAULT,
        broadcast_calls: bounds::BROADCAST_CALLS_DEFAULT,
        guest_threads: THREADS,
        cache: CacheSettings::in_folder(folder.join("c")),
        compile: Compile::InProcess,
        memory_budget: 4 << 30,
        extra_ca: None,
    };
    Engine::new(settings).unwrap()
}

pub(crate) async fn load(engine: &Arc<Engine>, name: &str, bytes: impl Into<Arc<[u8]>>) -> Arc<Plugin> {
    let plugin = engine.load(name.parse().unwrap(), bytes.into(), &PluginSettings::default(), &|_| {}).await;
    plugin.unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}
