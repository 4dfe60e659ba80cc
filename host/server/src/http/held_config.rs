//! The settings that the host has, for clients: replaced when the settings file is read again.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use wharf_core::bounds;
use wharf_core::time::Timestamp;

use super::api::{Config, ConfigRefusal, ConfigSetting, Moment};
use crate::config::ShownSetting;

/// The settings of this host at this moment. Clones share them.
#[derive(Clone)]
pub(crate) struct HeldConfig(Arc<ArcSwap<Config>>);

impl HeldConfig {
    /// Starts with the settings that were read at the start.
    pub(crate) fn new(settings: Vec<ShownSetting>, digest: String) -> HeldConfig {
        HeldConfig(Arc::new(ArcSwap::from_pointee(config(settings, digest, Vec::new()))))
    }

    /// Returns the settings of this moment.
    pub(crate) fn get(&self) -> Arc<Config> {
        self.0.load_full()
    }

    /// Replaces the settings. `restart` are the keys of those that need a restart.
    pub(crate) fn replace(&self, settings: Vec<ShownSetting>, digest: String, restart: Vec<String>) {
        self.0.store(Arc::new(config(settings, digest, restart)));
    }

    /// Notes that the settings file is refused.
    pub(crate) fn refuse(&self, why: &str) {
        let mut config = Config::clone(&self.0.load());
        let since = config.refused.map_or_else(now, |before| before.since);
        // A file may have any number of mistakes.
        let end = why.floor_char_boundary(bounds::REFUSAL_BYTES_MAX);
        config.refused = Some(ConfigRefusal { why: why[..end].to_owned(), since });
        self.0.store(Arc::new(config));
    }
}

fn config(settings: Vec<ShownSetting>, digest: String, restart: Vec<String>) -> Config {
    let settings = settings.into_iter().map(ConfigSetting::from).collect();
    Config { settings, digest, read_at: now(), refused: None, restart }
}

/// Returns the time of this machine: the file and its reader are here, too.
fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment(Timestamp::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX)))
}
