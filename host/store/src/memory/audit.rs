//! The audit log of the memory store.

use std::collections::BTreeMap;

use async_trait::async_trait;
use wharf_core::audit::{Act, ActId, NewAct};
use wharf_core::author::Author;
use wharf_core::ids::JobId;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::time::Timestamp;

use super::MemoryStore;
use crate::store::{ActFilter, ActPage, AuditLog, Queue as _, Recorded, StoreError};

/// The acts in the order of their IDs.
#[derive(Default)]
pub(super) struct ActList {
    acts: BTreeMap<ActId, Act>,
    /// The highest number of an act.
    last: u64,
}

impl ActList {
    /// Adds an act.
    pub(super) fn add(&mut self, act: NewAct, now: Timestamp) {
        self.last += 1;
        let id = ActId { at: now, number: self.last };
        self.acts.insert(id, act.stored(id));
    }
}

#[async_trait]
impl AuditLog for MemoryStore {
    async fn change_job(&self, id: JobId, event: Event, by: Author) -> Result<Result<Recorded, Refusal>, StoreError> {
        let now = self.now();
        let mut queue = self.queue();
        let act = NewAct::of_event(by, id, &event);
        let recorded = queue.apply(id, event, now);
        if let (Ok(_), Some(act)) = (&recorded, act) {
            queue.acts.add(act, now);
        }
        drop(queue);
        self.nudge();
        Ok(recorded)
    }

    async fn add_act(&self, act: NewAct) -> Result<(), StoreError> {
        let now = self.now();
        self.queue().acts.add(act, now);
        Ok(())
    }

    async fn acts(&self, filter: ActFilter) -> Result<ActPage, StoreError> {
        let queue = self.queue();
        let newest_first = queue.acts.acts.values().rev();
        let read = newest_first
            .filter(|act| filter.before.is_none_or(|before| act.id < before))
            .filter(|act| filter.since.is_none_or(|since| act.id.at >= since))
            .take(filter.read_max() as usize);
        filter.page(read.map(|act| Ok(act.clone())))
    }

    async fn delete_acts(&self, before: Timestamp, max: u32) -> Result<u32, StoreError> {
        let mut queue = self.queue();
        let old: Vec<ActId> =
            queue.acts.acts.keys().copied().take_while(|id| id.at < before).take(max as usize).collect();
        old.iter().for_each(|id| _ = queue.acts.acts.remove(id));
        Ok(old.len() as u32)
    }
}
