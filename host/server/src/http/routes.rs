//! The routes of a host as its connections call them.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::Response;
use futures_util::FutureExt as _;
use tower_service::Service as _;

use super::entry::enter;
use super::guard::Guard;
use super::{AppState, enqueue, scope};

/// The route of enqueued jobs.
const JOBS: &str = "/v1/jobs";

/// The routes of a host. Clones share them.
#[derive(Clone)]
pub(crate) struct Routes {
    router: Router,
    /// The state of the route that enqueues jobs, which is called without the router: the router clones and boxes it several
    /// times for each request, and most requests are these.
    enqueue: Option<(Arc<Guard>, AppState)>,
}

impl Routes {
    /// Returns the routes of a running host; `router` has all of them.
    pub(super) fn of_host(router: Router, guard: Arc<Guard>, state: AppState) -> Routes {
        Routes { router, enqueue: Some((guard, state)) }
    }

    /// Answers a request.
    pub(super) fn call(&self, request: Request) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        match &self.enqueue {
            Some((guard, state)) if *request.method() == Method::POST && request.uri().path() == JOBS => {
                let (entered, admitted) = enter(guard, Some(JOBS), request);
                let running = admitted.and_then(|(access, request)| {
                    Ok(enqueue::enqueue(State(state.clone()), access.ok_or_else(scope::unknown_client)?, request))
                });
                Box::pin(entered.answer(running))
            }
            _ => Box::pin(
                self.router.clone().call(request).map(|response| response.unwrap_or_else(|never| match never {})),
            ),
        }
    }
}

impl From<Router> for Routes {
    fn from(router: Router) -> Routes {
        Routes { router, enqueue: None }
    }
}
