//! The string that an attempt hangs on: whoever holds it can ask the attempt to end, and end it.
//!
//! The first reason to end that is written here stands. From that moment every host call of the attempt is refused,
//! and its sandbox goes away: at its next tick if it computes, at once if it waits.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use wharf_core::lease::LEASE_LOST;
use wharf_core::outcome::{Interruption, TimeoutKind};

use crate::call::AttemptLimits;
use crate::schedule::cpu_meter::Meter;

/// Shared between the attempt and whoever runs it. Clones hold the same string.
#[derive(Clone)]
pub struct AttemptHandle(Arc<Shared>);

/// Why the host ended an attempt.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    Cancelled,
    Stopped(Interruption, String),
    TimedOut(TimeoutKind, Duration),
    /// An output bound was reached and the guest went on.
    Output(String),
}

impl Ending {
    /// Whether the job may belong to another attempt by now, so that nothing more of this one may be heard.
    pub(crate) fn is_interruption(&self) -> bool {
        matches!(self, Ending::Stopped(..))
    }
}

struct Shared {
    born: Instant,
    /// Moments are nanoseconds since `born`.
    cancel_asked_at: AtomicU64,
    trust_until: AtomicU64,
    /// When the attempt had its room; `NEVER` while it waits for it.
    began: AtomicU64,
    last_sign: AtomicU64,
    /// The attempt did not end within its first turn: from now on its clocks are looked at.
    lasting: AtomicBool,
    /// The guest waits in a host call that may wait for others: no stall of its own.
    excused: AtomicBool,
    /// Its last turn ended since the guest's tick was over, not since it waits.
    gave_way: AtomicBool,
    /// What the attempt needs to go on: one of the three below.
    needs: AtomicU8,
    meter: Meter,
    ending: OnceLock<Ending>,
    guest: AtomicWaker,
    changed: Notify,
}

const NEVER: u64 = u64::MAX;

const A_PROCESSOR: u8 = 0;
/// Its last turn ended since it waits for that.
const SOMETHING_ELSE: u8 = 1;
/// It has that, and has had no turn since.
const A_TURN: u8 = 2;

impl Default for AttemptHandle {
    fn default() -> AttemptHandle {
        AttemptHandle::new()
    }
}

impl AttemptHandle {
    pub fn new() -> AttemptHandle {
        AttemptHandle(Arc::new(Shared {
            born: Instant::now(),
            cancel_asked_at: AtomicU64::new(NEVER),
            trust_until: AtomicU64::new(NEVER),
            began: AtomicU64::new(NEVER),
            last_sign: AtomicU64::new(0),
            lasting: AtomicBool::new(false),
            excused: AtomicBool::new(false),
            gave_way: AtomicBool::new(false),
            needs: AtomicU8::new(A_PROCESSOR),
            meter: Meter::default(),
            ending: OnceLock::new(),
            guest: AtomicWaker::new(),
            changed: Notify::new(),
        }))
    }

    /// Asks the attempt to end: `cancelled()` is true from now on, and after the grace period it is stopped.
    pub fn ask_cancel(&self) {
        let now = self.moment(Instant::now());
        let _ = self.0.cancel_asked_at.compare_exchange(NEVER, now, Ordering::AcqRel, Ordering::Acquire);
        self.0.changed.notify_one();
    }

    pub fn is_cancel_asked(&self) -> bool {
        self.0.cancel_asked_at.load(Ordering::Acquire) != NEVER
    }

    /// Ends the attempt now.
    pub fn stop(&self, why: Interruption, report: String) {
        self.end(Ending::Stopped(why, report));
    }

    /// The attempt's lease was renewed: it is trusted until `until`, and the attempt ended then unless this is called again.
    pub fn trust_until(&self, until: Instant) {
        self.0.trust_until.store(self.moment(until), Ordering::Release);
        self.0.changed.notify_one();
    }

    pub(crate) fn end(&self, ending: Ending) {
        if self.0.ending.set(ending).is_ok() {
            self.0.guest.wake();
            self.0.changed.notify_one();
        }
    }

    /// The clock is asked at every look: a process that was stopped and goes on must notice before it does anything else.
    pub(crate) fn ending(&self) -> Option<&Ending> {
        if self.0.ending.get().is_none()
            && let Some(trust) = self.instant(self.0.trust_until.load(Ordering::Acquire))
            && Instant::now() >= trust
        {
            self.end(lease_lost());
        }
        self.0.ending.get()
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.0.meter
    }

    pub(crate) fn gives_way(&self, gives_way: bool) {
        self.0.gave_way.store(gives_way, Ordering::Relaxed);
    }

    pub(crate) fn has_its_turn(&self) {
        self.0.needs.store(A_PROCESSOR, Ordering::Relaxed);
    }

