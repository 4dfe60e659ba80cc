//! What every request passes on its way to its route: its span in the host's own log, the guard, and the scopes of its token.
//!
//! All of it is one layer of the router: each layer is one more boxed future for each request, and one more copy of its routes.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use tracing::field::Empty;
use tracing::{Instrument as _, Span, debug, debug_span};

use super::guard::Guard;
use super::problem::{Kind, Problem};
use super::scope;

/// Lets a request in, or answers it with a problem; runs it in a span at the level debug, and logs its end. Of a stream of events,
/// that is the moment at which its head is sent.
pub(crate) async fn enter(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    // The route, not the path: IDs and keys would make each line another one.
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str);
    let span = debug_span!("request", method = %request.method(), route, token = Empty, status = Empty);
    let run = async {
        let started = Instant::now();
        let response = AssertUnwindSafe(pass(&guard, request, next)).catch_unwind().await.unwrap_or_else(panicked);
        Span::current().record("status", response.status().as_u16());
        debug!(elapsed = ?started.elapsed(), "request ended");
        response
    };
    run.instrument(span).await
}

async fn pass(guard: &Guard, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match admit(guard, &mut parts) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(problem) => problem.into_response(),
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
