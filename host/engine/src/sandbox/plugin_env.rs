//! The environment that all sandboxes of one plugin share: one value, so that making a sandbox changes only one
//! reference count that other threads change, too.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;
use tokio_rustls::rustls::ClientConfig;
use wasmtime_wasi_config::WasiConfigVariables;

use crate::sandbox::secrets::mask::{PluginMasks, SharedMasks};
use crate::schedule::budget::Budget;
use crate::spec::grants::PluginSettings;

/// The environment of a plugin's sandboxes: its settings, and the host's runtime.
pub(crate) struct PluginEnv {
    /// The plugin's id, for messages to its operator.
    pub(crate) plugin: String,
    pub(crate) settings: PluginSettings,
    pub(crate) config: WasiConfigVariables,
    /// The host's own runtime.
    pub(crate) runtime: Handle,
    /// The host's budget of memory.
    pub(crate) budget: Budget,
    /// The settings of its encrypted connections.
    pub(crate) tls: Arc<ClientConfig>,
    /// Masks the values of the plugin's secrets.
    pub(crate) masks: PluginMasks,
    /// Why no attempt may use these settings any more; empty as long as they may.
    revoked: OnceLock<String>,
    /// Number of HTTP requests that hold a reference, too.
    requests: AtomicU64,
}

/// The environment as an HTTP request of a sandbox holds it: it may outlive its sandbox, and is no sandbox itself.
pub(crate) struct RequestEnv(Arc<PluginEnv>);

impl RequestEnv {
    pub(crate) fn new(env: &Arc<PluginEnv>) -> RequestEnv {
        env.requests.fetch_add(1, Ordering::Relaxed);
        RequestEnv(Arc::clone(env))
    }
}

impl Drop for RequestEnv {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Deref for RequestEnv {
    type Target = PluginEnv;

    fn deref(&self) -> &PluginEnv {
        &self.0
    }
}

/// The parts that all plugins of a host share.
#[derive(Clone)]
pub(crate) struct HostEnv {
    /// The host's own runtime.
    pub(crate) runtime: Handle,
    /// The host's budget of memory.
    pub(crate) budget: Budget,
    /// The settings of plugins' encrypted connections.
    pub(crate) tls: Arc<ClientConfig>,
    /// The masks of plugins' secrets.
    pub(crate) masks: SharedMasks,
}

impl PluginEnv {
    /// Makes the environment of a plugin with these settings.
    pub(crate) fn new(plugin: &str, settings: PluginSettings, host: &HostEnv) -> PluginEnv {
        let HostEnv { runtime, budget, tls, masks } = host.clone();
        let config = settings.config.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let masks = PluginMasks::new(&settings.secrets, &masks);
        let (plugin, revoked, requests) = (plugin.to_owned(), OnceLock::new(), AtomicU64::new(0));
        PluginEnv { plugin, settings, config, runtime, budget, tls, masks, revoked, requests }
    }

    /// Returns the number of sandboxes that have this environment, besides its plugin: each holds one reference, so that counting
    /// them costs no attempt anything.
    pub(crate) fn live_sandboxes(env: &Arc<PluginEnv>) -> u64 {
        let others = (Arc::strong_count(env) as u64).saturating_sub(1);
        others.saturating_sub(env.requests.load(Ordering::Relaxed))
    }

    /// Ends every attempt that has these settings: at its next host call, at its next tick, or at its end. `why` is recorded as
    /// the reason.
    pub(crate) fn revoke(&self, why: String) {
        // Who was first has ended them.
        let _ = self.revoked.set(why);
    }

    /// Returns why no attempt may use these settings any more, if that is so.
    pub(crate) fn revoked(&self) -> Option<&str> {
        self.revoked.get().map(String::as_str)
    }
}
