//! The plugin folder: files that are added, changed and removed.
//!
//! The watcher's events are hints, a slow rescan is the truth. One task owns everything that is known of the folder, and it alone
//! replaces the catalog. Files are read and loaded in tasks beside it, so that a slow one delays no other: each file is first
//! looked up in the cache of compiled code; those that are not in it are compiled afterwards, the smallest first.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, UnboundedSender};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::ids::PluginId;
use wharf_core::node::LoadingPlugin;
use wharf_core::planner::Input;
use wharf_engine::{Engine, LoadError, Problem};

use crate::catalog::{Contents, Loaded, PendingFile, Refused, Step};
use crate::dir_scan::{Found, Kind, QUIET, Stamp, list};
use crate::loop_message::LoopMessage;
use crate::notice::{Listener, Notice};
use crate::plugin_view::PluginIndex;
use crate::store_health::WatchedStore;

/// The pause after a scan before a hint causes another: a burst of hints is one scan.
const HINT_PAUSE: Duration = Duration::from_millis(50);
/// The size in bytes of all components that are being loaded at once.
const LOADING_BYTES_MAX: usize = 256 << 20;
/// A file that takes longer than this after the first scan does not delay the others: it counts as one that has to be compiled.
const OPENING_MAX: Duration = Duration::from_secs(5);

mod file;
mod load;
mod settings;
mod watches;

use file::{File, Retry};
use load::{LoadOutcome, LoadResult, Loader};
use settings::EarlierPlugins;
pub(crate) use settings::SettingsRequest;
use watches::FolderWatch;

/// The plugin folder of a host, and what its changes are reported to.
pub(crate) struct Folder {
    pub(crate) dir: PathBuf,
    pub(crate) rescan: Duration,
    pub(crate) engine: Arc<Engine>,
    pub(crate) store: WatchedStore,
    pub(crate) plugins: Arc<PluginIndex>,
    pub(crate) to_loop: UnboundedSender<LoopMessage>,
    /// New settings.
    pub(crate) changes: Receiver<SettingsRequest>,
    pub(crate) first_scan: watch::Sender<bool>,
    /// The version of the catalog.
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) stopping: CancellationToken,
    pub(crate) listener: Listener,
}

/// Everything that the task owns.
struct State {
    folder: Folder,
    files: BTreeMap<PathBuf, File>,
    /// The contents of the next catalog.
    contents: Contents,
    /// Plugins that the contents no longer have, as long as attempts of them run.
    earlier: EarlierPlugins,
    /// The contents differ from those of the current catalog.
    is_new: bool,
    /// When the folder was first listed.
    listed: Option<Instant>,
    loads: JoinSet<LoadResult>,
    /// Given away while it is used; made anew should it be lost there.
    watch: Option<FolderWatch>,
    hint: Arc<Notify>,
    loader: Loader,
    /// One permit for each component that the engine compiles at once, so that the order of compiling is the one of this folder.
    compiling: Arc<Semaphore>,
    /// Why the folder could not be read in the last scan.
    unreadable: Option<String>,
}

impl Folder {
    /// Watches the folder until the host stops.
    pub(crate) async fn run(self) {
        let hint = Arc::new(Notify::new());
        let stopping = self.stopping.clone();
        let settings = Arc::clone(self.plugins.catalog().settings());
        let loader = Loader {
            engine: Arc::clone(&self.engine),
            listener: self.listener.clone(),
            free_bytes: Arc::new(Semaphore::new(LOADING_BYTES_MAX)),
        };
        let mut state = State {
            folder: self,
            files: BTreeMap::new(),
            contents: Contents { settings, ..Contents::default() },
            earlier: EarlierPlugins::default(),
            is_new: false,
            listed: None,
            loads: JoinSet::new(),
            watch: None,
            hint: Arc::clone(&hint),
            loader,
            compiling: Arc::new(Semaphore::new(bounds::COMPILES_AT_ONCE)),
            unreadable: None,
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = state.watch(&hint) => {}
        }
    }
}

