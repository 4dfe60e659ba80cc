//! Fires schedules. Every host does so for the tasks that it has loaded: the store takes one firing of each tick.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::hold::{HoldScope, HoldTable};
use wharf_core::ids::ScheduleId;
use wharf_core::job::NewJob;
use wharf_core::planner::Input;
use wharf_core::schedule::{
    DueTicks, FiringTick, MissedPolicy, Schedule, ScheduleFiring, TickOutcome, due_ticks, tick_token,
};
use wharf_core::time::Timestamp;
use wharf_store::{DueSchedules, Nudges, ScheduleFired, ScheduleWrite, StoreError};

use crate::enqueuer::Enqueuer;
use crate::notice::Notice;
use crate::plugin_view::{PluginIndex, PluginView};
use crate::queue_bounds::{QueueBounds, places};
use crate::schedule_sync::ScheduleSync;
use crate::schedule_times::next_tick;
use crate::schedules::{LOOK_INTERVAL, job_of_tick, reschedule};
use crate::store_health::WatchedStore;

/// The pause after which a host looks for schedules that others may have made, although nothing said so.
const IDLE_INTERVAL: Duration = Duration::from_secs(30);
/// The pause between two looks while the host does not know yet which plugins it starts with.
const LOADING_INTERVAL: Duration = Duration::from_millis(200);
/// The pause after which a host looks again at a schedule that another host has fired.
const LOST_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of payloads of one transaction, beyond the first schedule.
const FIRED_BYTES_MAX: usize = 4 << 20;
/// The clock was set back if it shows a time so much before one that it showed.
const SET_BACK: Duration = Duration::from_secs(1);

/// The part of a host that fires schedules.
pub(crate) struct Scheduler {
    pub(crate) store: WatchedStore,
    pub(crate) plugins: Arc<PluginIndex>,
    pub(crate) bounds: Arc<QueueBounds>,
    pub(crate) enqueuer: Enqueuer,
    pub(crate) sync: ScheduleSync,
    /// Notified when a schedule is changed on this host, or its settings are.
    pub(crate) changed: Arc<Notify>,
}

/// The time of the next look.
#[derive(Clone, Copy)]
enum NextLook {
    /// At this moment of the store's clock.
    At(Timestamp),
    /// After this time.
    In(Duration),
    /// There is no schedule that will tick.
    Idle,
}

/// A schedule that is due, and what becomes of its ticks.
struct Due {
    schedule: Schedule,
    ticks: DueTicks,
    /// False if the task is on no host.
    is_here: bool,
}

impl Scheduler {
    pub(crate) async fn run(mut self, stopping: CancellationToken) {
        let work = async {
            let mut nudges = self.store.nudges();
            let mut last_now = None;
            loop {
                let began = Instant::now();
                let next = self.turn(&mut last_now).await.unwrap_or(NextLook::In(LOOK_INTERVAL));
                self.wait(next, &mut nudges, began).await;
            }
        };
        stopping.run_until_cancelled(work).await;
    }

    /// Waits for the next look. Other hosts may define schedules: what they write to the store may be one.
    async fn wait(&self, next: NextLook, nudges: &mut Nudges, began: Instant) {
        let is_shared = self.store.messages().is_some();
        let changed = self.changed.notified();
        match next {
            NextLook::At(at) => {
                // A clock may be set: a moment that is far away is looked at again.
                let pause = at.since(self.store.now()).min(LOOK_INTERVAL);
                let _ = tokio::time::timeout(pause, changed).await;
            }
            NextLook::In(pause) => _ = tokio::time::timeout(pause, changed).await,
            NextLook::Idle if is_shared => {
                let nudged = async {
                    // The sender is gone only with the store.
                    let _ = nudges.changed().await;
                    tokio::time::sleep_until((began + LOOK_INTERVAL).into()).await;
                };
                let woken = async {
                    tokio::select! {
                        () = changed => {}
                        () = nudged => {}
                    }
                };
                let _ = tokio::time::timeout(IDLE_INTERVAL, woken).await;
            }
            // Nobody else can define one.
            NextLook::Idle => changed.await,
        }
    }

