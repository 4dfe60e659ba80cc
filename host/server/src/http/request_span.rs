//! One span for each request in the host's own log, at the level debug.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use tracing::field::Empty;
use tracing::{Instrument as _, debug, debug_span};

/// Runs a request in its span, and logs its end. Of a stream of events, that is the moment at which its head is sent.
pub(crate) async fn request_span(request: Request, next: Next) -> Response {
    // The route, not the path: IDs and keys would make each line another one.
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str);
    let span = debug_span!("request", method = %request.method(), route, token = Empty, status = Empty);
    let started = Instant::now();
    let recorded = span.clone();
    let run = async move {
        let response = next.run(request).await;
        recorded.record("status", response.status().as_u16());
        debug!(elapsed = ?started.elapsed(), "request ended");
        response
    };
    run.instrument(span).await
}
