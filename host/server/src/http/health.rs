//! `/health`, `/ready` and `/metrics`: what machines ask.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use wharf_runner::Host;
use wharf_store::{Clock as _, SystemClock};

use super::app_state::Face;
use super::problem::{Kind, Problem};
use super::wire::{Health, Ready};
use crate::metrics::Gauges;

const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process answers. Whether it can work is `ready`.
pub(crate) async fn health() -> Response {
    Json(Health { status: "alive".to_owned() }).into_response()
}

/// Whether the host takes and runs jobs, and why not.
pub(crate) async fn ready(State(face): State<Arc<Face>>) -> Response {
    let health = face.host.health();
    let mut because = Vec::new();
    if health.draining {
        because.push("the host is stopping".to_owned());
    } else if !health.alive {
        because.push(
            "the host runs no more jobs: a bug has ended its loop; its log says which, and it must be started again"
                .to_owned(),
        );
    }
    if !health.first_scan_done {
        because.push("plugins are still being loaded".to_owned());
    }
    if let Err(why) = &health.store {
        because.push(format!("the store fails: {why}"));
    }
    let status = if because.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready::new(because, health.running, health.capacity))).into_response()
}

pub(crate) async fn metrics(State(face): State<Arc<Face>>) -> Result<Response, Problem> {
    let page = face.metrics.page(&gauges(&face.host).await);
    let page = page.map_err(|_| Problem::new(Kind::INTERNAL, "the page of metrics could not be written"))?;
    Ok(([(header::CONTENT_TYPE, TEXT)], page).into_response())
}

/// What is so now. A store that does not answer leaves its gauges out, and says so by one of its own.
async fn gauges(host: &Host) -> Gauges {
    let (health, catalog) = (host.health(), host.catalog());
    let mut now = Gauges::new();
    now.plain(
        "alive",
        "Whether the loop that runs jobs goes on; where it does not, the host must be started again",
        u64::from(health.alive),
    );
    now.plain("broadcasts_open", "Live broadcasts that are open on this host", health.broadcasts as u64);
    now.plain("attempts_running", "Attempts that run on this host", u64::from(health.running));
    now.plain("attempts_capacity", "Attempts that may run at once on this host", u64::from(health.capacity));
    now.plain("plugins_loaded", "Plugins that are loaded", catalog.plugins().len() as u64);
    now.plain("plugins_refused", "Files of the plugin folder that could not be loaded", catalog.refused().len() as u64);
    let (stats, limits) = (host.stats().await, host.limits().await);
    now.plain("store_up", "Whether the store answers", u64::from(stats.is_ok() && health.store.is_ok()));
    if let Ok(stats) = stats {
        let counted = |pick: fn(u64, u64) -> u64| {
            stats.tasks.iter().map(move |(task, waiting, running)| (task.to_string(), pick(*waiting, *running)))
        };
        now.labelled("jobs_waiting", "Jobs that wait, due or not", "task", counted(|waiting, _| waiting));
        now.labelled("jobs_running", "Jobs that run, on all hosts of the store", "task", counted(|_, running| running));
        let oldest = stats.oldest_due.map_or(Duration::ZERO, |due| SystemClock.now().since(due));
        now.seconds("oldest_due_age", "How long the job has been due that has been due longest", oldest);
    }
    if let Ok(limits) = limits {
        let numbers = |pick: fn(&wharf_runner::GroupLimits) -> Option<u64>| {
            limits.iter().filter_map(move |limit| Some((limit.group.to_string(), pick(limit)?))).collect::<Vec<_>>()
        };
        now.labelled(
            "limit_total",
            "Jobs of a group that may run at once",
            "group",
            numbers(|l| l.in_force.total.map(u64::from)),
        );
        now.labelled(
            "limit_per_key",
            "Jobs of one key that may run at once",
            "group",
            numbers(|l| l.in_force.per_key.map(u64::from)),
        );
        now.labelled("limit_holders", "Jobs of a group that run", "group", numbers(|l| Some(l.running)));
    }
    now
}
