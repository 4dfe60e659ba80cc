//! What every request passes on its way to its route: its span in the host's own log, the guard, and the scopes of its token.
//!
//! All of it is one layer of the router: each layer is one more boxed future for each request, and one more copy of its routes.

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
use super::problem::Problem;
use super::scope;
use crate::access::Access;

/// A request that has begun: its span at the level debug, and its time.
pub(super) struct Entered {
    span: Span,
    started: Instant,
}

/// Lets a request in, or returns the problem of one that is not let in. What the client may do is not known on routes that need
/// no token.
///
/// `route` is the route of its path, if there is one: IDs and keys would make each line of the log another one.
pub(super) fn enter(
    guard: &Guard,
    route: Option<&str>,
    request: Request,
) -> (Entered, Result<(Option<Access>, Request), Problem>) {
    let name = route.unwrap_or("unknown");
    let span = debug_span!("request", method = %request.method(), route = name, token = Empty, status = Empty);
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let admitted = span.in_scope(|| admit(guard, route, &parts));
    (Entered { span, started }, admitted.map(|access| (access, Request::from_parts(parts, body))))
}

impl Entered {
    /// Runs the route, or answers with the problem of a request that was not let in, and logs the end. Of a stream of events,
    /// that is the moment at which its head is sent.
    pub(super) fn answer<F: Future<Output: IntoResponse>>(
        self,
        running: Result<F, Problem>,
    ) -> impl Future<Output = Response> + use<F> {
        let Entered { span, started } = self;
        let answer = async move {
            let response = match running {
                Ok(running) => {
                    let ended = AssertUnwindSafe(running).catch_unwind().await;
                    ended.map_or_else(|_| Problem::panicked().into_response(), IntoResponse::into_response)
                }
                Err(problem) => problem.into_response(),
            };
            Span::current().record("status", response.status().as_u16());
            debug!(elapsed = ?started.elapsed(), "request ended");
            response
        };
        answer.instrument(span)
    }
}

/// Checks a request, and returns what its client may do; `None` on routes that need no token.
fn admit(guard: &Guard, route: Option<&str>, request: &Parts) -> Result<Option<Access>, Problem> {
    let access = guard.check(request)?;
    let span = Span::current();
    if let Some(access) = &access
        && !span.is_disabled()
        && guard.asks_for_token()
    {
        span.record("token", &*access.name);
    }
    scope::check(&request.method, route, access.as_ref())?;
    Ok(access)
}

/// Puts an [`Entry`] before each route.
#[derive(Clone)]
pub(super) struct EntryLayer(pub(super) Arc<Guard>);

impl Layer<Route> for EntryLayer {
    type Service = Entry;

    fn layer(&self, route: Route) -> Entry {
        Entry { guard: Arc::clone(&self.0), route }
    }
}

/// A route whose requests are let in first. It is a service by hand: axum's `from_fn` makes more allocations for each request,
/// and moves it more often.
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
        let matched = request.extensions().get::<MatchedPath>().cloned();
        let (entered, admitted) = enter(&self.guard, matched.as_ref().map(MatchedPath::as_str), request);
        let running = admitted.map(|(access, mut request)| {
            if let Some(access) = access {
                request.extensions_mut().insert(access);
            }
            self.route.call(request)
        });
        Box::pin(entered.answer(running).map(Ok))
    }
}
