//! The first step: collects every setting as it is written, with its source.

use std::backtrace::Backtrace;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use wharf_core::ids::{PluginId, ScheduleId};
use wharf_core::schedule::ScheduleSpec;
use wharf_core::time::Timestamp;
use wharf_engine::PluginSettings;
use wharf_engine::spec::secret::{Secret, SecretName};
use wharf_store::{Clock as _, SystemClock};

use super::environment::Environment;
use super::file::{self, FileValues, PluginSection};
use super::origin::{Origin, Problems, nearest};
use super::outside;
use super::schedules::ScheduleSection;
use super::secret_values;
use super::secrets::SecretSection;
use super::table::{SETTINGS, Setting, find, variable};
use super::tokens::TokenSection;

/// The settings file that is read from the working directory if no other is named.
const FILE: &str = "wharf.toml";
/// The variable that names the settings file.
const CONFIG: &str = "WHARF__CONFIG";

/// The settings on a command line, in the order of the flags.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) config: Option<PathBuf>,
    /// No file is read, not even the one that the environment names.
    pub(crate) no_file: bool,
    /// The flag as it is shown, the key that it sets, the value.
    pub(crate) values: Vec<(String, String, String)>,
}

impl Flags {
    /// Returns these flags for a command that reads no file.
    pub(crate) fn without_file(&self) -> Flags {
        Flags { config: None, no_file: true, values: self.values.clone() }
    }
}

/// Every setting as it is written, with its source.
#[derive(Debug)]
pub(crate) struct RawSettings {
    values: BTreeMap<&'static str, (String, Origin)>,
    pub(crate) plugins: Vec<PluginSection>,
    pub(crate) tokens: Vec<TokenSection>,
    pub(crate) schedules: Vec<ScheduleSection>,
    pub(crate) secrets: Vec<SecretSection>,
    /// When the file was written.
    pub(crate) written_at: Timestamp,
}

impl RawSettings {
    /// Reads the file, the environment and the flags, each of which overrides the one before, and all the defaults.
    ///
    /// # Errors
    /// When something cannot be read or names an unknown setting; the error lists every problem.
    pub(crate) fn read(flags: &Flags, environment: &Environment) -> Result<RawSettings, Problems> {
        let mut problems = Problems::default();
        let mut raw = RawSettings {
            values: SETTINGS.iter().map(|s| (s.key, (s.default.to_owned(), Origin::Default))).collect(),
            plugins: Vec::new(),
            tokens: Vec::new(),
            schedules: Vec::new(),
            secrets: Vec::new(),
            written_at: Timestamp::ZERO,
        };
        let (from_environment, config) = read_environment(environment, &mut problems);
        if let Some((path, named)) = file_to_read(flags, config, environment) {
            let (FileValues { values, plugins, tokens, schedules, secrets }, written_at) =
                read_file(&path, named, environment, &mut problems);
            values.into_iter().for_each(|(setting, text, origin)| raw.set(setting, text, origin));
            raw.plugins = plugins;
            raw.tokens = tokens;
            (raw.schedules, raw.written_at) = (schedules, written_at);
            raw.secrets = secrets;
            secret_values::check_grants(&raw.plugins, &raw.secrets, &mut problems);
            secret_values::check_variables(&raw.plugins, &mut problems);
            secret_values::give(&mut raw.plugins, &raw.secrets);
        }
        from_environment.into_iter().for_each(|(setting, text, origin)| raw.set(setting, text, origin));
        for (flag, key, text) in &flags.values {
            let origin = Origin::Flag(flag.clone());
            match find(key) {
                Some(setting) => raw.set(setting, text.clone(), origin),
                None if key.starts_with("plugins.") => {
                    problems.add(&origin, "settings of a plugin can be set in wharf.toml only")
                }
                None if key.starts_with("secrets.") => problems.add(&origin, "secrets can be set in wharf.toml only"),
                None if key.starts_with("schedules.") => {
                    problems.add(&origin, "schedules can be set in wharf.toml only, or with `wharf schedule set`")
                }
                None => problems.add(&origin, unknown(key)),
            }
        }
        problems.or(raw)
    }

    /// Returns the path of the settings file, whether or not it is there.
    pub(crate) fn path(flags: &Flags, environment: &Environment) -> PathBuf {
        let named = flags.config.clone().or_else(|| environment.variable(CONFIG).map(PathBuf::from));
        environment.folder.join(named.unwrap_or_else(|| PathBuf::from(FILE)))
    }

