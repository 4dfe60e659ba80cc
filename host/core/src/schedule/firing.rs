//! One firing of a schedule: what a store does with each of its ticks, inside one transaction.

use super::{DueTicks, OverlapPolicy, Pause, Schedule, TickOutcome, TickRecord, tick_token};
use crate::author::Author;
use crate::bounds;
use crate::ids::{JobId, ScheduleId};
use crate::job::{JobStatus, NewJob, State, StateName};
use crate::limits::OnConflict;
use crate::schedule::MissedPolicy;
use crate::tick::JobTick;
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
    /// It makes room, and inserts nothing: the tick stays due until jobs that have begun have ended.
    MakeRoom {
        /// Waiting jobs to cancel.
        replaced: Vec<JobId>,
        /// Running jobs to ask to end.
        cancelled: Vec<JobId>,
    },
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
    /// The record of an operator's run, which is no tick.
    pub run: Option<TickRecord>,
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
    /// Its last tick stays due, until jobs that have begun have ended.
    held_back: bool,
    now: Timestamp,
}

fn is_waiting(status: &JobStatus) -> bool {
    matches!(status.state, State::Waiting { .. })
}

fn has_begun(status: &JobStatus) -> bool {
    !is_waiting(status) || status.attempt > 0
}

impl Schedule {
    /// Gives the job of a tick what its schedule decides. Where jobs of the schedule never overlap, the job waits for its lane:
    /// it would be discarded otherwise, although it takes the place of those that were cancelled for it.
    pub fn job_of_tick(&self, job: NewJob, tick: JobTick) -> NewJob {
        let on_conflict = match self.spec.overlap {
            OverlapPolicy::QueueOne | OverlapPolicy::Replace => OnConflict::Wait,
            OverlapPolicy::Allow | OverlapPolicy::Skip => job.on_conflict,
        };
        NewJob { token: tick_token(&self.id, tick.tick), on_conflict, tick: Some(Box::new(tick)), ..job }
    }

    /// Returns the ticks that are fired, each with the one before it and the number of those between that have no job.
    pub fn job_ticks(&self, due: &DueTicks) -> Vec<JobTick> {
        let without_job = self.recent.iter().rev().take_while(|record| record.outcome != TickOutcome::Fired);
        let mut missed = without_job.fold(due.missed, |sum, record| sum.saturating_add(record.count));
        let mut last = self.last_tick;
        let ticks = due.fire.iter().map(|tick| {
            // After a clock that was ahead the last one may be later.
            let previous = last.filter(|last| last < tick);
            last = Some(*tick);
            JobTick { tick: *tick, previous, missed: std::mem::take(&mut missed) }
        });
        ticks.collect()
    }

    /// Begins a firing; returns none if the schedule has changed since it was decided, or if its tick stays due and nothing else
    /// changes. `statuses` are those of `firing.open`, in order; `None` stands for a job that was deleted.
    ///
    /// With the policies `queue-one` and `replace` no two jobs of ticks run at once: a tick stays due until the jobs that have begun
    /// have ended, and a newer tick takes its place.
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
        let in_the_way = open.iter().rev().find(|(_, status)| match schedule.spec.overlap {
            OverlapPolicy::QueueOne => has_begun(status),
            OverlapPolicy::Replace => !is_waiting(status),
            OverlapPolicy::Allow | OverlapPolicy::Skip => false,
        });
        let in_the_way = in_the_way.filter(|_| firing.by.is_none()).map(|(id, _)| *id);
        let last = firing.ticks.iter().rev().find_map(|tick| tick.tick);
        let held_back = last.filter(|_| in_the_way.is_some() && !paused);
        if paused {
            let reason = format!("its last {} jobs have failed", schedule.failures);
            schedule.pause = Some(Pause { since: now, until: None, by: None, reason });
            (schedule.next_at, schedule.moved_at, schedule.failures) = (None, now, 0);
        } else if firing.by.is_none() {
            let held_back = held_back.map(|tick| tick + schedule.offset());
            (schedule.next_at, schedule.moved_at) = (held_back.or(firing.next_at), now);
        }
        let is_moved = schedule.next_at != self.next_at;
        let held_back = held_back.is_some();
        let mut run = FireRun { firing, schedule, open, ticks: Vec::new(), paused, held_back, now };
        if held_back && !is_moved && firing.missed.is_none() && run.ticks() == 0 {
            return None;
        }
        let overlap = |tick, count, job| TickRecord {
            tick,
            count,
            outcome: TickOutcome::Overlap,
            job: Some(job),
            reason: "a newer tick came, or its time was over, before an earlier job had ended".to_owned(),
        };
        match (firing.missed, in_the_way) {
            (Some((count, tick, TickOutcome::Missed)), Some(job)) => run.pass(overlap(tick, count, job)),
            (Some((count, tick, outcome)), _) => {
                run.schedule.missed = run.schedule.missed.saturating_add(count);
                run.note(TickRecord { tick, count, outcome, job: None, reason: String::new() });
            }
            (None, _) => {}
        }
        let all: Vec<Timestamp> = firing.ticks.iter().filter_map(|tick| tick.tick).collect();
        match (in_the_way, all.as_slice()) {
            (_, [.., last]) if paused => {
                let reason = "the schedule paused, since its jobs fail".to_owned();
                let count = all.len() as u64;
                run.pass(TickRecord { tick: *last, count, outcome: TickOutcome::Paused, job: None, reason });
            }
            (Some(job), [earlier @ .., last_earlier, _]) => {
                run.pass(overlap(*last_earlier, earlier.len() as u64 + 1, job));
            }
            _ => {}
        }
        Some(run)
    }
}

