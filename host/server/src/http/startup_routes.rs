//! What is answered before there is a host to ask: that the process lives, and what its start waits for.

use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use std::sync::Arc;
use tokio::sync::watch;

use super::guard::{self, Guard};
use super::health::health;
use super::problem::{Kind, Problem};
use super::wire::Ready;

type Why = watch::Receiver<String>;

/// Every route, while the start waits.
pub(crate) fn waiting_routes(why: Why, guard: Guard) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .fallback(not_yet)
        .with_state(why)
        .layer(from_fn_with_state(Arc::new(guard), guard::guard))
}

async fn ready(State(why): State<Why>) -> Response {
    let because = why.borrow().clone();
    (StatusCode::SERVICE_UNAVAILABLE, Json(Ready::new(vec![because], 0, 0))).into_response()
}

async fn not_yet(State(why): State<Why>) -> Problem {
    Problem::new(Kind::STORE_BUSY, format!("{}; nothing was changed, try again", *why.borrow()))
}