    /// Returns the keys of the settings that differ in `new` and take effect only when the host is started again.
    pub(crate) fn keys_for_restart(&self, new: &RawSettings) -> Vec<String> {
        let differs = |setting: &&Setting| self.written(setting.key) != new.written(setting.key);
        let changed = SETTINGS.iter().filter(|setting| !setting.live).filter(differs);
        changed.map(|setting| setting.key.to_owned()).collect()
    }

    /// Returns the keys of the settings that differ in `new` and take effect at once, besides tokens: `log.level`, `plugins.words`.
    pub(crate) fn live_keys_that_differ(&self, new: &RawSettings) -> Vec<String> {
        // A host sends no requests to another one.
        let live = SETTINGS.iter().filter(|setting| setting.live && !["token", "host"].contains(&setting.key));
        let changed = live.filter(|setting| self.written(setting.key) != new.written(setting.key));
        let sections = |raw: &RawSettings| -> BTreeMap<PluginId, PluginSettings> {
            raw.plugins.iter().map(|section| (section.id.clone(), section.settings.clone())).collect()
        };
        let new_raw = new;
        let (old, new) = (sections(self), sections(new));
        let plugins: BTreeSet<&PluginId> =
            old.keys().chain(new.keys()).filter(|id| old.get(*id) != new.get(*id)).collect();
        let plugins = plugins.into_iter().map(|id| format!("plugins.{id}"));
        let schedules = |raw: &RawSettings| -> BTreeMap<ScheduleId, ScheduleSpec> {
            raw.schedules.iter().map(|section| (section.id.clone(), section.spec.clone())).collect()
        };
        let (had, has) = (schedules(self), schedules(new_raw));
        let ids: BTreeSet<&ScheduleId> =
            had.keys().chain(has.keys()).filter(|id| had.get(*id) != has.get(*id)).collect();
        let schedules = ids.into_iter().map(|id| format!("schedules.{id}"));
        let secrets = |raw: &RawSettings| -> BTreeMap<SecretName, Arc<Secret>> {
            raw.secrets.iter().map(|section| (section.name.clone(), Arc::clone(&section.secret))).collect()
        };
        let (had, has) = (secrets(self), secrets(new_raw));
        let names: BTreeSet<&SecretName> =
            had.keys().chain(has.keys()).filter(|name| had.get(*name) != has.get(*name)).collect();
        let secrets = names.into_iter().map(|name| format!("secrets.{name}"));
        let keys = changed.map(|setting| setting.key.to_owned());
        keys.chain(plugins).chain(schedules).chain(secrets).collect()
    }

    /// Returns what a host has that was started with `started`, once these settings have taken effect: those that need a restart
    /// stay as they were.
    pub(crate) fn over(mut self, started: &RawSettings) -> RawSettings {
        for setting in SETTINGS.iter().filter(|setting| !setting.live) {
            self.values.insert(setting.key, started.values[setting.key].clone());
        }
        self
    }

    fn set(&mut self, setting: &'static Setting, text: String, origin: Origin) {
        self.values.insert(setting.key, (text, origin));
    }

    /// Reads the values of plugins and of secrets that stand outside of the file: all of them, or those of `only` one plugin, which may
    /// be without its secrets.
    ///
    /// # Errors
    /// When a value cannot be read; the error lists every problem.
    pub(crate) fn read_outside(&mut self, only: Option<&str>, environment: &Environment) -> Result<(), Problems> {
        let mut problems = Problems::default();
        for section in &mut self.plugins {
            let id = section.id.to_string();
            if only.is_none_or(|only| only == id) {
                outside::fill(&id, &mut section.settings, &section.outside, environment, &mut problems);
            }
        }
        secret_values::read(&mut self.plugins, &mut self.secrets, only, environment, &mut problems);
        problems.or(())
    }

    /// Takes over what this process knows of earlier values of secrets, from the settings that held before.
    pub(crate) fn succeed(&mut self, old: &RawSettings) {
        secret_values::succeed(&mut self.plugins, &mut self.secrets, &old.secrets);
    }

    /// Returns the files that values of plugins, secrets and tokens are read from.
    pub(crate) fn outside_files(&self, environment: &Environment) -> Vec<PathBuf> {
        let values = self.plugins.iter().flat_map(|section| &section.outside);
        let tokens = self.tokens.iter().filter_map(|token| token.file(environment));
        let secrets = self.secrets.iter().filter_map(|section| section.source.file(environment));
        values.filter_map(|value| value.source.file(environment)).chain(secrets).chain(tokens).collect()
    }

    /// Returns a setting's text unless it is derived: a derived value differs only with what it is derived from.
    fn written(&self, key: &'static str) -> Option<&str> {
        let (text, origin) = self.of(key);
        (!matches!(origin, Origin::Derived(_))).then_some(text)
    }

