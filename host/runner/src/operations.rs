//! Bulk operations as operators start them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::bulk::{BulkAct, BulkOperation, NewOperation, Trial};
use wharf_core::find::{JobCursor, JobQuery};
use wharf_core::job::{Job, Token};
use wharf_core::limits::LimitTable;
use wharf_core::time::Timestamp;
use wharf_engine::Budget;
use wharf_store::{FindRequest, StoreError};

use crate::plugin_view::PluginIndex;
use crate::search_room::room_to_search;
use crate::store_health::WatchedStore;

mod driver;

pub(crate) use driver::OperationDriver;

/// Jobs of one page while a preview counts.
const COUNT_PAGE: u32 = bounds::PAGE_MAX;

/// A bulk operation that an operator asks for.
#[derive(Clone, Debug)]
pub struct OperationRequest {
    /// The act.
    pub act: BulkAct,
    /// The jobs to do it with.
    pub query: JobQuery,
    /// The operator.
    pub author: Author,
    /// An operation that this operator started with the same token is returned in place of another one.
    pub token: Option<Token>,
    /// Jobs to try first; only of [`BulkAct::Retry`].
    pub trial: Option<Trial>,
    /// Time over which the jobs' next attempts are spread; only of [`BulkAct::Retry`].
    pub spread: Duration,
    /// Number of attempts that each job gets, one if it is not set; only of [`BulkAct::Retry`].
    pub attempts: Option<u32>,
    /// The priority that jobs get; of [`BulkAct::SetPriority`], and of no other act.
    pub priority: Option<i32>,
}

/// A bulk operation after a request to start it.
#[derive(Clone, Debug)]
pub struct StartedOperation {
    /// The operation.
    pub operation: BulkOperation,
    /// True if it came of an earlier request with the same token.
    pub is_known: bool,
}

/// The jobs that an operation would change if it began now.
#[derive(Clone, Debug)]
pub struct Preview {
    /// The text of the operation's query: only jobs that the act can change.
    pub filter: String,
    /// Number of jobs that were counted.
    pub count: u64,
    /// True if there may be more: they were too many to count, or it would have taken too long.
    pub more: bool,
    /// Number of jobs that were looked at, the newest first. Jobs that an index rules out are not counted.
    pub looked_at: u64,
    /// When the last job that was looked at was enqueued.
    pub until: Option<Timestamp>,
    /// The first jobs, the newest first.
    pub jobs: Vec<Job>,
}

/// Why an operation was not started.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// The request is not valid.
    #[error("{0}")]
    Invalid(String),
    /// As many operations are open as may be.
    #[error(
        "as many bulk operations are open as may be: {}, and {} among them whose filters ask for `ready`, `blocked` or `held`; wait \
         until one has ended, or cancel one",
        bounds::OPERATIONS_OPEN_MAX,
        bounds::OPERATIONS_OPEN_WITH_HOLDS_MAX
    )]
    TooMany,
    /// The store failed. After [`StoreError::Unknown`] the operation may have been started.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OperationRequest {
    /// Checks the request, and returns its query with the condition that the act can change its jobs.
    fn checked_query(&self) -> Result<JobQuery, OperationError> {
        let invalid = |why: String| Err(OperationError::Invalid(why));
        if self.query.is_empty() {
            return invalid(
                "invalid filter: expected at least one condition; name the jobs, if need be all of a state".to_owned(),
            );
        }
        let is_retry = self.act == BulkAct::Retry;
        if !is_retry && (self.trial.is_some() || !self.spread.is_zero()) {
            return invalid(format!(
                "invalid operation: only `retry` tries jobs first or spreads them, got `{}`",
                self.act
            ));
        }
        if !is_retry && self.attempts.is_some() {
            return invalid(format!("invalid operation: only `retry` gives jobs attempts, got `{}`", self.act));
        }
        if let Some(attempts) = self.attempts
            && !(1..=bounds::RETRY_ATTEMPTS_MAX).contains(&attempts)
        {
            return invalid(format!(
                "invalid number of attempts: expected 1 to {}, got {attempts}",
                bounds::RETRY_ATTEMPTS_MAX
            ));
        }
        match (self.act, self.priority) {
            (BulkAct::SetPriority, None) => {
                return invalid("invalid operation: `set-priority` needs a priority".to_owned());
            }
            (BulkAct::SetPriority, Some(_)) | (_, None) => {}
            (act, Some(_)) => {
                return invalid(format!("invalid operation: only `set-priority` has a priority, got `{act}`"));
            }
        }
        if let Some(Trial { jobs, within }) = self.trial {
            if !(1..=bounds::TRIAL_JOBS_MAX).contains(&jobs) {
                return invalid(format!("invalid trial: expected 1 to {} jobs, got {jobs}", bounds::TRIAL_JOBS_MAX));
            }
            if within.is_zero() || within > bounds::OPERATION_LENGTH_MAX {
                return invalid("invalid trial: expected a time of more than zero and at most 7d".to_owned());
            }
        }
        if self.spread > bounds::OPERATION_LENGTH_MAX {
            return invalid("invalid spread: expected at most 7d".to_owned());
        }
        let states = self.act.states();
        match self.query.clone().with_states(&states) {
            Some(query) => {
                // The operation keeps the query as a text, which is longer than what was typed.
                let (bytes, max) = (query.to_string().len(), bounds::FILTER_BYTES_MAX);
                if bytes > max {
                    return invalid(format!(
                        "invalid filter: expected at most {max} bytes, got {bytes} with its times and states in full; use fewer values"
                    ));
                }
                Ok(query)
            }
            None => {
                let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
                invalid(format!("invalid filter: `{}` changes only jobs that are {}", self.act, states.join(", ")))
            }
        }
    }
}

