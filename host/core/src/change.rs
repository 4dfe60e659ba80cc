//! Works out all that an event changes on a job: the new status, and what the attempt leaves on the job.

use crate::job::{JobStatus, State};
use crate::lifecycle::{Event, Refusal};
use crate::outcome::{Report, Usage};
use crate::time::Timestamp;

/// A change to a job that the lifecycle allows. A store writes these values as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The job's status after the event.
    pub status: JobStatus,
    /// True if the event took a lane's slot from a running attempt, so that the lane may have a free slot now.
    pub attempt_ended: bool,
    /// The new report, which replaces the job's report; `None` keeps the old one.
    pub report: Option<Report>,
    /// Resource usage of the attempt that ended. If an attempt ended, this replaces the job's usage, even if it is
    /// `None`.
    pub usage: Option<Usage>,
    /// When the job finished, if its new state is final.
    pub finished_at: Option<Timestamp>,
}

impl Change {
    /// Returns what `event` at `now` changes on a job whose status is `before`.
    ///
    /// # Errors
    /// The refusal of [`JobStatus::after`] if the event may not happen to the job.
    pub fn of(before: &JobStatus, event: &Event, now: Timestamp) -> Result<Change, Refusal> {
        let status = before.after(event, now)?;
        let is_running = |status: &JobStatus| matches!(status.state, State::Running { .. });
        Ok(Change {
            status,
            attempt_ended: is_running(before) && !is_running(&status),
            // A request to cancel explains how an attempt ended only once the attempt has ended.
            report: if is_running(&status) { None } else { event.report() },
            usage: match event {
                Event::Succeeded { usage, .. } | Event::Failed { usage, .. } | Event::Cancelled { usage, .. } => {
                    Some(*usage)
                }
                _ => None,
            },
            finished_at: status.state.name().is_final().then_some(now),
        })
    }
}
