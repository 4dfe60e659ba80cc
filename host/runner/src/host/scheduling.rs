//! Schedules, as operators define, pause and run them.

use std::sync::Arc;

use wharf_core::audit::ActKind;
use wharf_core::author::Author;
use wharf_core::ids::{JobId, ScheduleId, TaskName};
use wharf_core::schedule::{Schedule, ScheduleSpec};
use wharf_core::time::Timestamp;
use wharf_store::StoreError;

use super::Host;
use crate::notice::Notice;
use crate::queue_bounds::places;
use crate::schedules::{ScheduleError, Schedules, changed_too_often, job_of_run};

/// Number of tries of an operator's run that a firing comes before.
const RUN_TRIES: u32 = 20;

impl Host {
    /// Defines a schedule. One of the name that is defined otherwise gets this definition if `replaces` is true. Returns the schedule,
    /// and true if it is new.
    ///
    /// # Errors
    ///
    /// Returns [`ScheduleError::Invalid`] and `Rejected` if the definition is not valid, `InFile` if a settings file has the
    /// schedule, `Exists` if there is another one that is not to be replaced, `TooMany` if there are too many, and `Store` if the store failed.
    pub async fn put_schedule(
        &self,
        id: ScheduleId,
        spec: ScheduleSpec,
        replaces: bool,
        by: Author,
    ) -> Result<(Schedule, bool), ScheduleError> {
        let put = self.schedules_view().put(id, spec, replaces, &by).await?;
        self.schedule_changed(&put.0.id, ActKind::ScheduleSet, &by);
        Ok(put)
    }

    /// Deletes a schedule; its jobs stay.
    ///
    /// # Errors
    ///
    /// Returns [`ScheduleError::Unknown`] if there is none, `InFile` if a settings file has it, and `Store` if the store failed.
    pub async fn remove_schedule(&self, id: ScheduleId, by: Author) -> Result<Schedule, ScheduleError> {
        let removed = self.schedules_view().remove(id, &by).await?;
        self.schedule_changed(&removed.id, ActKind::ScheduleRemoved, &by);
        Ok(removed)
    }

    /// Pauses a schedule, until `until` or until it is resumed.
    ///
    /// # Errors
    ///
    /// Returns [`ScheduleError::Unknown`] if there is none, `Invalid` if the pause would end at once, and `Store` if the store
    /// failed.
    pub async fn pause_schedule(
        &self,
        id: ScheduleId,
        (until, reason): (Option<Timestamp>, String),
        by: Author,
    ) -> Result<Schedule, ScheduleError> {
        let paused = self.schedules_view().pause(id, (until, reason), &by).await?;
        self.schedule_changed(&paused.id, ActKind::SchedulePaused, &by);
        Ok(paused)
    }

    /// Ends the pause of a schedule.
    ///
    /// # Errors
    ///
    /// Returns [`ScheduleError::Unknown`] if there is none, and `Store` if the store failed.
    pub async fn resume_schedule(&self, id: ScheduleId, by: Author) -> Result<Schedule, ScheduleError> {
        let resumed = self.schedules_view().resume(id, &by).await?;
        self.schedule_changed(&resumed.id, ActKind::ScheduleResumed, &by);
        Ok(resumed)
    }

    /// Enqueues a job of a schedule now, if `may_enqueue` is true of its task. It has no tick, and waits for holds and limits as any
    /// job does.
    ///
    /// # Errors
    ///
    /// Returns [`ScheduleError::Unknown`] if there is no such schedule, `MayNotEnqueue`, `Rejected` and `NotRun` if no job is enqueued, and `Store`
    /// if the store failed; after [`StoreError::Unknown`] a job may have been enqueued.
    pub async fn run_schedule(
        &self,
        id: ScheduleId,
        by: Author,
        may_enqueue: &(dyn Fn(&TaskName) -> bool + Sync),
    ) -> Result<JobId, ScheduleError> {
        for _ in 0..RUN_TRIES {
            let schedules = self.schedules_view();
            let (firing, job) = schedules.run(&id, &by, may_enqueue).await?;
            let full = |full: crate::queue_bounds::QueueFull| ScheduleError::NotRun(full.to_string());
            let _places = self.0.bounds.reserve(places(std::slice::from_ref(&job))).await.map_err(full)?;
            let limits = if schedules.view.has_group(&job.lane.group) {
                Arc::clone(schedules.view.catalog.limits())
            } else {
                schedules.view.limits(std::slice::from_ref(&job.lane.group))
            };
            let fire = self.0.store.fire_schedules(Arc::new(vec![firing]), limits);
            let fired = self.0.store.call_with_timeout("running a schedule", fire).await?;
            if let Some(Some(fired)) = fired.first() {
                self.0.enqueuer.notify_fired(&job.task, fired);
                let run = job_of_run(fired)?;
                self.schedule_changed(&id, ActKind::ScheduleRun, &by);
                return Ok(run);
            }
        }
        Err(changed_too_often())
    }

    /// Returns a schedule.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn schedule(&self, id: ScheduleId) -> Result<Option<Schedule>, StoreError> {
        self.0.store.schedule(id).await
    }

    /// Returns at most `max` schedules whose IDs come after `after`, in the order of their IDs.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn schedules(&self, after: Option<ScheduleId>, max: u32) -> Result<Vec<Schedule>, StoreError> {
        self.0.store.schedules(None, after, max).await
    }

    fn schedules_view(&self) -> Schedules<'_> {
        Schedules { store: &self.0.store, view: self.view() }
    }

    fn schedule_changed(&self, schedule: &ScheduleId, act: ActKind, by: &Author) {
        self.0.schedules_changed.notify_one();
        let by = by.name().map(str::to_owned);
        self.notify(&Notice::ScheduleChanged { schedule: schedule.clone(), act, by });
    }
}
