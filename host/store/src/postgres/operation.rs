//! The writer's operations: requests and results, and the jobs and names in them.

use std::collections::BTreeSet;
use std::sync::Arc;

use wharf_core::audit::NewAct;
use wharf_core::author::Author;
use wharf_core::bulk::{BulkOperation, NewOperation, OperationStep};
use wharf_core::hold::{Hold, HoldScope, NewHold};
use wharf_core::ids::{Group, JobId};
use wharf_core::job::NewJob;
use wharf_core::kv::KvChanges;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, Override};
use wharf_core::schedule::ScheduleFiring;

use super::node_marks::ExpiredLease;
use crate::store::{Claim, Claimed, Inserted, Recorded, ScheduleFired, ScheduleWrite, ScheduleWritten, StepTaken};

/// A request to the writer.
#[derive(Debug)]
pub(super) enum WriteRequest {
    Insert(Vec<NewJob>, Arc<LimitTable>),
    /// Adds jobs whose ids were given out before, and changes values with them.
    InsertWithChanges(Vec<NewJob>, Arc<LimitTable>, Option<Arc<KvChanges>>),
    Claim(Claim),
    /// Applies events; those of an operator are acts of this author.
    Record(Arc<Vec<(JobId, Event)>>, Option<Author>),
    /// Ends leases that had expired when they were read.
    Expire(Vec<ExpiredLease>),
    SetOverride(Override, Author),
    SetHold(NewHold),
    ReleaseHold(HoldScope, Author),
    AddAct(NewAct),
    /// Deletes at most this many holds that have ended.
    DeleteEndedHolds(u32),
    /// Begins a bulk operation under these declared limits.
    StartOperation(Box<NewOperation>, Arc<LimitTable>),
    OperationStep(OperationStep),
    CancelOperation(JobId, Author),
    WriteSchedules(Vec<ScheduleWrite>),
    /// Fires schedules under these declared limits.
    FireSchedules(Arc<Vec<ScheduleFiring>>, Arc<LimitTable>),
}

/// The writer's response to a request.
#[derive(Debug)]
pub(super) enum WriteResult {
    Inserted(Vec<Inserted>),
    Claimed(Claimed),
    Recorded(Vec<Result<Recorded, Refusal>>),
    /// The jobs whose leases were ended.
    Expired(Vec<JobId>),
    Done,
    /// The hold that was set or released.
    Hold(Option<Hold>),
    HoldsDeleted(u32),
    /// The bulk operation that was started or cancelled.
    Operation(Option<Box<BulkOperation>>),
    StepTaken(Option<Box<StepTaken>>),
    SchedulesWritten(Vec<ScheduleWritten>),
    SchedulesFired(Vec<Option<ScheduleFired>>),
}

impl WriteResult {
    /// Returns true if others may be waiting for this change.
    pub(super) fn is_worth_a_nudge(&self) -> bool {
        match self {
            WriteResult::Claimed(claimed) => !claimed.leased.is_empty(),
            WriteResult::Expired(freed) => !freed.is_empty(),
            WriteResult::Inserted(_) | WriteResult::Recorded(_) | WriteResult::Done | WriteResult::Hold(_) => true,
            WriteResult::StepTaken(taken) => taken.is_some(),
            WriteResult::SchedulesFired(fired) => fired.iter().any(Option::is_some),
            WriteResult::SchedulesWritten(written) => written.contains(&ScheduleWritten::Written),
            WriteResult::HoldsDeleted(_) | WriteResult::Operation(_) => false,
        }
    }
}

impl WriteRequest {
    pub(super) fn is_claim(&self) -> bool {
        matches!(self, WriteRequest::Claim(_))
    }

    /// Returns the scope of the hold that it sets or releases.
    pub(super) fn hold_scope(&self) -> Option<&HoldScope> {
        match self {
            WriteRequest::SetHold(NewHold { scope, .. }) | WriteRequest::ReleaseHold(scope, _) => Some(scope),
            _ => None,
        }
    }

    /// Returns true if it keeps what decides at its moment why jobs wait. It has a transaction of its own: nothing else happens at that
    /// moment.
    pub(super) fn keeps_waits(&self) -> bool {
        matches!(self, WriteRequest::StartOperation(new, _) if new.query.needs_wait_view())
    }

