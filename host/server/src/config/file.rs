//! `wharf.toml`: parses it into values with their positions, and refuses unknown keys.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use wharf_core::ids::PluginId;
use wharf_core::time::Timestamp;
use wharf_engine::PluginSettings;
use wharf_engine::spec::toml_diagnostics;

use super::origin::{Origin, Problems, nearest};
use super::outside::{self, OutsideValue};
use super::schedules::{self, ScheduleSection};
use super::secrets::{self, SecretSection};
use super::shared_form::{SECRET_TABLES, shared};
use super::table::{SETTINGS, Setting, find};
use super::tokens::{self, TokenSection};

/// The section of one plugin.
#[derive(Debug)]
pub(crate) struct PluginSection {
    pub(crate) id: PluginId,
    /// The place of the section.
    pub(super) at: Origin,
    /// The settings, without the values that stand outside of the file until a host reads them.
    pub(crate) settings: PluginSettings,
    pub(super) outside: Vec<OutsideValue>,
    /// Keys and values as they are written, for `wharf config`.
    pub(crate) shown: Vec<(String, String, Origin)>,
    /// The values that all hosts of a store should have, in one form however they are written.
    pub(super) shared: String,
}

impl PluginSection {
    /// Returns true if a variable of `env` with this name stands outside of the file.
    pub(super) fn has_outside_env(&self, name: &str) -> bool {
        self.outside.iter().any(|value| value.is_env(name))
    }
}

/// The values in one file.
#[derive(Debug, Default)]
pub(crate) struct FileValues {
    pub(crate) values: Vec<(&'static Setting, String, Origin)>,
    pub(crate) plugins: Vec<PluginSection>,
    pub(crate) tokens: Vec<TokenSection>,
    pub(crate) schedules: Vec<ScheduleSection>,
    pub(crate) secrets: Vec<SecretSection>,
}

/// Parses `text`, the content of the file `path`, at `now`, from which on schedules must have a moment. Every problem is added to `problems`.
pub(crate) fn read(path: &Path, text: &str, now: Timestamp, problems: &mut Problems) -> FileValues {
    let places = Places { path: path.to_owned(), text };
    let mut found = FileValues::default();
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            places.complain(&error, 0, problems);
            return found;
        }
    };
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        match value.get_ref() {
            DeValue::Table(_) if name == "plugins" => plugin_sections(value, &places, &mut found, problems),
            DeValue::Table(_) if name == "schedules" => schedule_sections(value, now, &places, &mut found, problems),
            DeValue::Table(sections) if name == "secrets" => {
                let place = |offset| places.of(offset);
                let sections = sections.iter().filter_map(|(name, value)| {
                    let name = Spanned::new(name.span(), name.get_ref().as_ref());
                    secrets::section(&name, value, &place, problems)
                });
                found.secrets.extend(sections);
            }
            DeValue::Array(_) if name == "tokens" => {
                let at = value.span().start;
                match Vec::deserialize(ValueDeserializer::from(value)) {
                    Ok(raw) => found.tokens = tokens::check(raw, |offset| places.of(offset), problems),
                    Err(error) => places.complain(&error, at, problems),
                }
            }
            DeValue::Table(section) if is_section(name) => {
                for (key, value) in section {
                    let full = format!("{name}.{}", key.get_ref());
                    one_value(&full, key.span().start, value, &places, &mut found, problems);
                }
            }
            _ => one_value(name, key.span().start, &value, &places, &mut found, problems),
        }
    }
    found
}

struct Places<'t> {
    path: PathBuf,
    text: &'t str,
}

impl Places<'_> {
    fn of(&self, offset: usize) -> Origin {
        let (line, column) = toml_diagnostics::position(self.text, offset);
        Origin::File { path: self.path.clone(), line, column }
    }

    fn complain(&self, error: &toml::de::Error, otherwise_at: usize, problems: &mut Problems) {
        let origin = self.of(error.span().map_or(otherwise_at, |span| span.start));
        let mut problem = toml_diagnostics::toml_problem(self.text, error);
        problem.at = None;
        problems.add(&origin, problem);
    }
}

fn sections() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().filter_map(|setting| setting.key.split_once('.')).map(|(section, _)| section)
}

fn is_section(name: &str) -> bool {
    sections().any(|section| section == name)
}

fn one_value(
    key: &str,
    key_at: usize,
    value: &Spanned<DeValue<'_>>,
    places: &Places<'_>,
    found: &mut FileValues,
    problems: &mut Problems,
) {
    let here = places.of(key_at);
    let Some(setting) = find(key) else {
        if is_section(key) {
            return problems.add(&here, format_args!("`{key}` is a section; write `[{key}]` and put its keys below"));
        }
        if key == "tokens" {
            return problems.add(&here, "`tokens` is a list of tables; write `[[tokens]]` for each token");
        }
        if key == "plugins" {
            return problems.add(&here, "`plugins` has a table for each plugin; write `[plugins.NAME]`");
        }
        if key == "secrets" {
            return problems.add(&here, "`secrets` has a table for each secret; write `[secrets.NAME]`");
        }
        if key == "schedules" {
            return problems.add(&here, "`schedules` has a table for each schedule; write `[schedules.NAME]`");
        }
        let named = ["plugins", "tokens", "schedules", "secrets"];
        let known = SETTINGS.iter().map(|setting| setting.key).chain(sections()).chain(named);
        return problems.add(&here, format_args!("unknown setting `{key}`{}", nearest(key, known)));
    };
    let text = match value.get_ref() {
        DeValue::String(text) => text.as_ref().to_owned(),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => places.text[value.span()].to_owned(),
        other => {
            let kind = other.type_str();
            return problems.add(&here, format_args!("`{key}`: expected a string or a number, got {kind}"));
        }
    };
    found.values.push((setting, text, places.of(value.span().start)));
}

