//! One file on its way to a plugin.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit};
use wharf_core::ids::PluginId;
use wharf_engine::{LoadError, Plugin, PluginSettings, Problem, Progress};

use super::State;
use crate::dir_scan::{Stamp, read};
use crate::notice::Notice;

/// What became of one file.
pub(super) struct Made {
    pub(super) file: PathBuf,
    pub(super) stamp: Stamp,
    pub(super) plugin: Option<PluginId>,
    pub(super) came: Came,
    pub(super) took: Duration,
}

pub(super) enum Came {
    Plugin(Arc<Plugin>),
    Refused(LoadError),
    /// It changed while it was read: what was made of it counts for nothing.
    Changed,
    /// It was not compiled before, and had no slot to be compiled now.
    ToCompile,
}

impl State {
    /// Makes a plugin of a file. Without a slot it is not compiled: nobody who holds room for its bytes waits for a compile.
    pub(super) fn load(
        &self,
        file: PathBuf,
        stamp: Stamp,
        id: PluginId,
        slot: Option<OwnedSemaphorePermit>,
    ) -> impl Future<Output = Made> + Send + 'static {
        let (engine, tell, settings) =
            (Arc::clone(&self.folder.engine), Arc::clone(&self.folder.tell), Arc::clone(&self.folder.settings));
        let room = Arc::clone(&self.loading_bytes);
        async move {
            let began = Instant::now();
            // The file is within its bound, which is less than the room there is.
            let _room = room.acquire_many(u32::try_from(stamp.bytes).unwrap_or(u32::MAX)).await;
            let path = file.clone();
            let content = tokio::task::spawn_blocking(move || read(&path))
                .await
                .map_err(std::io::Error::other)
                .and_then(|read| read);
            let none = PluginSettings::default();
            let came = match content {
                Err(error) => Came::Refused(Problem::new(format!("it cannot be read: {error}")).into()),
                Ok((_, after)) if after != stamp => Came::Changed,
                Ok((bytes, _)) => {
                    let (may_compile, to_compile) = (slot.is_some(), Notify::new());
                    // Locked for one assignment, by whoever tells how far it is.
                    let slot = Mutex::new(slot);
                    let progress = |step| {
                        match step {
                            Progress::WaitingToCompile if !may_compile => to_compile.notify_one(),
                            // It is given up at its next turn.
                            Progress::Compiling if !may_compile => return,
                            // The next one is compiled while this one says what it is, however long that takes.
                            Progress::Describing => drop(slot.lock().unwrap_or_else(PoisonError::into_inner).take()),
                            _ => {}
                        }
                        tell(&Notice::PluginLoading { plugin: id.clone(), step });
                    };
                    let load = engine.load(id.clone(), bytes.into(), settings.get(&id).unwrap_or(&none), &progress);
                    tokio::select! {
                        biased;
                        () = to_compile.notified() => Came::ToCompile,
                        loaded = load => loaded.map_or_else(Came::Refused, Came::Plugin),
                    }
                }
            };
            Made { file, stamp, plugin: Some(id), came, took: began.elapsed() }
        }
    }
}
