//! `/health`, `/ready` and `/metrics`: for probes and Prometheus.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use wharf_runner::Host;

use super::api::{Health, Readiness};
use super::problem::{Kind, Problem};
use crate::metrics::{Gauges, Metrics};

/// Media type of the metrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Reports that the process answers; [`ready`] reports if it can work.
pub(crate) async fn health() -> Response {
    Json(Health::ALIVE).into_response()
}

/// Reports if the host takes and runs jobs, and if not, why.
pub(crate) async fn ready(State(host): State<Host>) -> Response {
    let health = host.health();
    let mut reasons = Vec::new();
    if health.draining && !health.stopping {
        reasons.push("draining: an operator drains the host; `wharf node resume` has it claim jobs again".to_owned());
    }
    if health.stopping {
        reasons.push("draining: the host is stopping".to_owned());
    } else if !health.alive {
        reasons.push(
            "the host has stopped running jobs, as a bug ended its loop; see its log, and start it again".to_owned(),
        );
    }
    if !health.first_scan_done {
        reasons.push("plugins are still loading".to_owned());
    }
    if let Err(error) = &health.store {
        reasons.push(format!("the store failed: {error}"));
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness::new(reasons, health.running, health.capacity))).into_response()
}

/// Returns all metrics in the text format of OpenMetrics.
pub(crate) async fn metrics(
    State(host): State<Host>,
    State(metrics): State<Arc<Metrics>>,
) -> Result<Response, Problem> {
    let text = metrics.encode(&gauges(&host).await);
    let text = text.map_err(|error| Problem::new(Kind::INTERNAL, format!("could not write the metrics: {error}")))?;
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response())
}

/// Reads the gauges. If the store does not respond, its gauges are left out, and the gauge `store_up` is 0.
async fn gauges(host: &Host) -> Gauges {
    let (health, catalog) = (host.health(), host.catalog());
    let mut gauges = Gauges::new();
    gauges.plain(
        "alive",
        "1 if the loop that runs jobs is alive; if it is 0, the host must be started again",
        u64::from(health.alive),
    );
    gauges.plain("broadcasts_open", "Live broadcasts open on this host", health.broadcasts as u64);
    gauges.plain("attempts_running", "Attempts running on this host", u64::from(health.running));
    gauges.plain("attempts_capacity", "Attempts that may run at once on this host", u64::from(health.capacity));
    gauges.plain("plugins_loaded", "Plugins loaded", catalog.plugins().len() as u64);
    gauges.plain(
        "plugins_refused",
        "Files of the plugin folder that could not be loaded",
        catalog.refused().len() as u64,
    );
    let budget = host.budget().usage();
    gauges.plain("memory_budget_bytes", "Budget of memory of this host", budget.total);
    let mut used: BTreeMap<&str, u64> = BTreeMap::new();
    budget.used.iter().for_each(|(of, bytes)| *used.entry(of.as_str()).or_default() += bytes);
    gauges.labelled(
        "memory_used_bytes",
        "Bytes of the budget that are reserved, by use",
        "use",
        used.into_iter().map(|(of, bytes)| (of.to_owned(), bytes)),
    );
    gauges.plain("memory_waiting", "Attempts and requests that wait for room in the budget of memory", budget.waiting);
    gauges.plain(
        "memory_attempts_released",
        "Attempts that were given back to make room in the budget of memory, since the host started",
        budget.released,
    );
    let (stats, limits) = (host.stats().await, host.limits().await);
    gauges.plain("store_up", "1 if the store responds", u64::from(stats.is_ok() && health.store.is_ok()));
    if let Ok(stats) = stats {
        let by_task = |pick: fn(u64, u64) -> u64| {
            stats.tasks.iter().map(move |(task, waiting, running)| (task.to_string(), pick(*waiting, *running)))
        };
        gauges.labelled(
            "jobs_waiting",
            "Waiting jobs, due or not, on all hosts of the store",
            "task",
            by_task(|waiting, _| waiting),
        );
        gauges.labelled(
            "jobs_running",
            "Running jobs, on all hosts of the store",
            "task",
            by_task(|_, running| running),
        );
        let age = stats.oldest_due_age.unwrap_or_default();
        gauges.seconds("oldest_due_age", "Time since the job that has waited longest became due", age);
    }
    if let Ok(limits) = limits {
        let by_group = |pick: fn(&wharf_runner::GroupLimits) -> Option<u64>| {
            limits.iter().filter_map(move |limit| Some((limit.group.to_string(), pick(limit)?))).collect::<Vec<_>>()
        };
        gauges.labelled(
            "limit_total",
            "Jobs of a group that may run at once",
            "group",
            by_group(|limit| limit.in_force.total.map(u64::from)),
        );
        gauges.labelled(
            "limit_per_key",
            "Jobs of one key that may run at once",
            "group",
            by_group(|limit| limit.in_force.per_key.map(u64::from)),
        );
        gauges.labelled(
            "limit_holders",
            "Jobs of a group that are running",
            "group",
            by_group(|limit| Some(limit.running)),
        );
    }
    gauges
}
