//! Fires schedules. Every host does so for the tasks that it has loaded: the store takes one firing of each tick.

mod due;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::hold::{HoldScope, HoldTable};
use wharf_core::ids::ScheduleId;
use wharf_core::planner::Input;
use wharf_core::schedule::{FiringTick, MissedPolicy, Schedule, ScheduleFiring, TickOutcome};
use wharf_core::time::Timestamp;
use wharf_store::{DueSchedules, Nudges, ScheduleFired, ScheduleWrite, StoreError};

use crate::dispatch::Load;
use crate::enqueuer::Enqueuer;
use crate::notice::Notice;
use crate::plugin_view::{PluginIndex, PluginView};
use crate::queue_bounds::{QueueBounds, Reservation, places};
use crate::schedule_sync::ScheduleSync;
use crate::schedule_times::TimingError;
use crate::schedules::{LOOK_INTERVAL, job_of_tick, reschedule};
use crate::store_health::WatchedStore;

use self::due::{Due, chunks, divide};

/// The pause after which a host looks for schedules that others may have made, although nothing said so.
const IDLE_INTERVAL: Duration = Duration::from_secs(30);
/// The pause between two looks while the host does not know yet which plugins it starts with.
const LOADING_INTERVAL: Duration = Duration::from_millis(200);
/// The pause after which a host looks again at a schedule that another host has fired.
const LOST_INTERVAL: Duration = Duration::from_millis(100);
/// The clock was set back if it shows a time so much before one that it showed.
const SET_BACK: Duration = Duration::from_secs(1);

/// The part of a host that fires schedules.
pub(crate) struct Scheduler {
    pub(crate) store: WatchedStore,
    pub(crate) plugins: Arc<PluginIndex>,
    pub(crate) bounds: Arc<QueueBounds>,
    pub(crate) enqueuer: Enqueuer,
    pub(crate) sync: ScheduleSync,
    /// The schedules whose moments this host cannot work out, each with the reason. Each was reported.
    pub(crate) unreadable: BTreeMap<ScheduleId, String>,
    /// Notified when a schedule is changed on this host, or its settings are.
    pub(crate) changed: Arc<Notify>,
    pub(crate) load: watch::Receiver<Load>,
}

/// The last look at the schedules.
#[derive(Clone, Copy)]
struct LastLook {
    /// The moment of the look, by the store's clock.
    now: Timestamp,
    /// When schedules of a clock that was ahead were looked for last.
    rewound: Instant,
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
    /// Once the host claims jobs again.
    Resumed,
}

impl Scheduler {
    pub(crate) async fn run(mut self, stopping: CancellationToken) {
        let work = async {
            let mut nudges = self.store.nudges();
            let mut last_look = None;
            loop {
                let began = Instant::now();
                let next = self.turn(&mut last_look).await.unwrap_or(NextLook::In(LOOK_INTERVAL));
                if self.wait(next, &mut nudges, began).await {
                    self.sync.look_again();
                }
            }
        };
        stopping.run_until_cancelled(work).await;
    }

    /// Waits for the next look. Other hosts may define schedules: what they write to the store may be one. Returns true if a schedule
    /// was changed on this host.
    async fn wait(&self, next: NextLook, nudges: &mut Nudges, began: Instant) -> bool {
        let is_shared = self.store.messages().is_some();
        let changed = self.changed.notified();
        match next {
            NextLook::At(at) => {
                // A clock may be set: a moment that is far away is looked at again.
                let pause = at.since(self.store.now()).min(LOOK_INTERVAL);
                tokio::time::timeout(pause, changed).await.is_ok()
            }
            NextLook::In(_) | NextLook::Idle if is_shared => {
                let nudged = async {
                    // The sender is gone only with the store.
                    let _ = nudges.changed().await;
                    tokio::time::sleep_until((began + LOOK_INTERVAL).into()).await;
                };
                let woken = async {
                    tokio::select! {
                        () = changed => true,
                        () = nudged => false,
                    }
                };
                let pause = if let NextLook::In(pause) = next { pause } else { IDLE_INTERVAL };
                tokio::time::timeout(pause, woken).await.unwrap_or(false)
            }
            NextLook::In(pause) => tokio::time::timeout(pause, changed).await.is_ok(),
            NextLook::Resumed => {
                let mut load = self.load.clone();
                tokio::select! {
                    () = changed => true,
                    Ok(_) = load.wait_for(|load| !load.draining) => false,
                }
            }
            // Nobody else can define one.
            NextLook::Idle => {
                changed.await;
                true
            }
        }
    }

