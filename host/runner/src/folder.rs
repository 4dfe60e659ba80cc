//! The plugin folder: what comes, changes and goes.
//!
//! Watching is a hint, a slow rescan is the truth. One task owns all that is known of the folder; it alone swaps the catalog.
//! Files are read and plugins made in tasks beside it, so that a slow one delays no other: each file is first looked for among
//! what was compiled before; those that are not there are compiled afterwards, the smallest first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::ids::PluginId;
use wharf_core::node::LoadingPlugin;
use wharf_core::planner::Input;
use wharf_core::time::Timestamp;
use wharf_engine::{Engine, PluginSettings, Problem};
use wharf_store::Store;

use crate::catalog::{Catalog, Contents, Loaded, PendingFile, Refused, Step};
use crate::dir_scan::{Found, Kind, QUIET, Stamp, list};
use crate::loop_message::LoopMessage;
use crate::notice::{Listener, Notice};

/// A burst of hints is one scan.
const HINTS_EVERY: Duration = Duration::from_millis(50);
/// Bytes of components that are being loaded at once.
const LOADING_BYTES_MAX: usize = 256 << 20;
/// A file that takes longer after the first look does not keep the others waiting: it counts as one that has to be compiled.
const OPENING_MAX: Duration = Duration::from_secs(5);

mod load;

use load::{Came, Made};

pub(crate) struct Folder {
    pub(crate) dir: PathBuf,
    pub(crate) rescan: Duration,
    pub(crate) settings: Arc<BTreeMap<PluginId, PluginSettings>>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) catalog: Arc<ArcSwap<Catalog>>,
    pub(crate) words: UnboundedSender<LoopMessage>,
    pub(crate) first_scan: watch::Sender<bool>,
    /// The catalog's version.
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) stopping: CancellationToken,
    pub(crate) tell: Listener,
}

/// A file as it is known.
struct File {
    kind: Kind,
    stamp: Stamp,
    /// When it was first seen as it is.
    since: Instant,
    /// The same, for people.
    seen: Timestamp,
    quiet: bool,
    /// It was gone at the last look; at the next it is believed.
    missing: bool,
    /// As it was when it was last loaded or refused.
    handled: Option<Stamp>,
    /// As it was when the load began that is on its way, and how far that is.
    loading: Option<(Stamp, Step)>,
}

impl File {
    /// It is neither loaded nor refused as it is now.
    fn is_coming(&self) -> bool {
        self.handled != Some(self.stamp)
    }

    /// Others need not wait for it: it is handled, or takes long.
    fn is_decided(&self) -> bool {
        !self.is_coming() || self.loading.is_some_and(|(_, step)| step != Step::Reading)
    }
}

/// All that the task owns.
struct State {
    folder: Folder,
    files: BTreeMap<PathBuf, File>,
    /// What the catalog is made of.
    contents: Contents,
    /// It differs from what is in the catalog.
    is_new: bool,
    /// When the folder was first listed.
    listed: Option<Instant>,
    loads: JoinSet<Made>,
    loading_bytes: Arc<Semaphore>,
    /// For those that are compiled: no more than the engine compiles at once, so that they begin in this folder's order.
    compiling: Arc<Semaphore>,
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
            contents: Contents::default(),
            is_new: false,
            listed: None,
            loads: JoinSet::new(),
            loading_bytes: Arc::new(Semaphore::new(LOADING_BYTES_MAX)),
            compiling: Arc::new(Semaphore::new(bounds::COMPILES_AT_ONCE)),
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
            self.publish();
            self.say_when_first_scan_is_done();
            let rest = if self.is_settled() && self.contents.open { self.folder.rescan } else { QUIET };
            // What need not be compiled comes first, and is not slowed down by what must.
            let waits = self.contents.open && self.next_to_compile().is_some();
            let compiling = Arc::clone(&self.compiling);
            tokio::select! {
                Some(made) = self.loads.join_next() => self.take(made),
                Ok(slot) = compiling.acquire_owned(), if waits => self.compile(slot),
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
        self.files.values().all(|file| !file.missing && (file.loading.is_some() || !file.is_coming()))
    }

