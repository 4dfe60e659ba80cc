//! How bulk operations are written as columns, and read back.

use std::time::Duration;

use wharf_core::bulk::{BulkOperation, Trial};
use wharf_core::ids::JobId;

use crate::columns::{DamagedData, duration_us, job_id, parse, signed, timestamp, timestamp_us, unsigned};

/// The columns of a bulk operation, in the order of [`OperationColumns`].
pub(crate) const OPERATION_COLUMNS: &str =
    "id, act, filter, author, created_at, ended_at, state, last_job, step, trial_jobs,
    trial_within_us, tried, tried_at, spread_us, attempts, priority, changed, skipped, reason, token";

/// The columns of a bulk operation.
#[derive(Debug)]
pub(crate) struct OperationColumns {
    pub(crate) id: i64,
    pub(crate) act: String,
    pub(crate) filter: String,
    pub(crate) author: Option<String>,
    pub(crate) created_at: i64,
    pub(crate) ended_at: Option<i64>,
    pub(crate) state: String,
    pub(crate) last_job: Option<i64>,
    pub(crate) step: i64,
    pub(crate) trial_jobs: Option<i64>,
    pub(crate) trial_within_us: Option<i64>,
    /// IDs with spaces between them.
    pub(crate) tried: String,
    pub(crate) tried_at: Option<i64>,
    pub(crate) spread_us: i64,
    pub(crate) attempts: i32,
    pub(crate) priority: i32,
    pub(crate) changed: i64,
    pub(crate) skipped: i64,
    pub(crate) reason: Option<String>,
    pub(crate) token: Option<Vec<u8>>,
}

impl From<&BulkOperation> for OperationColumns {
    fn from(operation: &BulkOperation) -> OperationColumns {
        let tried: Vec<String> = operation.tried.iter().map(JobId::to_string).collect();
        OperationColumns {
            id: signed(operation.id.number()),
            act: operation.act.as_str().to_owned(),
            filter: operation.filter.clone(),
            author: operation.author.clone(),
            created_at: timestamp_us(operation.created_at),
            ended_at: operation.ended_at.map(timestamp_us),
            state: operation.state.as_str().to_owned(),
            last_job: operation.cursor.map(|cursor| signed(cursor.number())),
            step: signed(operation.step),
            trial_jobs: operation.trial.map(|trial| trial.jobs.into()),
            trial_within_us: operation.trial.map(|trial| duration_us(trial.within)),
            tried: tried.join(" "),
            tried_at: operation.tried_at.map(timestamp_us),
            spread_us: duration_us(operation.spread),
            attempts: operation.attempts as i32,
            priority: operation.priority,
            changed: signed(operation.changed),
            skipped: signed(operation.skipped),
            reason: operation.reason.clone(),
            token: operation.token.as_ref().map(|token| token.as_str().as_bytes().to_vec()),
        }
    }
}

impl OperationColumns {
    /// Converts the columns to an operation.
    ///
    /// # Errors
    /// If one of them has a value that is not valid.
    pub(crate) fn operation(self) -> Result<BulkOperation, DamagedData> {
        let length = |us: i64| Duration::from_micros(unsigned(us));
        let trial = self.trial_jobs.zip(self.trial_within_us);
        let tried = self.tried.split_whitespace().map(|id| parse("job ID", id));
        Ok(BulkOperation {
            id: job_id(self.id)?,
            act: parse("act", &self.act)?,
            filter: self.filter,
            author: self.author,
            created_at: timestamp(self.created_at),
            ended_at: self.ended_at.map(timestamp),
            state: parse("state of an operation", &self.state)?,
            cursor: self.last_job.map(job_id).transpose()?,
            step: unsigned(self.step),
            trial: trial.map(|(jobs, within)| Trial { jobs: jobs as u32, within: length(within) }),
            tried: tried.collect::<Result<_, _>>()?,
            tried_at: self.tried_at.map(timestamp),
            spread: length(self.spread_us),
            attempts: self.attempts as u32,
            priority: self.priority,
            changed: unsigned(self.changed),
            skipped: unsigned(self.skipped),
            reason: self.reason,
            token: self.token.map(|token| parse("token", &String::from_utf8_lossy(&token))).transpose()?,
        })
    }
}
