//! The plugins that are loaded at one moment. A catalog is immutable and replaced whole; readers keep theirs as long as they
//! like.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use wharf_core::bounds;
use wharf_core::ids::{Group, PluginId, TaskName};
use wharf_core::limits::LimitTable;
use wharf_core::node::LoadingPlugin;
use wharf_core::room::TaskCost;
use wharf_core::time::Timestamp;
use wharf_core::topic::{Subscriptions, Topic};
use wharf_engine::{LoadError, Plugin, Task};

use crate::live_settings::LiveSettings;

/// Similarity that a name must have to be suggested, in 0..1.
const SIMILARITY_MIN: f64 = 0.7;

/// A plugin that is loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The plugin.
    pub plugin: Arc<Plugin>,
    /// The file that it was loaded from.
    pub file: PathBuf,
    /// When it was loaded.
    pub since: Timestamp,
}

/// A file in the folder that is not loaded as it is. An earlier version of the same plugin may run.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The plugin; `None` if the file's name is not that of a plugin.
    pub plugin: Option<PluginId>,
    /// The file.
    pub file: PathBuf,
    /// Why it was refused, and what to do.
    pub why: LoadError,
    /// When it was refused.
    pub since: Timestamp,
    /// When it is loaded again, since the reason may have passed by then; `None` if only another file can help.
    pub retry: Option<Timestamp>,
}

/// A file of the folder that is neither loaded nor refused as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingFile {
    /// The file.
    pub file: PathBuf,
    /// When it was first seen.
    pub since: Timestamp,
    /// Step that it has reached.
    pub step: Step,
    /// The plugin that it will be. Its topics are known only if the operator set them; otherwise they are in its manifest, which
    /// is read when it is loaded.
    pub awaited: LoadingPlugin,
}

/// A step of loading a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The file is read and checked, and its compiled code is looked up in the cache.
    Reading,
    /// The file waits until others are compiled.
    WaitingToCompile,
    /// The file is being compiled.
    Compiling,
}

/// The state of the plugin folder at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) plugins: BTreeMap<PluginId, Loaded>,
    pub(crate) refused: BTreeMap<PathBuf, Refused>,
    pub(crate) pending: BTreeMap<PluginId, PendingFile>,
    /// The value of [`Catalog::is_open`].
    pub(crate) open: bool,
    /// The settings that the plugins were made with.
    pub(crate) settings: Arc<LiveSettings>,
}

/// The plugins of a host at one moment, with the files of its plugin folder that are not loaded.
#[derive(Debug, Default)]
pub struct Catalog {
    version: u64,
    contents: Contents,
    claimable: Arc<[(TaskName, Group)]>,
    costs: Arc<HashMap<TaskName, TaskCost>>,
    limits: Arc<LimitTable>,
    subscriptions: Subscriptions<PluginId>,
}

impl Catalog {
    /// Returns the catalog of a host that has loaded nothing yet.
    pub(crate) fn empty(settings: Arc<LiveSettings>) -> Catalog {
        Catalog { contents: Contents { settings, ..Contents::default() }, ..Catalog::default() }
    }

    /// Returns the catalog that follows this one.
    pub(crate) fn next(&self, contents: Contents) -> Catalog {
        let mut limits = LimitTable::default();
        let mut claimable = Vec::new();
        let mut costs = HashMap::new();
        let mut subscriptions = Subscriptions::default();
        for (id, Loaded { plugin, .. }) in &contents.plugins {
            for task in runs(plugin) {
                limits.declare(task.group.clone(), task.limits);
                // Before the catalog is open, a job might need a plugin that is loaded a moment later.
                if contents.open && task.memory_bytes <= plugin.memory_most() {
                    claimable.push((task.name.clone(), task.group.clone()));
                    let bytes = plugin.start_bytes.min(task.memory_bytes.saturating_add(bounds::ATTEMPT_BYTES));
                    costs.insert(task.name.clone(), TaskCost { sandboxes: plugin.sandboxes, bytes });
                }
            }
            plugin.manifest.topics.iter().for_each(|pattern| subscriptions.add(pattern, id.clone()));
        }
        let (version, claimable, limits) = (self.version + 1, claimable.into(), Arc::new(limits));
        Catalog { version, contents, claimable, costs: Arc::new(costs), limits, subscriptions }
    }

