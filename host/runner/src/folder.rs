//! The plugin folder: what comes, changes and goes.
//!
//! Watching is a hint, a slow rescan is the truth. One task owns all that is known of the folder; it alone swaps the catalog.
//! Files are read and plugins made in tasks beside it, so that a slow one delays no other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::ids::PluginId;
use wharf_core::planner::Input;
use wharf_engine::{Engine, LoadError, Plugin, PluginSettings, Problem};
use wharf_store::Store;

use crate::catalog::{Catalog, Loaded, Refused};
use crate::listing::{Found, Kind, QUIET, Stamp, list, read};
use crate::notice::{Notice, Tell};
use crate::word::Word;

/// A burst of hints is one scan.
const HINTS_EVERY: Duration = Duration::from_millis(50);
/// Bytes of components that are being loaded at once.
const LOADING_BYTES_MAX: usize = 256 << 20;

pub(crate) struct Folder {
    pub(crate) dir: PathBuf,
    pub(crate) rescan: Duration,
    pub(crate) settings: Arc<BTreeMap<PluginId, PluginSettings>>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) catalog: Arc<ArcSwap<Catalog>>,
    pub(crate) words: UnboundedSender<Word>,
    pub(crate) first_scan: watch::Sender<bool>,
    pub(crate) stopping: CancellationToken,
    pub(crate) tell: Tell,
}

/// A file as it is known.
struct File {
    kind: Kind,
    stamp: Stamp,
    /// When it was first seen as it is.
    since: Instant,
    quiet: bool,
    /// It was gone at the last look; at the next it is believed.
    missing: bool,
    /// As it was when it was last loaded or refused.
    handled: Option<Stamp>,
    /// As it was when the load began that is on its way.
    loading: Option<Stamp>,
}

/// What came of one file.
struct Made {
    file: PathBuf,
    stamp: Stamp,
    plugin: Option<PluginId>,
    result: Result<Arc<Plugin>, LoadError>,
    /// It changed while it was read: what was made of it counts for nothing.
    changed: bool,
    took: Duration,
}

/// All that the task owns.
struct State {
    folder: Folder,
    files: BTreeMap<PathBuf, File>,
    plugins: BTreeMap<PluginId, Loaded>,
    refused: BTreeMap<PathBuf, Refused>,
    loads: JoinSet<Made>,
    loading_bytes: Arc<Semaphore>,
    /// What was last said of a folder that cannot be read.
    trouble: Option<String>,
}

impl Folder {
    /// Follows the folder until the host stops.
    pub(crate) async fn run(self) {
        let hint = Arc::new(Notify::new());
        // Without a watcher changes are seen by the rescan.
        let _watcher = watch_for_hints(&self.dir, Arc::clone(&hint)).ok();
        let stopping = self.stopping.clone();
        let mut state = State {
            folder: self,
            files: BTreeMap::new(),
            plugins: BTreeMap::new(),
            refused: BTreeMap::new(),
            loads: JoinSet::new(),
            loading_bytes: Arc::new(Semaphore::new(LOADING_BYTES_MAX)),
            trouble: None,
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = state.follow(&hint) => {}
        }
    }
}

impl State {
    async fn follow(&mut self, hint: &Notify) {
        let mut scanned = Instant::now();
        self.scan().await;
        loop {
            self.say_when_first_scan_is_done();
            let rest = if self.is_settled() { self.folder.rescan } else { QUIET };
            tokio::select! {
                Some(made) = self.loads.join_next() => self.take(made),
                () = hint.notified() => {
                    tokio::time::sleep_until((scanned + HINTS_EVERY).into()).await;
                    self.scan().await;
                    scanned = Instant::now();
                }
                () = tokio::time::sleep_until((scanned + rest).into()) => {
                    self.scan().await;
                    scanned = Instant::now();
                }
            }
        }
    }

    /// Whether nothing is on its way that a look a moment later would see.
    fn is_settled(&self) -> bool {
        self.files.values().all(|file| !file.missing && (file.loading.is_some() || file.handled == Some(file.stamp)))
    }

