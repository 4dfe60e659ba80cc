//! What all sandboxes of one plugin have in common. One thing, so that to make a sandbox touches one count that other
//! threads touch, too.

use tokio::runtime::Handle;
use wasmtime_wasi_config::WasiConfigVariables;

use crate::spec::grants::PluginSettings;

pub(crate) struct Premises {
    /// The plugin's name, for what is said to its operator.
    pub(crate) plugin: String,
    pub(crate) settings: PluginSettings,
    pub(crate) config: WasiConfigVariables,
    /// The host's own runtime.
    pub(crate) home: Handle,
}

impl Premises {
    pub(crate) fn new(plugin: &str, settings: PluginSettings, home: Handle) -> Premises {
        let config = settings.config.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Premises { plugin: plugin.to_owned(), settings, config, home }
    }
}