    /// Its turn ended since it waits, if it was not woken within it.
    pub(crate) fn begins_to_wait(&self) {
        let _ = self.0.needs.compare_exchange(A_PROCESSOR, SOMETHING_ELSE, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(crate) fn is_woken(&self) {
        self.0.needs.store(A_TURN, Ordering::Relaxed);
    }

    /// Whether it waits for something other than a processor. Of one that has computed for a few milliseconds at most it is
    /// not known at once that it has what it waited for.
    pub fn waits(&self) -> bool {
        self.0.needs.load(Ordering::Relaxed) == SOMETHING_ELSE
    }

    pub(crate) fn gave_way(&self) -> bool {
        self.0.gave_way.load(Ordering::Relaxed)
    }

    /// Who is to be woken when the attempt is ended.
    pub(crate) fn wakes(&self, guest: &Waker) {
        self.0.guest.register(guest);
    }

    /// The attempt has its room, as far as is known: its clocks run from now on.
    pub(crate) fn begin(&self) -> Instant {
        let now = Instant::now();
        self.0.began.store(self.moment(now), Ordering::Release);
        if self.0.lasting.load(Ordering::Acquire) {
            self.sign();
            self.0.changed.notify_one();
        }
        now
    }

    /// There was no room after all: the attempt waits for it, and its clocks stand still.
    pub(crate) fn wait_for_room(&self) {
        self.0.began.store(NEVER, Ordering::Release);
    }

    /// A sign of life: output or progress.
    pub(crate) fn sign(&self) {
        self.0.last_sign.store(self.moment(Instant::now()), Ordering::Relaxed);
    }

    /// While the answer lives, the attempt cannot stall.
    pub(crate) fn excuse(&self) -> Excused<'_> {
        self.0.excused.store(true, Ordering::Release);
        Excused(self)
    }

    /// How long until the attempt is ended by the clock, as far as is known now.
    pub(crate) fn remaining(&self, limits: &AttemptLimits, began: Instant) -> Duration {
        let now = Instant::now();
        let wall = (began + limits.timeout).saturating_duration_since(now);
        match self.cancel_ends(limits) {
            Some(end) => wall.min(end.saturating_duration_since(now)),
            None => wall,
        }
    }

    /// The lease is trusted until `deadline` at first; a renewal that came before stands.
    pub(crate) fn trust_at_first(&self, deadline: Instant) {
        let moment = self.moment(deadline);
        let _ = self.0.trust_until.compare_exchange(NEVER, moment, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Returns when the attempt is asked to end, or ended, or its lease is not trusted any more.
    pub(crate) async fn given_up(&self) {
        loop {
            if let Some(trust) = self.instant(self.0.trust_until.load(Ordering::Acquire))
                && Instant::now() >= trust
            {
                self.end(lease_lost());
            }
            if self.ending().is_some() || self.is_cancel_asked() {
                return;
            }
            let changed = self.0.changed.notified();
            match self.instant(self.0.trust_until.load(Ordering::Acquire)) {
                Some(trust) => drop(tokio::time::timeout_at(trust.into(), changed).await),
                None => changed.await,
            }
        }
    }

    /// The attempt takes more than one turn. Most do not, and a timer for each would cost them more than their sandbox's bounds do.
    pub(crate) fn lasts(&self) {
        self.sign();
        self.0.lasting.store(true, Ordering::Release);
    }

    /// Ends the attempt if a clock other than that of guest time says so by now.
    pub(crate) fn look(&self, limits: &AttemptLimits) {
        if let Ok(ending) = self.due(limits) {
            self.end(ending);
        }
    }

    /// Ends the attempt as soon as a clock other than that of guest time says so. Returns when it was ended by whatever.
    pub(crate) async fn watch(&self, limits: &AttemptLimits) {
        while self.ending().is_none() {
            match self.due(limits) {
                Ok(ending) => self.end(ending),
                Err(at) => {
                    let changed = self.0.changed.notified();
                    let _ = tokio::time::timeout_at(at.into(), changed).await;
                }
            }
        }
    }

    /// The ending that is due, or when to look again.
    fn due(&self, limits: &AttemptLimits) -> Result<Ending, Instant> {
        let now = Instant::now();
        let began = self.instant(self.0.began.load(Ordering::Acquire));
        let mut next = began.unwrap_or(now) + limits.timeout;
        if began.is_some() && now >= next {
            return Ok(Ending::TimedOut(TimeoutKind::Wall, limits.timeout));
        }
        if let Some(trust) = self.instant(self.0.trust_until.load(Ordering::Acquire)) {
            if now >= trust {
                return Ok(lease_lost());
            }
            next = next.min(trust);
        }
        if let Some(end) = self.cancel_ends(limits) {
            if now >= end {
                return Ok(Ending::Cancelled);
            }
            next = next.min(end);
        }
        if let Some(stall) = limits.stall {
            let is_idle = began.is_none() || self.0.excused.load(Ordering::Acquire);
            let since =
                if is_idle { now } else { self.instant(self.0.last_sign.load(Ordering::Relaxed)).unwrap_or(now) };
            if now >= since + stall {
                return Ok(Ending::TimedOut(TimeoutKind::Stall, stall));
            }
            next = next.min(since + stall);
        }
        Err(next)
    }

    fn cancel_ends(&self, limits: &AttemptLimits) -> Option<Instant> {
        self.instant(self.0.cancel_asked_at.load(Ordering::Acquire)).map(|asked| asked + limits.cancel_grace)
    }

    fn moment(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.0.born).as_nanos()).unwrap_or(NEVER - 1)
    }

    fn instant(&self, moment: u64) -> Option<Instant> {
        (moment != NEVER).then(|| self.0.born + Duration::from_nanos(moment))
    }
}

fn lease_lost() -> Ending {
    Ending::Stopped(Interruption::LeaseLost, LEASE_LOST.to_owned())
}

/// See [`AttemptHandle::excuse`].
pub(crate) struct Excused<'a>(&'a AttemptHandle);

impl Drop for Excused<'_> {
    fn drop(&mut self) {
        self.0.sign();
        self.0.0.excused.store(false, Ordering::Release);
    }
}