    /// Looks once, and fires what is due.
    ///
    /// # Errors
    ///
    /// Returns the error of the store.
    async fn turn(&mut self, last_now: &mut Option<Timestamp>) -> Result<NextLook, StoreError> {
        let now = self.store.now();
        if last_now.is_none_or(|last| now + SET_BACK < last) {
            self.rewind().await?;
        }
        *last_now = Some(now);
        let is_loaded = self.plugins.catalog().is_open();
        let synced = self.sync.turn().await?;
        let mut after: Option<(Timestamp, ScheduleId)> = None;
        let mut next = NextLook::Idle;
        loop {
            let page = self.store.due_schedules(after, bounds::SCHEDULES_FIRED_MAX);
            let DueSchedules { due, next_at } = self.store.call("looking for schedules", page).await?;
            next = match (next, next_at) {
                (NextLook::At(at), Some(first)) => NextLook::At(at.min(first)),
                (_, Some(first)) => NextLook::At(first),
                (next, None) => next,
            };
            if due.is_empty() {
                break;
            }
            let is_last = due.len() < bounds::SCHEDULES_FIRED_MAX as usize;
            after = due.last().and_then(|last| Some((last.next_at?, last.id.clone())));
            // Until the plugins are known that the host starts with, nothing can be fired, and nothing is missed.
            let again = if is_loaded { self.fire(due).await? } else { Some(self.store.now() + LOADING_INTERVAL) };
            next = match (next, again) {
                (NextLook::At(at), Some(again)) => NextLook::At(at.min(again)),
                (_, Some(again)) => NextLook::At(again),
                (next, None) => next,
            };
            if is_last {
                break;
            }
        }
        Ok(match (next, synced) {
            (NextLook::Idle, Some(pause)) => NextLook::In(pause),
            (next, _) => next,
        })
    }

    /// Works out the next moments of schedules anew that were fired while the clock was ahead.
    async fn rewind(&self) -> Result<(), StoreError> {
        loop {
            let ahead = self.store.schedules_ahead(bounds::SCHEDULES_FIRED_MAX);
            let ahead = self.store.call("looking for schedules of a clock that was ahead", ahead).await?;
            if ahead.is_empty() {
                return Ok(());
            }
            let now = self.store.now();
            let write = |schedule: Schedule| {
                let (expected, mut schedule) = (Some(schedule.version), schedule);
                schedule.version += 1;
                reschedule(&mut schedule, now);
                ScheduleWrite { id: schedule.id.clone(), expected, schedule: Some(schedule), act: None }
            };
            let count = ahead.len();
            let writes = ahead.into_iter().map(write).collect();
            self.store.call("changing schedules", self.store.write_schedules(writes)).await?;
            self.notify(&Notice::SchedulesRewound { count });
        }
    }

    /// Fires schedules that are due, as far as this host can. Returns when one of them is to be looked at again.
    async fn fire(&self, due: Vec<Schedule>) -> Result<Option<Timestamp>, StoreError> {
        let view = self.plugins.view(self.store.now());
        let mut chunks = vec![Vec::new()];
        let mut again = None;
        let mut bytes = 0;
        for schedule in due {
            let Some(due) = divide(&view, schedule) else {
                // Another host fires it, or nobody can.
                again = earlier(again, Some(view.now + LOOK_INTERVAL));
                continue;
            };
            let needed = due.schedule.spec.payload.len() * due.ticks.fire.len();
            if bytes > 0 && bytes + needed > FIRED_BYTES_MAX {
                chunks.push(Vec::new());
                bytes = 0;
            }
            bytes += needed;
            if let Some(chunk) = chunks.last_mut() {
                chunk.push(due);
            }
        }
        for chunk in chunks {
            again = earlier(again, self.fire_together(&view, chunk).await?);
        }
        Ok(again)
    }

    /// Fires schedules in one transaction. Returns when one of them is to be looked at again.
    async fn fire_together(&self, view: &PluginView, chunk: Vec<Due>) -> Result<Option<Timestamp>, StoreError> {
        if chunk.is_empty() {
            return Ok(None);
        }
        let mut firings = Vec::with_capacity(chunk.len());
        let mut reserved = Vec::new();
        for due in &chunk {
            let mut firing = self.firing(view, due)?;
            let jobs: Vec<NewJob> = firing.ticks.iter().filter_map(|tick| tick.job.clone().ok()).collect();
            match self.bounds.reserve(places(&jobs)).await {
                Ok(places) => reserved.push(places),
                Err(full) => firing.ticks.iter_mut().for_each(|tick| tick.job = Err(full.to_string())),
            }
            firings.push(firing);
        }
        self.find_holds(&chunk, &mut firings).await?;
        let firings = Arc::new(firings);
        let fire = self.store.fire_schedules(Arc::clone(&firings), Arc::clone(view.catalog.limits()));
        let fired = self.store.call("firing schedules", fire).await?;
        let mut again = None;
        for (due, fired) in chunk.iter().zip(fired) {
            match fired {
                Some(fired) => {
                    self.enqueuer.notify_fired(&due.schedule.spec.task, &fired);
                    let is_due = fired.fired.schedule.next_at.is_some_and(|at| at <= view.now);
                    let next = if is_due { Some(view.now + LOOK_INTERVAL) } else { fired.fired.schedule.next_at };
                    again = earlier(again, next);
                }
                // Somebody else has changed it.
                None => again = earlier(again, Some(view.now + LOST_INTERVAL)),
            }
        }
        Ok(again)
    }

