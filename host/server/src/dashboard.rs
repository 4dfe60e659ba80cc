//! The dashboard: pages for operators at `/`, written by the server and complete without a script.
//!
//! Pages and acts go through the verbs of `Host` that the API and the commands use, with the scopes of the API. All links are
//! relative, so that the pages work below any prefix that a proxy adds. What guests and clients wrote is text, never markup.

mod text;
mod form;
mod keys;
mod assets;
mod verdict;
mod pulse;
mod visitor;
mod layout;
mod answer;
mod entry;
mod login;
mod chart;
mod overview;
mod job_row;
mod jobs;
mod timeline;
mod content;
mod job_log;
mod job;
mod live;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};

use crate::http::scope::Need;

pub(crate) use entry::Dashboard;
pub(crate) use keys::Keys;
pub(crate) use pulse::Pulse;

/// Returns every route of the dashboard, each behind what it needs of the visitor.
pub(crate) fn routes(dashboard: Dashboard) -> Router {
    let open = |methods: MethodRouter<Dashboard>| {
        methods.route_layer(from_fn_with_state((dashboard.clone(), None), entry::enter))
    };
    let needs = |need: Need, methods: MethodRouter<Dashboard>| {
        methods.route_layer(from_fn_with_state((dashboard.clone(), Some(need)), entry::enter))
    };
    Router::new()
        .route("/assets/{name}", open(get(assets::asset)))
        .route("/login", open(get(login::show).post(login::sign_in)))
        .route("/logout", needs(Need::Read, post(login::sign_out)))
        .route("/", needs(Need::Read, get(overview::show)))
        .route("/jobs", needs(Need::Read, get(jobs::list)))
        .route("/jobs/{id}", needs(Need::Read, get(job::show)))
        .route("/jobs/{id}/payload", needs(Need::Read, get(job::payload)))
        .route("/jobs/{id}/result", needs(Need::Read, get(job::result)))
        .route("/jobs/{id}/retry", needs(Need::Operate, post(job::retry)))
        .route("/jobs/{id}/cancel", needs(Need::Operate, post(job::cancel)))
        .route("/live/health", needs(Need::Read, get(live::health)))
        .route("/live/overview", needs(Need::ReadAll, get(live::overview)))
        .route("/live/jobs", needs(Need::Read, get(live::jobs)))
        .route("/live/jobs/{id}", needs(Need::Read, get(live::one_job)))
        .with_state(dashboard)
}
