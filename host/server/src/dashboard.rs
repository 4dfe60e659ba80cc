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
mod sessions;
mod visitor;
mod layout;
mod answer;
mod page_path;
mod entry;
mod login;
mod listing;
mod chart;
mod overview;
mod job_row;
mod jobs;
mod timeline;
mod content;
mod job_log;
mod job;
mod failures;
mod bulk;
mod operations;
mod hold_list;
mod limit_list;
mod limits;
mod suggestions;
mod schedules;
mod plugins;
mod schema_form;
mod run;
mod nodes;
mod audit;
mod broadcasts;
mod live;
mod live_job;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};

use crate::http::problem::{Kind, Problem};
use crate::http::scope::Need;

pub(crate) use entry::Dashboard;
pub(crate) use keys::Keys;
pub(crate) use pulse::Pulse;

/// Returns every route of the dashboard, each behind what it needs of the visitor.
pub(crate) fn routes(dashboard: Dashboard) -> Router {
    let one_of = |needs: &'static [Need], methods: MethodRouter<Dashboard>| {
        methods.route_layer(from_fn_with_state((dashboard.clone(), needs), entry::enter))
    };
    let open = |methods: MethodRouter<Dashboard>| one_of(&[], methods);
    let needs = |need: Need, methods: MethodRouter<Dashboard>| one_of(need.alone(), methods);
    Router::new()
        .route("/assets/{name}", open(get(assets::asset)))
        .route("/login", open(get(login::show).post(login::sign_in)))
        .route("/logout", open(post(login::sign_out)))
        .route("/", needs(Need::Read, get(overview::show)))
        .route("/jobs", needs(Need::Read, get(jobs::list)))
        .route("/jobs/{id}", needs(Need::Read, get(job::show)))
        .route("/jobs/{id}/payload", needs(Need::Read, get(job::payload)))
        .route("/jobs/{id}/result", needs(Need::Read, get(job::result)))
        .route("/jobs/{id}/retry", needs(Need::Operate, post(job::retry)))
        .route("/jobs/{id}/cancel", needs(Need::Operate, post(job::cancel)))
        .route("/run", needs(Need::Enqueue, get(run::show).post(run::run)))
        .route("/bulk", needs(Need::OperateAll, get(bulk::preview)))
        .route(
            "/operations",
            needs(Need::ReadAll, get(operations::list)).merge(needs(Need::OperateAll, post(bulk::start))),
        )
        .route("/operations/{id}", needs(Need::ReadAll, get(operations::show)))
        .route("/operations/{id}/cancel", needs(Need::OperateAll, post(operations::cancel)))
        .route("/failures", needs(Need::ReadAll, get(failures::list)))
        .route("/failures/{fingerprint}", needs(Need::ReadAll, get(failures::show)))
        .route("/failures/{fingerprint}/resolve", needs(Need::OperateAll, post(failures::resolve)))
        .route("/failures/{fingerprint}/ignore", needs(Need::OperateAll, post(failures::ignore)))
        .route("/failures/{fingerprint}/reopen", needs(Need::OperateAll, post(failures::reopen)))
        .route("/limits", needs(Need::ReadAll, get(limits::show)).merge(needs(Need::OperateAll, post(limits::set))))
        .route("/limits/group", needs(Need::ReadAll, get(limits::group)))
        .route("/holds", needs(Need::OperateAll, post(limits::hold)))
        .route("/holds/release", needs(Need::OperateAll, post(limits::release)))
        .route(
            "/schedules",
            needs(Need::ReadAll, get(schedules::list)).merge(needs(Need::OperateAll, post(suggestions::accept))),
        )
        .route("/schedules/{id}", needs(Need::ReadAll, get(schedules::show)))
        .route("/schedules/{id}/run", needs(Need::OperateAll, post(schedules::run)))
        .route("/schedules/{id}/pause", needs(Need::OperateAll, post(schedules::pause)))
        .route("/schedules/{id}/resume", needs(Need::OperateAll, post(schedules::resume)))
        .route("/plugins", needs(Need::ReadAll, get(plugins::list)))
        .route("/plugins/{id}", needs(Need::ReadAll, get(plugins::show)))
        .route("/nodes", needs(Need::ReadAll, get(nodes::list)))
        .route("/audit", needs(Need::Admin, get(audit::list)))
        .route(
            "/broadcasts",
            one_of(&[Need::ReadAll, Need::Broadcast], get(broadcasts::show))
                .merge(needs(Need::Broadcast, post(broadcasts::send))),
        )
        .route("/broadcasts/{id}", needs(Need::ReadAll, get(broadcasts::batch)))
        .route("/live/plugins", needs(Need::ReadAll, get(live::plugins)))
        .route("/live/nodes", needs(Need::ReadAll, get(live::nodes)))
        .route("/live/schedules/{id}", needs(Need::ReadAll, get(live::schedule)))
        .route("/live/operations/{id}", needs(Need::ReadAll, get(live::operation)))
        .route("/live/broadcasts/{id}", needs(Need::ReadAll, get(live::batch)))
        .route("/live/health", one_of(&[Need::Read, Need::Enqueue, Need::Broadcast], get(live::health)))
        .route("/live/overview", needs(Need::ReadAll, get(live::overview)))
        .route("/live/jobs", needs(Need::Read, get(live::jobs)))
        .route("/live/jobs/{id}", needs(Need::Read, get(live_job::follow)))
        .method_not_allowed_fallback(entry::unknown_method)
        .with_state(dashboard)
}

/// Returns the page that says that an address has none.
pub(crate) async fn unknown_page(dashboard: &Dashboard, request: Request) -> Response {
    let detail = format!("unknown page {}", request.uri().path());
    entry::problem(dashboard, request, Problem::new(Kind::ROUTE_UNKNOWN, detail)).await
}
