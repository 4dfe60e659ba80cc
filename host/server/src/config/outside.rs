//! Values that stand outside of the settings file: `env:NAME` is an environment variable, `file:PATH` a file, such as a credential of
//! Docker, Kubernetes or systemd. Only a host reads them: commands in its folder may lack the rights to.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::DeValue;
use toml::{Spanned, de::ValueDeserializer};
use wharf_engine::PluginSettings;

use super::environment::Environment;
use super::origin::{Origin, Problems};
use super::shared_form::SECRET_TABLES;

/// The longest value that is read, in bytes.
const VALUE_BYTES_MAX: usize = 64 * 1024;

/// The place that a value is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Variable(String),
    File(String),
}

impl Source {
    /// Reads the text of a source: `env:NAME` or `file:PATH`.
    pub(super) fn parse(text: &str) -> Option<Source> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Some(Source::Variable(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Some(Source::File(path.to_owned())),
            _ => None,
        }
    }

    /// Returns the file that the value is read from.
    pub(super) fn file(&self, environment: &Environment) -> Option<PathBuf> {
        match self {
            Source::File(path) => Some(environment.folder.join(path)),
            Source::Variable(_) => None,
        }
    }

    /// Returns the value, byte for byte, if it has at most `max` bytes.
    ///
    /// # Errors
    /// When it cannot be read; the error never quotes it.
    pub(super) fn read(&self, environment: &Environment, max: usize) -> Result<String, String> {
        let (text, name) = match self {
            Source::Variable(name) => match environment.variable(name) {
                Some(value) => {
                    let text = value.to_str().ok_or(format!("the variable {name} is not UTF-8"))?;
                    (text.to_owned(), format!("the variable {name}"))
                }
                None => return Err(format!("the environment variable {name} is not set, or empty")),
            },
            Source::File(path) => {
                let whole = environment.folder.join(Path::new(path));
                let bytes = read_bounded(&whole, max).map_err(|error| format!("could not read {path}: {error}"))?;
                (String::from_utf8(bytes).map_err(|_| format!("{path} is not UTF-8"))?, path.clone())
            }
        };
        if text.len() > max {
            return Err(format!("{name} is longer than {max} bytes"));
        }
        Ok(text)
    }
}

/// Reads a file up to one byte more than `max`. A pipe or a device is refused: reading it may never end.
fn read_bounded(path: &Path, max: usize) -> std::io::Result<Vec<u8>> {
    if !path.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A value of `env` or `config` of a plugin that stands outside of the file.
#[derive(Clone, Debug)]
pub(super) struct OutsideValue {
    /// The table: "env" or "config".
    table: &'static str,
    key: String,
    pub(super) source: Source,
    at: Origin,
}

impl OutsideValue {
    /// Returns true if it is a variable of `env` with this name.
    pub(super) fn is_env(&self, name: &str) -> bool {
        self.table == "env" && self.key == name
    }
}

/// A value as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOutside {
    from: String,
}

/// Takes the values `{ from = "…" }` out of a plugin's section. Problems name the key, and never a value.
pub(super) fn take<'v>(
    id: &str,
    section: Spanned<DeValue<'v>>,
    place: &dyn Fn(usize) -> Origin,
    problems: &mut Problems,
) -> (Spanned<DeValue<'v>>, Vec<OutsideValue>) {
    let mut found = Vec::new();
    let span = section.span();
    let mut section = match section.into_inner() {
        DeValue::Table(section) => section,
        other => return (Spanned::new(span, other), found),
    };
    for (name, value) in section.iter_mut() {
        let Some(table) = SECRET_TABLES.iter().find(|table| **table == name.get_ref().as_ref()) else { continue };
        let DeValue::Table(values) = value.get_mut() else { continue };
        let outside: Vec<String> = values
            .iter()
            .filter(|(_, value)| matches!(value.get_ref(), DeValue::Table(_)))
            .map(|(key, _)| key.get_ref().as_ref().to_owned())
            .collect();
        for key in outside {
            let Some(value) = values.remove(key.as_str()) else { continue };
            let at = place(value.span().start);
            let source = RawOutside::deserialize(ValueDeserializer::from(value)).ok();
            match source.and_then(|raw| Source::parse(&raw.from)) {
                Some(source) => found.push(OutsideValue { table, key, source, at }),
                None => problems.add(
                    &at,
                    format_args!(
                        "`plugins.{id}.{table}.{key}`: expected a string, or `{{ from = \"env:NAME\" }}` or `{{ from = \"file:PATH\" }}`"
                    ),
                ),
            }
        }
    }
    (Spanned::new(span, DeValue::Table(section)), found)
}

/// Reads the values that stand outside of the file into the settings of a plugin.
pub(super) fn fill(
    id: &str,
    settings: &mut PluginSettings,
    values: &[OutsideValue],
    environment: &Environment,
    problems: &mut Problems,
) {
    for OutsideValue { table, key, source, at } in values {
        let read = source.read(environment, VALUE_BYTES_MAX).and_then(|text| match text.contains('\0') {
            true => Err("it has a zero byte, which no variable can have".to_owned()),
            false => Ok(text),
        });
        match (read, *table) {
            (Ok(text), "env") => _ = settings.env.insert(key.clone(), text),
            (Ok(text), _) => _ = settings.config.insert(key.clone(), text),
            (Err(error), _) => problems.add(at, format_args!("`plugins.{id}.{table}.{key}`: {error}")),
        }
    }
}
