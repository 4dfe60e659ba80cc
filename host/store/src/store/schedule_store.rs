//! The schedules of a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use wharf_core::audit::NewAct;
use wharf_core::ids::{JobId, NodeId, ScheduleId};
use wharf_core::limits::LimitTable;
use wharf_core::schedule::{FireRun, Fired, Schedule, ScheduleFiring, ScheduleSource, TickInserted};
use wharf_core::time::Timestamp;

use super::error::StoreError;
use super::written::Inserted;

/// The schedules of a store. A schedule does nothing by itself: hosts look for those that are due, and fire them.
#[async_trait]
pub trait ScheduleStore: Send + Sync {
    /// Returns a schedule.
    async fn schedule(&self, id: ScheduleId) -> Result<Option<Schedule>, StoreError>;

    /// Returns at most `max` schedules of this source, of any if it is `None`, whose IDs come after `after`, in the order of
    /// their IDs.
    async fn schedules(
        &self,
        source: Option<ScheduleSource>,
        after: Option<ScheduleId>,
        max: u32,
    ) -> Result<Vec<Schedule>, StoreError>;

    /// Returns at most `max` schedules that are due and come after `after`, in the order of their moments and IDs, and the
    /// moment of the first that is not due.
    async fn due_schedules(&self, after: Option<(Timestamp, ScheduleId)>, max: u32)
    -> Result<DueSchedules, StoreError>;

    /// Returns at most `max` schedules whose next moments were worked out while the clock was ahead.
    async fn schedules_ahead(&self, max: u32) -> Result<Vec<Schedule>, StoreError>;

    /// Writes schedules, each only if it still has the version that was expected, and adds the acts of those that it wrote, in
    /// one transaction.
    async fn write_schedules(&self, writes: Vec<ScheduleWrite>) -> Result<Vec<ScheduleWritten>, StoreError>;

    /// Fires schedules, each by the rules of [`wharf_core::schedule`] and only if it has not changed since its firing was
    /// decided, in one transaction: their next moments, their jobs and what is remembered of their ticks.
    async fn fire_schedules(
        &self,
        firings: Arc<Vec<ScheduleFiring>>,
        declared: Arc<LimitTable>,
    ) -> Result<Vec<Option<ScheduleFired>>, StoreError>;

    /// Returns the schedules that the settings files of nodes have, live or not, each with the digest of its definition. Nodes
    /// without schedules in their files are left out.
    async fn schedule_files(&self) -> Result<Vec<(NodeId, BTreeMap<ScheduleId, u64>)>, StoreError>;

    /// Stores the schedules that a node's settings file has, in place of those that it had, and removes those of nodes that are
    /// gone.
    async fn set_schedule_file(
        &self,
        node: NodeId,
        file: BTreeMap<ScheduleId, u64>,
        gone: Vec<NodeId>,
    ) -> Result<(), StoreError>;
}

/// Schedules that are due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueSchedules {
    /// The schedules, in the order of their moments and IDs.
    pub due: Vec<Schedule>,
    /// The moment of the first schedule that is not due.
    pub next_at: Option<Timestamp>,
}

/// A change of one schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleWrite {
    /// The schedule.
    pub id: ScheduleId,
    /// The version that it must have; `None` if it must not exist.
    pub expected: Option<u64>,
    /// The schedule to write, under a higher version; `None` deletes it.
    pub schedule: Option<Schedule>,
    /// The act to add to the audit log.
    pub act: Option<NewAct>,
}

/// The result of a change of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleWritten {
    /// It was written.
    Written,
    /// It has another version: nothing was written of it.
    Stale,
    /// There are `bounds::SCHEDULES_MAX` schedules.
    TooMany,
}

/// A schedule that was fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleFired {
    /// The schedule, and what became of its ticks.
    pub fired: Fired,
    /// The results of inserting jobs.
    pub inserted: Vec<Inserted>,
    /// Waiting jobs of earlier ticks that were cancelled.
    pub replaced: Vec<JobId>,
    /// Running jobs of earlier ticks that were asked to cancel.
    pub cancel_requested: Vec<JobId>,
}

/// Collects the results of a firing, while a store carries it out.
pub(crate) struct FiringResults<'f> {
    pub(crate) run: FireRun<'f>,
    inserted: Vec<Inserted>,
    replaced: Vec<JobId>,
    cancel_requested: Vec<JobId>,
}

impl<'f> FiringResults<'f> {
    pub(crate) fn new(run: FireRun<'f>) -> FiringResults<'f> {
        FiringResults { run, inserted: Vec::new(), replaced: Vec::new(), cancel_requested: Vec::new() }
    }

    /// Records what became of the job of a tick, after the jobs in its way were changed.
    pub(crate) fn inserted(
        &mut self,
        place: usize,
        (replaced, cancelled): (Vec<JobId>, Vec<JobId>),
        inserted: Inserted,
    ) {
        let seen = match &inserted {
            Inserted::Added { id, .. } => TickInserted::Added(*id),
            Inserted::Duplicate { id } => TickInserted::Duplicate(*id),
            Inserted::Discarded { holders } => TickInserted::Discarded(holders.first().copied()),
        };
        self.run.inserted(place, (&replaced, &cancelled), seen);
        self.inserted.push(inserted);
        self.replaced.extend(replaced);
        self.cancel_requested.extend(cancelled);
    }

    /// Records that room was made for a job that is not inserted yet.
    pub(crate) fn made_room(&mut self, replaced: Vec<JobId>, cancelled: Vec<JobId>) {
        self.run.made_room(&replaced, &cancelled);
        self.replaced.extend(replaced);
        self.cancel_requested.extend(cancelled);
    }

    pub(crate) fn end(self) -> ScheduleFired {
        let FiringResults { run, inserted, replaced, cancel_requested } = self;
        ScheduleFired { fired: run.end(), inserted, replaced, cancel_requested }
    }
}
