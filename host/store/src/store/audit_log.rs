//! The audit log of a store.

use async_trait::async_trait;
use wharf_core::audit::{Act, ActId, ActKind, NewAct};
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::ids::JobId;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::time::Timestamp;

use super::error::StoreError;
use super::written::Recorded;

/// The acts of operators. An act whose change is in the store is written in the transaction of the change, by the call that
/// makes the change: a change without its act, or an act without its change, never happens.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Applies the event of an operator to a job, as `Queue::record` does, and adds the act. A refused event adds none.
    async fn change_job(&self, id: JobId, event: Event, by: Author) -> Result<Result<Recorded, Refusal>, StoreError>;

    /// Adds an act whose change is not in the store.
    async fn add_act(&self, act: NewAct) -> Result<(), StoreError>;

    /// Returns acts, newest first. It reads at most `bounds::ACTS_READ_MAX` of them, so a page may have fewer than `filter.max`
    /// acts and not be the last one.
    async fn acts(&self, filter: ActFilter) -> Result<ActPage, StoreError>;

    /// Deletes at most `max` acts from before `before`, the oldest first. Returns how many.
    async fn delete_acts(&self, before: Timestamp, max: u32) -> Result<u32, StoreError>;
}

/// A filter for a list of acts. An act must match all filters that are present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActFilter {
    /// Only acts from this time on.
    pub since: Option<Timestamp>,
    /// Only acts of this author; of clients without a token if the name is `None`.
    pub author: Option<Option<String>>,
    /// Only acts of this kind.
    pub kind: Option<ActKind>,
    /// Only acts before this one, such as `next` of the previous page.
    pub before: Option<ActId>,
    /// The length of the page, from 1 to `bounds::PAGE_MAX`.
    pub max: u32,
}

/// A page of a list of acts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActPage {
    /// The acts, newest first.
    pub acts: Vec<Act>,
    /// The act before which the next page starts; `None` on the last page.
    pub next: Option<ActId>,
}

impl ActFilter {
    /// Returns the length of the page, within its limits.
    pub(crate) fn page_length(&self) -> usize {
        self.max.clamp(1, bounds::PAGE_MAX) as usize
    }

    /// Returns the number of acts to read: one more than may be looked at.
    pub(crate) fn read_max(&self) -> u32 {
        match (&self.author, self.kind) {
            (None, None) => self.page_length() as u32 + 1,
            _ => bounds::ACTS_READ_MAX + 1,
        }
    }

    /// Returns true if an act has the author and the kind.
    pub(crate) fn matches(&self, act: &Act) -> bool {
        self.author.as_ref().is_none_or(|name| name.as_deref() == act.author.name())
            && self.kind.is_none_or(|kind| kind == act.kind)
    }

    /// Returns the page of the matching acts among `read`, which are at most `read_max` acts from `since` on and
    /// before `before`, newest first.
    pub(crate) fn page<E>(&self, read: impl Iterator<Item = Result<Act, E>>) -> Result<ActPage, E> {
        let mut page = ActPage::default();
        let mut last = None;
        for (place, act) in read.enumerate() {
            if page.acts.len() == self.page_length() || place == bounds::ACTS_READ_MAX as usize {
                page.next = last;
                break;
            }
            let act = act?;
            last = Some(act.id);
            if self.matches(&act) {
                page.acts.push(act);
            }
        }
        Ok(page)
    }
}
