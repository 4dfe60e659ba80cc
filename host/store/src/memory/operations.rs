//! Bulk operations: a map, whose steps are events and deletions.

use wharf_core::audit::NewAct;
use wharf_core::author::Author;
use wharf_core::bulk::{BulkOperation, NewOperation, OperationStep};
use wharf_core::ids::JobId;
use wharf_core::job::UniqueToken;
use wharf_core::limits::LimitTable;
use wharf_core::time::Timestamp;

use super::queue::{JobRecord, MemoryQueue};
use crate::store::StepTaken;

impl MemoryQueue {
    pub(super) fn start_operation(
        &mut self,
        new: &NewOperation,
        declared: &LimitTable,
        now: Timestamp,
    ) -> Option<BulkOperation> {
        if let Some(known) = self.operations.values().find(|known| new.has_become(known)) {
            return Some(known.clone());
        }
        let (open, operation) = (self.open_operations(), new.started_at(now));
        if !new.has_room(&open) {
            return None;
        }
        self.operations.insert(operation.id, operation.clone());
        if new.query.needs_wait_view() {
            self.waits_at_start.insert(operation.id, self.wait_view(declared, now));
        }
        self.acts.add(NewAct::of_operation(new.author.clone(), &operation), now);
        Some(operation)
    }

    pub(super) fn open_operations(&self) -> Vec<BulkOperation> {
        self.operations.values().filter(|operation| !operation.state.is_final()).cloned().collect()
    }

    pub(super) fn take_operation_step(&mut self, step: &OperationStep, now: Timestamp) -> Option<StepTaken> {
        let operation = self.operations.get(&step.operation)?.clone();
        operation.after(step, &[], now)?;
        let mut changed = Vec::new();
        for target in &step.targets {
            let Some(JobRecord { job, .. }) = self.jobs.get(&target.id) else { continue };
            if !target.is_still((job.status.state.name(), job.status.attempt), job.finished_at, job.retried_at) {
                continue;
            }
            let is_changed = match operation.event(target) {
                Some(event) => self.apply(target.id, event, now).is_ok(),
                None => self.delete(target.id),
            };
            changed.extend(is_changed.then_some(target.id));
        }
        let operation = operation.after(step, &changed, now)?;
        self.operations.insert(operation.id, operation.clone());
        if operation.state.is_final() {
            self.waits_at_start.remove(&operation.id);
        }
        if let Some(act) = NewAct::of_ended_operation(&operation) {
            self.acts.add(act, now);
        }
        Some(StepTaken { operation, changed })
    }

    pub(super) fn cancel_operation(&mut self, id: JobId, by: Author, now: Timestamp) -> Option<BulkOperation> {
        let operation = self.operations.get_mut(&id)?;
        *operation = operation.cancelled(now)?;
        let cancelled = operation.clone();
        self.waits_at_start.remove(&id);
        self.acts.add(NewAct::of_operation(by, &cancelled), now);
        Some(cancelled)
    }

    pub(super) fn delete_ended_operations(&mut self, before: Timestamp, max: u32) -> u32 {
        let is_old = |operation: &&BulkOperation| operation.ended_at.is_some_and(|at| at < before);
        let old: Vec<JobId> = self.operations.values().filter(is_old).map(|one| one.id).take(max as usize).collect();
        old.iter().for_each(|id| _ = self.operations.remove(id));
        old.len() as u32
    }

    /// Deletes a finished job with its log. Returns false if there is none.
    pub(super) fn delete(&mut self, id: JobId) -> bool {
        let is_finished = |record: &&JobRecord| record.job.finished_at.is_some();
        if self.jobs.get(&id).filter(is_finished).is_none() {
            return false;
        }
        if let Some(JobRecord { job, .. }) = self.jobs.remove(&id) {
            self.failures.forget_job(id);
            job.token.map(|token| self.tokens.remove(&UniqueToken { task: job.task, key: job.lane.key, token }));
            if let Some(batch) = job.batch {
                self.count_deleted_of_batch(batch.id);
            }
        }
        true
    }

    /// Counts a deleted job of a durable broadcast. A broadcast whose last job was deleted is forgotten.
    fn count_deleted_of_batch(&mut self, batch: JobId) {
        let is_of_batch = |record: &JobRecord| record.job.batch.as_ref().is_some_and(|other| other.id == batch);
        if self.jobs.values().any(is_of_batch) {
            *self.deleted_of_batch.entry(batch).or_default() += 1;
        } else {
            self.deleted_of_batch.remove(&batch);
        }
    }
}