    fn say_when_first_scan_is_done(&self) {
        let done = self.loads.is_empty() && self.trouble.is_none() && self.is_settled();
        if done && !*self.folder.first_scan.borrow() {
            (self.folder.tell)(&Notice::FirstScanDone { loaded: self.plugins.len(), refused: self.refused.len() });
            self.folder.first_scan.send_replace(true);
        }
    }

    /// Looks at every file once.
    async fn scan(&mut self) {
        let dir = self.folder.dir.clone();
        let listed = tokio::task::spawn_blocking(move || list(&dir)).await;
        let found = match listed.map_err(std::io::Error::other).and_then(|listed| listed) {
            Ok(found) => found,
            // A folder that is away for a moment retires nobody.
            Err(error) => return self.cannot_read(&error),
        };
        self.trouble = None;
        self.note(found);
        self.retire_missing();
        for (path, stamp, kind) in self.ready() {
            self.handle(path, stamp, kind);
        }
    }

    fn cannot_read(&mut self, error: &std::io::Error) {
        let why = format!("the plugin folder {} cannot be read: {error}", self.folder.dir.display());
        if self.trouble.as_ref() != Some(&why) {
            (self.folder.tell)(&Notice::FolderTrouble { why: why.clone() });
            self.trouble = Some(why);
        }
    }

    /// Holds what is there against what is known.
    fn note(&mut self, found: Vec<Found>) {
        let now = Instant::now();
        let mut gone: Vec<PathBuf> = self.files.keys().cloned().collect();
        for Found { path, kind, stamp, old } in found {
            gone.retain(|known| *known != path);
            match self.files.get_mut(&path) {
                Some(file) if file.stamp == stamp => {
                    file.quiet |= old || now >= file.since + QUIET;
                    file.missing = false;
                }
                Some(file) => {
                    (file.stamp, file.kind, file.since, file.quiet, file.missing) = (stamp, kind, now, old, false);
                }
                None => {
                    let file =
                        File { kind, stamp, since: now, quiet: old, missing: false, handled: None, loading: None };
                    self.files.insert(path, file);
                }
            }
        }
        for path in gone {
            let Some(file) = self.files.get_mut(&path) else { continue };
            // Replaced by removing and writing again, it is soon back.
            if std::mem::replace(&mut file.missing, true) && now >= file.since + QUIET {
                self.files.remove(&path);
            } else {
                file.since = now;
            }
        }
    }

    fn retire_missing(&mut self) {
        let files = &self.files;
        let gone = |loaded: &Loaded| !files.contains_key(&loaded.file);
        let retired: Vec<PluginId> =
            self.plugins.iter().filter(|(_, loaded)| gone(loaded)).map(|(id, _)| id.clone()).collect();
        let refused = self.refused.len();
        self.refused.retain(|path, _| files.contains_key(path));
        if retired.is_empty() && self.refused.len() == refused {
            return;
        }
        for plugin in retired {
            self.plugins.remove(&plugin);
            (self.folder.tell)(&Notice::PluginRetired { plugin });
        }
        self.publish();
    }

    /// Files that are quiet and not yet handled as they are.
    fn ready(&self) -> Vec<(PathBuf, Stamp, Kind)> {
        let ready =
            |file: &&File| file.quiet && !file.missing && file.loading.is_none() && file.handled != Some(file.stamp);
        let files = self.files.iter().filter(|(_, file)| ready(file));
        files.map(|(path, file)| (path.clone(), file.stamp, file.kind.clone())).collect()
    }

    fn handle(&mut self, path: PathBuf, stamp: Stamp, kind: Kind) {
        let refuse = |plugin, problem: Problem| Made {
            file: path.clone(),
            stamp,
            plugin,
            result: Err(problem.into()),
            changed: false,
            took: Duration::ZERO,
        };
        match kind {
            Kind::NotForUs(problem) => self.made(refuse(None, problem)),
            Kind::Component(id) => {
                let known = self.plugins.contains_key(&id);
                let loading = self.files.values().filter(|file| file.loading.is_some()).count();
                if !known && self.plugins.len() + loading >= bounds::PLUGINS_MAX {
                    let problem =
                        Problem::new(format!("{} plugins are loaded, which is the most", bounds::PLUGINS_MAX));
                    return self.made(refuse(Some(id), problem.hint("remove others, or give this host fewer")));
                }
                if stamp.bytes > bounds::COMPONENT_BYTES_MAX {
                    let most = bounds::COMPONENT_BYTES_MAX / bounds::MIB;
                    let problem = Problem::new(format!("it has {} bytes; {most} MiB is the most", stamp.bytes));
                    return self
                        .made(refuse(Some(id), problem.hint("build it optimised and without debug information")));
                }
                if let Some(file) = self.files.get_mut(&path) {
                    file.loading = Some(stamp);
                }
                self.loads.spawn(self.load(path, stamp, id));
            }
        }
    }

