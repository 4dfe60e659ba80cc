//! State of the routes. Each handler extracts the parts that it uses.

use std::sync::Arc;

use axum::extract::FromRef;
use tokio_util::sync::CancellationToken;
use wharf_runner::Host;

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
}
