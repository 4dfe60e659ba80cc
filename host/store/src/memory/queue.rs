//! The queue in memory: its jobs, its indexes by state, and what events change.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wharf_core::attempt::{Attempt, dropped_attempt};
use wharf_core::bounds;
use wharf_core::bulk::BulkOperation;
use wharf_core::change::Change;
use wharf_core::conflict::{ConflictDecision, LaneCounts, make_room, resolve};
use wharf_core::failure::NewFailure;
use wharf_core::find::WaitView;
use wharf_core::hold::HoldTable;
use wharf_core::ids::{JobId, JobIds, NodeId, TaskName};
use wharf_core::job::{Job, NewJob, NumberedEntry, State, UniqueToken};
use wharf_core::key::Lane;
use wharf_core::lease::NodeMark;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, OnConflict};
use wharf_core::time::Timestamp;
use wharf_core::wait_reason::Holders;

use super::audit::ActList;
use super::failures::FailureMap;
use super::kv::KvMap;
use super::schedule_map::ScheduleMap;
use crate::store::{Inserted, Recorded};

pub(super) struct MemoryQueue {
    pub(super) ids: JobIds,
    pub(super) jobs: BTreeMap<JobId, JobRecord>,
    pub(super) tokens: BTreeMap<UniqueToken, JobId>,
    /// The lanes that have due jobs.
    pub(super) ready: BTreeMap<Lane, ReadyLane>,
    pub(super) delayed: BTreeSet<(Timestamp, JobId)>,
    pub(super) running: BTreeMap<Lane, BTreeSet<JobId>>,
    /// Number of waiting jobs of each task, due or not.
    pub(super) waiting: BTreeMap<TaskName, u64>,
    /// The last turn that was used.
    pub(super) turn: u64,
    /// The overrides alone, without the declared limits.
    pub(super) overrides: LimitTable,
    /// The limits that manifests and settings declared at the last insert or claim.
    pub(super) declared: Arc<LimitTable>,
    pub(super) holds: HoldTable,
    pub(super) acts: ActList,
    pub(super) operations: BTreeMap<JobId, BulkOperation>,
    /// The view at the beginning of each open operation whose filter asks why jobs wait.
    pub(super) waits_at_start: BTreeMap<JobId, WaitView>,
    /// Number of deleted jobs of each durable broadcast, as long as others of the broadcast remain.
    pub(super) deleted_of_batch: BTreeMap<JobId, u64>,
    pub(super) schedules: ScheduleMap,
    pub(super) values: KvMap,
    pub(super) failures: FailureMap,
    /// Marks that nodes recorded about themselves, and when.
    pub(super) marks: BTreeMap<NodeId, (Timestamp, NodeMark)>,
}

/// The due jobs of a lane.
pub(super) struct ReadyLane {
    pub(super) turn: u64,
    /// The due jobs of each task, in the order in which they are served. No line is empty.
    pub(super) lines: BTreeMap<TaskName, BTreeSet<(Reverse<i32>, Timestamp, JobId)>>,
}

/// A job with its entries and its attempts.
pub(super) struct JobRecord {
    pub(super) job: Job,
    pub(super) entries: Vec<NumberedEntry>,
    /// The attempts that it keeps of those that ended without a result.
    pub(super) attempts: Vec<Attempt>,
}

impl MemoryQueue {
    /// Returns the jobs and the durable broadcasts that an unfinished job refers to: as the one that enqueued it, and as its own.
    pub(super) fn referred_to(&self) -> (BTreeSet<JobId>, BTreeSet<JobId>) {
        let unfinished = || {
            let jobs = self.jobs.values().map(|record| &record.job);
            jobs.filter(|job| !job.status.state.name().is_final())
        };
        let parents = unfinished().filter_map(|job| job.lineage.parent).collect();
        (parents, unfinished().filter_map(|job| Some(job.batch.as_ref()?.id)).collect())
    }

    pub(super) fn new() -> MemoryQueue {
        MemoryQueue {
            ids: JobIds::after(None),
            jobs: BTreeMap::new(),
            tokens: BTreeMap::new(),
            ready: BTreeMap::new(),
            delayed: BTreeSet::new(),
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
            turn: 0,
            overrides: LimitTable::default(),
            declared: Arc::default(),
            holds: HoldTable::default(),
            acts: ActList::default(),
            operations: BTreeMap::new(),
            waits_at_start: BTreeMap::new(),
            deleted_of_batch: BTreeMap::new(),
            schedules: ScheduleMap::default(),
            values: KvMap::default(),
            failures: FailureMap::default(),
            marks: BTreeMap::new(),
        }
    }

    /// Returns the declared limits with the overrides applied.
    pub(super) fn limits(&self) -> LimitTable {
        self.declared.with_overrides(self.overrides.overrides())
    }