    /// Returns true if it may concern the lanes of every limit group.
    pub(super) fn is_about_all_groups(&self) -> bool {
        self.keeps_waits()
            || matches!(self, WriteRequest::DeleteEndedHolds(_))
            || self.hold_scope().is_some_and(|scope| group_of(scope).is_none())
    }

    /// Returns about how many jobs it writes. Claims count as none.
    pub(super) fn job_count(&self) -> usize {
        match self {
            WriteRequest::Insert(jobs, ..) | WriteRequest::InsertWithChanges(jobs, ..) => jobs.len(),
            WriteRequest::Record(events, _) => events.len(),
            WriteRequest::Expire(expired) => expired.len(),
            WriteRequest::Claim(_)
            | WriteRequest::SetOverride(..)
            | WriteRequest::SetHold(_)
            | WriteRequest::ReleaseHold(..)
            | WriteRequest::AddAct(_)
            | WriteRequest::DeleteEndedHolds(_)
            | WriteRequest::StartOperation(..)
            | WriteRequest::CancelOperation(..)
            | WriteRequest::WriteSchedules(_) => 0,
            WriteRequest::FireSchedules(firings, _) => firings.iter().map(|firing| firing.ticks.len()).sum(),
            WriteRequest::OperationStep(step) => step.targets.len(),
        }
    }

    /// Returns about how many bytes it writes.
    pub(super) fn bytes(&self) -> usize {
        let payloads = |jobs: &[NewJob]| jobs.iter().map(|job| job.payload.len()).sum::<usize>();
        let changed = |changes: &Option<Arc<KvChanges>>| changes.as_ref().map_or(0, |changes| changes.bytes() as usize);
        match self {
            WriteRequest::Insert(jobs, _) => payloads(jobs),
            WriteRequest::InsertWithChanges(jobs, _, changes) => payloads(jobs) + changed(changes),
            WriteRequest::Record(events, _) => events.iter().map(|(_, event)| event.bytes()).sum(),
            WriteRequest::FireSchedules(firings, _) => fired_jobs(firings).map(|job| job.payload.len()).sum(),
            _ => 0,
        }
    }

    /// Returns the IDs of the schedules that it changes.
    pub(super) fn schedules(&self) -> Vec<&str> {
        match self {
            WriteRequest::WriteSchedules(writes) => writes.iter().map(|write| write.id.as_str()).collect(),
            WriteRequest::FireSchedules(firings, _) => firings.iter().map(|firing| firing.id.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// Returns the jobs that it adds, children of ended jobs included.
    pub(super) fn new_jobs(&self) -> Vec<&NewJob> {
        match self {
            WriteRequest::Insert(jobs, ..) | WriteRequest::InsertWithChanges(jobs, ..) => jobs.iter().collect(),
            WriteRequest::Record(events, _) => events.iter().flat_map(|(_, event)| children(event)).collect(),
            WriteRequest::FireSchedules(firings, _) => fired_jobs(firings).collect(),
            _ => Vec::new(),
        }
    }
}

/// Returns the limit group that a hold names.
pub(super) fn group_of(scope: &HoldScope) -> Option<&Group> {
    match scope {
        HoldScope::Group(group) => Some(group),
        HoldScope::Key { group, .. } => group.as_ref(),
        HoldScope::All | HoldScope::Plugin(_) | HoldScope::Task(_) => None,
    }
}

fn children(event: &Event) -> &[NewJob] {
    match event {
        Event::Succeeded { children, .. } => children,
        _ => &[],
    }
}

/// Returns the jobs of the ticks of firings.
fn fired_jobs(firings: &[ScheduleFiring]) -> impl Iterator<Item = &NewJob> {
    firings.iter().flat_map(|firing| &firing.ticks).filter_map(|tick| tick.job.as_ref().ok())
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
            WriteRequest::SetOverride(change, _) => _ = names.insert(change.group.as_str()),
            request => names.extend(request.hold_scope().and_then(group_of).map(Group::as_str)),
        }
    }
    names
}