    fn load(&self, file: PathBuf, stamp: Stamp, id: PluginId) -> impl Future<Output = Made> + Send + 'static {
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
            let (result, changed) = match content {
                Err(error) => (Err(Problem::new(format!("it cannot be read: {error}")).into()), false),
                Ok((_, after)) if after != stamp => (Err(LoadError { problems: Vec::new() }), true),
                Ok((bytes, _)) => {
                    let progress = |step| tell(&Notice::PluginLoading { plugin: id.clone(), step });
                    (engine.load(id.clone(), bytes.into(), settings.get(&id).unwrap_or(&none), &progress).await, false)
                }
            };
            Made { file, stamp, plugin: Some(id), result, changed, took: began.elapsed() }
        }
    }

    fn take(&mut self, made: Result<Made, tokio::task::JoinError>) {
        match made {
            Ok(made) => self.made(made),
            Err(error) => {
                // Which file it was is lost with the task: all that were loading are looked at again.
                (self.folder.tell)(&Notice::HostFault { doing: "loading a plugin", why: error.to_string() });
                let unfinished = self.files.values_mut().filter(|file| file.loading.is_some());
                unfinished.for_each(|file| (file.loading, file.handled) = (None, Some(file.stamp)));
            }
        }
    }

    fn made(&mut self, made: Made) {
        let Made { file: path, stamp, plugin, result, changed, took } = made;
        // Removed in the meantime: nothing to load, nothing to refuse.
        let Some(file) = self.files.get_mut(&path) else { return };
        // Removed and put back in the meantime: another load speaks for the file as it is now.
        if file.loading.is_some_and(|loading| loading != stamp) {
            return;
        }
        file.loading = None;
        if changed {
            return;
        }
        file.handled = Some(stamp);
        let since = self.folder.store.now();
        match result {
            Ok(plugin) => {
                let forgiven = self.refused.remove(&path).is_some();
                let same = self.plugins.get(&plugin.id).is_some_and(|loaded| loaded.plugin.digest == plugin.digest);
                if same && !forgiven {
                    return;
                }
                if !same {
                    (self.folder.tell)(&Notice::PluginLoaded {
                        plugin: plugin.id.clone(),
                        version: plugin.manifest.version.clone(),
                        digest: plugin.digest.clone(),
                        tasks: plugin.manifest.tasks.len(),
                        topics: plugin.manifest.topics.len(),
                        took,
                    });
                    self.plugins.insert(plugin.id.clone(), Loaded { plugin, file: path, since });
                }
            }
            Err(why) => {
                let kept = plugin.as_ref().is_some_and(|id| self.plugins.contains_key(id));
                (self.folder.tell)(&Notice::PluginRefused {
                    file: path.display().to_string(),
                    why: why.to_string(),
                    kept,
                });
                self.refused.insert(path.clone(), Refused { plugin, file: path, why, since });
            }
        }
        self.publish();
    }

    /// Makes what is known now the catalog.
    fn publish(&self) {
        let next = self.folder.catalog.load().next(self.plugins.clone(), self.refused.clone());
        let any_task = next.runs().next().is_some();
        self.folder.catalog.store(Arc::new(next));
        // A host that has stopped does not need to know.
        let _ = self.folder.words.send(Word::Input(Input::CatalogChanged { any_task }));
    }
}

fn watch_for_hints(dir: &Path, hint: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own looking is an access: it must not make us look again.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            hint.notify_one();
        }
    })?;
    watcher.watch(dir, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