    /// Adds a job to the index of its state.
    pub(super) fn index(&mut self, id: JobId, now: Timestamp) {
        let job = &self.jobs[&id].job;
        match job.status.state {
            State::Waiting { due } if due <= now => self.make_ready(id),
            State::Waiting { due } => _ = self.delayed.insert((due, id)),
            State::Running { .. } => _ = self.running.entry(job.lane.clone()).or_default().insert(id),
            State::Succeeded | State::Failed | State::Cancelled => {}
        }
    }

    /// Adds a waiting job to the due ones of its lane.
    pub(super) fn make_ready(&mut self, id: JobId) {
        let job = &self.jobs[&id].job;
        let State::Waiting { due } = job.status.state else { return };
        let lane = self.ready.entry(job.lane.clone()).or_insert_with(|| {
            // A lane joins at the end of the order.
            self.turn += 1;
            ReadyLane { turn: self.turn, lines: BTreeMap::new() }
        });
        lane.lines.entry(job.task.clone()).or_default().insert((Reverse(job.priority), due, id));
    }

    /// Removes a job from the index of its state.
    pub(super) fn unindex(&mut self, id: JobId) {
        let job = &self.jobs[&id].job;
        match job.status.state {
            State::Waiting { due } => {
                self.delayed.remove(&(due, id));
                let Some(lane) = self.ready.get_mut(&job.lane) else { return };
                let Some(line) = lane.lines.get_mut(&job.task) else { return };
                line.remove(&(Reverse(job.priority), due, id));
                if line.is_empty() {
                    lane.lines.remove(&job.task);
                }
                if lane.lines.is_empty() {
                    self.ready.remove(&job.lane);
                }
            }
            State::Running { .. } => {
                if let Some(holders) = self.running.get_mut(&job.lane) {
                    holders.remove(&id);
                    if holders.is_empty() {
                        self.running.remove(&job.lane);
                    }
                }
            }
            State::Succeeded | State::Failed | State::Cancelled => {}
        }
    }

    /// Gives a waiting job another priority. Its lane keeps its turn.
    fn change_priority(&mut self, id: JobId, due: Timestamp, priority: i32) {
        let Some(JobRecord { job, .. }) = self.jobs.get_mut(&id) else { return };
        let before = std::mem::replace(&mut job.priority, priority);
        let lane = self.ready.get_mut(&job.lane);
        if let Some(line) = lane.and_then(|lane| lane.lines.get_mut(&job.task))
            && line.remove(&(Reverse(before), due, id))
        {
            line.insert((Reverse(priority), due, id));
        }
    }

    /// Applies one event by the rules of the lifecycle. A refused event changes nothing.
    pub(super) fn apply(&mut self, id: JobId, event: Event, now: Timestamp) -> Result<Recorded, Refusal> {
        let record = self.jobs.get(&id).ok_or(Refusal::Unknown)?;
        if let (Event::RunRequested, State::Waiting { due }) = (&event, record.job.status.state)
            && (due <= now || !self.delayed.contains(&(due, id)))
        {
            // It keeps its place among the jobs that are due.
            return Ok(Recorded::new(&record.job.status, Vec::new()));
        }
        if let (Event::PriorityChanged { priority }, State::Waiting { due }) = (&event, record.job.status.state) {
            let status = record.job.status;
            self.change_priority(id, due, *priority);
            return Ok(Recorded::new(&status, Vec::new()));
        }
        let change = Change::of(&record.job.status, &event, now)?;
        count(&mut self.waiting, &record.job.task, change.added_waiting(&record.job.status));
        self.unindex(id);
        let record = self.jobs.get_mut(&id).expect("found above");
        let before = record.job.status.state;
        record.job.status = change.status;
        record.job.finished_at = change.finished_at;
        record.job.requeued_at = change.requeued_at.or(record.job.requeued_at);
        record.job.retried_at = change.retried_at.or(record.job.retried_at);
        let fingerprint = change.fingerprint(&record.job.task);
        if change.status.state != before {
            record.job.fingerprint = fingerprint.filter(|_| change.status.state == State::Failed);
        }
        let failure = NewFailure::of(id, &record.job.task, record.job.lane.key.as_ref(), &change, now);
        if change.report.is_some() {
            record.job.report = change.report;
        }
        record.job.usage = match (record.job.usage, change.usage) {
            (Some(before), Some(attempt)) => Some(before.plus(&attempt)),
            (before, attempt) => attempt.or(before),
        };
        if let Some(end) = change.unsuccessful {
            record.add_attempt(Attempt { end: *end, fingerprint, began: record.job.started_at, ended: now });
        }
        let mut children = Vec::new();
        match event {
            Event::Claimed { .. } => record.job.started_at = Some(now),
            Event::Wrote { attempt, entries } => {
                let last = record.entries.len() as u64;
                let numbered = (last + 1..).zip(entries);
                record.entries.extend(numbered.map(|(number, entry)| NumberedEntry {
                    number,
                    attempt,
                    at: now,
                    entry,
                }));
            }
            Event::Succeeded { output, children: new, changes, .. } => {
                record.job.result = Some(output);
                children = new;
                changes.iter().for_each(|changes| self.values.change(changes));
            }
            _ => {}
        }
        self.index(id, now);
        let children = children.into_iter().map(|job| self.insert_child(job, now)).collect();
        let regressed = failure.filter(|failure| self.failures.count(failure, now));
        let regressed = regressed.map(|failure| failure.fingerprint);
        Ok(Recorded { regressed, ..Recorded::new(&change.status, children) })
    }

