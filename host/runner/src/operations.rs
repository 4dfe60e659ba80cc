//! Bulk operations as operators start them, and the task that takes their steps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::bulk::{BulkAct, BulkOperation, NewOperation, NextStep, OperationState, OperationStep, Trial};
use wharf_core::find::{JobCursor, JobQuery};
use wharf_core::ids::{JobId, PluginId};
use wharf_core::job::{Job, State, StateName};
use wharf_core::limits::LimitTable;
use wharf_core::planner::Input;
use wharf_store::{FindRequest, StoreError};

use crate::enqueuer::Enqueuer;
use crate::notice::Notice;
use crate::plugin_view::PluginIndex;
use crate::queue_bounds::{QueueBounds, QueueFull, Reservation};
use crate::store_health::WatchedStore;

/// Interval at which a host looks for operations that are open: others may have started them, or died.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The longest pause between two steps. A pause is as long as the step before it: half of the time is the queue's.
const PAUSE_MAX: Duration = Duration::from_secs(1);
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
    /// Jobs to try first; only of [`BulkAct::Retry`].
    pub trial: Option<Trial>,
    /// Time over which the jobs' next attempts are spread; only of [`BulkAct::Retry`].
    pub spread: Duration,
    /// Number of attempts that each job gets, one if it is not set; only of [`BulkAct::Retry`].
    pub attempts: Option<u32>,
    /// The priority that jobs get; of [`BulkAct::SetPriority`], and of no other act.
    pub priority: Option<i32>,
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
        "{} bulk operations have not ended, which is the limit; wait until one has ended, or cancel one",
        bounds::OPERATIONS_OPEN_MAX
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
            Some(query) => Ok(query),
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

/// Counts the jobs that an operation would change, up to a bound and for a short time.
///
/// # Errors
///
/// Returns `Invalid` if the request is not valid, and `Store` if the store failed.
pub(crate) async fn preview(
    store: &WatchedStore,
    plugins: &PluginIndex,
    request: &OperationRequest,
) -> Result<Preview, OperationError> {
    let query = Arc::new(request.checked_query()?);
    let declared = declared_limits(plugins, store, &query);
    let mut preview = Preview { filter: query.to_string(), count: 0, more: false, jobs: Vec::new() };
    let (started, mut after) = (Instant::now(), None::<JobCursor>);
    loop {
        let find = FindRequest { after, ..FindRequest::new(query.clone(), declared.clone(), COUNT_PAGE) };
        let page = store.find(find).await?;
        preview.count += page.jobs.len() as u64;
        let missing = (bounds::PREVIEW_JOBS as usize).saturating_sub(preview.jobs.len());
        preview.jobs.extend(page.jobs.into_iter().take(missing));
        after = page.next;
        preview.more = after.is_some();
        if after.is_none() || preview.count >= bounds::COUNTED_MAX.into() || started.elapsed() >= bounds::FIND_TIME {
            return Ok(preview);
        }
    }
}

/// Starts an operation. It is durable when this returns.
///
/// # Errors
///
/// Returns `Invalid` if the request is not valid, `TooMany` if too many are open, and `Store` if the store failed.
pub(crate) async fn start(store: &WatchedStore, request: &OperationRequest) -> Result<BulkOperation, OperationError> {
    let query = request.checked_query()?;
    let OperationRequest { act, author, trial, spread, attempts, priority, .. } = request.clone();
    let (attempts, priority) = (attempts.unwrap_or(1), priority.unwrap_or_default());
    let new = NewOperation { id: store.next_id()?, act, query, author, trial, spread, attempts, priority };
    let started = store.call_with_timeout("starting a bulk operation", store.start_operation(new)).await?;
    started.ok_or(OperationError::TooMany)
}

/// Takes the steps of all open operations, whoever started them. Hosts that share a store exclude each other step by step.
pub(crate) struct OperationDriver {
    pub(crate) store: WatchedStore,
    pub(crate) plugins: Arc<PluginIndex>,
    pub(crate) bounds: Arc<QueueBounds>,
    pub(crate) enqueuer: Enqueuer,
    /// Notified when an operation is started on this host.
    pub(crate) started: Arc<Notify>,
    /// Number of times that the next step of each open operation has failed, since one was taken.
    pub(crate) failed_tries: BTreeMap<JobId, u32>,
}

impl OperationDriver {
    pub(crate) async fn run(mut self, stopping: CancellationToken) {
        let work = async {
            loop {
                // The first look comes at once: a host that died may have left operations behind.
                let began = Instant::now();
                let has_moved = self.take_steps().await.unwrap_or(false);
                if has_moved {
                    tokio::time::sleep(began.elapsed().min(PAUSE_MAX)).await;
                } else {
                    let _ = tokio::time::timeout(LOOK_INTERVAL, self.started.notified()).await;
                }
            }
        };
        stopping.run_until_cancelled(work).await;
    }

    /// Takes one step of each open operation. Returns true if one has moved.
    ///
    /// # Errors
    ///
    /// Returns the store's error if it did not tell which are open.
    async fn take_steps(&mut self) -> Result<bool, StoreError> {
        let open = self.store.call("looking for bulk operations", self.store.open_operations()).await?;
        self.failed_tries.retain(|id, _| open.iter().any(|operation| operation.id == *id));
        let mut has_moved = false;
        for operation in open {
            match self.take_step(&operation).await {
                Ok(moved) => {
                    self.failed_tries.remove(&operation.id);
                    has_moved |= moved;
                }
                Err(error) => self.note_failed_try(&operation, &error).await,
            }
        }
        Ok(has_moved)
    }

