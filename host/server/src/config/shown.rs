//! Settings as people see them: each value with its source, and without secrets.

use wharf_store::without_password;

use super::raw::RawSettings;
use super::table::SETTINGS;

const MASK: &str = "(set, not shown)";

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownSetting {
    /// The key, such as "attempts.at-once" or "plugins.words.http".
    pub(crate) key: String,
    /// The value as it is written, or a mask in place of a secret.
    pub(crate) value: String,
    /// The source: a file with line and column, a variable, a flag, or the default.
    pub(crate) from: String,
    /// The purpose; empty for settings of plugins and tokens.
    pub(crate) about: &'static str,
}

/// Returns every setting.
pub(crate) fn shown(raw: &RawSettings) -> Vec<ShownSetting> {
    let settings = SETTINGS.iter().map(|setting| {
        let (value, origin) = raw.of(setting.key);
        let value = match setting.key {
            _ if setting.secret && !value.is_empty() => MASK.to_owned(),
            "store" | "host" => without_password(value),
            _ => value.to_owned(),
        };
        ShownSetting { key: setting.key.to_owned(), value, from: origin.to_string(), about: setting.about }
    });
    let plugins = raw.plugins.iter().flat_map(|section| &section.shown);
    let tokens = raw.tokens.iter().flat_map(|section| &section.shown);
    let schedules = raw.schedules.iter().flat_map(|section| &section.shown);
    let secrets = raw.secrets.iter().flat_map(|section| &section.shown);
    let sections = plugins.chain(tokens).chain(schedules).chain(secrets).map(|(key, value, origin)| ShownSetting {
        key: key.clone(),
        value: value.clone(),
        from: origin.to_string(),
        about: "",
    });
    settings.chain(sections).collect()
}
