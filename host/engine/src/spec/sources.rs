//! The parts of a plugin's manifest: what the component itself says, and what is said of it beside it. Of two parts that say the
//! same thing the later one holds; the operator's settings come after them all.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wharf_core::bounds;
use wharf_core::ids::PluginId;

use crate::spec::function_task::FunctionTask;
use crate::spec::problem::Problem;
use crate::spec::raw::{RawManifest, RawTask};
use crate::spec::toml_diagnostics;

/// The origin of a part of a manifest, in the order of precedence: the last one holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The functions that the component exports.
    Exports,
    /// The text that the component's `describe` returns.
    Describe,
    /// The component's custom section, which `wharf pack --manifest` writes.
    Section,
    /// The file `NAME.toml` beside `NAME.wasm`.
    File,
    /// The operator's settings.
    Settings,
}

impl Origin {
    /// Returns the name for users.
    pub fn name(self, plugin: &PluginId) -> Cow<'static, str> {
        match self {
            Origin::Exports => "its exports".into(),
            Origin::Describe => "manifest".into(),
            Origin::Section => "its section `wharf-manifest`".into(),
            Origin::File => format!("{plugin}.toml").into(),
            Origin::Settings => "wharf.toml".into(),
        }
    }
}

/// The way in which a task's code is called.
#[derive(Clone, Debug)]
pub enum TaskKind {
    /// A call of the plugin's handler by the contract: it gets the payload as it is.
    Contract,
    /// A program: the payload is its standard input, and its standard output is the result.
    Program,
    /// A function with types of its own: the payload is JSON of its parameters, and the result is JSON of its result.
    Function(Arc<FunctionTask>),
}

/// All parts of a plugin's manifest but the operator's.
#[derive(Clone, Debug)]
pub(crate) struct ManifestSources {
    /// The tasks that the exports are, if the component does not have our contract.
    pub(crate) plain: Option<PlainTasks>,
    /// The texts, those that hold last.
    pub(crate) texts: Vec<(Origin, Arc<str>)>,
}

/// The tasks of a component that knows nothing of the contract.
#[derive(Clone, Debug)]
pub(crate) struct PlainTasks {
    /// The version of a plugin that says none.
    pub(crate) version: String,
    /// The tasks in the order of the exports.
    pub(crate) tasks: Vec<(String, TaskKind)>,
}

/// A manifest of all parts.
pub(crate) struct Merged {
    pub(crate) raw: RawManifest,
    /// The kind of each task that is not called by the contract.
    pub(crate) kinds: BTreeMap<String, TaskKind>,
    /// The keys of each task that are set, with the part that set them last.
    pub(crate) origins: BTreeMap<String, BTreeMap<&'static str, Origin>>,
    /// Exports that are no tasks because there are too many.
    pub(crate) too_many: usize,
}

impl ManifestSources {
    /// The parts of a plugin that has our contract.
    pub(crate) fn described(text: impl Into<Arc<str>>) -> ManifestSources {
        ManifestSources { plain: None, texts: vec![(Origin::Describe, text.into())] }
    }

    /// Merges all parts. Of more exports than there may be tasks, those are tasks first that a part or the operator's settings
    /// name.
    ///
    /// # Errors
    /// The problems of all texts.
    pub(crate) fn merge(
        &self,
        plugin: &PluginId,
        operator: &BTreeMap<String, RawTask>,
    ) -> Result<Merged, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut layers = Vec::new();
        for (origin, text) in &self.texts {
            match read(*origin, plugin, text) {
                Ok(raw) => layers.push((*origin, raw)),
                Err(found) => problems.extend(found),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let (mut raw, mut kinds, mut too_many) = (RawManifest::default(), BTreeMap::new(), 0);
        if let Some(plain) = &self.plain {
            let named: BTreeSet<&str> = layers
                .iter()
                .flat_map(|(_, layer)| layer.tasks.keys())
                .chain(operator.keys())
                .map(String::as_str)
                .collect();
            kinds = plain.chosen(&named);
            too_many = plain.tasks.len() - kinds.len();
            raw.name = Some(plugin.to_string());
            raw.version = Some(plain.version.clone());
            raw.tasks = kinds.keys().map(|task| (task.clone(), RawTask::default())).collect();
            for (origin, layer) in &layers {
                problems.extend(layer.tasks.keys().filter(|task| !kinds.contains_key(*task)).map(|task| {
                    if plain.tasks.iter().any(|(name, _)| name == task) {
                        let max = bounds::TASKS_MAX;
                        let what =
                            format!("{}: the task `{task}` is one too many; the limit is {max}", origin.name(plugin));
                        return Problem::new(what).hint("name fewer tasks");
                    }
                    let known = || plain.tasks.iter().map(|(name, _)| name.as_str());
                    let hint = toml_diagnostics::nearest(task, known()).map_or_else(
                        || format!("its tasks: {}", known().take(20).collect::<Vec<_>>().join(", ")),
                        |near| format!("did you mean `{near}`?"),
                    );
                    Problem::new(format!("{}: unknown task `{task}`", origin.name(plugin))).hint(hint)
                }));
            }
        }
        let mut origins: BTreeMap<String, BTreeMap<&'static str, Origin>> = BTreeMap::new();
        for (origin, layer) in layers {
            for (task, settings) in &layer.tasks {
                let its = origins.entry(task.clone()).or_default();
                its.extend(settings.keys().into_iter().map(|key| (key, origin)));
            }
            raw = raw.under(layer);
        }
        if problems.is_empty() { Ok(Merged { raw, kinds, origins, too_many }) } else { Err(problems) }
    }
}

impl PlainTasks {
    /// Returns the exports that are tasks: all, or as many as there may be.
    fn chosen(&self, named: &BTreeSet<&str>) -> BTreeMap<String, TaskKind> {
        let (first, rest): (Vec<_>, Vec<_>) = self.tasks.iter().partition(|(name, _)| named.contains(name.as_str()));
        first.into_iter().chain(rest).take(bounds::TASKS_MAX).cloned().collect()
    }
}

fn read(origin: Origin, plugin: &PluginId, text: &str) -> Result<RawManifest, Vec<Problem>> {
    let place = origin.name(plugin);
    if text.len() as u64 > bounds::MANIFEST_BYTES_MAX {
        let size = bytesize::ByteSize(text.len() as u64).display().iec();
        let max = bytesize::ByteSize(bounds::MANIFEST_BYTES_MAX).display().iec();
        let what = match origin {
            Origin::Describe => "the manifest".to_owned(),
            _ => place.clone().into_owned(),
        };
        return Err(vec![Problem::new(format!("{what} is {size}; the limit is {max}"))]);
    }
    let within = |found: Vec<Problem>| found.into_iter().map(|problem| problem.within(&place)).collect();
    let raw: RawManifest = toml_diagnostics::read(text).map_err(within)?;
    let keeps = raw.tasks.iter().flat_map(|(task, raw)| raw.keys().into_iter().map(move |key| (task, key)));
    let problems: Vec<Problem> = keeps
        .filter(|(_, key)| key.starts_with("keep-"))
        .map(|(task, key)| {
            Problem::new(format!("`{key}` of the task `{task}`: only the operator says how long jobs are kept"))
                .hint(format!("set {key} under [plugins.{plugin}.tasks.{task}] in wharf.toml"))
        })
        .collect();
    if problems.is_empty() { Ok(raw) } else { Err(within(problems)) }
}
