//! The rows that a group of operations reads before it starts, in one round trip.

use std::collections::BTreeSet;

use wharf_core::ids::JobId;
use wharf_core::job::NewJob;
use wharf_core::lifecycle::Event;
use wharf_core::limits::OnConflict;

use super::job_row::TokenRow;
use super::lane_rows::{LaneNames, LaneRow};
use super::node_marks::ExpiredLease;
use super::operation::{WriteRequest, group_of};
use super::running_cache::RunningCache;
use super::session::SessionError;
use crate::columns::signed;

/// The rows that a transaction reads when it starts.
#[derive(Debug, Default)]
pub(super) struct ReadSet {
    /// Jobs that are taken from the cache and not read.
    pub(super) cached: BTreeSet<JobId>,
    /// Jobs that are read, by id.
    pub(super) jobs: BTreeSet<i64>,
    /// Jobs among these whose rows are locked, since not only who has the lock of their limit group changes them: jobs whose leases may
    /// end, and finished jobs that somebody brings back or deletes.
    pub(super) locked: BTreeSet<i64>,
    /// Jobs among these that may wait again: their lanes are read.
    pub(super) returning: BTreeSet<i64>,
    /// Jobs among these that write log entries: the number of the last entry is read.
    pub(super) wrote: BTreeSet<i64>,
    /// Tokens whose jobs are read, each with the number of its task.
    pub(super) tokens: Vec<TokenRow>,
    /// Lanes whose lines are read.
    pub(super) lanes: BTreeSet<LaneRow>,
    /// Limit groups that are locked.
    pub(super) groups: BTreeSet<i32>,
    /// Tasks whose limit groups are locked, all in which their jobs were ever enqueued.
    pub(super) tasks: BTreeSet<i32>,
    /// True if the running jobs of the limit groups are read.
    pub(super) slot_holders: bool,
    /// The free slots of all claims together.
    pub(super) free: u32,
    pub(super) has_claims: bool,
}

impl ReadSet {
    /// Computes the rows that `requests` read. On the first try a duplicate id surfaces as a unique violation; on a retry
    /// (`is_retry`) ids of new jobs are looked up first.
    pub(super) fn new<'w>(
        requests: impl Iterator<Item = &'w WriteRequest>,
        names: &LaneNames,
        cache: &RunningCache,
        is_retry: bool,
    ) -> Result<ReadSet, SessionError> {
        let mut reads = ReadSet::default();
        for request in requests {
            for job in request.new_jobs() {
                reads.add_job(job, names, is_retry)?;
            }
            match request {
                WriteRequest::Insert(..) | WriteRequest::InsertWithChanges(..) | WriteRequest::AddAct(_) => {}
                WriteRequest::Record(events, _) => {
                    for (id, event) in events.iter() {
                        match cache.find(*id, event) {
                            Some(job) => {
                                reads.cached.insert(*id);
                                reads.groups.insert(job.lane.group);
                                reads.slot_holders = true;
                            }
                            None => reads.add_event(*id, event),
                        }
                    }
                }
                WriteRequest::Expire(expired) => {
                    let event = |of: &ExpiredLease| Event::LeaseExpired { attempt: of.attempt, mark: of.mark };
                    expired.iter().for_each(|expired| reads.add_event(expired.job, &event(expired)));
                }
                WriteRequest::Claim(claim) => {
                    (reads.has_claims, reads.slot_holders) = (true, true);
                    reads.free += claim.free;
                    for (task, group) in claim.tasks.iter() {
                        reads.tasks.insert(names.number(task.as_str())?);
                        reads.groups.insert(names.number(group.as_str())?);
                    }
                }
                WriteRequest::SetOverride(change, _) => _ = reads.groups.insert(names.number(change.group.as_str())?),
                WriteRequest::SetHold(_) | WriteRequest::ReleaseHold(..) | WriteRequest::DeleteEndedHolds(_) => {
                    if let Some(group) = request.hold_scope().and_then(group_of) {
                        reads.groups.insert(names.number(group.as_str())?);
                    }
                }
                WriteRequest::StartOperation(..)
                | WriteRequest::CancelOperation(..)
                | WriteRequest::WriteSchedules(_) => {}
                WriteRequest::FireSchedules(firings, _) => {
                    let open = firings.iter().flat_map(|firing| &firing.open).map(|id| signed(id.number()));
                    reads.jobs.extend(open);
                    // A job may be asked to end for the next one.
                    reads.slot_holders |= firings.iter().any(|firing| !firing.open.is_empty());
                }
                WriteRequest::OperationStep(step) => {
                    let ids = || step.targets.iter().map(|target| signed(target.id.number()));
                    reads.jobs.extend(ids());
                    reads.returning.extend(ids());
                    let finished = step.targets.iter().filter(|target| target.state.is_final());
                    reads.locked.extend(finished.map(|target| signed(target.id.number())));
                    reads.slot_holders = true;
                }
            }
        }
        Ok(reads)
    }

    fn add_job(&mut self, job: &NewJob, names: &LaneNames, is_retry: bool) -> Result<(), SessionError> {
        let lane = names.lane_row(&job.lane)?;
        // Other jobs of its lane may cause it to be discarded.
        self.slot_holders |= job.on_conflict != OnConflict::Wait;
        if is_retry {
            self.jobs.insert(signed(job.id.number()));
        }
        self.groups.insert(lane.group);
        self.lanes.insert(lane);
        if let Some(token) = &job.token {
            self.tokens.push(TokenRow::new(token, names.number(job.task.as_str())?, &job.lane));
        }
        Ok(())
    }

    fn add_event(&mut self, id: JobId, event: &Event) {
        let id = signed(id.number());
        self.jobs.insert(id);
        self.slot_holders |= !matches!(event, Event::Wrote { .. });
        match event {
            Event::Wrote { .. } => _ = self.wrote.insert(id),
            Event::LeaseExpired { .. } | Event::RetryRequested { .. } => {
                self.locked.insert(id);
                self.returning.insert(id);
            }
            Event::Failed { retry_in: Some(_), .. } | Event::Released { .. } | Event::RunRequested => {
                self.returning.insert(id);
            }
            _ => {}
        }
    }
}