    /// Counts that an operation's next step has failed, and halts the operation after some such tries. While the store takes nothing at
    /// all, it does not take that either: then the operation goes on when the store works again.
    async fn note_failed_try(&mut self, operation: &BulkOperation, error: &StoreError) {
        let tries = self.failed_tries.entry(operation.id).or_default();
        *tries += 1;
        if *tries < bounds::OPERATION_STEP_TRIES {
            return;
        }
        let reason = format!("its next step failed {tries} times in a row: {error}");
        let halt = operation.step_to(OperationState::Halted, Some(reason));
        let taken = self.store.call_of_one("halting a bulk operation", self.store.take_operation_step(halt)).await;
        if let Ok(Some(taken)) = taken {
            self.notify(&Notice::OperationEnded { operation: Box::new(taken.operation) });
        }
    }

    async fn take_step(&self, operation: &BulkOperation) -> Result<bool, StoreError> {
        let mut tried = Vec::new();
        if operation.state == OperationState::Trying {
            for job in &operation.tried {
                tried.push(self.store.job_summary(*job).await?.map(|job| job.status.state.name()));
            }
        }
        let now = self.store.now();
        let (mut step, mut jobs) = match operation.next(&tried, bounds::OPERATION_JOBS_MAX, now) {
            NextStep::Nothing | NextStep::Await => return Ok(false),
            NextStep::GoOn => (operation.step_to(OperationState::Running, None), Vec::new()),
            NextStep::Halt(reason) => (operation.step_to(OperationState::Halted, Some(reason)), Vec::new()),
            NextStep::Change { max } => match operation.query() {
                Ok(query) => self.chunk(operation, query, max).await?,
                Err(error) => (operation.step_to(OperationState::Halted, Some(error.to_string())), Vec::new()),
            },
        };
        let _places = match operation.act {
            BulkAct::Retry => match self.reserve(operation, &mut step, &mut jobs).await {
                Ok(places) => Some(places),
                Err(full) if full.max == 0 => {
                    let reason = Some(full.to_string());
                    (step, jobs) = (operation.step_to(OperationState::Halted, reason), Vec::new());
                    None
                }
                // While the queue of a plugin is full, the operation waits, as every client does.
                Err(_) => return Ok(false),
            },
            BulkAct::Cancel | BulkAct::Delete | BulkAct::RunNow | BulkAct::SetPriority => None,
        };
        let taken =
            self.store.call_of_one("taking a step of a bulk operation", self.store.take_operation_step(step)).await?;
        let Some(taken) = taken else { return Ok(false) };
        for job in &taken.changed {
            self.enqueuer.inserts.followers.wake(*job);
            let found = jobs.iter().find(|found| found.id == *job);
            match found.map(|found| found.status.state) {
                Some(State::Running { .. }) => self.enqueuer.send_to_loop(Input::CancelRequested(*job)),
                Some(State::Waiting { .. }) if operation.act == BulkAct::Cancel => {
                    let task = found.map(|found| found.task.clone());
                    if let Some(task) = task {
                        self.notify(&Notice::JobEnded { task, job: *job, state: StateName::Cancelled });
                    }
                }
                _ => {}
            }
        }
        if taken.operation.state.is_final() {
            self.notify(&Notice::OperationEnded { operation: Box::new(taken.operation) });
        }
        Ok(true)
    }

    /// Reserves places for the jobs that a step has wait again. Where there are fewer, it cuts the step to these: more jobs than
    /// may ever wait at once are retried, too.
    ///
    /// # Errors
    ///
    /// Returns the plugin of the first job if there is no place for it.
    async fn reserve(
        &self,
        operation: &BulkOperation,
        step: &mut OperationStep,
        jobs: &mut Vec<Job>,
    ) -> Result<Reservation, QueueFull> {
        loop {
            let mut places: BTreeMap<PluginId, u64> = BTreeMap::new();
            jobs.iter().for_each(|job| *places.entry(job.task.plugin()).or_default() += 1);
            let full = match self.bounds.reserve(places.into_iter().collect()).await {
                Ok(places) => return Ok(places),
                Err(full) => full,
            };
            let mut left = full.max.saturating_sub(full.waiting);
            let fits = |job: &&Job| {
                let is_full = job.task.plugin() == full.plugin;
                let fits = !is_full || left > 0;
                left = left.saturating_sub(u64::from(is_full));
                fits
            };
            match jobs.iter().take_while(fits).count() {
                0 => return Err(full),
                kept => {
                    jobs.truncate(kept);
                    step.cut(kept, operation.state);
                }
            }
        }
    }

    /// Finds the jobs of the next step.
    async fn chunk(
        &self,
        operation: &BulkOperation,
        query: JobQuery,
        max: u32,
    ) -> Result<(OperationStep, Vec<Job>), StoreError> {
        let after = operation.cursor.map(|id| JobCursor { id, finished_at: None });
        let declared = declared_limits(&self.plugins, &self.store, &query);
        let find = FindRequest { after, ..FindRequest::new(Arc::new(query), declared, max) };
        let page = self.store.call_of_one("finding the jobs of a bulk operation", self.store.find(find)).await?;
        let jobs: Vec<Job> = page.jobs.into_iter().filter(|job| operation.includes(job)).collect();
        Ok((operation.step_on(&jobs, page.next.map(|next| next.id)), jobs))
    }

    fn notify(&self, notice: &Notice) {
        self.enqueuer.inserts.listener.notify(notice);
    }
}