fn plugin_sections(
    plugins: Spanned<DeValue<'_>>,
    places: &Places<'_>,
    found: &mut FileValues,
    problems: &mut Problems,
) {
    let DeValue::Table(plugins) = plugins.into_inner() else { return };
    for (name, section) in plugins {
        let here = places.of(name.span().start);
        let id = match name.get_ref().parse::<PluginId>() {
            Ok(id) => id,
            Err(error) => {
                problems.add(&here, format_args!("{error}; write `[plugins.NAME]` for the plugin file NAME.wasm"));
                continue;
            }
        };
        let shared = shared(section.get_ref());
        let mut shown = Vec::new();
        show(&format!("plugins.{id}"), &section, places, &mut shown);
        let at = section.span().start;
        let (section, outside) = outside::take(id.as_str(), section, &|offset| places.of(offset), problems);
        let not_text = values_that_are_no_text(&section);
        if !not_text.is_empty() {
            for (key, at) in not_text {
                let text = format_args!(
                    "`plugins.{id}.{key}`: expected a string, or `{{ from = \"env:NAME\" }}`; its value is not shown, as it may be a secret"
                );
                problems.add(&places.of(at), text);
            }
            continue;
        }
        match PluginSettings::deserialize(ValueDeserializer::from(section)) {
            Ok(settings) => found.plugins.push(PluginSection { id, at: here, settings, outside, shown, shared }),
            Err(error) => places.complain(&error, at, problems),
        }
    }
}

fn schedule_sections(
    schedules: Spanned<DeValue<'_>>,
    now: Timestamp,
    places: &Places<'_>,
    found: &mut FileValues,
    problems: &mut Problems,
) {
    let DeValue::Table(schedules) = schedules.into_inner() else { return };
    let (place, complain) = (
        |offset| places.of(offset),
        |error: &toml::de::Error, at, problems: &mut Problems| places.complain(error, at, problems),
    );
    for (name, section) in schedules {
        let mut shown = Vec::new();
        show(&format!("schedules.{}", name.get_ref()), &section, places, &mut shown);
        if let Some((id, spec)) = schedules::section(&name, section, (now, &place), problems, &complain) {
            found.schedules.push(ScheduleSection { id, spec, shown });
        }
    }
}

/// Returns the key and the place of each value that may be a secret and is no string: the usual error would quote it.
fn values_that_are_no_text(section: &Spanned<DeValue<'_>>) -> Vec<(String, usize)> {
    let DeValue::Table(section) = section.get_ref() else { return Vec::new() };
    let mut found = Vec::new();
    for (table, value) in section.iter().filter(|(name, _)| SECRET_TABLES.contains(&name.get_ref().as_ref())) {
        match value.get_ref() {
            DeValue::Table(values) => found.extend(
                values
                    .iter()
                    .filter(|(_, value)| !matches!(value.get_ref(), DeValue::String(_)))
                    .map(|(name, value)| (format!("{}.{}", table.get_ref(), name.get_ref()), value.span().start)),
            ),
            _ => found.push((table.get_ref().clone().into_owned(), value.span().start)),
        }
    }
    found
}

/// Returns where a value stands that a plugin gets and that is not in the file.
fn source_of<'t>(key: &str, table: &'t DeTable<'_>) -> Option<&'t str> {
    let is_value =
        key.starts_with("plugins.") && key.split('.').nth(2).is_some_and(|part| SECRET_TABLES.contains(&part));
    let DeValue::String(from) = table.get("from").filter(|_| is_value && key.split('.').count() > 3)?.get_ref() else {
        return None;
    };
    Some(from.as_ref())
}

/// Flattens a value into lines of key and value, as they are written.
fn show(key: &str, value: &Spanned<DeValue<'_>>, places: &Places<'_>, shown: &mut Vec<(String, String, Origin)>) {
    match value.get_ref() {
        DeValue::Table(table) => {
            if let Some(from) = source_of(key, table) {
                return shown.push((key.to_owned(), format!("(from {from})"), places.of(value.span().start)));
            }
            for (name, value) in table {
                show(&format!("{key}.{}", name.get_ref()), value, places, shown);
            }
        }
        // Values that are passed to a plugin may be secrets.
        _ if key.starts_with("plugins.") && key.split('.').nth(2).is_some_and(|part| SECRET_TABLES.contains(&part)) => {
            shown.push((key.to_owned(), "(set)".to_owned(), places.of(value.span().start)));
        }
        _ => shown.push((key.to_owned(), places.text[value.span()].to_owned(), places.of(value.span().start))),
    }
}