    /// Returns a setting's text and its source.
    pub(crate) fn of(&self, key: &'static str) -> (&str, &Origin) {
        let (text, origin) = &self.values[key];
        (text, origin)
    }

    /// Fills in a setting that was not set.
    pub(crate) fn derive(&mut self, key: &'static str, text: String, from: &'static str) {
        self.values.insert(key, (text, Origin::Derived(from)));
    }
}

fn unknown(key: &str) -> String {
    format!("unknown setting `{key}`{}", nearest(key, SETTINGS.iter().map(|s| s.key)))
}

fn file_to_read(
    flags: &Flags,
    from_environment: Option<PathBuf>,
    environment: &Environment,
) -> Option<(PathBuf, bool)> {
    if flags.no_file {
        return None;
    }
    match flags.config.clone().or(from_environment) {
        Some(path) => Some((path, true)),
        None => environment.folder.join(FILE).exists().then(|| (PathBuf::from(FILE), false)),
    }
}

/// Reads a settings file, and returns when it was written.
fn read_file(path: &Path, named: bool, environment: &Environment, problems: &mut Problems) -> (FileValues, Timestamp) {
    let written = std::fs::metadata(environment.folder.join(path)).and_then(|file| file.modified()).ok();
    let written = written.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let values = match std::fs::read(environment.folder.join(path)) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => file::read(path, text.strip_prefix('\u{feff}').unwrap_or(&text), SystemClock.now(), problems),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                problems.add_text(format!("{}: byte {at} is not UTF-8; save the file as UTF-8", path.display()));
                FileValues::default()
            }
        },
        Err(error) => {
            let hint = if named { "; it is named by --config or WHARF__CONFIG" } else { "" };
            problems.add_text(format!("could not read the settings file {}: {error}{hint}", path.display()));
            FileValues::default()
        }
    };
    (values, Timestamp::ZERO + written)
}

/// Reads the settings in the environment variables, and the path of the settings file if one of them names it.
fn read_environment(
    environment: &Environment,
    problems: &mut Problems,
) -> (Vec<(&'static Setting, String, Origin)>, Option<PathBuf>) {
    let by_variable: BTreeMap<String, &Setting> = SETTINGS.iter().map(|s| (variable(s.key), s)).collect();
    let (mut found, mut config) = (Vec::new(), None);
    for (name, value) in &environment.variables {
        if !name.as_encoded_bytes().starts_with(b"WHARF__") {
            continue;
        }
        let Some(name) = name.to_str() else {
            problems.add(&Origin::Environment(name.display().to_string()), "its name is not UTF-8");
            continue;
        };
        // An empty variable counts as unset: many tools have no other way to unset one. But who sets a secret wants it to hold.
        if value.is_empty() && !by_variable.get(name).is_some_and(|setting| setting.secret) {
            continue;
        }
        let origin = Origin::Environment(name.to_owned());
        if name == CONFIG {
            config = Some(PathBuf::from(value));
        } else if name.starts_with("WHARF__PLUGINS__") {
            problems.add(&origin, "settings of a plugin can be set in wharf.toml only");
        } else if let Some(setting) = by_variable.get(name) {
            match value.to_str() {
                Some(text) => found.push((*setting, text.to_owned(), origin)),
                None => problems.add(&origin, "its value is not UTF-8"),
            }
        } else {
            let known = by_variable.keys().map(String::as_str).chain([CONFIG]);
            problems.add(&origin, format_args!("unknown setting{}", nearest(name, known)));
        }
    }
    (found, config)
}

/// Returns true if the process that started this one wants to be told how far it is, as systemd does: `NOTIFY_SOCKET` names its socket.
pub(crate) fn has_service_manager() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty())
}

/// The environment variable that controls whether error values, as opposed to panics, capture a backtrace.
pub(crate) const LIBRARY_BACKTRACES: &str = "RUST_LIB_BACKTRACE";

/// Returns true if every error value would capture a backtrace because `RUST_BACKTRACE` is set and
/// `RUST_LIB_BACKTRACE` is not.
pub(crate) fn backtraces_are_costly() -> bool {
    backtraces_are_requested() && std::env::var_os(LIBRARY_BACKTRACES).is_none()
}

/// Captures the backtrace of the current panic if `RUST_BACKTRACE` requests it.
pub(crate) fn backtrace_of_panic() -> Option<Backtrace> {
    backtraces_are_requested().then(Backtrace::force_capture)
}

fn backtraces_are_requested() -> bool {
    std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0")
}
