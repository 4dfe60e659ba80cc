//! Schedules as operators define, pause and run them.

use std::time::Duration;

use wharf_core::audit::{ActKind, NewAct};
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::ids::{JobId, ScheduleId, TaskName};
use wharf_core::job::NewJob;
use wharf_core::schedule::{
    FiringTick, Pause, Schedule, ScheduleFiring, ScheduleSource, ScheduleSpec, TickOutcome, Timing,
};
use wharf_core::time::Timestamp;
use wharf_store::{ScheduleWrite, ScheduleWritten, StoreError};

use crate::plugin_view::PluginView;
use crate::rejection::EnqueueRejection;
use crate::request::{Request, prepare_tick};
use crate::schedule_times::{Times, TimingError, check_timing, zone_name};
use crate::store_health::WatchedStore;
use crate::tick_payload::with_tick;

/// Number of tries of a change that another host's change comes before.
const TRIES_MAX: u32 = 20;

/// Why a schedule was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The definition is not valid.
    #[error("{0}")]
    Invalid(String),
    /// Its jobs would be rejected.
    #[error(transparent)]
    Rejected(#[from] EnqueueRejection),
    /// There is no such schedule.
    #[error("unknown schedule `{0}`; `wharf schedule list` shows all")]
    Unknown(ScheduleId),
    /// It stands in the settings file of a host.
    #[error("schedule `{0}` stands in wharf.toml; change it there, under [schedules.{0}]")]
    InFile(ScheduleId),
    /// There is another schedule of the name, and it was not to be replaced.
    #[error("there is another schedule `{0}`; choose another name, such as by `--id NAME`")]
    Exists(ScheduleId),
    /// There are as many schedules as may be.
    #[error("there are {} schedules, which is the limit; remove some", bounds::SCHEDULES_MAX)]
    TooMany,
    /// The operator may not enqueue jobs of the task.
    #[error("jobs of task `{0}` may not be enqueued")]
    MayNotEnqueue(TaskName),
    /// A job was not enqueued.
    #[error("no job was enqueued: {0}")]
    NotRun(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Checks a definition, and returns it with its time zone as the database writes it.
///
/// # Errors
///
/// Returns what is not valid, and what is expected.
pub fn checked_schedule(spec: ScheduleSpec, now: Timestamp) -> Result<ScheduleSpec, String> {
    let timing = match spec.timing {
        Timing::Cron { expression, zone } => {
            let zone = zone_name(&zone).map_err(|error| error.to_string())?.to_owned();
            Timing::Cron { expression, zone }
        }
        every @ Timing::Every(_) => every,
    };
    check_timing(&timing, now).map_err(|error| error.to_string())?;
    let max = bounds::SCHEDULE_PAYLOAD_BYTES_MAX;
    if spec.payload.len() as u64 > max {
        return Err(format!("invalid payload: expected at most {max} bytes, got {}", spec.payload.len()));
    }
    if spec.window > bounds::SCHEDULE_WINDOW_MAX {
        return Err(format!("invalid window: expected at most 7d, got {:?}", spec.window));
    }
    if spec.spread > bounds::SCHEDULE_SPREAD_MAX || spec.spread.subsec_nanos() != 0 {
        return Err(format!("invalid spread: expected whole seconds and at most 24h, got {:?}", spec.spread));
    }
    if spec.pause_after.is_some_and(|after| !(1..=bounds::SCHEDULE_PAUSE_AFTER_MAX).contains(&after)) {
        let max = bounds::SCHEDULE_PAUSE_AFTER_MAX;
        return Err(format!("invalid pause-after: expected 1 to {max} failures in a row"));
    }
    if let Some(path) = &spec.tick_as {
        with_tick(&spec.payload, path, now)?;
    }
    Ok(ScheduleSpec { timing, ..spec })
}

/// Works out the next moment of a schedule anew.
///
/// # Errors
///
/// Returns why this host cannot work it out: then the schedule must not be written.
pub(crate) fn reschedule(schedule: &mut Schedule, now: Timestamp) -> Result<(), TimingError> {
    let (timing, mut failed) = (schedule.spec.timing.clone(), None);
    let next = |after| Times::of(&timing, now).and_then(|times| times.next(after));
    schedule.reschedule(now, &mut |after| next(after).map_err(|error| failed = Some(error)).ok());
    failed.map_or(Ok(()), Err)
}

/// Returns the job of a tick, or of an operator's run, without its token.
///
/// # Errors
///
/// Returns why it is rejected.
pub(crate) fn job_of_tick(
    view: &PluginView,
    spec: &ScheduleSpec,
    id: JobId,
    tick: Option<Timestamp>,
) -> Result<NewJob, EnqueueRejection> {
    let payload = match (&spec.tick_as, tick) {
        (Some(path), Some(tick)) => with_tick(&spec.payload, path, tick).unwrap_or_else(|_| spec.payload.clone()),
        _ => spec.payload.clone(),
    };
    let request = Request {
        task: spec.task.to_string(),
        payload: payload.to_vec(),
        key: spec.key.as_ref().map(ToString::to_string),
        priority: spec.priority,
        ..Request::default()
    };
    let job = prepare_tick(view, request, id)?;
    // All jobs of the schedule share one payload, unless it has the tick.
    Ok(NewJob { payload, ..job })
}

/// The schedules of a store, as the verbs of a host change them.
pub(crate) struct Schedules<'h> {
    pub(crate) store: &'h WatchedStore,
    pub(crate) view: PluginView,
}

impl Schedules<'_> {
    /// Defines a schedule through the API. Returns it, and whether it is new; one that stands as it is defined stays.
    pub(crate) async fn put(
        &self,
        id: ScheduleId,
        spec: ScheduleSpec,
        replaces: bool,
        by: &Author,
    ) -> Result<(Schedule, bool), ScheduleError> {
        let spec = checked_schedule(spec, self.view.now).map_err(ScheduleError::Invalid)?;
        job_of_tick(&self.view, &spec, self.store.next_id()?, Some(self.view.now))?;
        for _ in 0..TRIES_MAX {
            let (found, now) = (self.store.schedule(id.clone()).await?, self.store.now());
            let mut schedule = match &found {
                None => Schedule::new(id.clone(), spec.clone(), now),
                Some(found) if found.source == ScheduleSource::File && found.retired_at.is_none() => {
                    return Err(ScheduleError::InFile(id));
                }
                Some(found) if found.spec == spec && found.source == ScheduleSource::Api => {
                    return Ok((found.clone(), false));
                }
                Some(_) if !replaces => return Err(ScheduleError::Exists(id)),
                Some(found) => found.clone(),
            };
            let expected = found.as_ref().map(|found| found.version);
            let is_moved = schedule.redefine(spec.clone(), now);
            (schedule.source, schedule.revision) = (ScheduleSource::Api, Timestamp::ZERO);
            (schedule.author, schedule.version) = (by.name().map(str::to_owned), schedule.version + 1);
            if is_moved {
                reschedule(&mut schedule, now).map_err(unreadable)?;
            }
            let act = NewAct::of_schedule(by.clone(), ActKind::ScheduleSet, &schedule, "");
            if self.write(expected, Some(schedule.clone()), &id, act).await? {
                return Ok((schedule, expected.is_none()));
            }
        }
        Err(changed_too_often())
    }

    /// Deletes a schedule. Its jobs stay.
    pub(crate) async fn remove(&self, id: ScheduleId, by: &Author) -> Result<Schedule, ScheduleError> {
        for _ in 0..TRIES_MAX {
            let found = self.store.schedule(id.clone()).await?.ok_or_else(|| ScheduleError::Unknown(id.clone()))?;
            if found.source == ScheduleSource::File && found.retired_at.is_none() {
                return Err(ScheduleError::InFile(id));
            }
            let act = NewAct::of_schedule(by.clone(), ActKind::ScheduleRemoved, &found, "");
            if self.write(Some(found.version), None, &id, act).await? {
                return Ok(found);
            }
        }
        Err(changed_too_often())
    }

    /// Pauses a schedule, until it is resumed or until `until`. Ticks in a pause are not missed: they never come.
    pub(crate) async fn pause(
        &self,
        id: ScheduleId,
        (until, reason): (Option<Timestamp>, String),
        by: &Author,
    ) -> Result<Schedule, ScheduleError> {
        if until.is_some_and(|until| until <= self.store.now()) {
            return Err(ScheduleError::Invalid(
                "invalid pause: expected an end later than the store's clock".to_owned(),
            ));
        }
        let pause = |now| {
            let by = by.name().map(str::to_owned);
            Some(Pause { since: now, until, by, reason: reason.clone() })
        };
        self.change(id, by, (ActKind::SchedulePaused, &reason), |schedule, now| schedule.pause = pause(now)).await
    }

    /// Ends the pause of a schedule.
    pub(crate) async fn resume(&self, id: ScheduleId, by: &Author) -> Result<Schedule, ScheduleError> {
        let resume = |schedule: &mut Schedule, _| (schedule.pause, schedule.failures) = (None, 0);
        self.change(id, by, (ActKind::ScheduleResumed, ""), resume).await
    }

    async fn change(
        &self,
        id: ScheduleId,
        by: &Author,
        (kind, detail): (ActKind, &str),
        change: impl Fn(&mut Schedule, Timestamp),
    ) -> Result<Schedule, ScheduleError> {
        for _ in 0..TRIES_MAX {
            let found = self.store.schedule(id.clone()).await?.ok_or_else(|| ScheduleError::Unknown(id.clone()))?;
            let (expected, now, mut schedule) = (found.version, self.store.now(), found);
            let was_paused = schedule.pause_at(now).is_some();
            change(&mut schedule, now);
            schedule.version += 1;
            // The end of a pause that is over leaves a tick due.
            if was_paused || schedule.pause.is_some() {
                reschedule(&mut schedule, now).map_err(unreadable)?;
            }
            let act = NewAct::of_schedule(by.clone(), kind, &schedule, detail);
            if self.write(Some(expected), Some(schedule.clone()), &id, act).await? {
                return Ok(schedule);
            }
        }
        Err(changed_too_often())
    }

    /// Returns the firing by which an operator runs a schedule now, and its job.
    pub(crate) async fn run(
        &self,
        id: &ScheduleId,
        by: &Author,
        may_enqueue: &(dyn Fn(&TaskName) -> bool + Sync),
    ) -> Result<(ScheduleFiring, NewJob), ScheduleError> {
        let found = self.store.schedule(id.clone()).await?.ok_or_else(|| ScheduleError::Unknown(id.clone()))?;
        if !may_enqueue(&found.spec.task) {
            return Err(ScheduleError::MayNotEnqueue(found.spec.task));
        }
        let job = job_of_tick(&self.view, &found.spec, self.store.next_id()?, None)?;
        let firing = ScheduleFiring {
            id: id.clone(),
            version: found.version,
            open: found.open,
            ticks: vec![FiringTick { tick: None, job: Ok(job.clone()) }],
            missed: None,
            next_at: None,
            held: false,
            by: Some(by.clone()),
        };
        Ok((firing, job))
    }

    /// Writes one schedule; returns false if it has another version.
    async fn write(
        &self,
        expected: Option<u64>,
        schedule: Option<Schedule>,
        id: &ScheduleId,
        act: NewAct,
    ) -> Result<bool, ScheduleError> {
        let write = ScheduleWrite { id: id.clone(), expected, schedule, act: Some(act) };
        let written = self.store.write_schedules(vec![write]);
        match self.store.call_with_timeout("changing a schedule", written).await?.first() {
            Some(ScheduleWritten::Written) => Ok(true),
            Some(ScheduleWritten::TooMany) => Err(ScheduleError::TooMany),
            Some(ScheduleWritten::Stale) | None => Ok(false),
        }
    }
}

fn unreadable(error: TimingError) -> ScheduleError {
    ScheduleError::Invalid(error.to_string())
}

pub(crate) fn changed_too_often() -> ScheduleError {
    let why = "the schedule changes too often at this moment".to_owned();
    ScheduleError::Store(StoreError::Busy(why))
}

/// Returns what became of the job of an operator's run.
///
/// # Errors
///
/// Returns why there is none.
pub(crate) fn job_of_run(fired: &wharf_store::ScheduleFired) -> Result<JobId, ScheduleError> {
    match &fired.fired.run {
        Some(tick) if tick.outcome == TickOutcome::Fired => {
            tick.job.ok_or_else(|| ScheduleError::NotRun("the store did not name its job".to_owned()))
        }
        Some(tick) => Err(ScheduleError::NotRun(tick.reason.clone())),
        None => Err(ScheduleError::NotRun("the store recorded nothing".to_owned())),
    }
}

/// The pause between two looks at the schedules of a store that other hosts use, too.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(2);
