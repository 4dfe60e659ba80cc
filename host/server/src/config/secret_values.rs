//! The secrets of plugins: which of them are there, and their values.

use std::collections::BTreeMap;
use std::sync::Arc;

use wharf_core::tick;
use wharf_engine::spec::secret::{Secret, SecretName};

use super::environment::Environment;
use super::file::PluginSection;
use super::origin::{Problems, nearest};
use super::secrets::SecretSection;

/// Checks that the secrets of plugins are there, and that nothing else has the names of their variables.
pub(super) fn check_grants(plugins: &[PluginSection], secrets: &[SecretSection], problems: &mut Problems) {
    for section in plugins {
        let key = format!("plugins.{}.secrets", section.id);
        let at = section.shown.iter().find(|(shown, _, _)| *shown == key).map_or(&section.at, |(_, _, at)| at);
        for grant in section.settings.secrets.iter() {
            let (name, variable) = (&grant.name, grant.name.variable());
            if !secrets.iter().any(|secret| secret.name == *name) {
                let hint = nearest(name.as_str(), secrets.iter().map(|secret| secret.name.as_str()));
                problems.add(
                    at,
                    format_args!(
                        "`{key}`: unknown secret `{name}`{hint}; expected the name of a section `[secrets.NAME]`"
                    ),
                );
            }
            if section.settings.env.contains_key(&variable) || section.has_outside_env(&variable) {
                problems.add(
                    at,
                    format_args!("`{key}`: `env` sets {variable}, which is that of the secret `{name}`; leave one out"),
                );
            }
        }
    }
}

/// Checks that no plugin's environment has the names of variables that the host sets for jobs of schedules.
pub(super) fn check_variables(plugins: &[PluginSection], problems: &mut Problems) {
    for section in plugins {
        for variable in tick::VARIABLES {
            if section.settings.env.contains_key(variable) || section.has_outside_env(variable) {
                let key = format!("plugins.{}.env.{variable}", section.id);
                let at = section.shown.iter().find(|(shown, _, _)| *shown == key).map_or(&section.at, |(_, _, at)| at);
                problems.add(
                    at,
                    format_args!(
                        "`{key}`: programs have this variable from the host, of the tick of a job; choose another name"
                    ),
                );
            }
        }
    }
}

/// Gives each plugin its secrets as they are known now.
pub(super) fn give(plugins: &mut [PluginSection], secrets: &[SecretSection]) {
    let known: BTreeMap<&SecretName, &Arc<Secret>> =
        secrets.iter().map(|section| (&section.name, &section.secret)).collect();
    for section in plugins.iter_mut().filter(|section| !section.settings.secrets.is_empty()) {
        section.settings.secrets.resolve(|name| known.get(name).map(|secret| Arc::clone(secret)));
    }
}

/// Reads the values: of all secrets for a host, which has none of them if one cannot be read; for a call, of those of its plugin that can
/// be read.
pub(super) fn read(
    plugins: &mut [PluginSection],
    secrets: &mut [SecretSection],
    only: Option<&str>,
    environment: &Environment,
    problems: &mut Problems,
) {
    for section in secrets.iter_mut() {
        let is_of = |plugin: &PluginSection| plugin.settings.secrets.iter().any(|grant| grant.name == section.name);
        if only.is_some_and(|only| !plugins.iter().any(|plugin| plugin.id.as_str() == only && is_of(plugin))) {
            continue;
        }
        let value = section.read(environment);
        if let (Err(error), None) = (&value, only) {
            problems.add(&section.at, format_args!("`secrets.{}.from`: {error}", section.name));
        }
        section.secret = Arc::new(Secret { hosts: section.secret.hosts.clone(), value, earlier: Vec::new() });
    }
    give(plugins, secrets);
}

/// Takes over from the settings that held before the values that secrets had: what a server kept of them is masked still.
pub(super) fn succeed(plugins: &mut [PluginSection], secrets: &mut [SecretSection], old: &[SecretSection]) {
    for section in secrets.iter_mut() {
        if let Some(old) = old.iter().find(|old| old.name == section.name) {
            Arc::make_mut(&mut section.secret).succeed(&old.secret);
        }
    }
    give(plugins, secrets);
}
