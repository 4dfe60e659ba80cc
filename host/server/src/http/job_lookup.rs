//! Finds the job that an address names.

use wharf_core::ids::{JobId, ParseIdError};
use wharf_core::job::WaitReason;
use wharf_runner::{Host, JobView, JobWaitReason};

use super::memory::to_read_a_job;
use super::problem::{Kind, Problem};
use crate::access::Access;

/// Reads the ID of a job in an address.
pub(crate) fn job_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|error: ParseIdError| Problem::new(Kind::JOB_UNKNOWN, error.to_string()).with("job", text))
}

/// Returns the job with this ID, if the client sees jobs of its key. A job of another key is unknown to it.
pub(crate) async fn job(host: &Host, access: &Access, id: JobId) -> Result<JobView, Problem> {
    // What a document has of a job is far less than what the store reads.
    let _reading = to_read_a_job(host.budget()).await;
    whole_job(host, access, id).await
}

/// Returns the job as [`job`] does, for a caller that may read one.
pub(crate) async fn whole_job(host: &Host, access: &Access, id: JobId) -> Result<JobView, Problem> {
    let view = host.job(id).await?.filter(|view| access.sees(view.seen.job.lane.key.as_ref()));
    view.map(|view| seen_by(view, access)).ok_or_else(|| unknown(id))
}

/// Checks that the client sees the job, if it does not see all.
pub(crate) async fn check(host: &Host, access: &Access, id: JobId) -> Result<(), Problem> {
    match access.key() {
        Some(_) => job(host, access, id).await.map(drop),
        None => Ok(()),
    }
}

/// Leaves out what a client that is bound to a key must not learn: which jobs of other keys hold the slots of a group, which one,
/// perhaps of another key, enqueued the job, what operators say of holds that are on other keys as well, and which hosts there are.
pub(crate) fn seen_by(mut view: JobView, access: &Access) -> JobView {
    if let Some(key) = access.key() {
        let hide = |why: &mut WaitReason| match why {
            WaitReason::GroupFull { holders, .. } => holders.clear(),
            WaitReason::Held(hold) if !hold.scope.is_of_key(key) => (hold.reason, hold.by) = (Default::default(), None),
            _ => {}
        };
        view.seen.job.lineage.parent = None;
        view.nodes.clear();
        view.seen.why.as_mut().map(hide);
        if let Some(JobWaitReason::Queue(why)) = &mut view.waiting {
            hide(why);
        }
    }
    view
}

/// Returns the problem that no job has this ID.
pub(crate) fn unknown(id: JobId) -> Problem {
    Problem::new(Kind::JOB_UNKNOWN, format!("unknown job {id}; finished jobs are deleted after a while"))
        .with("job", id.to_string())
}
