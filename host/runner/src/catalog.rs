//! The plugins of this moment: immutable, swapped whole. Whoever took a snapshot keeps it as long as it likes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use wharf_core::ids::{Group, PluginId, TaskName};
use wharf_core::limits::LimitTable;
use wharf_core::node::LoadingPlugin;
use wharf_core::time::Timestamp;
use wharf_core::topic::{Subscriptions, Topic};
use wharf_engine::{LoadError, Plugin, Task};

/// How near a name must be to be suggested, in 0..1.
const NEAR: f64 = 0.7;

#[derive(Clone, Debug)]
pub struct Loaded {
    pub plugin: Arc<Plugin>,
    pub file: PathBuf,
    pub since: Timestamp,
}

/// A file in the folder that is not loaded as it is. An earlier version of the same plugin may run.
#[derive(Clone, Debug)]
pub struct Refused {
    /// `None` where the file's name is no plugin's.
    pub plugin: Option<PluginId>,
    pub file: PathBuf,
    pub why: LoadError,
    pub since: Timestamp,
}

/// A file of the folder that is neither loaded nor refused as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingFile {
    pub file: PathBuf,
    /// When it was first seen.
    pub since: Timestamp,
    pub step: Step,
    /// Its topics are known where the operator says them; else its manifest does, which is not known before it is loaded.
    pub awaited: LoadingPlugin,
}

/// How far a file is that is being made a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is read and checked, and taken from what was compiled before if it is there.
    Reading,
    /// Others are being compiled.
    WaitingToCompile,
    Compiling,
}

/// What is known of the plugin folder at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) plugins: BTreeMap<PluginId, Loaded>,
    pub(crate) refused: BTreeMap<PathBuf, Refused>,
    pub(crate) pending: BTreeMap<PluginId, PendingFile>,
    /// See [`Catalog::is_open`].
    pub(crate) open: bool,
}

#[derive(Debug, Default)]
pub struct Catalog {
    version: u64,
    contents: Contents,
    claimable: Arc<[(TaskName, Group)]>,
    limits: Arc<LimitTable>,
    subscriptions: Subscriptions<PluginId>,
}

impl Catalog {
    /// The catalog that follows this one.
    pub(crate) fn next(&self, contents: Contents) -> Catalog {
        let mut limits = LimitTable::default();
        let mut claimable = Vec::new();
        let mut subscriptions = Subscriptions::default();
        for (id, Loaded { plugin, .. }) in &contents.plugins {
            for task in runs(plugin) {
                limits.declare(task.group.clone(), task.limits);
                // Before, a job might need a plugin that is loaded a moment later.
                if contents.open {
                    claimable.push((task.name.clone(), task.group.clone()));
                }
            }
            plugin.manifest.topics.iter().for_each(|pattern| subscriptions.add(pattern, id.clone()));
        }
        let (version, claimable, limits) = (self.version + 1, claimable.into(), Arc::new(limits));
        Catalog { version, contents, claimable, limits, subscriptions }
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether every file of the folder was seen, and all are loaded that need not be compiled. Until then nothing is known
    /// of a plugin that is not loaded, and no job is claimed. From then on it stays so.
    pub fn is_open(&self) -> bool {
        self.contents.open
    }

    pub fn plugins(&self) -> &BTreeMap<PluginId, Loaded> {
        &self.contents.plugins
    }

    /// What is being made ready, also of plugins that run in an earlier version.
    pub fn pending(&self) -> &BTreeMap<PluginId, PendingFile> {
        &self.contents.pending
    }

    /// What is being made ready for the first time.
    pub fn awaited(&self) -> impl Iterator<Item = &LoadingPlugin> {
        let new = self.pending().iter().filter(|(id, _)| self.plugin(id).is_none());
        new.map(|(_, pending)| &pending.awaited)
    }

    /// By file.
    pub fn refused(&self) -> &BTreeMap<PathBuf, Refused> {
        &self.contents.refused
    }

    pub fn plugin(&self, id: &PluginId) -> Option<&Loaded> {
        self.contents.plugins.get(id)
    }

    /// Why a plugin is not there, or not as its file is now.
    pub fn refusal(&self, id: &PluginId) -> Option<&Refused> {
        self.contents.refused.values().find(|refused| refused.plugin.as_ref() == Some(id))
    }

    pub fn task(&self, name: &TaskName) -> Option<(&Arc<Plugin>, &Task)> {
        let plugin = &self.plugin(&name.plugin())?.plugin;
        Some((plugin, plugin.manifest.tasks.get(name.task())?))
    }

    /// What people may enqueue.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.plugins().values().flat_map(|loaded| loaded.plugin.manifest.tasks.values())
    }

    /// All that jobs may be made of: tasks, and what durable broadcasts ask.
    pub fn runs(&self) -> impl Iterator<Item = &Task> {
        self.plugins().values().flat_map(|loaded| runs(&loaded.plugin))
    }

    /// Who subscribes to a topic, by id.
    pub fn subscribers(&self, topic: &Topic) -> Vec<Arc<Plugin>> {
        let ids = self.subscriptions.of(topic);
        ids.iter().filter_map(|id| self.plugin(id)).map(|loaded| Arc::clone(&loaded.plugin)).collect()
    }

    /// The task that someone who wrote `text` may have meant.
    pub fn nearest_task(&self, text: &str) -> Option<TaskName> {
        nearest(text, self.tasks().map(|task| &task.name), TaskName::as_str).cloned()
    }

    /// The limit group that someone who wrote `text` may have meant.
    pub fn nearest_group(&self, text: &str) -> Option<Group> {
        nearest(text, self.runs().map(|task| &task.group), Group::as_str).cloned()
    }

    /// What this node claims: each task with its group.
    pub(crate) fn claimable(&self) -> &Arc<[(TaskName, Group)]> {
        &self.claimable
    }

    /// What manifests and settings declare, without overrides.
    pub fn limits(&self) -> &Arc<LimitTable> {
        &self.limits
    }
}

/// All that a plugin's jobs may be made of.
pub(crate) fn runs(plugin: &Plugin) -> impl Iterator<Item = &Task> {
    let manifest = &plugin.manifest;
    manifest.tasks.values().chain(manifest.receive.as_ref().map(|receive| &receive.task))
}

fn nearest<'a, T>(text: &str, known: impl Iterator<Item = &'a T>, name: impl Fn(&T) -> &str) -> Option<&'a T> {
    known
        .map(|one| (strsim::jaro_winkler(text, name(one)), one))
        .filter(|(nearness, _)| *nearness >= NEAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, one)| one)
}