impl State {
    async fn watch(&mut self, hint: &Notify) {
        let mut scanned = Instant::now();
        self.scan().await;
        loop {
            self.publish();
            self.report_first_scan();
            let pause = if self.is_settled() && self.contents.open { self.folder.rescan } else { QUIET };
            // Files that need not be compiled come first, and are not slowed down by those that must.
            let waits = self.contents.open && self.next_to_compile().is_some();
            let compiling = Arc::clone(&self.compiling);
            let retry = self.files.values().filter_map(File::next_retry).min();
            tokio::select! {
                Some(loaded) = self.loads.join_next() => self.load_ended(loaded),
                Some(request) = self.folder.changes.recv() => self.handle_request(request).await,
                Ok(permit) = compiling.acquire_owned(), if waits => self.compile(permit),
                () = hint.notified() => {
                    tokio::time::sleep_until((scanned + HINT_PAUSE).into()).await;
                    self.scan().await;
                    scanned = Instant::now();
                }
                () = tokio::time::sleep_until(retry.unwrap_or(scanned).into()), if retry.is_some() => self.handle_ready(),
                () = tokio::time::sleep_until((scanned + pause).into()) => {
                    self.scan().await;
                    scanned = Instant::now();
                }
            }
        }
    }

    /// Returns true if a scan a moment later would find nothing new, and watches tell of what comes later. Nothing watches a folder
    /// that is away.
    fn is_settled(&self) -> bool {
        self.unreadable.is_none()
            && self.files.values().all(|file| !file.missing && (file.loading.is_some() || !file.is_pending()))
    }

    fn report_first_scan(&self) {
        let none_pending = self.files.values().all(|file| !file.missing && !file.is_pending());
        let done = none_pending && self.listed.is_some() && self.unreadable.is_none();
        if done && !*self.folder.first_scan.borrow() {
            self.folder.listener.notify(&Notice::FirstScanDone {
                loaded: self.contents.plugins.len(),
                refused: self.contents.refused.len(),
            });
            self.folder.first_scan.send_replace(true);
        }
    }

    /// Scans the folder once.
    async fn scan(&mut self) {
        let (dir, watch) = (self.folder.dir.clone(), self.watch.take());
        let new = || FolderWatch::new(Arc::clone(&self.hint), self.folder.listener.clone());
        let mut watch = watch.unwrap_or_else(new);
        let listed = tokio::task::spawn_blocking(move || {
            watch.renew(&dir);
            (watch, list(&dir))
        });
        let listed = listed.await.map_err(std::io::Error::other).and_then(|(watch, listed)| {
            self.watch = Some(watch);
            listed
        });
        let found = match listed {
            Ok(found) => found,
            // A folder that is away for a moment retires no plugin.
            Err(error) => return self.unreadable(&error),
        };
        self.unreadable = None;
        self.listed.get_or_insert_with(Instant::now);
        self.update_files(found);
        self.retire_missing();
        self.handle_ready();
    }

    fn handle_ready(&mut self) {
        for (path, stamp, kind) in self.ready() {
            self.handle(path, stamp, kind);
        }
    }

    fn unreadable(&mut self, error: &std::io::Error) {
        let why = format!("could not read the plugin folder {}: {error}", self.folder.dir.display());
        if self.unreadable.as_ref() != Some(&why) {
            self.folder.listener.notify(&Notice::FolderUnreadable { why: why.clone() });
            self.unreadable = Some(why);
        }
    }

