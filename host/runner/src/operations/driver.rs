//! The task that takes the steps of bulk operations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::bulk::{BulkAct, BulkOperation, NextStep, OperationState, OperationStep};
use wharf_core::find::{JobCursor, JobQuery};
use wharf_core::ids::{JobId, PluginId};
use wharf_core::job::{Job, State, StateName};
use wharf_core::planner::Input;
use wharf_engine::Budget;
use wharf_store::{FindRequest, StoreError};

use crate::enqueuer::Enqueuer;
use crate::notice::Notice;
use crate::queue_bounds::{QueueBounds, QueueFull, Reservation};
use crate::search_room::room_for_step;
use crate::store_health::WatchedStore;

/// Interval at which a host looks for operations that are open: others may have started them, or died.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The longest pause between two steps. A pause is as long as the step before it: half of the time is the queue's.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Takes the steps of all open operations, whoever started them. Hosts that share a store exclude each other step by step.
pub(crate) struct OperationDriver {
    pub(crate) store: WatchedStore,
    pub(crate) bounds: Arc<QueueBounds>,
    pub(crate) enqueuer: Enqueuer,
    pub(crate) budget: Budget,
    /// Notified when an operation is started on this host.
    pub(crate) started: Arc<Notify>,
    /// The next step of each open operation whose step has failed, and how often it has.
    pub(crate) failed_tries: BTreeMap<JobId, (u64, u32)>,
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
                Ok(moved) => has_moved |= moved,
                Err(error) => self.note_failed_try(&operation, &error).await,
            }
        }
        Ok(has_moved)
    }

    /// Counts that an operation's next step has failed, and halts the operation after some such tries. A store that is busy, or memory that
    /// is short, is no failure: the step is tried again until it is taken. While the store takes nothing at all, it does not take the halt
    /// either: then the operation goes on when the store works again.
    async fn note_failed_try(&mut self, operation: &BulkOperation, error: &StoreError) {
        let Some(tries) = counted_tries(&mut self.failed_tries, operation, error) else { return };
        let reason = format!("its next step failed {tries} times in a row: {error}");
        let halt = operation.step_to(OperationState::Halted, Some(reason));
        let taken = self.store.call_of_one("halting a bulk operation", self.store.take_operation_step(halt)).await;
        if let Ok(Some(taken)) = taken {
            self.notify(&Notice::OperationEnded { operation: Box::new(taken.operation) });
        }
    }

    async fn take_step(&mut self, operation: &BulkOperation) -> Result<bool, StoreError> {
        let mut tried = Vec::new();
        if operation.state == OperationState::Trying {
            for job in &operation.tried {
                tried.push(self.store.job_summary(*job).await?.map(|job| job.status.state.name()));
            }
        }
        let now = self.store.now();
        let (mut step, mut jobs, moved_on) = match operation.next(&tried, bounds::OPERATION_JOBS_MAX, now) {
            NextStep::Nothing | NextStep::Await => return Ok(false),
            NextStep::GoOn => (operation.step_to(OperationState::Running, None), Vec::new(), Vec::new()),
            NextStep::Halt(reason) => (operation.step_to(OperationState::Halted, Some(reason)), Vec::new(), Vec::new()),
            NextStep::Change { max } => match operation.query() {
                Ok(query) => self.chunk(operation, query, max).await?,
                // A newer host started it, and takes its steps. If none does, the operation says why it stands still.
                Err(error) => {
                    let error = StoreError::Refused(error.to_string());
                    if counted_tries(&mut self.failed_tries, operation, &error).is_some() {
                        self.wait_for(operation, format!("it waits for a host that reads its filter: {error}")).await?;
                    }
                    return Ok(false);
                }
            },
        };
        let _places = match operation.act {
            BulkAct::Retry => match self.reserve(operation, (&mut step, &mut jobs), &moved_on).await {
                Ok(places) => Some(places),
                Err(full) if full.max == 0 => {
                    let reason = Some(full.to_string());
                    (step, jobs) = (operation.step_to(OperationState::Halted, reason), Vec::new());
                    None
                }
                // While the queue of a plugin is full, the operation waits, as every client does, and says for what.
                Err(full) => {
                    // Without numbers: hosts with different bounds say so alike.
                    let reason = format!("it waits: as many jobs of plugin `{}` wait as may", full.plugin);
                    self.wait_for(operation, reason).await?;
                    return Ok(false);
                }
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

    /// Has an operation say what it waits for, unless it says so already. Its next step takes that back.
    async fn wait_for(&self, operation: &BulkOperation, reason: String) -> Result<(), StoreError> {
        if operation.reason.as_ref() == Some(&reason) {
            return Ok(());
        }
        let waits = self.store.take_operation_step(operation.step_to(operation.state, Some(reason)));
        self.store.call_of_one("saying what a bulk operation waits for", waits).await.map(drop)
    }

    /// Reserves places for the jobs that a step has wait again. Where there are fewer, it cuts the step to these: more jobs than
    /// may ever wait at once are retried, too. `moved_on` says of each job how many before it have moved on.
    ///
    /// # Errors
    ///
    /// Returns the plugin of the first job if there is no place for it.
    async fn reserve(
        &self,
        operation: &BulkOperation,
        (step, jobs): (&mut OperationStep, &mut Vec<Job>),
        moved_on: &[u64],
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
                    step.cut(kept, moved_on[kept - 1], operation.state);
                }
            }
        }
    }

    /// Finds the jobs of the next step, and how many before each of them have moved on.
    async fn chunk(
        &self,
        operation: &BulkOperation,
        query: JobQuery,
        max: u32,
    ) -> Result<(OperationStep, Vec<Job>, Vec<u64>), StoreError> {
        let after = operation.cursor.map(|id| JobCursor { id, finished_at: None });
        let room = room_for_step(&self.budget, &query).await?;
        let as_of = Some(operation.as_of());
        let find = FindRequest { as_of, after, room, ..FindRequest::new(Arc::new(query), Arc::default(), max) };
        let page = self.store.call_of_one("finding the jobs of a bulk operation", self.store.find(find)).await?;
        let step = operation.step_on(&page.jobs, page.moved_on, page.next.map(|next| next.id));
        Ok((step, page.jobs, page.moved_on_before))
    }

    fn notify(&self, notice: &Notice) {
        self.enqueuer.inserts.listener.notify(notice);
    }
}

