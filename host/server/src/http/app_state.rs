//! What routes share: the host, its metrics, and whether it is stopping.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wharf_core::ids::JobId;
use wharf_runner::{Host, JobView};

use super::problem::{Kind, Problem};
use crate::metrics::Metrics;

/// One host, as people see it.
pub(crate) struct Face {
    pub(crate) host: Host,
    pub(crate) metrics: Arc<Metrics>,
    /// Cancelled when the host has stopped: streams and waits end, so that connections do.
    pub(crate) stopping: CancellationToken,
}

impl Face {
    /// The id in an address.
    pub(crate) fn job_id(text: &str) -> Result<JobId, Problem> {
        text.parse().map_err(|error: wharf_core::ids::ParseIdError| {
            Problem::new(Kind::JOB_UNKNOWN, error.to_string()).with("job", text)
        })
    }

    pub(crate) fn no_such_job(&self, id: JobId) -> Problem {
        Problem::new(Kind::JOB_UNKNOWN, format!("there is no job {id}; finished jobs are forgotten after a while"))
            .with("job", id.to_string())
    }

    pub(crate) async fn job(&self, id: JobId) -> Result<JobView, Problem> {
        self.host.job(id).await?.ok_or_else(|| self.no_such_job(id))
    }
}
