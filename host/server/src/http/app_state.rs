//! State of the routes. Each handler extracts the parts that it uses.

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRef;
use tokio_util::sync::CancellationToken;
use wharf_runner::Host;

use super::held_config::HeldConfig;
use super::openapi::Description;
use super::shared_bytes::SharedBytes;
use crate::config::Settings;
use crate::metrics::Metrics;

/// State of the routes of one running host. Each request clones it more than once, so clones share one allocation.
#[derive(Clone)]
pub(crate) struct AppState(Arc<Parts>);

/// The parts of the state.
pub(crate) struct Parts {
    /// The host that the routes serve.
    pub(crate) host: Host,
    /// Counters that `/metrics` shows.
    pub(crate) metrics: Arc<Metrics>,
    /// Cancelled when the host has stopped: streams and waits end then, and with them their connections.
    pub(crate) stopping: CancellationToken,
    /// Large parts of responses that are being sent.
    pub(crate) shared: Arc<SharedBytes>,
    /// The document at `/openapi.json`.
    pub(crate) description: Arc<Description>,
    /// The settings of the host, for clients.
    pub(crate) config: HeldConfig,
}

impl AppState {
    /// Returns the state of the routes of this host.
    pub(crate) fn new(
        host: Host,
        metrics: Arc<Metrics>,
        stopping: CancellationToken,
        settings: &Settings,
        config: HeldConfig,
    ) -> AppState {
        let description = Arc::new(Description::new(settings.public_url.as_ref()));
        AppState(Arc::new(Parts { host, metrics, stopping, shared: Arc::default(), description, config }))
    }
}

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl FromRef<AppState> for Host {
    fn from_ref(state: &AppState) -> Host {
        state.host.clone()
    }
}

impl FromRef<AppState> for Arc<Metrics> {
    fn from_ref(state: &AppState) -> Arc<Metrics> {
        Arc::clone(&state.metrics)
    }
}

impl FromRef<AppState> for CancellationToken {
    fn from_ref(state: &AppState) -> CancellationToken {
        state.stopping.clone()
    }
}

impl FromRef<AppState> for Arc<SharedBytes> {
    fn from_ref(state: &AppState) -> Arc<SharedBytes> {
        Arc::clone(&state.shared)
    }
}

impl FromRef<AppState> for Arc<Description> {
    fn from_ref(state: &AppState) -> Arc<Description> {
        Arc::clone(&state.description)
    }
}

impl FromRef<AppState> for HeldConfig {
    fn from_ref(state: &AppState) -> HeldConfig {
        state.config.clone()
    }
}