    /// Looks once, and fires what is due.
    ///
    /// # Errors
    ///
    /// Returns the error of the store.
    async fn turn(&mut self, last_look: &mut Option<LastLook>) -> Result<NextLook, StoreError> {
        let now = self.store.now();
        let is_shared = self.store.messages().is_some();
        let rewound = match *last_look {
            // The host whose clock was ahead may be gone, and this one have seen nothing of it.
            Some(LastLook { now: last, rewound })
                if now + SET_BACK >= last && !(is_shared && rewound.elapsed() >= IDLE_INTERVAL) =>
            {
                rewound
            }
            _ => {
                self.rewind().await?;
                Instant::now()
            }
        };
        *last_look = Some(LastLook { now, rewound });
        let synced = self.sync.turn().await?;
        // A host that is drained leaves its ticks to others, or for later; what it knows of files it says all the same.
        if self.load.borrow().draining {
            return Ok(synced.map_or(NextLook::Resumed, NextLook::In));
        }
        // Until the plugins are known that the host starts with, nothing can be fired, and nothing is missed.
        if !self.plugins.catalog().is_open() {
            return Ok(NextLook::At(self.store.now() + LOADING_INTERVAL));
        }
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
            let again = self.fire(due).await?;
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
    async fn rewind(&mut self) -> Result<(), StoreError> {
        loop {
            let ahead = self.store.schedules_ahead(bounds::SCHEDULES_FIRED_MAX);
            let ahead = self.store.call("looking for schedules of a clock that was ahead", ahead).await?;
            if ahead.is_empty() {
                return Ok(());
            }
            let now = self.store.now();
            let mut writes = Vec::with_capacity(ahead.len());
            for mut schedule in ahead {
                let (id, expected) = (schedule.id.clone(), Some(schedule.version));
                schedule.version += 1;
                match reschedule(&mut schedule, now) {
                    Ok(()) => writes.push(ScheduleWrite { id, expected, schedule: Some(schedule), act: None }),
                    Err(error) => self.cannot_read(id, &error),
                }
            }
            let count = writes.len();
            if count == 0 {
                return Ok(());
            }
            self.store.call("changing schedules", self.store.write_schedules(writes)).await?;
            self.notify(&Notice::SchedulesRewound { count });
        }
    }

    /// Fires schedules that are due, as far as this host can. Returns when one of them is to be looked at again.
    async fn fire(&mut self, due: Vec<Schedule>) -> Result<Option<Timestamp>, StoreError> {
        let view = self.plugins.view(self.store.now());
        let (mut again, mut divided) = (None, Vec::new());
        for schedule in due {
            let id = schedule.id.clone();
            match divide(&view, schedule) {
                Ok(Some(due)) => divided.push(due),
                // Another host fires it, or nobody can.
                Ok(None) => again = earlier(again, Some(view.now + LOOK_INTERVAL)),
                Err(error) => {
                    self.cannot_read(id, &error);
                    again = earlier(again, Some(view.now + LOOK_INTERVAL));
                }
            }
            // A schedule that was due for long takes a while, and other tasks of the host wait.
            tokio::task::yield_now().await;
        }
        for chunk in chunks(divided) {
            again = earlier(again, self.fire_together(&view, chunk).await?);
        }
        Ok(again)
    }

    /// Says once that this host leaves a schedule as it is, since it cannot work out its moments.
    fn cannot_read(&mut self, id: ScheduleId, error: &TimingError) {
        let why = error.to_string();
        if self.unreadable.get(&id) != Some(&why) {
            self.notify(&Notice::ScheduleUnreadable { schedule: id.clone(), why: why.clone() });
            self.unreadable.insert(id, why);
        }
    }

    /// Reserves places for the jobs of a firing. Where the queue is full, ticks stay due from that one on, as without a host. Returns
    /// false if nothing of the firing is left.
    async fn reserve(&self, due: &Due, firing: &mut ScheduleFiring, reserved: &mut Vec<Reservation>) -> bool {
        for place in 0..firing.ticks.len() {
            let Ok(job) = &firing.ticks[place].job else { continue };
            match self.bounds.reserve(places(std::slice::from_ref(job))).await {
                Ok(one) => reserved.push(one),
                Err(_) => {
                    let left = firing.ticks.split_off(place);
                    let first = left.first().and_then(|tick| tick.tick);
                    firing.next_at = first.map(|tick| tick + due.schedule.offset()).or(firing.next_at);
                    break;
                }
            }
        }
        !firing.ticks.is_empty() || firing.missed.is_some()
    }

    /// Fires schedules in one transaction. Returns when one of them is to be looked at again.
    async fn fire_together(&self, view: &PluginView, chunk: Vec<Due>) -> Result<Option<Timestamp>, StoreError> {
        let (mut all, mut firings) = (Vec::with_capacity(chunk.len()), Vec::with_capacity(chunk.len()));
        let (mut reserved, mut again) = (Vec::new(), None);
        for due in chunk {
            let mut firing = self.firing(view, &due)?;
            if self.reserve(&due, &mut firing, &mut reserved).await {
                all.push(due);
                firings.push(firing);
            } else {
                again = earlier(again, Some(view.now + LOOK_INTERVAL));
            }
        }
        if all.is_empty() {
            return Ok(again);
        }
        self.find_holds(&all, &mut firings).await?;
        let firings = Arc::new(firings);
        let fire = self.store.fire_schedules(Arc::clone(&firings), Arc::clone(view.catalog.limits()));
        let fired = self.store.call("firing schedules", fire).await?;
        for (due, fired) in all.iter().zip(fired) {
            match fired {
                Some(fired) => {
                    self.enqueuer.notify_fired(&due.schedule.spec.task, &fired);
                    let is_due = fired.fired.schedule.next_at.is_some_and(|at| at <= view.now);
                    let next = if is_due { Some(view.now + LOOK_INTERVAL) } else { fired.fired.schedule.next_at };
                    again = earlier(again, next);
                }
                // Its tick waits for a job that has begun, or somebody else has changed it.
                None if !due.schedule.open.is_empty() => again = earlier(again, Some(view.now + LOOK_INTERVAL)),
                None => again = earlier(again, Some(view.now + LOST_INTERVAL)),
            }
        }
        Ok(again)
    }

    fn firing(&self, view: &PluginView, due: &Due) -> Result<ScheduleFiring, StoreError> {
        let Due { schedule, ticks, is_here } = due;
        let mut fired = Vec::with_capacity(ticks.fire.len());
        for tick in schedule.job_ticks(ticks) {
            let job = job_of_tick(view, &schedule.spec, self.store.next_id()?, Some(tick.tick));
            let job = job.map(|job| schedule.job_of_tick(job, tick));
            fired.push(FiringTick { tick: Some(tick.tick), job: job.map_err(|rejected| rejected.to_string()) });
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
        if !fired.ticks.is_empty() {
            let (ticks, in_a_row) = (fired.ticks.clone(), schedule.recent.last().map_or(0, |last| last.count));
            self.inserts.listener.notify(&Notice::ScheduleTicked { schedule: schedule.id.clone(), ticks, in_a_row });
        }
        if fired.paused {
            let reason = schedule.pause.as_ref().map(|pause| pause.reason.clone()).unwrap_or_default();
            self.inserts.listener.notify(&Notice::ScheduleTired { schedule: schedule.id.clone(), reason });
        }
    }
}
