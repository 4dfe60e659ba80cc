//! The first step: every setting as it was given, with where it stands.

use std::backtrace::Backtrace;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::file::{self, FileValues, PluginSection};
use super::origin::{Origin, Problems, nearest};
use super::table::{SETTINGS, Setting, find, variable};

/// The file that is read where it stands, without being named.
const FILE: &str = "wharf.toml";

/// What a command line says of settings, in the order of the flags.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) config: Option<PathBuf>,
    /// The flag as it is shown, the key that it sets, the value.
    pub(crate) values: Vec<(String, String, String)>,
}

/// The world that settings are read from. Tests make up their own.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) folder: PathBuf,
    pub(crate) variables: Vec<(OsString, OsString)>,
}

impl Surroundings {
    pub(crate) fn of_this_process() -> Surroundings {
        Surroundings { folder: PathBuf::new(), variables: std::env::vars_os().collect() }
    }

    /// A variable that is set to something.
    pub(crate) fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value)
    }
}

/// Every setting as it was given.
#[derive(Debug)]
pub(crate) struct Given {
    values: BTreeMap<&'static str, (String, Origin)>,
    pub(crate) plugins: Vec<PluginSection>,
}

impl Given {
    /// Reads the file, the environment and the flags, and lays them over the defaults.
    pub(crate) fn read(flags: &Flags, around: &Surroundings) -> Result<Given, Problems> {
        let mut problems = Problems::default();
        let mut given = Given {
            values: SETTINGS.iter().map(|s| (s.key, (s.default.to_owned(), Origin::Default))).collect(),
            plugins: Vec::new(),
        };
        let (from_environment, config) = environment(around, &mut problems);
        if let Some((path, named)) = file_to_read(flags, config, around) {
            let FileValues { values, plugins } = read_file(&path, named, around, &mut problems);
            values.into_iter().for_each(|(setting, text, origin)| given.set(setting, text, origin));
            given.plugins = plugins;
        }
        from_environment.into_iter().for_each(|(setting, text, origin)| given.set(setting, text, origin));
        for (flag, key, text) in &flags.values {
            let origin = Origin::Flag(flag.clone());
            match find(key) {
                Some(setting) => given.set(setting, text.clone(), origin),
                None if key.starts_with("plugins.") => {
                    problems.add(&origin, "settings of a plugin are read from wharf.toml only")
                }
                None => problems.add(&origin, unknown(key)),
            }
        }
        problems.or(given)
    }

    fn set(&mut self, setting: &'static Setting, text: String, origin: Origin) {
        self.values.insert(setting.key, (text, origin));
    }

    /// A setting's text and where it stands.
    pub(crate) fn of(&self, key: &'static str) -> (&str, &Origin) {
        let (text, origin) = &self.values[key];
        (text, origin)
    }

    /// Fills in a setting that was not given.
    pub(crate) fn derive(&mut self, key: &'static str, text: String, from: &'static str) {
        self.values.insert(key, (text, Origin::Derived(from)));
    }
}

fn unknown(key: &str) -> String {
    format!("`{key}` is no setting{}", nearest(key, SETTINGS.iter().map(|s| s.key)))
}

fn file_to_read(flags: &Flags, from_environment: Option<PathBuf>, around: &Surroundings) -> Option<(PathBuf, bool)> {
    match flags.config.clone().or(from_environment) {
        Some(path) => Some((path, true)),
        None => around.folder.join(FILE).exists().then(|| (PathBuf::from(FILE), false)),
    }
}

fn read_file(path: &Path, named: bool, around: &Surroundings, problems: &mut Problems) -> FileValues {
    match std::fs::read(around.folder.join(path)) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => file::read(path, text.strip_prefix('\u{feff}').unwrap_or(&text), problems),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                problems.add_text(format!("{}: byte {at} is not UTF-8; save the file as UTF-8", path.display()));
                FileValues::default()
            }
        },
        Err(error) => {
            let hint = if named { "; it was named by --config or WHARF__CONFIG" } else { "" };
            problems.add_text(format!("could not read the settings file {}: {error}{hint}", path.display()));
            FileValues::default()
        }
    }
}

/// The settings in the environment, and the settings file that is named there.
fn environment(
    around: &Surroundings,
    problems: &mut Problems,
) -> (Vec<(&'static Setting, String, Origin)>, Option<PathBuf>) {
    let by_variable: BTreeMap<String, &Setting> = SETTINGS.iter().map(|s| (variable(s.key), s)).collect();
    let (mut found, mut config) = (Vec::new(), None);
    for (name, value) in &around.variables {
        if !name.as_encoded_bytes().starts_with(b"WHARF__") {
            continue;
        }
        let Some(name) = name.to_str() else {
            problems.add(&Origin::Environment(name.display().to_string()), "the name is not UTF-8");
            continue;
        };
        // An empty variable is as good as none: many tools have no other way to take one back.
        if value.is_empty() {
            continue;
        }
        let origin = Origin::Environment(name.to_owned());
        if name == "WHARF__CONFIG" {
            config = Some(PathBuf::from(value));
        } else if name.starts_with("WHARF__PLUGINS__") {
            problems.add(&origin, "settings of a plugin are read from wharf.toml only");
        } else if let Some(setting) = by_variable.get(name) {
            match value.to_str() {
                Some(text) => found.push((*setting, text.to_owned(), origin)),
                None => problems.add(&origin, "the value is not UTF-8"),
            }
        } else {
            let known = by_variable.keys().map(String::as_str).chain(["WHARF__CONFIG"]);
            problems.add(&origin, format_args!("no setting has this name{}", nearest(name, known)));
        }
    }
    (found, config)
}

/// The variable that says whether error values, other than panics, carry a backtrace.
pub(crate) const LIBRARY_BACKTRACES: &str = "RUST_LIB_BACKTRACE";

/// Whether every error value walks the stack, because nobody said that it should not.
pub(crate) fn backtraces_are_costly() -> bool {
    backtraces_are_asked_for() && std::env::var_os(LIBRARY_BACKTRACES).is_none()
}

/// The stack of a panic that goes on, where `RUST_BACKTRACE` asks for it.
pub(crate) fn backtrace_of_panic() -> Option<Backtrace> {
    backtraces_are_asked_for().then(Backtrace::force_capture)
}

fn backtraces_are_asked_for() -> bool {
    std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0")
}
