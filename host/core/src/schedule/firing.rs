//! One firing of a schedule: what a store does with each of its ticks, inside one transaction.

use super::{OverlapPolicy, Pause, Schedule, TickOutcome, TickRecord};
use crate::author::Author;
use crate::bounds;
use crate::ids::{JobId, ScheduleId};
use crate::job::{JobStatus, NewJob, State, StateName};
use crate::schedule::MissedPolicy;
use crate::time::Timestamp;

/// A firing of a schedule that a host has decided on.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleFiring {
    /// The schedule.
    pub id: ScheduleId,
    /// Its version when this was decided. If it has another one, nothing happens.
    pub version: u64,
    /// The unfinished jobs that the schedule remembered then.
    pub open: Vec<JobId>,
    /// The ticks to fire, oldest first.
    pub ticks: Vec<FiringTick>,
    /// The number of ticks that are missed, the newest of them, and why.
    pub missed: Option<(u64, Timestamp, TickOutcome)>,
    /// The moment of the next tick, with the spread.
    pub next_at: Option<Timestamp>,
    /// True if a hold is on the jobs of the schedule.
    pub held: bool,
    /// The operator who runs the schedule now; `None` for a firing by the clock.
    pub by: Option<Author>,
}

/// A tick of a firing.
#[derive(Clone, Debug, PartialEq)]
pub struct FiringTick {
    /// The nominal tick; `None` if an operator runs the schedule now.
    pub tick: Option<Timestamp>,
    /// Its job, or why there is none.
    pub job: Result<NewJob, String>,
}

/// Why the job of a tick is not enqueued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    outcome: TickOutcome,
    job: Option<JobId>,
    reason: String,
}

/// The part of a firing that a store carries out for one tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TickStep {
    /// Nothing: its job is not enqueued.
    Skip(Skip),
    /// It makes room, then inserts the job.
    Insert {
        /// Waiting jobs to cancel.
        replaced: Vec<JobId>,
        /// Running jobs to ask to end.
        cancelled: Vec<JobId>,
    },
}

/// The result of inserting the job of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TickInserted {
    /// It was added, under this ID.
    Added(JobId),
    /// An earlier job has its token.
    Duplicate(JobId),
    /// Its lane is full.
    Discarded(Option<JobId>),
}

/// The result of a firing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    /// The schedule after it.
    pub schedule: Schedule,
    /// The outcome of each tick, missed ones first.
    pub ticks: Vec<TickRecord>,
    /// True if the schedule paused, since so many of its jobs have failed.
    pub paused: bool,
}

/// A firing that has begun. A store asks it about each tick in turn, and tells it what became of the tick's job.
#[derive(Debug)]
pub struct FireRun<'f> {
    firing: &'f ScheduleFiring,
    schedule: Schedule,
    /// The jobs that have not finished, oldest first.
    open: Vec<(JobId, JobStatus)>,
    ticks: Vec<TickRecord>,
    paused: bool,
    now: Timestamp,
}

impl Schedule {
    /// Begins a firing; returns none if the schedule has changed since it was decided. `statuses` are those of `firing.open`, in
    /// order; `None` stands for a job that was deleted.
    pub fn begin_firing<'f>(
        &self,
        firing: &'f ScheduleFiring,
        statuses: &[Option<JobStatus>],
        now: Timestamp,
    ) -> Option<FireRun<'f>> {
        if self.version != firing.version {
            return None;
        }
        let mut schedule = self.clone();
        let mut open = Vec::new();
        for (id, status) in firing.open.iter().zip(statuses) {
            match status.map(|status| (status.state.name(), status)) {
                Some((StateName::Waiting | StateName::Running, status)) => open.push((*id, status)),
                Some((StateName::Succeeded, _)) => schedule.failures = 0,
                Some((StateName::Failed, _)) => schedule.failures = schedule.failures.saturating_add(1),
                Some((StateName::Cancelled, _)) | None => {}
            }
        }
        schedule.version += 1;
        let is_tired = schedule.spec.pause_after.is_some_and(|after| schedule.failures >= after);
        let paused = is_tired && firing.by.is_none();
        if paused {
            let reason = format!("its last {} jobs have failed", schedule.failures);
            schedule.pause = Some(Pause { since: now, until: None, by: None, reason });
            (schedule.next_at, schedule.moved_at, schedule.failures) = (None, now, 0);
        } else if firing.by.is_none() {
            (schedule.next_at, schedule.moved_at) = (firing.next_at, now);
        }
        let mut run = FireRun { firing, schedule, open, ticks: Vec::new(), paused, now };
        if let Some((count, tick, outcome)) = firing.missed {
            run.schedule.missed = run.schedule.missed.saturating_add(count);
            run.note(TickRecord { tick, count, outcome, job: None, reason: String::new() });
        }
        Some(run)
    }
}