    /// Compares the files that were found with those that are known.
    fn update_files(&mut self, found: Vec<Found>) {
        let (now, seen) = (Instant::now(), self.folder.store.now());
        let mut gone: Vec<PathBuf> = self.files.keys().cloned().collect();
        for Found { path, kind, stamp, old, settled } in found {
            gone.retain(|known| *known != path);
            match self.files.get_mut(&path) {
                Some(file) if file.stamp == stamp => {
                    file.quiet |= old || now >= file.since + QUIET;
                    file.missing = false;
                }
                Some(file) => {
                    // One half of a pair may come after the other; a component that has always been alone waits for nothing.
                    let is_pair = file.stamp.has_manifest() || stamp.has_manifest();
                    let old = old && (settled || !is_pair);
                    (file.stamp, file.kind, file.since, file.quiet, file.missing) = (stamp, kind, now, old, false);
                    (file.seen, file.retry) = (seen, None);
                    // As it was before, it is not compiled any more.
                    file.loading = file.loading.filter(|(_, step)| *step != Step::WaitingToCompile);
                }
                None => {
                    // Its manifest may come after it.
                    let (since, quiet, missing) = (now, old && settled, false);
                    let (handled, loading, retry) = (None, None, None);
                    self.files.insert(path, File { kind, stamp, since, seen, quiet, missing, handled, loading, retry });
                }
            }
        }
        for path in gone {
            let Some(file) = self.files.get_mut(&path) else { continue };
            // A file that is replaced by removing and writing it is soon back.
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
            self.contents.plugins.iter().filter(|(_, loaded)| gone(loaded)).map(|(id, _)| id.clone()).collect();
        let refused = self.contents.refused.len();
        self.contents.refused.retain(|path, _| files.contains_key(path));
        self.is_new |= !retired.is_empty() || self.contents.refused.len() != refused;
        for plugin in retired {
            self.earlier.extend(self.contents.plugins.remove(&plugin).map(|loaded| loaded.plugin));
            self.folder.listener.notify(&Notice::PluginRetired { plugin });
        }
    }

    /// Returns the files that are complete and neither loaded nor refused as they are, and those to be loaded again, the
    /// smallest first.
    fn ready(&self) -> Vec<(PathBuf, Stamp, Kind)> {
        let now = Instant::now();
        let is_new = |file: &File| file.quiet && !file.missing && file.loading.is_none() && file.is_pending();
        let is_due = |file: &File| file.next_retry().is_some_and(|at| at <= now);
        let files = self.files.iter().filter(|(_, file)| is_new(file) || is_due(file));
        let mut files: Vec<_> = files.map(|(path, file)| (path.clone(), file.stamp, file.kind.clone())).collect();
        files.sort_by_key(|(_, stamp, _)| stamp.bytes);
        files
    }

    fn handle(&mut self, path: PathBuf, stamp: Stamp, kind: Kind) {
        let settings = Arc::clone(&self.contents.settings);
        let refused = |plugin, why: LoadError| LoadResult {
            file: path.clone(),
            stamp,
            plugin,
            settings: Arc::clone(&settings),
            outcome: LoadOutcome::Refused(why),
            took: Duration::ZERO,
        };
        match kind {
            Kind::Refused(problem) => self.loaded(refused(None, problem.into())),
            Kind::Component(id) => {
                let loaded = &self.contents.plugins;
                let loading = self.files.values().filter(|file| file.loading.is_some()).count();
                if !loaded.contains_key(&id) && loaded.len() + loading >= bounds::PLUGINS_MAX {
                    let problem =
                        Problem::new(format!("too many plugins are loaded; the limit is {}", bounds::PLUGINS_MAX));
                    let problem = problem.hint("remove other files from the plugin folder");
                    return self.loaded(refused(Some(id), LoadError::passing(problem)));
                }
                if stamp.bytes > bounds::COMPONENT_BYTES_MAX {
                    let max = bounds::COMPONENT_BYTES_MAX;
                    let problem = Problem::new(format!("file is {} bytes; the limit is {max}", stamp.bytes));
                    return self.loaded(refused(
                        Some(id),
                        problem.hint("build it with optimizations and without debug information").into(),
                    ));
                }
                if let Some(file) = self.files.get_mut(&path) {
                    file.loading = Some((stamp, Step::Reading));
                }
                self.loads.spawn(self.loader.load(path, stamp, id, Arc::clone(&self.contents.settings), None));
            }
        }
    }

    /// Returns the smallest file that waits to be compiled.
    fn next_to_compile(&self) -> Option<(PathBuf, Stamp, PluginId)> {
        let waits = self.files.iter().filter_map(|(path, file)| match (&file.kind, file.loading) {
            (Kind::Component(id), Some((stamp, Step::WaitingToCompile))) if !file.missing => Some((path, stamp, id)),
            _ => None,
        });
        let next = waits.min_by_key(|(_, stamp, _)| stamp.bytes);
        next.map(|(path, stamp, id)| (path.clone(), stamp, id.clone()))
    }

    fn compile(&mut self, permit: OwnedSemaphorePermit) {
        let Some((path, stamp, id)) = self.next_to_compile() else { return };
        if let Some(file) = self.files.get_mut(&path) {
            file.loading = Some((stamp, Step::Compiling));
        }
        self.loads.spawn(self.loader.load(path, stamp, id, Arc::clone(&self.contents.settings), Some(permit)));
    }

    fn load_ended(&mut self, loaded: Result<LoadResult, tokio::task::JoinError>) {
        match loaded {
            Ok(loaded) => self.loaded(loaded),
            Err(error) => {
                // Which file it was is lost with the task: every file that was loading counts as handled until it changes.
                self.folder.listener.notify(&Notice::HostFault { doing: "loading a plugin", why: error.to_string() });
                let is_loading = |file: &File| file.loading.is_some_and(|(_, step)| step != Step::WaitingToCompile);
                for (path, file) in self.files.iter_mut().filter(|(_, file)| is_loading(file)) {
                    file.give_up();
                    if let Some(refused) = self.contents.refused.get_mut(path) {
                        refused.retry = None;
                        self.is_new = true;
                    }
                }
            }
        }
    }

    /// Takes in the result of a load.
    fn loaded(&mut self, loaded: LoadResult) {
        let LoadResult { file: path, stamp, plugin, settings, outcome, took } = loaded;
        // If the file was removed in the meantime, there is nothing to load or to refuse.
        let Some(file) = self.files.get_mut(&path) else { return };
        // If it was removed and put back in the meantime, another load is for the file as it is now.
        if file.loading.is_some_and(|(loading, _)| loading != stamp) {
            return;
        }
        file.loading = None;
        let current = &self.contents.settings;
        let is_outdated = plugin.as_ref().is_some_and(|id| !settings.agree_on(current, id));
        match outcome {
            // It is loaded again, with the settings of now.
            LoadOutcome::Plugin(_) | LoadOutcome::Refused(_) if is_outdated => {
                (file.handled, file.retry) = (None, None);
                return;
            }
            LoadOutcome::Changed => {
                (file.handled, file.retry) = (None, None);
                return;
            }
            LoadOutcome::ToCompile => {
                file.loading = (file.stamp == stamp).then_some((stamp, Step::WaitingToCompile));
                return;
            }
            LoadOutcome::Plugin(_) | LoadOutcome::Refused(_) => file.handled = Some(stamp),
        }
        let is_passing = matches!(&outcome, LoadOutcome::Refused(why) if why.passing);
        file.retry = is_passing.then(|| Retry::after(file.retry));
        let retry = file.retry;
        let since = self.folder.store.now();
        let Contents { plugins, refused, .. } = &mut self.contents;
        match outcome {
            LoadOutcome::Plugin(plugin) => {
                let was_refused = refused.remove(&path).is_some();
                let same = plugins.get(&plugin.id).is_some_and(|loaded| loaded.plugin.digest == plugin.digest);
                self.is_new |= was_refused || !same;
                if !same {
                    self.folder.listener.notify(&Notice::PluginLoaded {
                        plugin: plugin.id.clone(),
                        version: plugin.manifest.version.clone(),
                        digest: plugin.digest.clone(),
                        tasks: plugin.manifest.tasks.len(),
                        topics: plugin.manifest.topics.len(),
                        took,
                    });
                    let before = plugins.insert(plugin.id.clone(), Loaded { plugin, file: path, since });
                    self.earlier.extend(before.map(|loaded| loaded.plugin));
                }
            }
            LoadOutcome::Refused(why) => {
                let kept = plugin.as_ref().is_some_and(|id| plugins.contains_key(id));
                // A failure that goes on is reported once.
                let before = refused.get(&path).filter(|before| before.retry.is_some() && before.why == why);
                if before.is_none() {
                    self.folder.listener.notify(&Notice::PluginRefused {
                        file: path.display().to_string(),
                        why: why.to_string(),
                        kept,
                        passing: why.passing,
                    });
                }
                let retry = retry.map(|retry| since + retry.pause);
                let since = before.map_or(since, |before| before.since);
                refused.insert(path.clone(), Refused { plugin, file: path, why, since, retry });
                self.is_new = true;
            }
            LoadOutcome::Changed | LoadOutcome::ToCompile => {}
        }
    }

    fn pending(&self) -> BTreeMap<PluginId, PendingFile> {
        let pending = self.files.iter().filter(|(_, file)| file.is_pending() && !file.missing);
        let of = |(path, file): (&PathBuf, &File)| match &file.kind {
            Kind::Component(id) => {
                let topics = self.contents.settings.plugin(id).topics.as_ref();
                let topics = topics.map(|topics| topics.iter().map(|topic| topic.0.clone()).collect());
                let awaited = LoadingPlugin { plugin: id.clone(), topics };
                let step = file.loading.map_or(Step::Reading, |(_, step)| step);
                Some((id.clone(), PendingFile { file: path.clone(), since: file.seen, step, awaited }))
            }
            Kind::Refused(_) => None,
        };
        pending.filter_map(of).collect()
    }

    /// Replaces the catalog if what is known now differs from it.
    fn publish(&mut self) {
        let pending = self.pending();
        let waited = self.listed.is_some_and(|at| at.elapsed() >= OPENING_MAX);
        let open = self.contents.open || waited || self.listed.is_some() && self.files.values().all(File::is_decided);
        self.is_new |= pending != self.contents.pending || open != self.contents.open;
        (self.contents.pending, self.contents.open) = (pending, open);
        if !std::mem::take(&mut self.is_new) {
            return;
        }
        let next = self.folder.plugins.catalog().next(self.contents.clone());
        let (any_task, version) = (!next.claimable().is_empty(), next.version());
        self.folder.plugins.set_catalog(next);
        self.folder.changed.send_replace(version);
        // A loop that has ended does not need to know.
        let _ = self.folder.to_loop.send(LoopMessage::Input(Input::CatalogChanged { any_task }));
    }
}