/// Counts a try of an operation's next step that has failed. Returns how many have if the operation has to halt; `None` if it is to be tried
/// again. Tries of a step that another host has taken meanwhile count no more.
fn counted_tries(
    failed: &mut BTreeMap<JobId, (u64, u32)>,
    operation: &BulkOperation,
    error: &StoreError,
) -> Option<u32> {
    if matches!(error, StoreError::Busy(_)) {
        return None;
    }
    let (step, tries) = failed.entry(operation.id).or_default();
    if *step != operation.step {
        (*step, *tries) = (operation.step, 0);
    }
    *tries += 1;
    (*tries >= bounds::OPERATION_STEP_TRIES).then_some(*tries)
}

#[cfg(test)]
mod tests {
    use wharf_core::author::Author;
    use wharf_core::bulk::{BulkAct, NewOperation};
    use wharf_core::time::Timestamp;

    use super::*;

    fn operation(step: u64) -> BulkOperation {
        let new = NewOperation::at_once(
            JobId::from_number(9).unwrap(),
            BulkAct::Retry,
            JobQuery::parse("state:failed", Timestamp::default()).unwrap(),
            Author::anyone(),
        );
        BulkOperation { step, ..new.started_at(Timestamp::default()) }
    }

    #[test]
    fn only_a_step_that_fails_again_and_again_halts_and_a_shortage_never_does() {
        let mut failed = BTreeMap::new();
        let (busy, broken) = (StoreError::Busy("full".to_owned()), StoreError::Broken("gone".to_owned()));
        for _ in 0..3 * bounds::OPERATION_STEP_TRIES {
            assert_eq!(counted_tries(&mut failed, &operation(0), &busy), None);
        }
        let max = bounds::OPERATION_STEP_TRIES;
        let mut tries = |step| counted_tries(&mut failed, &operation(step), &broken);
        (1..max).for_each(|_| assert_eq!(tries(0), None));
        assert_eq!(tries(1), None, "another host has taken the step that failed here");
        (2..max).for_each(|_| assert_eq!(tries(1), None));
        assert_eq!(tries(1), Some(max));
    }
}
