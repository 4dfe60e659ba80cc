//! The HTTP API: every route on one page.

pub(crate) mod problem;
pub(crate) mod path;
pub(crate) mod bytes;
mod links;
mod sealed_place;
pub(crate) mod api;
pub(crate) mod query;
pub(crate) mod memory;
pub(crate) mod body;
mod connection_state;
mod timed_stream;
mod peer_address;
pub(crate) mod scope;
mod openapi;
pub(crate) mod shared_bytes;
mod held_config;
pub(crate) mod length;
mod app_state;
pub(crate) mod author;
pub(crate) mod guard;
mod entry;
pub(crate) mod filter;
pub(crate) mod job_lookup;
pub(crate) mod event_stream;
pub(crate) mod enqueue;
pub(crate) mod jobs;
pub(crate) mod attempts;
pub(crate) mod failures;
mod events;
pub(crate) mod broadcasts;
pub(crate) mod plugins;
pub(crate) mod limits;
pub(crate) mod holds;
pub(crate) mod audit;
mod summary;
pub(crate) mod operations;
pub(crate) mod schedules;
mod nodes;
mod config;
mod health;
mod routes;
mod startup_routes;
mod unread_body;
pub(crate) mod connections;
#[cfg(test)]
pub(crate) mod error_samples;
#[cfg(test)]
mod fuzz;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::from_fn;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post, put};

pub(crate) use app_state::AppState;
pub(crate) use bytes::{json_or_base64, to_base64};
pub(crate) use connections::ConnectionBounds;
pub(crate) use guard::Guard;
pub(crate) use held_config::HeldConfig;
pub(crate) use query::encode;
pub(crate) use startup_routes::startup_routes;

use entry::EntryLayer;
use problem::{Kind, Problem};
pub(crate) use routes::Routes;

/// Returns every route of a running host: those of the API, and `pages`, those of its dashboard. `unknown_page` answers a browser that
/// asks for a page that does not exist.
pub(crate) fn routes<F: Future<Output = Response> + Send>(
    state: AppState,
    guard: Arc<Guard>,
    pages: Router,
    unknown_page: impl FnOnce(Request) -> F + Clone + Send + Sync + 'static,
) -> Routes {
    let router = Router::new()
        .route("/v1/jobs", post(enqueue::enqueue).get(jobs::list))
        .route("/v1/jobs/{id}", no_query(get(jobs::show)))
        .route("/v1/jobs/{id}/result", no_query(get(jobs::result)))
        .route("/v1/jobs/{id}/attempts", no_query(get(attempts::list)))
        .route("/v1/jobs/{id}/events", no_query(get(events::events)))
        .route("/v1/jobs/{id}/cancel", no_query(post(jobs::cancel)))
        .route("/v1/jobs/{id}/retry", post(jobs::retry))
        .route("/v1/failures", get(failures::list))
        .route("/v1/failures/{fingerprint}", no_query(get(failures::show)))
        .route("/v1/failures/{fingerprint}/resolve", no_query(post(failures::resolve)))
        .route("/v1/failures/{fingerprint}/ignore", no_query(post(failures::ignore)))
        .route("/v1/failures/{fingerprint}/reopen", no_query(post(failures::reopen)))
        .route("/v1/broadcasts/{topic}", post(broadcasts::send).merge(no_query(get(broadcasts::show))))
        .route("/v1/plugins", no_query(get(plugins::list)))
        .route("/v1/plugins/{id}", no_query(get(plugins::show)))
        .route("/v1/nodes", no_query(get(nodes::list)))
        .route("/v1/nodes/{node}/drain", no_query(post(nodes::drain)))
        .route("/v1/nodes/{node}/resume", no_query(post(nodes::resume)))
        .route("/v1/config", no_query(get(config::show)))
        .route("/v1/limits", put(limits::set).delete(limits::clear).merge(no_query(get(limits::list))))
        .route("/v1/holds", get(holds::list).post(holds::set).delete(holds::release))
        .route("/v1/audit", get(audit::list))
        .route("/v1/summary", get(summary::show))
        .route("/v1/operations", get(operations::list).merge(no_query(post(operations::start))))
        .route("/v1/operations/{id}", no_query(get(operations::show).delete(operations::cancel)))
        .route("/v1/schedules", get(schedules::list))
        .route("/v1/schedules/{id}", put(schedules::put))
        .route("/v1/schedules/{id}", no_query(get(schedules::show).delete(schedules::remove)))
        .route("/v1/schedules/{id}/run", no_query(post(schedules::run)))
        .route("/v1/schedules/{id}/pause", no_query(post(schedules::pause)))
        .route("/v1/schedules/{id}/resume", no_query(post(schedules::resume)))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .method_not_allowed_fallback(unknown_method)
        .with_state(state.clone())
        .layer(EntryLayer(Arc::clone(&guard)))
        .merge(pages)
        .fallback({
            let guard = Arc::clone(&guard);
            move |request: Request| async move {
                if is_for_a_page(&request) {
                    return unknown_page(request).await;
                }
                let (entered, admitted) = entry::enter(&guard, None, request);
                entered.answer(admitted.map(|(_, request)| async move { unknown_route(&request) })).await
            }
        });
    Routes::of_host(router, guard, state)
}

/// Returns true for a request of a browser that would show an answer, for an address that is none of the API's.
fn is_for_a_page(request: &Request) -> bool {
    let path = request.uri().path();
    let accepted = request.headers().get_all(header::ACCEPT).iter().filter_map(|accepted| accepted.to_str().ok());
    path != "/v1" && !path.starts_with("/v1/") && accepted.into_iter().any(|accepted| accepted.contains("text/html"))
}

/// Refuses queries on routes that do not read one.
fn no_query(methods: MethodRouter<AppState>) -> MethodRouter<AppState> {
    methods.route_layer(from_fn(query::refuse))
}

fn unknown_route(request: &Request) -> Problem {
    let path = request.uri().path();
    let hint = if path.starts_with("/v1/limits/") {
        "; the query names a group and a key, as in /v1/limits?group=words%2Fcount&key=acme"
    } else {
        ""
    };
    Problem::new(Kind::ROUTE_UNKNOWN, format!("unknown route {path}; GET /openapi.json lists all routes{hint}"))
}

async fn unknown_method(request: Request) -> Problem {
    let detail = format!(
        "{} does not accept {}; the `Allow` header lists the methods that it accepts",
        request.uri().path(),
        request.method()
    );
    Problem::new(Kind::METHOD_NOT_ALLOWED, detail)
}
