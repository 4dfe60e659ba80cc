//! Adds jobs to the queue for clients and for subscribers of live broadcasts, and notifies whom that concerns.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use wharf_core::ids::TaskName;
use wharf_core::job::NewJob;
use wharf_core::kv::KvChanges;
use wharf_core::limits::LimitTable;
use wharf_core::planner::Input;
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
}

impl Enqueuer {
    /// Adds jobs, all or none. They are durable when this returns.
    ///
    /// # Errors
    ///
    /// Returns the store's error. After [`StoreError::Unknown`] the jobs may have been added.
    pub(crate) async fn insert(&self, jobs: Vec<NewJob>, limits: Arc<LimitTable>) -> Result<Vec<Inserted>, StoreError> {
        let tasks = tasks(&jobs);
        let inserted = self.store.call_with_timeout("enqueueing", self.store.insert(jobs, limits)).await?;
        self.notify(tasks, &inserted);
        Ok(inserted)
    }

    /// Adds jobs whose IDs were given out before, and writes what changes together with them, in one transaction.
    ///
    /// # Errors
    ///
    /// Returns the store's error. After [`StoreError::Unknown`] all of it may have been written.
    pub(crate) async fn insert_with_changes(
        &self,
        jobs: Vec<NewJob>,
        limits: Arc<LimitTable>,
        changes: Option<Arc<KvChanges>>,
    ) -> Result<(), StoreError> {
        let tasks = tasks(&jobs);
        let insert = self.store.insert_with_changes(jobs, limits, changes);
        let inserted = self.store.call_with_timeout("writing the changes of a subscriber", insert).await?;
        self.notify(tasks, &inserted);
        Ok(())
    }

    fn notify(&self, tasks: Vec<TaskName>, inserted: &[Inserted]) {
        for (task, inserted) in tasks.into_iter().zip(inserted) {
            self.inserts.notify(task, inserted);
            if let Inserted::Added { cancel_requested, .. } = inserted {
                cancel_requested.iter().for_each(|job| self.send_to_loop(Input::CancelRequested(*job)));
            }
        }
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