impl FireRun<'_> {
    /// Returns the ticks of which the store asks, in order; none if the schedule has paused.
    pub fn ticks(&self) -> usize {
        if self.paused { 0 } else { self.firing.ticks.len() }
    }

    /// Returns what to do with a tick.
    pub fn step(&self, place: usize) -> TickStep {
        let skip = |outcome, job, reason: &str| TickStep::Skip(Skip { outcome, job, reason: reason.to_owned() });
        let tick = &self.firing.ticks[place];
        if let Err(why) = &tick.job {
            return skip(TickOutcome::Refused, None, why);
        }
        let insert = TickStep::Insert { replaced: Vec::new(), cancelled: Vec::new() };
        if self.firing.by.is_some() {
            return insert;
        }
        let is_waiting = |status: &JobStatus| matches!(status.state, State::Waiting { .. });
        let has_begun = |status: &JobStatus| !is_waiting(status) || status.attempt > 0;
        let ids = |matches: &dyn Fn(&JobStatus) -> bool| -> Vec<JobId> {
            self.open.iter().filter(|(_, status)| matches(status)).map(|(id, _)| *id).collect()
        };
        let first_waiting = self.open.iter().find(|(_, status)| is_waiting(status)).map(|(id, _)| *id);
        if self.firing.held && self.schedule.spec.missed != MissedPolicy::All && first_waiting.is_some() {
            return skip(TickOutcome::Held, first_waiting, "an earlier job waits for a hold");
        }
        match self.schedule.spec.overlap {
            OverlapPolicy::Allow => insert,
            OverlapPolicy::Skip => match self.open.last() {
                Some((job, _)) => skip(TickOutcome::Overlap, Some(*job), "an earlier job has not finished"),
                None => insert,
            },
            OverlapPolicy::QueueOne => {
                TickStep::Insert { replaced: ids(&|status| !has_begun(status)), cancelled: Vec::new() }
            }
            OverlapPolicy::Replace => TickStep::Insert {
                replaced: ids(&is_waiting),
                cancelled: ids(&|status| !is_waiting(status) && !status.cancel_requested),
            },
        }
    }

    /// Records that a tick was skipped.
    pub fn skipped(&mut self, place: usize, skip: Skip) {
        let Skip { outcome, job, reason } = skip;
        self.schedule.skipped = self.schedule.skipped.saturating_add(1);
        self.note_tick(place, outcome, job, reason);
    }

    /// Records what the store did with the job of a tick, after it made room as [`FireRun::step`] said.
    pub fn inserted(&mut self, place: usize, (replaced, cancelled): (&[JobId], &[JobId]), inserted: TickInserted) {
        self.open.retain(|(id, _)| !replaced.contains(id));
        for (id, status) in &mut self.open {
            status.cancel_requested |= cancelled.contains(id);
        }
        match inserted {
            TickInserted::Added(id) => {
                self.open.push((id, JobStatus::new(self.now)));
                self.schedule.fired = self.schedule.fired.saturating_add(1);
                self.schedule.last_tick = self.schedule.last_tick.max(self.firing.ticks[place].tick);
                self.note_tick(place, TickOutcome::Fired, Some(id), String::new());
            }
            TickInserted::Duplicate(id) => {
                let reason = "its job was enqueued before".to_owned();
                self.skipped(place, Skip { outcome: TickOutcome::Duplicate, job: Some(id), reason });
            }
            TickInserted::Discarded(job) => {
                let reason = "its lane is full, and its task discards jobs in that case".to_owned();
                self.skipped(place, Skip { outcome: TickOutcome::LaneFull, job, reason });
            }
        }
    }

    fn note_tick(&mut self, place: usize, outcome: TickOutcome, job: Option<JobId>, reason: String) {
        let tick = self.firing.ticks[place].tick.unwrap_or(self.now);
        self.note(TickRecord { tick, count: 1, outcome, job, reason });
    }

    fn note(&mut self, record: TickRecord) {
        self.schedule.remember(record.clone());
        self.ticks.push(record);
    }

    /// Ends the firing. The store writes the schedule as it is then.
    pub fn end(self) -> Fired {
        let mut schedule = self.schedule;
        let over = self.open.len().saturating_sub(bounds::SCHEDULE_JOBS_KEPT);
        schedule.open = self.open.into_iter().skip(over).map(|(id, _)| id).collect();
        Fired { schedule, ticks: self.ticks, paused: self.paused }
    }
}
