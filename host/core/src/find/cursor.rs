//! Where the next page of a list of jobs begins.

use std::fmt;
use std::str::FromStr;

use crate::ids::{JobId, ParseIdError};
use crate::job::Job;
use crate::time::Timestamp;

/// The order of a list of jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JobOrder {
    /// The newest job first, by ID.
    #[default]
    Newest,
    /// The job that finished last first. Jobs that have not finished are not listed.
    Finished,
}

/// A place in a list of jobs: the list goes on with the jobs behind it. Jobs that are added or end meanwhile move no other.
/// Written as a job's ID, in the order of the time at which jobs finished with that time before it: `MICROSECONDS.ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobCursor {
    /// The last job in front of the place.
    pub id: JobId,
    /// When that job finished; only in the order [`JobOrder::Finished`].
    pub finished_at: Option<Timestamp>,
}

impl JobCursor {
    /// Returns the place behind a job.
    pub fn behind(job: &Job, order: JobOrder) -> JobCursor {
        JobCursor { id: job.id, finished_at: job.finished_at.filter(|_| order == JobOrder::Finished) }
    }

    /// Returns true if a job is behind the place.
    pub fn is_before(&self, job: &Job, order: JobOrder) -> bool {
        match order {
            JobOrder::Newest => job.id < self.id,
            JobOrder::Finished => (job.finished_at, job.id) < (self.finished_at, self.id),
        }
    }

    /// Returns the order of the list in which the cursor is a place.
    pub fn order(&self) -> JobOrder {
        if self.finished_at.is_some() { JobOrder::Finished } else { JobOrder::Newest }
    }
}

impl fmt::Display for JobCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.finished_at {
            write!(f, "{}.", at.as_micros())?;
        }
        write!(f, "{}", self.id)
    }
}

impl FromStr for JobCursor {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<JobCursor, ParseIdError> {
        let Some((at, id)) = text.split_once('.') else {
            return Ok(JobCursor { id: text.parse()?, finished_at: None });
        };
        let at = at.bytes().all(|c| c.is_ascii_digit()).then(|| at.parse::<u64>().ok()).flatten();
        let at = at.filter(|at| i64::try_from(*at).is_ok());
        let bad = || ParseIdError::new("place in a list", text, "expected what the page before names as the next one");
        Ok(JobCursor { id: id.parse()?, finished_at: Some(Timestamp::from_micros(at.ok_or_else(bad)?)) })
    }
}
