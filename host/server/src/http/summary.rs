//! `/v1/summary`: what waits and runs on all hosts, how fast it goes, and who uses the machines.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use wharf_core::bounds;
use wharf_runner::Host;

use super::api::{Summary, SummaryQuery};
use super::problem::Problem;
use super::query;

/// Returns the summary of all hosts.
pub(crate) async fn show(State(host): State<Host>, uri: Uri) -> Result<Json<Summary>, Problem> {
    let SummaryQuery { keys } = query::query(&uri)?;
    if let Some(max) = keys.filter(|max| !(1..=bounds::TOP_KEYS_MAX as u32).contains(max)) {
        return Err(Problem::bad_request(format!("`keys`: expected 1 to {}, got {max}", bounds::TOP_KEYS_MAX)));
    }
    Ok(Json(Summary::new(host.summary().await?, keys)))
}
