//! What every request passes on its way to its route: its span in the host's own log, the guard, and the scopes of its token.
//!
//! All of it is one layer of the router: each layer is one more boxed future for each request, and one more copy of its routes.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::Route;
use futures_util::FutureExt as _;
use tower_layer::Layer;
use tower_service::Service;
use tracing::field::Empty;
use tracing::{Instrument as _, Span, debug, debug_span};

use super::guard::Guard;
use super::problem::{Kind, Problem};
use super::scope;

/// Puts an [`Entry`] before each route.
#[derive(Clone)]
pub(super) struct EntryLayer(pub(super) Arc<Guard>);

impl Layer<Route> for EntryLayer {
    type Service = Entry;

    fn layer(&self, route: Route) -> Entry {
        Entry { guard: Arc::clone(&self.0), route }
    }
}

/// Lets requests in to a route, or answers them with a problem; runs each in a span at the level debug, and logs its end. Of a
/// stream of events, that is the moment at which its head is sent.
///
/// It is a service by hand: axum's `from_fn` makes more allocations for each request, and moves it more often.
#[derive(Clone)]
pub(super) struct Entry {
    guard: Arc<Guard>,
    route: Route,
}

impl Service<Request> for Entry {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.route, cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The route, not the path: IDs and keys would make each line another one.
        let route = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str);
        let span = debug_span!("request", method = %request.method(), route, token = Empty, status = Empty);
        let started = Instant::now();
        let (mut parts, body) = request.into_parts();
        let running = match span.in_scope(|| admit(&self.guard, &mut parts)) {
            Ok(()) => Ok(self.route.call(Request::from_parts(parts, body))),
            Err(problem) => Err(problem),
        };
        let run = async move {
            let response = match running {
                Ok(running) => {
                    let ended = AssertUnwindSafe(running).catch_unwind().await;
                    ended.map_or_else(panicked, |response| response.unwrap_or_else(|never| match never {}))
                }
                Err(problem) => problem.into_response(),
            };
            Span::current().record("status", response.status().as_u16());
            debug!(elapsed = ?started.elapsed(), "request ended");
            Ok(response)
        };
        Box::pin(run.instrument(span))
    }
}

/// Checks a request, and adds the rights of its client to it.
fn admit(guard: &Guard, request: &mut Parts) -> Result<(), Problem> {
    let access = guard.check(request)?;
    let span = Span::current();
    if let Some(access) = &access
        && !span.is_disabled()
        && guard.asks_for_token()
    {
        span.record("token", &*access.name);
    }
    scope::check(request, access.as_ref())?;
    if let Some(access) = access {
        request.extensions.insert(access);
    }
    Ok(())
}

/// Returns the answer to a request whose route panicked. The panic itself is in the log.
fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    let detail = "a bug in Wharf ended this request; the host goes on, and its log names the place";
    Problem::new(Kind::INTERNAL, detail).into_response()
}