    fn say_when_first_scan_is_done(&self) {
        let none_comes = self.files.values().all(|file| !file.missing && !file.is_coming());
        let done = none_comes && self.listed.is_some() && self.trouble.is_none();
        if done && !*self.folder.first_scan.borrow() {
            (self.folder.tell)(&Notice::FirstScanDone {
                loaded: self.contents.plugins.len(),
                refused: self.contents.refused.len(),
            });
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
        self.listed.get_or_insert_with(Instant::now);
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
        let (now, seen) = (Instant::now(), self.folder.store.now());
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
                    file.seen = seen;
                    // As it was it is compiled no more.
                    file.loading = file.loading.filter(|(_, step)| *step != Step::WaitingToCompile);
                }
                None => {
                    let (since, quiet, missing, handled, loading) = (now, old, false, None, None);
                    self.files.insert(path, File { kind, stamp, since, seen, quiet, missing, handled, loading });
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
            self.contents.plugins.iter().filter(|(_, loaded)| gone(loaded)).map(|(id, _)| id.clone()).collect();
        let refused = self.contents.refused.len();
        self.contents.refused.retain(|path, _| files.contains_key(path));
        self.is_new |= !retired.is_empty() || self.contents.refused.len() != refused;
        for plugin in retired {
            self.contents.plugins.remove(&plugin);
            (self.folder.tell)(&Notice::PluginRetired { plugin });
        }
    }

    /// Files that are quiet and not yet handled as they are, the smallest first.
    fn ready(&self) -> Vec<(PathBuf, Stamp, Kind)> {
        let ready = |file: &&File| file.quiet && !file.missing && file.loading.is_none() && file.is_coming();
        let files = self.files.iter().filter(|(_, file)| ready(file));
        let mut files: Vec<_> = files.map(|(path, file)| (path.clone(), file.stamp, file.kind.clone())).collect();
        files.sort_by_key(|(_, stamp, _)| stamp.bytes);
        files
    }

    fn handle(&mut self, path: PathBuf, stamp: Stamp, kind: Kind) {
        let refuse = |plugin, problem: Problem| Made {
            file: path.clone(),
            stamp,
            plugin,
            came: Came::Refused(problem.into()),
            took: Duration::ZERO,
        };
        match kind {
            Kind::NotForUs(problem) => self.made(refuse(None, problem)),
            Kind::Component(id) => {
                let loaded = &self.contents.plugins;
                let loading = self.files.values().filter(|file| file.loading.is_some()).count();
                if !loaded.contains_key(&id) && loaded.len() + loading >= bounds::PLUGINS_MAX {
                    let problem =
                        Problem::new(format!("{} plugins are loaded, which is the most", bounds::PLUGINS_MAX));
                    return self.made(refuse(Some(id), problem.hint("remove others, or give this host fewer")));
                }
                if stamp.bytes > bounds::COMPONENT_BYTES_MAX {
                    let max = bounds::COMPONENT_BYTES_MAX / bounds::MIB;
                    let problem = Problem::new(format!("it has {} bytes; {max} MiB is the most", stamp.bytes));
                    return self
                        .made(refuse(Some(id), problem.hint("build it optimised and without debug information")));
                }
                if let Some(file) = self.files.get_mut(&path) {
                    file.loading = Some((stamp, Step::Reading));
                }
                self.loads.spawn(self.load(path, stamp, id, None));
            }
        }
    }

    /// The smallest of those that wait.
    fn next_to_compile(&self) -> Option<(PathBuf, Stamp, PluginId)> {
        let waits = self.files.iter().filter_map(|(path, file)| match (&file.kind, file.loading) {
            (Kind::Component(id), Some((stamp, Step::WaitingToCompile))) if !file.missing => Some((path, stamp, id)),
            _ => None,
        });
        let next = waits.min_by_key(|(_, stamp, _)| stamp.bytes);
        next.map(|(path, stamp, id)| (path.clone(), stamp, id.clone()))
    }

    fn compile(&mut self, slot: OwnedSemaphorePermit) {
        let Some((path, stamp, id)) = self.next_to_compile() else { return };
        if let Some(file) = self.files.get_mut(&path) {
            file.loading = Some((stamp, Step::Compiling));
        }
        self.loads.spawn(self.load(path, stamp, id, Some(slot)));
    }

    fn take(&mut self, made: Result<Made, tokio::task::JoinError>) {
        match made {
            Ok(made) => self.made(made),
            Err(error) => {
                // Which file it was is lost with the task: all that were loading are looked at again.
                (self.folder.tell)(&Notice::HostFault { doing: "loading a plugin", why: error.to_string() });
                let is_loading =
                    |file: &&mut File| file.loading.is_some_and(|(_, step)| step != Step::WaitingToCompile);
                let unfinished = self.files.values_mut().filter(is_loading);
                unfinished.for_each(|file| (file.loading, file.handled) = (None, Some(file.stamp)));
            }
        }
    }

    fn made(&mut self, made: Made) {
        let Made { file: path, stamp, plugin, came, took } = made;
        // Removed in the meantime: nothing to load, nothing to refuse.
        let Some(file) = self.files.get_mut(&path) else { return };
        // Removed and put back in the meantime: another load speaks for the file as it is now.
        if file.loading.is_some_and(|(loading, _)| loading != stamp) {
            return;
        }
        file.loading = None;
        match came {
            Came::Changed => return,
            Came::ToCompile => {
                file.loading = (file.stamp == stamp).then_some((stamp, Step::WaitingToCompile));
                return;
            }
            Came::Plugin(_) | Came::Refused(_) => file.handled = Some(stamp),
        }
        let since = self.folder.store.now();
        let Contents { plugins, refused, .. } = &mut self.contents;
        match came {
            Came::Plugin(plugin) => {
                let forgiven = refused.remove(&path).is_some();
                let same = plugins.get(&plugin.id).is_some_and(|loaded| loaded.plugin.digest == plugin.digest);
                self.is_new |= forgiven || !same;
                if !same {
                    (self.folder.tell)(&Notice::PluginLoaded {
                        plugin: plugin.id.clone(),
                        version: plugin.manifest.version.clone(),
                        digest: plugin.digest.clone(),
                        tasks: plugin.manifest.tasks.len(),
                        topics: plugin.manifest.topics.len(),
                        took,
                    });
                    plugins.insert(plugin.id.clone(), Loaded { plugin, file: path, since });
                }
            }
            Came::Refused(why) => {
                let kept = plugin.as_ref().is_some_and(|id| plugins.contains_key(id));
                (self.folder.tell)(&Notice::PluginRefused {
                    file: path.display().to_string(),
                    why: why.to_string(),
                    kept,
                });
                refused.insert(path.clone(), Refused { plugin, file: path, why, since });
                self.is_new = true;
            }
            Came::Changed | Came::ToCompile => {}
        }
    }

    fn pending(&self) -> BTreeMap<PluginId, PendingFile> {
        let pending = self.files.iter().filter(|(_, file)| file.is_coming() && !file.missing);
        let of = |(path, file): (&PathBuf, &File)| match &file.kind {
            Kind::Component(id) => {
                let topics = self.folder.settings.get(id).and_then(|settings| settings.topics.as_ref());
                let topics = topics.map(|topics| topics.iter().map(|topic| topic.0.clone()).collect());
                let awaited = LoadingPlugin { plugin: id.clone(), topics };
                let step = file.loading.map_or(Step::Reading, |(_, step)| step);
                Some((id.clone(), PendingFile { file: path.clone(), since: file.seen, step, awaited }))
            }
            Kind::NotForUs(_) => None,
        };
        pending.filter_map(of).collect()
    }

    /// Makes what is known now the catalog, if that differs.
    fn publish(&mut self) {
        let pending = self.pending();
        let waited = self.listed.is_some_and(|at| at.elapsed() >= OPENING_MAX);
        let open = self.contents.open || waited || self.listed.is_some() && self.files.values().all(File::is_decided);
        self.is_new |= pending != self.contents.pending || open != self.contents.open;
        (self.contents.pending, self.contents.open) = (pending, open);
        if !std::mem::take(&mut self.is_new) {
            return;
        }
        let next = self.folder.catalog.load().next(self.contents.clone());
        let (any_task, version) = (!next.claimable().is_empty(), next.version());
        self.folder.catalog.store(Arc::new(next));
        self.folder.changed.send_replace(version);
        // A host that has stopped does not need to know.
        let _ = self.folder.words.send(LoopMessage::Input(Input::CatalogChanged { any_task }));
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
