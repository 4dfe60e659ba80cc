//! New settings for the plugins of the folder: all of them take effect with one catalog, or none does.

use std::sync::{Arc, Weak};

use tokio::sync::oneshot;
use wharf_core::ids::PluginId;
use wharf_engine::{Engine, LoadError, Plugin, SettingsError};

use super::State;
use crate::catalog::{Loaded, Refused};
use crate::dir_scan::Kind;
use crate::live_settings::{LiveSettings, SettingsChanges, SettingsRejection};
use crate::notice::Notice;

/// A request to replace the settings.
pub(crate) struct SettingsRequest {
    pub(crate) settings: LiveSettings,
    pub(crate) answer: oneshot::Sender<Result<SettingsChanges, SettingsRejection>>,
}

/// Plugins that are no longer in the catalog. Attempts of them may run, with the grants of their time.
#[derive(Default)]
pub(super) struct EarlierPlugins(Vec<Weak<Plugin>>);

impl EarlierPlugins {
    pub(super) fn extend(&mut self, plugins: impl IntoIterator<Item = Arc<Plugin>>) {
        self.0.extend(plugins.into_iter().map(|plugin| Arc::downgrade(&plugin)));
        self.0.retain(|plugin| plugin.strong_count() > 0);
    }

    /// Ends the attempts of each plugin that has less granted by these settings.
    fn revoke_what_is_lost(&self, settings: &LiveSettings) {
        for plugin in self.0.iter().filter_map(Weak::upgrade) {
            let lost = plugin.lost_with(settings.plugin(&plugin.id));
            if !lost.is_empty() {
                let id = &plugin.id;
                let keys = lost.join(", ");
                plugin.revoke(format!(
                    "it was given back: new settings grant plugin `{id}` less than it began with, in [plugins.{id}]: {keys}"
                ));
            }
        }
    }
}

/// A loaded plugin with its new settings.
enum Next {
    Plugin(Arc<Plugin>),
    Refused(LoadError),
}

impl State {
    pub(super) async fn handle_request(&mut self, request: SettingsRequest) {
        let result = self.change_settings(request.settings).await;
        // The caller may be gone.
        let _ = request.answer.send(result);
    }

    async fn change_settings(&mut self, settings: LiveSettings) -> Result<SettingsChanges, SettingsRejection> {
        let before = &self.contents.settings;
        let loaded = self.contents.plugins.iter().filter(|(id, _)| !settings.agree_on(before, id));
        let loaded: Vec<Arc<Plugin>> = loaded.map(|(_, loaded)| Arc::clone(&loaded.plugin)).collect();
        let next = plugins_with(Arc::clone(&self.folder.engine), loaded, &settings).await?;
        // From here on nothing waits and nothing fails.
        let settings = Arc::new(settings);
        let before = std::mem::replace(&mut self.contents.settings, Arc::clone(&settings));
        self.forget_refusals(&before);
        let mut changes = SettingsChanges::default();
        for (id, next) in next {
            match next {
                Next::Plugin(plugin) => {
                    self.replace(&id, plugin);
                    changes.changed.push(id);
                }
                Next::Refused(why) => {
                    self.refuse(&id, why);
                    changes.refused.push(id);
                }
            }
        }
        self.handle_ready();
        self.is_new = true;
        self.publish();
        // New attempts get what the catalog has by now.
        self.earlier.revoke_what_is_lost(&settings);
        Ok(changes)
    }

    fn replace(&mut self, id: &PluginId, plugin: Arc<Plugin>) {
        if let Some(loaded) = self.contents.plugins.get_mut(id) {
            plugin.log_notes();
            self.earlier.extend([std::mem::replace(&mut loaded.plugin, plugin)]);
        }
    }

    fn refuse(&mut self, id: &PluginId, why: LoadError) {
        let Some(Loaded { plugin, file, .. }) = self.contents.plugins.remove(id) else { return };
        self.earlier.extend([plugin]);
        self.folder.listener.notify(&Notice::PluginRefused {
            file: file.display().to_string(),
            why: why.to_string(),
            kept: false,
            passing: false,
        });
        let since = self.folder.store.now();
        let refused = Refused { plugin: Some(id.clone()), file: file.clone(), why, since, retry: None };
        self.contents.refused.insert(file, refused);
    }

    /// Has the files loaded again that were refused with other settings of their plugins.
    fn forget_refusals(&mut self, before: &LiveSettings) {
        for (path, file) in &mut self.files {
            let Kind::Component(id) = &file.kind else { continue };
            let is_refused = file.handled.is_some() && self.contents.refused.contains_key(path);
            if is_refused && !self.contents.settings.agree_on(before, id) {
                (file.handled, file.retry) = (None, None);
            }
        }
    }
}

/// Makes each of these plugins with new settings.
async fn plugins_with(
    engine: Arc<Engine>,
    loaded: Vec<Arc<Plugin>>,
    settings: &LiveSettings,
) -> Result<Vec<(PluginId, Next)>, SettingsRejection> {
    let (mut next, mut invalid) = (Vec::new(), Vec::new());
    for plugin in loaded {
        let id = plugin.id.clone();
        match engine.with_settings(&plugin, settings.plugin(&id)).await {
            Ok(plugin) => next.push((id, Next::Plugin(plugin))),
            Err(SettingsError::NotGranted(why)) => next.push((id, Next::Refused(why))),
            Err(SettingsError::Invalid(problems)) => invalid.push((id, problems)),
        }
    }
    if invalid.is_empty() { Ok(next) } else { Err(SettingsRejection::Invalid(invalid)) }
}