impl FireRun<'_> {
    /// Returns the number of ticks of which the store asks, in order; none if the schedule has paused.
    pub fn ticks(&self) -> usize {
        if self.paused {
            0
        } else if self.held_back {
            let (replaced, cancelled) = self.room();
            usize::from(!replaced.is_empty() || !cancelled.is_empty())
        } else {
            self.firing.ticks.len()
        }
    }

    /// Returns the waiting jobs to cancel for the next one, and the running ones to ask to end.
    fn room(&self) -> (Vec<JobId>, Vec<JobId>) {
        let ids = |matches: &dyn Fn(&JobStatus) -> bool| -> Vec<JobId> {
            self.open.iter().filter(|(_, status)| matches(status)).map(|(id, _)| *id).collect()
        };
        match self.schedule.spec.overlap {
            OverlapPolicy::QueueOne if !self.held_back => (ids(&|status| !has_begun(status)), Vec::new()),
            OverlapPolicy::Replace => {
                (ids(&is_waiting), ids(&|status| !is_waiting(status) && !status.cancel_requested))
            }
            OverlapPolicy::Allow | OverlapPolicy::Skip | OverlapPolicy::QueueOne => (Vec::new(), Vec::new()),
        }
    }

    /// Returns what to do with a tick.
    pub fn step(&self, place: usize) -> TickStep {
        if self.held_back {
            let (replaced, cancelled) = self.room();
            return TickStep::MakeRoom { replaced, cancelled };
        }
        let skip = |outcome, job, reason: &str| TickStep::Skip(Skip { outcome, job, reason: reason.to_owned() });
        let tick = &self.firing.ticks[place];
        if let Err(why) = &tick.job {
            return skip(TickOutcome::Refused, None, why);
        }
        let insert = TickStep::Insert { replaced: Vec::new(), cancelled: Vec::new() };
        if self.firing.by.is_some() {
            return insert;
        }
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
            OverlapPolicy::QueueOne | OverlapPolicy::Replace => {
                let (replaced, cancelled) = self.room();
                TickStep::Insert { replaced, cancelled }
            }
        }
    }

    /// Records that a tick was skipped.
    pub fn skipped(&mut self, place: usize, skip: Skip) {
        let Skip { outcome, job, reason } = skip;
        let tick = self.firing.ticks[place].tick.unwrap_or(self.now);
        self.pass(TickRecord { tick, count: 1, outcome, job, reason });
    }

    /// Records ticks without jobs.
    fn pass(&mut self, record: TickRecord) {
        if self.firing.by.is_none() {
            self.schedule.skipped = self.schedule.skipped.saturating_add(record.count);
        }
        self.note(record);
    }

    /// Records that the store made room for a job that is not inserted yet.
    pub fn made_room(&mut self, replaced: &[JobId], cancelled: &[JobId]) {
        self.open.retain(|(id, _)| !replaced.contains(id));
        for (id, status) in &mut self.open {
            status.cancel_requested |= cancelled.contains(id);
        }
    }

    /// Records what the store did with the job of a tick, after it made room as [`FireRun::step`] said.
    pub fn inserted(&mut self, place: usize, (replaced, cancelled): (&[JobId], &[JobId]), inserted: TickInserted) {
        self.made_room(replaced, cancelled);
        match inserted {
            TickInserted::Added(id) => {
                let tick = self.firing.ticks[place].tick;
                // The job of an operator's run belongs to no tick: it is in no tick's way.
                if tick.is_some() {
                    self.open.push((id, JobStatus::new(self.now)));
                    self.schedule.fired = self.schedule.fired.saturating_add(1);
                    self.schedule.last_tick = self.schedule.last_tick.max(tick);
                }
                let (tick, reason) = (tick.unwrap_or(self.now), String::new());
                self.note(TickRecord { tick, count: 1, outcome: TickOutcome::Fired, job: Some(id), reason });
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

    fn note(&mut self, record: TickRecord) {
        if self.firing.by.is_none() {
            self.schedule.remember(record.clone());
        }
        self.ticks.push(record);
    }

    /// Ends the firing. The store writes the schedule as it is then.
    pub fn end(self) -> Fired {
        let mut schedule = self.schedule;
        let over = self.open.len().saturating_sub(bounds::SCHEDULE_JOBS_KEPT);
        schedule.open = self.open.into_iter().skip(over).map(|(id, _)| id).collect();
        let (ticks, run) = match self.firing.by {
            Some(_) => (Vec::new(), self.ticks.into_iter().last()),
            None => (self.ticks, None),
        };
        Fired { schedule, ticks, run, paused: self.paused }
    }
}
