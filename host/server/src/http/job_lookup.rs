//! Finds the job that an address names.

use wharf_core::ids::{JobId, ParseIdError};
use wharf_runner::{Host, JobView};

use super::problem::{Kind, Problem};

/// Reads the ID of a job in an address.
pub(crate) fn job_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|error: ParseIdError| Problem::new(Kind::JOB_UNKNOWN, error.to_string()).with("job", text))
}

/// Returns the job with this ID.
pub(crate) async fn job(host: &Host, id: JobId) -> Result<JobView, Problem> {
    host.job(id).await?.ok_or_else(|| unknown(id))
}

/// Returns the problem that no job has this ID.
pub(crate) fn unknown(id: JobId) -> Problem {
    Problem::new(Kind::JOB_UNKNOWN, format!("unknown job {id}; finished jobs are deleted after a while"))
        .with("job", id.to_string())
}
