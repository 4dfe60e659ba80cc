//! The loading of one file.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use wharf_core::ids::PluginId;
use wharf_engine::{Engine, LoadError, Plugin, Problem, Progress};

use crate::dir_scan::{Stamp, read};
use crate::live_settings::LiveSettings;
use crate::notice::{Listener, Notice};

/// The result of loading one file.
pub(super) struct LoadResult {
    pub(super) file: PathBuf,
    pub(super) stamp: Stamp,
    pub(super) plugin: Option<PluginId>,
    /// The settings that it was loaded with.
    pub(super) settings: Arc<LiveSettings>,
    pub(super) outcome: LoadOutcome,
    pub(super) took: Duration,
}

/// Result of loading a file.
pub(super) enum LoadOutcome {
    Plugin(Arc<Plugin>),
    Refused(LoadError),
    /// The file changed while it was read: the result does not count.
    Changed,
    /// Its code is not in the cache, and it had no permit to be compiled now.
    ToCompile,
}

/// Loads files.
pub(super) struct Loader {
    pub(super) engine: Arc<Engine>,
    pub(super) listener: Listener,
    /// One permit for each byte of the components that may be loaded at once.
    pub(super) free_bytes: Arc<Semaphore>,
}

impl Loader {
    /// Loads the plugin in a file. Without a permit to compile it is not compiled: a load that occupies bytes never waits for a
    /// compile.
    pub(super) fn load(
        &self,
        file: PathBuf,
        stamp: Stamp,
        id: PluginId,
        settings: Arc<LiveSettings>,
        compile_permit: Option<OwnedSemaphorePermit>,
    ) -> impl Future<Output = LoadResult> + Send + 'static {
        let (engine, listener) = (Arc::clone(&self.engine), self.listener.clone());
        let free_bytes = Arc::clone(&self.free_bytes);
        async move {
            let started = Instant::now();
            // A file is within its bound, which is less than all bytes.
            let _bytes = free_bytes.acquire_many(u32::try_from(stamp.bytes).unwrap_or(u32::MAX)).await;
            let path = file.clone();
            let content = tokio::task::spawn_blocking(move || read(&path))
                .await
                .map_err(std::io::Error::other)
                .and_then(|read| read);
            let outcome = match content {
                // It is gone: the next scan shows it.
                Err(error) if error.kind() == ErrorKind::NotFound => LoadOutcome::Changed,
                Err(error) => {
                    let problem = Problem::new(format!("could not read the file: {error}"));
                    LoadOutcome::Refused(LoadError::passing(problem))
                }
                Ok((_, after)) if after != stamp => LoadOutcome::Changed,
                Ok((content, _)) => {
                    let (may_compile, to_compile) = (compile_permit.is_some(), Notify::new());
                    // Locked for one assignment, by the engine as it reports its progress.
                    let compile_permit = Mutex::new(compile_permit);
                    let progress = |step| {
                        match step {
                            Progress::WaitingToCompile if !may_compile => to_compile.notify_one(),
                            // The load ends the next time that it is polled.
                            Progress::Compiling if !may_compile => return,
                            // The next file is compiled while this plugin describes itself, however long that takes.
                            Progress::Describing => {
                                drop(compile_permit.lock().unwrap_or_else(PoisonError::into_inner).take());
                            }
                            _ => {}
                        }
                        listener.notify(&Notice::PluginLoading { plugin: id.clone(), step });
                    };
                    let load = engine.load(id.clone(), content, settings.plugin(&id), &progress);
                    tokio::select! {
                        biased;
                        () = to_compile.notified() => LoadOutcome::ToCompile,
                        loaded = load => loaded.map_or_else(LoadOutcome::Refused, LoadOutcome::Plugin),
                    }
                }
            };
            LoadResult { file, stamp, plugin: Some(id), settings, outcome, took: started.elapsed() }
        }
    }
}
