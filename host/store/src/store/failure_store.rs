//! The failure groups of a store.

use async_trait::async_trait;
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::failure::{FailureDetails, FailureGroup, FailureState};
use wharf_core::fingerprint::Fingerprint;
use wharf_core::ids::TaskName;
use wharf_core::time::Timestamp;

use super::error::StoreError;

/// The failure groups of a store. [`Queue::record`](super::Queue::record) and [`Queue::reclaim`](super::Queue::reclaim) count
/// each job that fails, in the transaction of its end. [`NodeRegistry::register`](super::NodeRegistry::register) notes when a
/// digest of a plugin was seen first, by which regressions are told.
#[async_trait]
pub trait FailureStore: Send + Sync {
    /// Returns a page of groups, the one that failed last first.
    async fn failures(&self, filter: FailureFilter) -> Result<FailurePage, StoreError>;

    /// Returns a group with its versions and samples.
    async fn failure_details(&self, fingerprint: Fingerprint) -> Result<Option<FailureDetails>, StoreError>;

    /// Sets the state of a group, and adds the act to the audit log. Returns the group, or `None` if there is none.
    async fn set_failure_state(
        &self,
        fingerprint: Fingerprint,
        state: FailureState,
        by: Author,
    ) -> Result<Option<FailureGroup>, StoreError>;

    /// Deletes at most `max` groups that failed last before `before`, the one of the longest ago first. Returns how many.
    async fn delete_failures(&self, before: Timestamp, max: u32) -> Result<u32, StoreError>;
}

/// A filter for a list of failure groups. A group must match all filters that are present.
#[derive(Clone, Debug, Default)]
pub struct FailureFilter {
    /// Only groups in this state.
    pub state: Option<FailureState>,
    /// Only groups of this task.
    pub task: Option<TaskName>,
    /// Only groups after this one, such as the last one of the previous page. A group that fails meanwhile moves to the front.
    pub after: Option<FailureCursor>,
    /// The length of the page, from 1 to `bounds::PAGE_MAX`.
    pub max: u32,
}

/// The place of a failure group in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FailureCursor {
    /// When a job of the group failed last.
    pub last_seen: Timestamp,
    /// The fingerprint of the group.
    pub fingerprint: Fingerprint,
}

impl FailureCursor {
    /// Returns the place of a group.
    pub fn of(group: &FailureGroup) -> FailureCursor {
        FailureCursor { last_seen: group.last_seen, fingerprint: group.fingerprint }
    }
}

impl FailureFilter {
    /// Returns the length of the page.
    pub(crate) fn page_length(&self) -> usize {
        self.max.clamp(1, bounds::PAGE_MAX) as usize
    }
}

/// A page of a list of failure groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailurePage {
    /// The groups, the one that failed last first.
    pub groups: Vec<FailureGroup>,
    /// True if there are more.
    pub more: bool,
}

impl FailurePage {
    /// Returns a page of the first `max` of these groups, of which there are at most `max + 1`.
    pub(crate) fn new(mut groups: Vec<FailureGroup>, max: usize) -> FailurePage {
        let more = groups.len() > max;
        groups.truncate(max);
        FailurePage { groups, more }
    }
}