    fn firing(&self, view: &PluginView, due: &Due) -> Result<ScheduleFiring, StoreError> {
        let Due { schedule, ticks, is_here } = due;
        let mut fired = Vec::with_capacity(ticks.fire.len());
        for tick in &ticks.fire {
            let job = job_of_tick(view, &schedule.spec, self.store.next_id()?);
            let job = job.map(|job| NewJob { token: tick_token(&schedule.id, *tick), ..job });
            fired.push(FiringTick { tick: Some(*tick), job: job.map_err(|rejected| rejected.to_string()) });
        }
        let outcome = if *is_here { TickOutcome::Missed } else { TickOutcome::NoHost };
        Ok(ScheduleFiring {
            id: schedule.id.clone(),
            version: schedule.version,
            open: schedule.open.clone(),
            ticks: fired,
            missed: ticks.last_missed.map(|last| (ticks.missed, last, outcome)),
            next_at: ticks.next.map(|next| next + schedule.offset()),
            held: false,
            by: None,
        })
    }

    /// Finds which firings a hold concerns. One whose schedule has no unfinished job is fired whatever is held.
    async fn find_holds(&self, chunk: &[Due], firings: &mut [ScheduleFiring]) -> Result<(), StoreError> {
        let concerns = |due: &Due| !due.schedule.open.is_empty() && due.schedule.spec.missed != MissedPolicy::All;
        let lane = |firing: &ScheduleFiring| {
            firing.ticks.iter().find_map(|tick| tick.job.as_ref().ok()).map(|job| (job.task.clone(), job.lane.clone()))
        };
        let mut scopes: Vec<HoldScope> = Vec::new();
        for (_, firing) in chunk.iter().zip(firings.iter()).filter(|(due, _)| concerns(due)) {
            scopes.extend(lane(firing).iter().flat_map(|(task, lane)| HoldScope::of_job(task, lane)));
        }
        if scopes.is_empty() {
            return Ok(());
        }
        scopes.sort_unstable();
        scopes.dedup();
        let now = self.store.now();
        let holds: HoldTable =
            self.store.call("looking for holds", self.store.holds_of(scopes)).await?.into_iter().collect();
        for firing in firings {
            firing.held = lane(firing).is_some_and(|(task, lane)| holds.on_job(&task, &lane, now).is_some());
        }
        Ok(())
    }

    fn notify(&self, notice: &Notice) {
        self.enqueuer.inserts.listener.notify(notice);
    }
}

/// Returns what becomes of the ticks of a schedule; `None` if this host has nothing to do with them.
fn divide(view: &PluginView, schedule: Schedule) -> Option<Due> {
    let timing = &schedule.spec.timing;
    let ticks = due_ticks(&schedule, view.now, &mut |after| next_tick(timing, after))?;
    let task = &schedule.spec.task;
    if view.catalog.task(task).is_some() {
        return Some(Due { schedule, ticks, is_here: true });
    }
    if view.others.runs(task, view.now) {
        return None;
    }
    let ticks = ticks.without_host()?;
    Some(Due { schedule, ticks, is_here: false })
}

/// Returns the earlier of two moments that may be there.
fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

impl Enqueuer {
    /// Tells whom it concerns that a schedule was fired.
    pub(crate) fn notify_fired(&self, task: &wharf_core::ids::TaskName, fired: &ScheduleFired) {
        let ScheduleFired { fired, inserted, replaced, cancel_requested } = fired;
        for inserted in inserted {
            self.notify_inserted(task.clone(), inserted);
        }
        for job in replaced.iter().chain(cancel_requested) {
            self.inserts.followers.wake(*job);
        }
        for job in replaced {
            self.inserts.listener.notify(&Notice::JobReplaced { job: *job });
        }
        for job in cancel_requested {
            self.inserts.listener.notify(&Notice::CancelRequested { job: *job });
            self.send_to_loop(Input::CancelRequested(*job));
        }
        let schedule = &fired.schedule;
        let ticks = fired.ticks.clone();
        self.inserts.listener.notify(&Notice::ScheduleTicked { schedule: schedule.id.clone(), ticks });
        if fired.paused {
            let reason = schedule.pause.as_ref().map(|pause| pause.reason.clone()).unwrap_or_default();
            self.inserts.listener.notify(&Notice::ScheduleTired { schedule: schedule.id.clone(), reason });
        }
    }
}
