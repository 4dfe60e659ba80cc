//! Routes of a process whose host has not started yet: they report that it lives, and what its start waits for.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::sync::watch;

use super::api::Readiness;
use super::entry::EntryLayer;
use super::guard::Guard;
use super::health::health;
use super::problem::{Kind, Problem};
use super::routes::Routes;

/// The reason why the host has not started yet.
type Reason = watch::Receiver<String>;

/// Returns every route of a process whose host has not started yet, for this reason.
pub(crate) fn startup_routes(reason: Reason, guard: Guard) -> Routes {
    let router = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .fallback(not_yet)
        .with_state(reason)
        .layer(EntryLayer(Arc::new(guard)));
    Routes::from(router)
}

async fn ready(State(reason): State<Reason>) -> Response {
    let reasons = vec![reason.borrow().clone()];
    (StatusCode::SERVICE_UNAVAILABLE, Json(Readiness::new(reasons, 0, 0))).into_response()
}

async fn not_yet(State(reason): State<Reason>) -> Problem {
    Problem::new(Kind::STORE_BUSY, format!("{}; nothing was changed, try again", *reason.borrow()))
}
