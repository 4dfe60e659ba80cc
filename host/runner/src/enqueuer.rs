//! Adds jobs to the queue for people, and what the subscribers of a live broadcast leave behind; whoever they touch hears of it.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use wharf_core::ids::TaskName;
use wharf_core::job::NewJob;
use wharf_core::kv::KvChanges;
use wharf_core::limits::LimitTable;
use wharf_core::planner::Input;
use wharf_store::{Inserted, StoreError};

use crate::loop_message::LoopMessage;
use crate::shared::Shared;

#[derive(Clone)]
pub(crate) struct Enqueuer {
    pub(crate) shared: Shared,
    pub(crate) words: UnboundedSender<LoopMessage>,
}

impl Enqueuer {
    /// All or none. When this returns they are durable.
    pub(crate) async fn insert(&self, jobs: Vec<NewJob>, limits: Arc<LimitTable>) -> Result<Vec<Inserted>, StoreError> {
        let tasks = tasks(&jobs);
        let inserted = self.shared.ask_for_people("enqueueing", self.shared.store.insert(jobs, limits)).await?;
        self.tell_inserted(tasks, &inserted);
        Ok(inserted)
    }

    /// The same of jobs whose ids were given out before, with what is changed together with them.
    pub(crate) async fn insert_with_changes(
        &self,
        jobs: Vec<NewJob>,
        limits: Arc<LimitTable>,
        changes: Option<Arc<KvChanges>>,
    ) -> Result<(), StoreError> {
        let tasks = tasks(&jobs);
        let left = self.shared.store.insert_with_changes(jobs, limits, changes);
        self.tell_inserted(tasks, &self.shared.ask_for_people("writing what a subscriber leaves", left).await?);
        Ok(())
    }

    fn tell_inserted(&self, tasks: Vec<TaskName>, inserted: &[Inserted]) {
        for (task, one) in tasks.into_iter().zip(inserted) {
            self.shared.tell_inserted(task, one);
            if let Inserted::Added { cancel_asked, .. } = one {
                cancel_asked.iter().for_each(|job| self.say(Input::CancelAsked(*job)));
            }
        }
    }

    /// Tells the loop.
    pub(crate) fn say(&self, input: Input) {
        // The loop is gone only after a drain; then there is nobody who needs to know.
        let _ = self.words.send(LoopMessage::Input(input));
    }
}

fn tasks(jobs: &[NewJob]) -> Vec<TaskName> {
    jobs.iter().map(|job| job.task.clone()).collect()
}
