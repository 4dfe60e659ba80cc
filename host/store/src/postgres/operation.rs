//! The writer's operations: requests and results, and the jobs and names in them.

use std::collections::BTreeSet;
use std::sync::Arc;

use wharf_core::ids::JobId;
use wharf_core::job::NewJob;
use wharf_core::kv::KvChanges;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, Override};

use super::node_marks::ExpiredLease;
use crate::store::{Claim, Claimed, Inserted, Recorded};

/// A request to the writer.
#[derive(Debug)]
pub(super) enum WriteRequest {
    Insert(Vec<NewJob>, Arc<LimitTable>),
    /// Adds jobs whose ids were given out before, and changes values with them.
    InsertWithChanges(Vec<NewJob>, Arc<LimitTable>, Option<Arc<KvChanges>>),
    Claim(Claim),
    Record(Arc<Vec<(JobId, Event)>>),
    /// Ends leases that had expired when they were read.
    Expire(Vec<ExpiredLease>),
    SetOverride(Override),
}

/// The writer's response to a request.
#[derive(Debug)]
pub(super) enum WriteResult {
    Inserted(Vec<Inserted>),
    Claimed(Claimed),
    Recorded(Vec<Result<Recorded, Refusal>>),
    /// The jobs whose leases were ended.
    Expired(Vec<JobId>),
    OverrideSet,
}

impl WriteResult {
    /// Returns true if others may be waiting for this change.
    pub(super) fn is_worth_a_nudge(&self) -> bool {
        match self {
            WriteResult::Claimed(claimed) => !claimed.leased.is_empty(),
            WriteResult::Expired(freed) => !freed.is_empty(),
            WriteResult::Inserted(_) | WriteResult::Recorded(_) | WriteResult::OverrideSet => true,
        }
    }
}

impl WriteRequest {
    pub(super) fn is_claim(&self) -> bool {
        matches!(self, WriteRequest::Claim(_))
    }

    /// Returns about how many jobs it writes. Claims count as none.
    pub(super) fn job_count(&self) -> usize {
        match self {
            WriteRequest::Insert(jobs, ..) | WriteRequest::InsertWithChanges(jobs, ..) => jobs.len(),
            WriteRequest::Record(events) => events.len(),
            WriteRequest::Expire(expired) => expired.len(),
            WriteRequest::Claim(_) | WriteRequest::SetOverride(_) => 0,
        }
    }

    /// Returns about how many bytes it writes.
    pub(super) fn bytes(&self) -> usize {
        let payloads = |jobs: &[NewJob]| jobs.iter().map(|job| job.payload.len()).sum::<usize>();
        let changed = |changes: &Option<Arc<KvChanges>>| changes.as_ref().map_or(0, |changes| changes.bytes() as usize);
        match self {
            WriteRequest::Insert(jobs, _) => payloads(jobs),
            WriteRequest::InsertWithChanges(jobs, _, changes) => payloads(jobs) + changed(changes),
            WriteRequest::Record(events) => events.iter().map(|(_, event)| event.bytes()).sum(),
            _ => 0,
        }
    }

    /// Returns the jobs that it adds, children of ended jobs included.
    pub(super) fn new_jobs(&self) -> Vec<&NewJob> {
        match self {
            WriteRequest::Insert(jobs, ..) | WriteRequest::InsertWithChanges(jobs, ..) => jobs.iter().collect(),
            WriteRequest::Record(events) => events.iter().flat_map(|(_, event)| children(event)).collect(),
            _ => Vec::new(),
        }
    }
}

fn children(event: &Event) -> &[NewJob] {
    match event {
        Event::Succeeded { children, .. } => children,
        _ => &[],
    }
}

/// Returns the jobs that requests add.
pub(super) fn all_new_jobs<'w>(requests: impl Iterator<Item = &'w WriteRequest>) -> Vec<&'w NewJob> {
    requests.flat_map(WriteRequest::new_jobs).collect()
}

/// Returns all tasks and limit groups that requests name.
pub(super) fn all_names<'w>(requests: impl Iterator<Item = &'w WriteRequest>) -> BTreeSet<&'w str> {
    let mut names = BTreeSet::new();
    for request in requests {
        for job in request.new_jobs() {
            names.extend([job.task.as_str(), job.lane.group.as_str()]);
        }
        match request {
            WriteRequest::Claim(claim) => {
                names.extend(claim.tasks.iter().flat_map(|(task, group)| [task.as_str(), group.as_str()]));
            }
            WriteRequest::SetOverride(change) => _ = names.insert(change.group.as_str()),
            _ => {}
        }
    }
    names
}