    /// Inserts a job whose ID was handed out before. If it is not enqueued, a cancelled job that says why is inserted under
    /// this ID.
    pub(super) fn insert_child(&mut self, new: NewJob, now: Timestamp) -> Inserted {
        let inserted = self.insert(new.clone(), now);
        // A child that is written twice exists already.
        if let Some((placeholder, end)) = inserted.placeholder(&new)
            && !self.jobs.contains_key(&new.id)
            && let Inserted::Added { .. } = self.insert(placeholder, now)
        {
            self.apply(new.id, end, now).expect("a waiting job can be cancelled");
        }
        inserted
    }

    /// Inserts a job, unless one with its token exists or its lane is full and its task discards it then. Jobs that it replaces
    /// are cancelled.
    pub(super) fn insert(&mut self, mut new: NewJob, now: Timestamp) -> Inserted {
        let token = new.unique_token();
        if let Some(id) = token.as_ref().and_then(|token| self.tokens.get(token).copied()) {
            return Inserted::Duplicate { id };
        }
        while self.jobs.contains_key(&new.id) {
            new.id = self.ids.next(now);
        }

        let (mut replaced, mut cancel_requested) = (Vec::new(), Vec::new());
        if new.on_conflict != OnConflict::Wait {
            let running: Vec<JobId> = self.running.get(&new.lane).into_iter().flatten().copied().collect();
            let waiting = self.waiting(&new.lane);
            let leaving = |id: &JobId| self.jobs[id].job.status.cancel_requested;
            let counts = LaneCounts {
                running: running.len() as u32,
                leaving: running.iter().filter(|id| leaving(id)).count() as u32,
                waiting: waiting.len() as u32,
            };
            match resolve(new.on_conflict, counts, self.limits().per_key(&new.lane)) {
                ConflictDecision::Enqueue => {}
                ConflictDecision::Discard => {
                    let holders = running.into_iter().chain(waiting).take(bounds::HOLDERS_NAMED);
                    return Inserted::Discarded { holders: holders.collect() };
                }
                ConflictDecision::Replace { cancel_running } => {
                    cancel_requested =
                        running.into_iter().filter(|id| !leaving(id)).take(cancel_running as usize).collect();
                    replaced = waiting;
                }
            }
        }
        for (id, event) in make_room(&replaced, &cancel_requested) {
            self.apply(id, event, now).expect("a job that waits or runs can be cancelled");
        }

        let (id, job) = (new.id, Job::inserted(new, now));
        count(&mut self.waiting, &job.task, 1);
        self.jobs.insert(id, JobRecord { job, entries: Vec::new(), attempts: Vec::new() });
        self.tokens.extend(token.map(|token| (token, id)));
        self.index(id, now);
        Inserted::Added { id, replaced, cancel_requested }
    }

    /// Returns the waiting jobs of a lane, due or not, by ID.
    fn waiting(&self, lane: &Lane) -> Vec<JobId> {
        let due = self.ready.get(lane).into_iter().flat_map(|due| due.lines.values().flatten()).map(|(_, _, id)| *id);
        let delayed = self.delayed.iter().map(|(_, id)| *id).filter(|id| self.jobs[id].job.lane == *lane);
        let mut waiting: Vec<JobId> = due.chain(delayed).collect();
        waiting.sort_unstable();
        waiting
    }

    /// Returns the running jobs of the lanes for which `is_counted` returns true, by ID.
    pub(super) fn holders(&self, is_counted: impl Fn(&Lane) -> bool) -> Holders {
        let lanes = self.running.iter().filter(|(lane, _)| is_counted(lane));
        let ids: BTreeSet<JobId> = lanes.flat_map(|(_, ids)| ids).copied().collect();
        ids.into_iter().map(|id| (id, self.jobs[&id].job.started_at.unwrap_or_default())).collect()
    }
}

impl JobRecord {
    fn add_attempt(&mut self, attempt: Attempt) {
        let dropped = dropped_attempt(attempt.end.number);
        self.attempts.push(attempt);
        self.attempts.retain(|kept| Some(kept.end.number) != dropped);
    }
}

/// Adds to the number of waiting jobs of a task. None has an entry of zero.
fn count(waiting: &mut BTreeMap<TaskName, u64>, task: &TaskName, added: i64) {
    match waiting.get_mut(task) {
        _ if added == 0 => {}
        Some(jobs) if jobs.checked_add_signed(added) == Some(0) => _ = waiting.remove(task),
        Some(jobs) => *jobs = jobs.saturating_add_signed(added),
        None => _ = waiting.insert(task.clone(), added.unsigned_abs()),
    }
}
