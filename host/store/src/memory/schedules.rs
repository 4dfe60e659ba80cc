//! Schedules: reads, changes and firings.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use wharf_core::audit::NewAct;
use wharf_core::bounds;
use wharf_core::conflict::make_room;
use wharf_core::ids::{NodeId, ScheduleId};
use wharf_core::limits::LimitTable;
use wharf_core::schedule::{Schedule, ScheduleFiring, ScheduleSource, TickStep};
use wharf_core::time::Timestamp;

use super::MemoryStore;
use super::queue::MemoryQueue;
use crate::store::{
    DueSchedules, FiringResults, Queue as _, ScheduleFired, ScheduleStore, ScheduleWrite, ScheduleWritten, StoreError,
};

impl MemoryQueue {
    fn fire_schedule(&mut self, firing: &ScheduleFiring, now: Timestamp) -> Option<ScheduleFired> {
        let schedule = self.schedules.schedules.get(&firing.id)?;
        let statuses: Vec<_> = firing.open.iter().map(|id| self.jobs.get(id).map(|record| record.job.status)).collect();
        let mut results = FiringResults::new(schedule.begin_firing(firing, &statuses, now)?);
        for (place, tick) in firing.ticks.iter().enumerate().take(results.run.ticks()) {
            match (results.run.step(place), &tick.job) {
                (TickStep::Skip(skip), _) => results.run.skipped(place, skip),
                (TickStep::MakeRoom { replaced, cancelled }, _) => {
                    for (id, event) in make_room(&replaced, &cancelled) {
                        self.apply(id, event, now).expect("it waits or runs");
                    }
                    results.made_room(replaced, cancelled);
                }
                (TickStep::Insert { replaced, cancelled }, Ok(job)) => {
                    for (id, event) in make_room(&replaced, &cancelled) {
                        self.apply(id, event, now).expect("it waits or runs");
                    }
                    let inserted = self.insert(job.clone(), now);
                    results.inserted(place, (replaced, cancelled), inserted);
                }
                (TickStep::Insert { .. }, Err(_)) => unreachable!("a tick without a job is skipped"),
            }
        }
        let fired = results.end();
        self.schedules.schedules.insert(firing.id.clone(), fired.fired.schedule.clone());
        if let Some(act) = NewAct::of_firing(firing, &fired.fired) {
            self.acts.add(act, now);
        }
        Some(fired)
    }
}

#[async_trait]
impl ScheduleStore for MemoryStore {
    async fn schedule(&self, id: ScheduleId) -> Result<Option<Schedule>, StoreError> {
        Ok(self.queue().schedules.schedules.get(&id).cloned())
    }

    async fn schedules(
        &self,
        source: Option<ScheduleSource>,
        after: Option<ScheduleId>,
        max: u32,
    ) -> Result<Vec<Schedule>, StoreError> {
        let queue = self.queue();
        let found = queue.schedules.schedules.values().filter(|one| {
            after.as_ref().is_none_or(|after| one.id > *after) && source.is_none_or(|source| one.source == source)
        });
        Ok(found.take(max.clamp(1, bounds::PAGE_MAX) as usize).cloned().collect())
    }

    async fn due_schedules(
        &self,
        after: Option<(Timestamp, ScheduleId)>,
        max: u32,
    ) -> Result<DueSchedules, StoreError> {
        let now = self.now();
        let queue = self.queue();
        let is_after =
            |one: &&&Schedule| after.as_ref().is_none_or(|(at, id)| (one.next_at, &one.id) > (Some(*at), id));
        let due = queue.schedules.in_order(|at| at <= now);
        let due = due.iter().filter(is_after).take(max.clamp(1, bounds::PAGE_MAX) as usize);
        let next_at = queue.schedules.next_at(now);
        Ok(DueSchedules { due: due.map(|schedule| (*schedule).clone()).collect(), next_at })
    }

    async fn schedules_ahead(&self, max: u32) -> Result<Vec<Schedule>, StoreError> {
        let now = self.now();
        let queue = self.queue();
        let ahead = queue.schedules.schedules.values().filter(|schedule| schedule.is_ahead(now));
        Ok(ahead.take(max.clamp(1, bounds::PAGE_MAX) as usize).cloned().collect())
    }

    async fn write_schedules(&self, writes: Vec<ScheduleWrite>) -> Result<Vec<ScheduleWritten>, StoreError> {
        let now = self.now();
        let mut queue = self.queue();
        let mut results = Vec::with_capacity(writes.len());
        for write in writes {
            let written = queue.schedules.write(&write);
            if let Some(act) = write.act.filter(|_| written == ScheduleWritten::Written) {
                queue.acts.add(act, now);
            }
            results.push(written);
        }
        Ok(results)
    }

    async fn fire_schedules(
        &self,
        firings: Arc<Vec<ScheduleFiring>>,
        declared: Arc<LimitTable>,
    ) -> Result<Vec<Option<ScheduleFired>>, StoreError> {
        let now = self.now();
        let mut queue = self.queue();
        queue.declared = declared;
        let fired = firings.iter().map(|firing| queue.fire_schedule(firing, now)).collect();
        drop(queue);
        self.nudge();
        Ok(fired)
    }

    async fn schedule_files(&self) -> Result<Vec<(NodeId, BTreeMap<ScheduleId, u64>)>, StoreError> {
        Ok(self.queue().schedules.files.iter().map(|(node, file)| (*node, file.clone())).collect())
    }

    async fn set_schedule_file(
        &self,
        node: NodeId,
        file: BTreeMap<ScheduleId, u64>,
        gone: Vec<NodeId>,
    ) -> Result<(), StoreError> {
        let files = &mut self.queue().schedules.files;
        gone.iter().chain([&node]).for_each(|node| _ = files.remove(node));
        if !file.is_empty() {
            files.insert(node, file);
        }
        Ok(())
    }
}
