//! State of the routes. Each handler extracts the parts that it uses.

use std::sync::Arc;

use axum::extract::FromRef;
use tokio_util::sync::CancellationToken;
use wharf_runner::Host;

use super::held_config::HeldConfig;
use super::openapi::Description;
use super::shared_bytes::SharedBytes;
use crate::config::Settings;
use crate::metrics::Metrics;

/// State of the routes of one running host.
#[derive(Clone, FromRef)]
pub(crate) struct AppState {
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
        AppState { host, metrics, stopping, shared: Arc::default(), description, config }
    }
}
