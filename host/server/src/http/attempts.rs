//! `/v1/jobs/{id}/attempts`: the attempts of a job that ended without a result.

use axum::extract::State;
use axum::response::Response;
use wharf_core::attempt::Attempt;
use wharf_core::ids::JobId;
use wharf_runner::Host;

use super::api::AttemptList;
use super::path::Path;
use super::problem::Problem;
use super::{job_lookup, memory};
use crate::access::Access;

/// Lists the attempts of one job.
pub(crate) async fn list(
    State(host): State<Host>,
    access: Access,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    memory::json(host.budget(), &attempts(&host, &access, job_lookup::job_id(&id)?).await?).await
}

/// Returns the attempts of a job that the client sees.
///
/// # Errors
/// If the client does not see the job, or the store failed.
pub(crate) async fn attempts(host: &Host, access: &Access, id: JobId) -> Result<AttemptList, Problem> {
    let attempts = host.attempts(id).await?;
    // A job without such attempts may be unknown, and the client may not see it.
    if attempts.is_empty() || access.key().is_some() {
        job_lookup::job(host, access, id).await?;
    }
    Ok(seen_by(&attempts, access))
}

/// Returns the attempts of a job that the client is known to see.
///
/// # Errors
/// If the store failed.
pub(crate) async fn of_seen_job(host: &Host, access: &Access, id: JobId) -> Result<AttemptList, Problem> {
    Ok(seen_by(&host.attempts(id).await?, access))
}

fn seen_by(attempts: &[Attempt], access: &Access) -> AttemptList {
    let mut list = AttemptList::from(attempts);
    if access.key().is_some() {
        // It does not learn which hosts there are.
        list.attempts.iter_mut().for_each(|attempt| attempt.node_name = None);
    }
    list
}
