//! The settings of a running host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::moment::Moment;
use crate::config::ShownSetting;

/// The settings that a host has, and what of its settings file does not hold.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Config {
    /// Every setting as it holds on this host.
    pub(crate) settings: Vec<ConfigSetting>,
    /// Digest of the settings that all hosts of a store should share, without secrets and without what belongs to one machine.
    pub(crate) digest: String,
    /// When the settings were read that hold.
    pub(crate) read_at: Moment,
    /// Why the settings file is refused as it is now; null if it is not. The settings stay as they were before.
    pub(crate) refused: Option<ConfigRefusal>,
    /// Keys of settings that were changed and take effect when the host is started again.
    pub(crate) restart: Vec<String>,
}

/// One setting.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ConfigSetting {
    /// Key, such as `attempts.at-once` or `plugins.words.http`.
    pub(crate) key: String,
    /// Value as it is written; a mask in place of a secret.
    pub(crate) value: String,
    /// Source of the value: a file with line and column, an environment variable, a flag, or the default.
    pub(crate) from: String,
    /// Purpose of the setting; absent for settings of plugins and tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) about: Option<String>,
}

/// The refusal of a settings file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ConfigRefusal {
    /// Mistakes in the file, each with file, line and column.
    pub(crate) why: String,
    /// When the file was first refused.
    pub(crate) since: Moment,
}

impl From<ShownSetting> for ConfigSetting {
    fn from(setting: ShownSetting) -> ConfigSetting {
        let about = Some(setting.about).filter(|about| !about.is_empty()).map(str::to_owned);
        ConfigSetting { key: setting.key, value: setting.value, from: setting.from, about }
    }
}
