//! The settings that may change while a host runs. They are one value, which is replaced whole, with the catalog that was
//! made of them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use wharf_core::bounds;
use wharf_core::ids::PluginId;
use wharf_core::keep::{Keep, KeepRules};
use wharf_core::schedule::FileSchedules;
use wharf_engine::{PluginSettings, Problem};

/// The settings of a host that take effect at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSettings {
    /// The maximum number of jobs of one plugin that wait, unless its settings say otherwise.
    pub waiting_max: u32,
    /// The maximum number of generations of jobs that enqueue one another, unless the plugin's settings say otherwise.
    pub generations_max: u32,
    /// How long finished jobs are kept, unless the settings of their task say otherwise.
    pub keep: Keep,
    /// The operator's settings for single plugins.
    pub plugins: BTreeMap<PluginId, PluginSettings>,
    /// The schedules of the settings file.
    pub schedules: FileSchedules,
    /// The digest of the settings on which all hosts of a store should agree. Other nodes show it.
    pub digest: String,
}

impl Default for LiveSettings {
    fn default() -> LiveSettings {
        LiveSettings {
            waiting_max: bounds::JOBS_WAITING_DEFAULT,
            generations_max: bounds::GENERATIONS_DEFAULT,
            keep: Keep::default(),
            plugins: BTreeMap::new(),
            schedules: FileSchedules::default(),
            digest: String::new(),
        }
    }
}

/// The settings of a plugin without a section.
static NONE: LazyLock<PluginSettings> = LazyLock::new(PluginSettings::default);

impl LiveSettings {
    /// Returns the settings of a plugin.
    pub(crate) fn plugin(&self, id: &PluginId) -> &PluginSettings {
        self.plugins.get(id).unwrap_or(&NONE)
    }

    /// Returns true if both have the same settings for a plugin.
    pub(crate) fn agree_on(&self, other: &LiveSettings, id: &PluginId) -> bool {
        self.plugin(id) == other.plugin(id)
    }

    /// Returns how long finished jobs are kept. A section for a plugin that is not loaded counts, too: another host may have it.
    pub(crate) fn keep_rules(&self) -> KeepRules {
        let tasks = self.plugins.iter().flat_map(|(plugin, settings)| {
            settings.tasks.iter().filter_map(move |(task, raw)| {
                let name = format!("{plugin}/{task}").parse().ok()?;
                Some((name, raw.keep(self.keep)?))
            })
        });
        KeepRules { of_all: self.keep, of_tasks: tasks.collect() }
    }

    /// Returns the maximum number of jobs of a plugin that wait.
    pub(crate) fn waiting_max_of(&self, id: &PluginId) -> u64 {
        self.plugin(id).waiting_max.unwrap_or(self.waiting_max).into()
    }

    /// Returns how many generations of jobs may enqueue one another until one of a plugin.
    pub(crate) fn generations_max_of(&self, id: &PluginId) -> u32 {
        self.plugin(id).generations_max.unwrap_or(self.generations_max)
    }
}

/// The loaded plugins whose settings were changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsChanges {
    /// The plugins that go on with their new settings.
    pub changed: Vec<PluginId>,
    /// The plugins that are refused with their new settings.
    pub refused: Vec<PluginId>,
}

/// Why settings did not take effect: everything stays as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsRejection {
    /// They do not fit plugins that are loaded.
    Invalid(Vec<(PluginId, Vec<Problem>)>),
    /// The host is stopping.
    Stopping,
}
