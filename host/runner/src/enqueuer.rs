//! Adds jobs to the queue for clients and for subscribers of live broadcasts, and notifies whom that concerns.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use tokio_util::task::TaskTracker;
use wharf_core::ids::TaskName;
use wharf_core::job::NewJob;
use wharf_core::kv::KvChanges;
use wharf_core::limits::LimitTable;
use wharf_core::planner::Input;
use wharf_engine::Reservation;
use wharf_store::{Inserted, StoreError};

use crate::follow::Followers;
use crate::loop_message::LoopMessage;
use crate::notice::{Listener, Notice};
use crate::store_health::WatchedStore;

/// Writes new jobs. Clones share the same store and loop.
#[derive(Clone)]
pub(crate) struct Enqueuer {
    pub(crate) store: WatchedStore,
    pub(crate) inserts: InsertNotifier,
    pub(crate) to_loop: UnboundedSender<LoopMessage>,
    pub(crate) tasks: TaskTracker,
}

impl Enqueuer {
    /// Adds jobs, all or none. They are durable when this returns. `room` is that of the jobs in the budget of memory.
    ///
    /// # Errors
    ///
    /// Returns the store's error. After [`StoreError::Unknown`] the jobs may have been added.
    pub(crate) async fn insert(
        &self,
        jobs: Vec<NewJob>,
        limits: Arc<LimitTable>,
        room: Option<Reservation>,
    ) -> Result<Vec<Inserted>, StoreError> {
        const DOING: &str = "enqueueing";
        let tasks = tasks(&jobs);
        let inserted = match room {
            None => self.store.call_with_timeout(DOING, self.store.insert(jobs, limits)).await?,
            Some(room) => {
                let store = self.store.clone();
                let insert = self.hold(room, async move { store.insert(jobs, limits).await });
                Box::pin(self.store.call_with_timeout(DOING, insert)).await?
            }
        };
        self.notify(tasks, &inserted);
        Ok(inserted)
    }

    /// Adds jobs whose IDs were given out before, and writes what changes together with them, in one transaction. `room` is that
    /// of both in the budget of memory.
    ///
    /// # Errors
    ///
    /// Returns the store's error. After [`StoreError::Unknown`] all of it may have been written.
    pub(crate) async fn insert_with_changes(
        &self,
        (jobs, changes): (Vec<NewJob>, Option<Arc<KvChanges>>),
        limits: Arc<LimitTable>,
        room: Option<Reservation>,
    ) -> Result<(), StoreError> {
        let (tasks, store) = (tasks(&jobs), self.store.clone());
        let insert = async move { store.insert_with_changes(jobs, limits, changes).await };
        let insert = async move {
            match room {
                Some(room) => self.hold(room, insert).await,
                None => insert.await,
            }
        };
        let inserted = self.store.call_with_timeout("writing the changes of a subscriber", insert).await?;
        self.notify(tasks, &inserted);
        Ok(())
    }

    /// Makes a call of the store, and keeps the room of what it writes until the store returns: it has the bytes also when the
    /// caller has given up.
    async fn hold<T: Send + 'static>(
        &self,
        room: Reservation,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let held = self.tasks.spawn(async move {
            let result = call.await;
            drop(room);
            result
        });
        held.await.unwrap_or_else(|error| Err(StoreError::Broken(format!("a call of it panicked: {error}"))))
    }

    fn notify(&self, tasks: Vec<TaskName>, inserted: &[Inserted]) {
        for (task, inserted) in tasks.into_iter().zip(inserted) {
            self.notify_inserted(task, inserted);
        }
    }

    /// Tells whom it concerns what became of a job that was inserted.
    pub(crate) fn notify_inserted(&self, task: TaskName, inserted: &Inserted) {
        self.inserts.notify(task, inserted);
        if let Inserted::Added { cancel_requested, .. } = inserted {
            cancel_requested.iter().for_each(|job| self.send_to_loop(Input::CancelRequested(*job)));
        }
    }

    /// Has the dispatch loop drain this node, or claim jobs again. It notifies if that changes anything.
    pub(crate) fn set_drained(&self, drained: bool, by: Option<String>) {
        // The loop ends only after a drain.
        let _ = self.to_loop.send(LoopMessage::SetDrained { drained, by });
    }

    /// Sends an input to the dispatch loop.
    pub(crate) fn send_to_loop(&self, input: Input) {
        // The loop ends only after a drain; then nothing depends on the input.
        let _ = self.to_loop.send(LoopMessage::Input(input));
    }
}

fn tasks(jobs: &[NewJob]) -> Vec<TaskName> {
    jobs.iter().map(|job| job.task.clone()).collect()
}

/// Notifies the listener of jobs that were inserted, and wakes the followers of jobs that this replaced or cancels.
#[derive(Clone)]
pub(crate) struct InsertNotifier {
    pub(crate) followers: Arc<Followers>,
    pub(crate) listener: Listener,
}

impl InsertNotifier {
    pub(crate) fn notify(&self, task: TaskName, inserted: &Inserted) {
        match inserted {
            Inserted::Added { replaced, cancel_requested, .. } => {
                for job in replaced.iter().chain(cancel_requested) {
                    self.followers.wake(*job);
                }
                for job in cancel_requested {
                    self.listener.notify(&Notice::CancelRequested { job: *job });
                }
                for job in replaced {
                    self.listener.notify(&Notice::JobReplaced { job: *job });
                }
                self.listener.notify(&Notice::JobsEnqueued { task, count: 1 });
            }
            Inserted::Duplicate { .. } => self.listener.notify(&Notice::JobsDeduplicated { task, count: 1 }),
            Inserted::Discarded { .. } => self.listener.notify(&Notice::JobsDiscarded { task, count: 1 }),
        }
    }
}
