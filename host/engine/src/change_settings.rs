//! Makes a loaded plugin again with other settings: from the code that it has, without its file.

use std::sync::Arc;

use crate::compile::exports_check;
use crate::engine::Engine;
use crate::inspect::grants_check::GrantsCheck;
use crate::plugin::Plugin;
use crate::sandbox::plugin_env::PluginEnv;
use crate::spec::budget_check::within_budget;
use crate::spec::grants::PluginSettings;
use crate::spec::manifest::Manifest;
use crate::spec::problem::{LoadError, Problem};

/// Why a plugin cannot have other settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsError {
    /// The settings do not grant what the plugin needs: with them it is refused.
    NotGranted(LoadError),
    /// The settings do not fit the plugin, such as those of a task that it does not have.
    Invalid(Vec<Problem>),
}

impl Engine {
    /// Returns a plugin that is `plugin` with other settings. Attempts of `plugin` go on with those that it has.
    ///
    /// # Errors
    /// [`SettingsError`] if the plugin cannot have these settings.
    pub async fn with_settings(
        &self,
        plugin: &Plugin,
        settings: &PluginSettings,
    ) -> Result<Arc<Plugin>, SettingsError> {
        let granted = GrantsCheck { id: plugin.id.as_str(), imports: &plugin.imports, settings };
        let problems = granted.problems();
        if !problems.is_empty() {
            return Err(SettingsError::NotGranted(LoadError { problems, passing: false }));
        }
        let (id, sources, its) = (plugin.id.clone(), Arc::clone(&plugin.sources), settings.clone());
        // Compiles the schemas, which may take long; and a look at a folder may wait for another machine.
        let read = tokio::task::spawn_blocking(move || {
            Manifest::of(&id, &sources, &its).map(|read| (read, its.missing_folders()))
        });
        let (mut manifest, missing_folders) = match read.await {
            Ok(read) => read.map_err(SettingsError::Invalid)?,
            Err(error) => {
                let problem = Problem::new(format!("the host panicked on it: {error}; this is a bug of the host"));
                return Err(SettingsError::Invalid(vec![problem]));
            }
        };
        let mut notes = within_budget(&mut manifest, &plugin.id, settings, self.budget().total());
        notes.extend(missing_folders);
        let problems = exports_check::problems(&manifest, &plugin.linked);
        if !problems.is_empty() {
            return Err(SettingsError::Invalid(problems));
        }
        Ok(Arc::new(Plugin {
            id: plugin.id.clone(),
            digest: plugin.digest.clone(),
            bytes: plugin.bytes,
            manifest,
            notes,
            is_async: plugin.is_async,
            imports: plugin.imports.clone(),
            sandboxes: plugin.sandboxes,
            start_bytes: plugin.start_bytes,
            first_pages: plugin.first_pages,
            sources: Arc::clone(&plugin.sources),
            env: Arc::new(PluginEnv::new(plugin.id.as_str(), settings.clone(), &self.env)),
            linked: Arc::clone(&plugin.linked),
        }))
    }
}
