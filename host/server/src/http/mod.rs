//! The HTTP API: every route on one page.

mod problem;
mod path;
mod bytes;
pub(crate) mod wire;
mod query;
mod body;
pub(crate) mod connections;
mod documents;
mod app_state;
mod guard;
mod enqueue;
mod jobs;
mod events;
mod broadcasts;
pub(crate) mod plugins;
mod limits;
pub(crate) mod nodes;
mod health;
mod startup_routes;
mod openapi;
#[cfg(test)]
pub(crate) mod error_samples;
#[cfg(test)]
mod fuzz;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, get, post, put};
use tower_http::catch_panic::CatchPanicLayer;

pub(crate) use app_state::Face;
pub(crate) use bytes::{json_or_base64, to_base64};
pub(crate) use guard::Guard;
pub(crate) use query::encode;
pub(crate) use startup_routes::waiting_routes;

use problem::{Kind, Problem};

/// Every route.
pub(crate) fn routes(face: Arc<Face>, guard: Guard) -> Router {
    Router::new()
        .route("/v1/jobs", post(enqueue::enqueue).get(jobs::list))
        .route("/v1/jobs/{id}", plain(get(jobs::show)))
        .route("/v1/jobs/{id}/result", plain(get(jobs::result)))
        .route("/v1/jobs/{id}/events", plain(get(events::events)))
        .route("/v1/jobs/{id}/cancel", plain(post(jobs::cancel)))
        .route("/v1/jobs/{id}/retry", plain(post(jobs::retry)))
        .route("/v1/broadcasts/{topic}", post(broadcasts::send).merge(plain(get(broadcasts::show))))
        .route("/v1/plugins", plain(get(plugins::list)))
        .route("/v1/plugins/{id}", plain(get(plugins::show)))
        .route("/v1/nodes", plain(get(nodes::list)))
        .route("/v1/limits", plain(get(limits::list)))
        .route("/v1/limits/{group}", plain(put(limits::set_group).delete(limits::clear_group)))
        .route("/v1/limits/{group}/{key}", plain(put(limits::set_key).delete(limits::clear_key)))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(face)
        .layer(from_fn_with_state(Arc::new(guard), guard::guard))
        .layer(CatchPanicLayer::custom(guard::panicked))
}

/// Routes whose addresses have no query.
fn plain(methods: MethodRouter<Arc<Face>>) -> MethodRouter<Arc<Face>> {
    methods.route_layer(from_fn(query::none))
}

async fn no_route(request: Request) -> Problem {
    let path = request.uri().path();
    let hint = if path.starts_with("/v1/limits/") {
        "; a group with a slash in its name is one segment: words%2Fcount"
    } else {
        ""
    };
    Problem::new(Kind::ROUTE_UNKNOWN, format!("there is nothing at {path}; the API begins at /v1/jobs{hint}"))
}

async fn no_method(request: Request) -> Problem {
    let detail =
        format!("{} does not take {}; the `Allow` header has what it takes", request.uri().path(), request.method());
    Problem::new(Kind::METHOD_NOT_ALLOWED, detail)
}