    /// Returns the version of the catalog, which grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns true if every file of the folder was seen, and all are loaded that need not be compiled. Until then nothing is
    /// known of a plugin that is not loaded, and no job is claimed. Once true, it stays true.
    pub fn is_open(&self) -> bool {
        self.contents.open
    }

    /// Returns the settings that the plugins were made with.
    pub fn settings(&self) -> &Arc<LiveSettings> {
        &self.contents.settings
    }

    /// Returns the loaded plugins.
    pub fn plugins(&self) -> &BTreeMap<PluginId, Loaded> {
        &self.contents.plugins
    }

    /// Returns the files that are being loaded, also those of plugins that run in an earlier version.
    pub fn pending(&self) -> &BTreeMap<PluginId, PendingFile> {
        &self.contents.pending
    }

    /// Returns the plugins that are being loaded and have no earlier version that runs.
    pub fn awaited(&self) -> impl Iterator<Item = &LoadingPlugin> {
        let new = self.pending().iter().filter(|(id, _)| self.plugin(id).is_none());
        new.map(|(_, pending)| &pending.awaited)
    }

    /// Returns the files that were refused, by path.
    pub fn refused(&self) -> &BTreeMap<PathBuf, Refused> {
        &self.contents.refused
    }

    /// Returns a loaded plugin.
    pub fn plugin(&self, id: &PluginId) -> Option<&Loaded> {
        self.contents.plugins.get(id)
    }

    /// Returns why a plugin is not loaded, or why its file as it is now was refused.
    pub fn refusal(&self, id: &PluginId) -> Option<&Refused> {
        self.contents.refused.values().find(|refused| refused.plugin.as_ref() == Some(id))
    }

    /// Returns a task with its plugin. What durable broadcasts call is not among the tasks.
    pub fn task(&self, name: &TaskName) -> Option<(&Arc<Plugin>, &Task)> {
        let plugin = &self.plugin(&name.plugin())?.plugin;
        Some((plugin, plugin.manifest.tasks.get(name.task())?))
    }

    /// Returns all tasks that clients may enqueue.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.plugins().values().flat_map(|loaded| loaded.plugin.manifest.tasks.values())
    }

    /// Returns everything that jobs may run: the tasks, and the `receive` of each subscriber, for durable broadcasts.
    pub fn runs(&self) -> impl Iterator<Item = &Task> {
        self.plugins().values().flat_map(|loaded| runs(&loaded.plugin))
    }

    /// Returns the subscribers of a topic, ordered by plugin.
    pub fn subscribers(&self, topic: &Topic) -> Vec<Arc<Plugin>> {
        let ids = self.subscriptions.of(topic);
        ids.iter().filter_map(|id| self.plugin(id)).map(|loaded| Arc::clone(&loaded.plugin)).collect()
    }

    /// Returns the task whose name is most similar to `text`, if any is similar.
    pub fn nearest_task(&self, text: &str) -> Option<TaskName> {
        nearest(text, self.tasks().map(|task| &task.name), TaskName::as_str).cloned()
    }

    /// Returns the limit group whose name is most similar to `text`, if any is similar.
    pub fn nearest_group(&self, text: &str) -> Option<Group> {
        nearest(text, self.runs().map(|task| &task.group), Group::as_str).cloned()
    }

    /// Returns what this node claims: each task with its limit group.
    pub(crate) fn claimable(&self) -> &Arc<[(TaskName, Group)]> {
        &self.claimable
    }

    /// Returns what an attempt of each claimable task takes at its start.
    pub(crate) fn costs(&self) -> &Arc<HashMap<TaskName, TaskCost>> {
        &self.costs
    }

    /// Returns the limits that manifests and settings declare, without overrides.
    pub fn limits(&self) -> &Arc<LimitTable> {
        &self.limits
    }
}

/// Returns everything that jobs of a plugin may run: its tasks, and its `receive` if it subscribes.
pub(crate) fn runs(plugin: &Plugin) -> impl Iterator<Item = &Task> {
    let manifest = &plugin.manifest;
    manifest.tasks.values().chain(manifest.receive.as_ref().map(|receive| &receive.task))
}

fn nearest<'a, T>(text: &str, known: impl Iterator<Item = &'a T>, name: impl Fn(&T) -> &str) -> Option<&'a T> {
    known
        .map(|one| (strsim::jaro_winkler(text, name(one)), one))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, one)| one)
}