/// Returns the limits by which a query tells why jobs wait: those that this node declares, and those that only others declare.
pub(crate) fn declared_limits(plugins: &PluginIndex, store: &WatchedStore, query: &JobQuery) -> Arc<LimitTable> {
    if !query.needs_wait_view() {
        return Arc::clone(plugins.catalog().limits());
    }
    plugins.view(store.now()).all_limits()
}

/// Counts the jobs that an operation would change, up to a bound and for about this time.
///
/// # Errors
///
/// Returns `Invalid` if the request is not valid, and `Store` if the store failed.
pub(crate) async fn preview(
    store: &WatchedStore,
    plugins: &PluginIndex,
    budget: &Budget,
    request: &OperationRequest,
    time: Duration,
) -> Result<Preview, OperationError> {
    let query = Arc::new(request.checked_query()?);
    let room = room_to_search(budget, &query).await?;
    let declared = declared_limits(plugins, store, &query);
    let filter = query.to_string();
    let mut preview = Preview { filter, count: 0, more: false, looked_at: 0, until: None, jobs: Vec::new() };
    let (started, mut after, mut left) = (Instant::now(), None::<JobCursor>, time);
    loop {
        let new = FindRequest::new(query.clone(), declared.clone(), COUNT_PAGE);
        let time_of_page = new.time.min(left);
        let page = store.find(FindRequest { after, room: room.clone(), time: time_of_page, ..new }).await?;
        preview.count += page.jobs.len() as u64;
        preview.looked_at += page.looked_at;
        preview.until = page.until.or(preview.until);
        let missing = (bounds::PREVIEW_JOBS as usize).saturating_sub(preview.jobs.len());
        preview.jobs.extend(page.jobs.into_iter().take(missing));
        after = page.next;
        preview.more = after.is_some();
        left = time.saturating_sub(started.elapsed());
        if after.is_none() || preview.count >= bounds::COUNTED_MAX.into() || left.is_zero() {
            return Ok(preview);
        }
    }
}

/// Starts an operation. It is durable when this returns.
///
/// # Errors
///
/// Returns `Invalid` if the request is not valid, `TooMany` if too many are open, and `Store` if the store failed.
pub(crate) async fn start(
    store: &WatchedStore,
    plugins: &PluginIndex,
    request: &OperationRequest,
) -> Result<StartedOperation, OperationError> {
    let query = request.checked_query()?;
    let OperationRequest { act, author, token, trial, spread, attempts, priority, .. } = request.clone();
    let (attempts, priority) = (attempts.unwrap_or(1), priority.unwrap_or_default());
    let id = store.next_id()?;
    let declared = declared_limits(plugins, store, &query);
    let new = NewOperation { id, act, query, author, token, trial, spread, attempts, priority };
    let started = store.call_with_timeout("starting a bulk operation", store.start_operation(new, declared)).await?;
    let operation = started.ok_or(OperationError::TooMany)?;
    Ok(StartedOperation { is_known: operation.id != id, operation })
}

#[cfg(test)]
mod tests {
    use wharf_core::ids::JobId;

    use super::*;

    fn request(text: &str) -> OperationRequest {
        let query = JobQuery::parse(text, Timestamp::default()).unwrap();
        let (author, spread) = (Author::anyone(), Duration::ZERO);
        OperationRequest {
            act: BulkAct::Retry,
            query,
            author,
            token: None,
            trial: None,
            spread,
            attempts: None,
            priority: None,
        }
    }

    #[test]
    fn a_filter_that_is_too_long_in_full_is_refused_before_the_start() {
        let ids: Vec<String> = (1..=1169_u64).map(|id| JobId::from_number(id).unwrap().to_string()).collect();
        let text = format!("id:{}", ids.join(","));
        assert!(text.len() <= bounds::FILTER_BYTES_MAX);
        let Err(OperationError::Invalid(said)) = request(&text).checked_query() else { panic!("it was taken") };
        assert!(said.contains("in full"), "{said}");
        let query = request("task:a/b").checked_query().unwrap().to_string();
        assert!(JobQuery::parse(&query, Timestamp::default()).is_ok());
    }
}
