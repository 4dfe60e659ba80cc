//! `/health`, `/ready` and `/metrics`: for probes and Prometheus.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use wharf_runner::Host;

use super::api::{Health, Readiness};
use super::problem::{Kind, Problem};
use crate::metrics::{Format, Gauges, Metrics};

/// Reports that the process answers; [`ready`] reports if it can work.
pub(crate) async fn health() -> Response {
    Json(Health::ALIVE).into_response()
}

/// Reports if the host takes and runs jobs, and if not, why.
pub(crate) async fn ready(State(host): State<Host>) -> Response {
    let health = host.health();
    let mut reasons = Vec::new();
    if health.draining && !health.stopping {
        reasons.push("draining: an operator drains the host; `wharf node resume` has it claim jobs again".to_owned());
    }
    if health.stopping {
        reasons.push("draining: the host is stopping".to_owned());
    } else if !health.alive {
        reasons.push(
            "the host has stopped running jobs, as a bug ended its loop; see its log, and start it again".to_owned(),
        );
    }
    if !health.first_scan_done {
        reasons.push("plugins are still loading".to_owned());
    }
    if let Err(error) = &health.store {
        reasons.push(format!("the store failed: {error}"));
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness::new(reasons, health.running, health.capacity))).into_response()
}

/// Returns all metrics, in the format that the client accepts.
pub(crate) async fn metrics(
    State(host): State<Host>,
    State(metrics): State<Arc<Metrics>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let format = Format::accepted(&headers);
    let text = metrics.encode(&Gauges::of(&host, &metrics.known_tasks).await);
    let text = text.map_err(|error| Problem::new(Kind::INTERNAL, format!("could not write the metrics: {error}")))?;
    let headers = [(header::CONTENT_TYPE, format.media_type()), (header::VARY, "accept")];
    Ok((headers, format.of_open_metrics(text)).into_response())
}
