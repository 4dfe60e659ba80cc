//! A handle to a running attempt: requests its cancellation, ends it, and holds its clocks.
//!
//! The first reason to end that is set here is final. From that moment every host call of the attempt is refused, and
//! its sandbox goes away: at its next tick if it computes, at once if it waits.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use wharf_core::lease::LEASE_LOST;
use wharf_core::outcome::{Interruption, TimeoutKind};

use crate::call::AttemptLimits;
use crate::schedule::cpu_meter::CpuMeter;

/// A handle to one attempt, shared between the attempt and its caller. Clones refer to the same attempt.
#[derive(Clone)]
pub struct AttemptHandle(Arc<Inner>);

/// Why the host ended an attempt.
#[derive(Clone, Debug)]
pub(crate) enum EndReason {
    Cancelled,
    Stopped(Interruption, String),
    TimedOut(TimeoutKind, Duration),
    /// A limit of the attempt's output was reached and the guest went on. The text states the limit.
    OutputBound(String),
}

impl EndReason {
    /// Returns true if the job may belong to another attempt by now, so that no more output of this one may be
    /// recorded.
    pub(crate) fn is_interruption(&self) -> bool {
        matches!(self, EndReason::Stopped(..))
    }
}

struct Inner {
    created_at: Instant,
    /// When cancellation was requested, in nanoseconds since `created_at`; `NEVER` if it was not.
    cancel_requested_at: AtomicU64,
    /// When the lease ends, in nanoseconds since `created_at`; `NEVER` without a lease.
    trust_until: AtomicU64,
    /// When the attempt got its sandbox, in nanoseconds since `created_at`; `NEVER` while it waits for one.
    started_at: AtomicU64,
    /// The last sign of life, in nanoseconds since `created_at`.
    last_activity: AtomicU64,
    /// The attempt did not end within its first poll: from now on the watchdog checks its clocks.
    is_long_lived: AtomicBool,
    /// The guest waits in a host call that may wait for others, which is not a stall.
    stall_paused: AtomicBool,
    /// The guest waits for room in the budget of memory: a timeout that passes meanwhile is not its fault.
    waits_for_memory: AtomicBool,
    /// The last poll ended because the guest's tick was over, not because the guest waits.
    has_yielded: AtomicBool,
    /// The need of the attempt in order to go on: one of the three `NEEDS_` values.
    needs: AtomicU8,
    meter: CpuMeter,
    end_reason: OnceLock<EndReason>,
    guest: AtomicWaker,
    changed: Notify,
}

const NEVER: u64 = u64::MAX;

/// It is running, or it has yielded and waits for a processor.
const NEEDS_PROCESSOR: u8 = 0;
/// Its last poll ended because it waits for an event.
const NEEDS_EVENT: u8 = 1;
/// The event has occurred, and it was not polled since.
const NEEDS_POLL: u8 = 2;

impl Default for AttemptHandle {
    fn default() -> AttemptHandle {
        AttemptHandle::new()
    }
}

impl AttemptHandle {
    /// Makes a handle for one attempt that has not started.
    pub fn new() -> AttemptHandle {
        AttemptHandle(Arc::new(Inner {
            created_at: Instant::now(),
            cancel_requested_at: AtomicU64::new(NEVER),
            trust_until: AtomicU64::new(NEVER),
            started_at: AtomicU64::new(NEVER),
            last_activity: AtomicU64::new(0),
            is_long_lived: AtomicBool::new(false),
            stall_paused: AtomicBool::new(false),
            waits_for_memory: AtomicBool::new(false),
            has_yielded: AtomicBool::new(false),
            needs: AtomicU8::new(NEEDS_PROCESSOR),
            meter: CpuMeter::default(),
            end_reason: OnceLock::new(),
            guest: AtomicWaker::new(),
            changed: Notify::new(),
        }))
    }

    /// Requests the attempt to end: `cancelled()` returns true to the guest from now on, and after the grace period the
    /// attempt is stopped.
    pub fn request_cancel(&self) {
        let now = self.moment(Instant::now());
        let _ = self.0.cancel_requested_at.compare_exchange(NEVER, now, Ordering::AcqRel, Ordering::Acquire);
        self.0.changed.notify_one();
    }

    /// Returns true if the attempt's cancellation was requested.
    pub fn is_cancel_requested(&self) -> bool {
        self.0.cancel_requested_at.load(Ordering::Acquire) != NEVER
    }

    /// Ends the attempt now. `report` is recorded as the reason.
    pub fn stop(&self, why: Interruption, report: String) {
        self.end(EndReason::Stopped(why, report));
    }

    /// Moves the end of the attempt's lease: the attempt is ended at `until` unless this is called again.
    pub fn trust_until(&self, until: Instant) {
        self.0.trust_until.store(self.moment(until), Ordering::Release);
        self.0.changed.notify_one();
    }

    /// Ends the attempt, unless it was ended before.
    pub(crate) fn end(&self, end_reason: EndReason) {
        if self.0.end_reason.set(end_reason).is_ok() {
            self.0.guest.wake();
            self.0.changed.notify_one();
        }
    }

    /// Returns why the attempt was ended, if it was. Reads the clock at each call: a process that was stopped and goes
    /// on must notice the lost lease before it does anything else.
    pub(crate) fn end_reason(&self) -> Option<&EndReason> {
        if self.0.end_reason.get().is_none()
            && let Some(trust) = self.instant(self.0.trust_until.load(Ordering::Acquire))
            && Instant::now() >= trust
        {
            self.end(lease_lost());
        }
        self.0.end_reason.get()
    }

    /// Returns the attempt's CPU meter.
    pub(crate) fn meter(&self) -> &CpuMeter {
        &self.0.meter
    }

    /// Notes whether the current poll ends because the guest's tick was over.
    pub(crate) fn set_yielded(&self, has_yielded: bool) {
        self.0.has_yielded.store(has_yielded, Ordering::Relaxed);
    }

    /// Notes that a poll has started.
    pub(crate) fn set_running(&self) {
        self.0.needs.store(NEEDS_PROCESSOR, Ordering::Relaxed);
    }

    /// Notes that its poll ended because it waits, if it was not woken during the poll.
    pub(crate) fn set_waiting(&self) {
        let _ = self.0.needs.compare_exchange(NEEDS_PROCESSOR, NEEDS_EVENT, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Notes that the attempt was woken and waits for its next poll.
    pub(crate) fn set_woken(&self) {
        self.0.needs.store(NEEDS_POLL, Ordering::Relaxed);
    }

    /// Returns true if the attempt waits for something other than a processor. For one that has computed for a few
    /// milliseconds at most, it can take until its next poll to notice that the wait is over.
    pub fn is_waiting(&self) -> bool {
        self.0.needs.load(Ordering::Relaxed) == NEEDS_EVENT
    }

    /// Returns true if the last poll ended because the guest's tick was over.
    pub(crate) fn has_yielded(&self) -> bool {
        self.0.has_yielded.load(Ordering::Relaxed)
    }

    /// Registers the waker of the guest's task, which is woken when the attempt is ended.
    pub(crate) fn set_guest_waker(&self, guest: &Waker) {
        self.0.guest.register(guest);
    }

    /// Starts the clocks of the attempt, on the assumption that the pool has a slot for it. Returns the start.
    pub(crate) fn start_clocks(&self) -> Instant {
        let now = Instant::now();
        self.0.started_at.store(self.moment(now), Ordering::Release);
        if self.0.is_long_lived.load(Ordering::Acquire) {
            self.note_activity();
            self.0.changed.notify_one();
        }
        now
    }

    /// Stops the clocks of the attempt: the pool had no slot, and it waits for one.
    pub(crate) fn stop_clocks(&self) {
        self.0.started_at.store(NEVER, Ordering::Release);
    }

    /// Notes a sign of life: output or progress.
    pub(crate) fn note_activity(&self) {
        self.0.last_activity.store(self.moment(Instant::now()), Ordering::Relaxed);
    }

    /// Pauses the stall timeout for as long as the result lives.
    pub(crate) fn pause_stall(&self) -> StallPause<'_> {
        self.0.stall_paused.store(true, Ordering::Release);
        StallPause(self)
    }

    /// Returns when the handle was made.
    pub fn created_at(&self) -> Instant {
        self.0.created_at
    }

    /// Returns true while the guest waits for room in the host's budget of memory.
    pub fn waits_for_memory(&self) -> bool {
        self.0.waits_for_memory.load(Ordering::Acquire)
    }

    /// Notes that the guest waits for room in the budget of memory, for as long as the result lives.
    pub(crate) fn wait_for_memory(&self) -> MemoryWait {
        self.0.waits_for_memory.store(true, Ordering::Release);
        MemoryWait(self.clone())
    }

    /// Returns the time until a timeout ends the attempt, as far as is known now.
    pub(crate) fn remaining(&self, limits: &AttemptLimits, started_at: Instant) -> Duration {
        let now = Instant::now();
        let wall = (started_at + limits.timeout).saturating_duration_since(now);
        match self.cancel_deadline(limits) {
            Some(end) => wall.min(end.saturating_duration_since(now)),
            None => wall,
        }
    }

    /// Sets the end of the lease, unless a renewal has already set it.
    pub(crate) fn set_first_lease_end(&self, deadline: Instant) {
        let moment = self.moment(deadline);
        let _ = self.0.trust_until.compare_exchange(NEVER, moment, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Returns when the attempt is to be cancelled, was ended, or has lost its lease.
    pub(crate) async fn end_or_cancel_requested(&self) {
        loop {
            if let Some(trust) = self.instant(self.0.trust_until.load(Ordering::Acquire))
                && Instant::now() >= trust
            {
                self.end(lease_lost());
            }
            if self.end_reason().is_some() || self.is_cancel_requested() {
                return;
            }
            let changed = self.0.changed.notified();
            match self.instant(self.0.trust_until.load(Ordering::Acquire)) {
                Some(trust) => drop(tokio::time::timeout_at(trust.into(), changed).await),
                None => changed.await,
            }
        }
    }

    /// Notes that the attempt takes more than one poll. Most do not, and a timer for each would cost them more than the
    /// limits of their sandbox do.
    pub(crate) fn mark_long_lived(&self) {
        self.note_activity();
        self.0.is_long_lived.store(true, Ordering::Release);
    }

    /// Ends the attempt if any timeout but that of CPU time has passed.
    pub(crate) fn check_timeouts(&self, limits: &AttemptLimits) {
        if let Ok(end_reason) = self.due_end(limits) {
            self.end(end_reason);
        }
    }

    /// Ends the attempt as soon as any timeout but that of CPU time has passed. Returns when the attempt has been
    /// ended for any reason.
    pub(crate) async fn enforce_timeouts(&self, limits: &AttemptLimits) {
        while self.end_reason().is_none() {
            match self.due_end(limits) {
                Ok(end_reason) => self.end(end_reason),
                Err(at) => {
                    let changed = self.0.changed.notified();
                    let _ = tokio::time::timeout_at(at.into(), changed).await;
                }
            }
        }
    }

    /// Returns the reason to end that is due now, or when to check again.
    fn due_end(&self, limits: &AttemptLimits) -> Result<EndReason, Instant> {
        let now = Instant::now();
        let started_at = self.instant(self.0.started_at.load(Ordering::Acquire));
        let mut next = started_at.unwrap_or(now) + limits.timeout;
        if started_at.is_some() && now >= next {
            return Ok(match self.waits_for_memory() {
                true => EndReason::Stopped(Interruption::Host, NO_MEMORY.to_owned()),
                false => EndReason::TimedOut(TimeoutKind::Wall, limits.timeout),
            });
        }
        if let Some(trust) = self.instant(self.0.trust_until.load(Ordering::Acquire)) {
            if now >= trust {
                return Ok(lease_lost());
            }
            next = next.min(trust);
        }
        if let Some(end) = self.cancel_deadline(limits) {
            if now >= end {
                return Ok(EndReason::Cancelled);
            }
            next = next.min(end);
        }
        if let Some(stall) = limits.stall {
            let is_idle =
                started_at.is_none() || self.0.stall_paused.load(Ordering::Acquire) || self.waits_for_memory();
            let since =
                if is_idle { now } else { self.instant(self.0.last_activity.load(Ordering::Relaxed)).unwrap_or(now) };
            if now >= since + stall {
                return Ok(EndReason::TimedOut(TimeoutKind::Stall, stall));
            }
            next = next.min(since + stall);
        }
        Err(next)
    }

    fn cancel_deadline(&self, limits: &AttemptLimits) -> Option<Instant> {
        self.instant(self.0.cancel_requested_at.load(Ordering::Acquire))
            .map(|requested_at| requested_at + limits.cancel_grace)
    }

    fn moment(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.0.created_at).as_nanos()).unwrap_or(NEVER - 1)
    }

    fn instant(&self, moment: u64) -> Option<Instant> {
        (moment != NEVER).then(|| self.0.created_at + Duration::from_nanos(moment))
    }
}

fn lease_lost() -> EndReason {
    EndReason::Stopped(Interruption::LeaseLost, LEASE_LOST.to_owned())
}

/// The report of an attempt whose time ran out while it waited for memory.
const NO_MEMORY: &str =
    "it had no room in the host's budget of memory (`memory.budget`) until its time was over, which is not its fault";

/// A guest's wait for room in the budget of memory: see [`AttemptHandle::wait_for_memory`].
pub(crate) struct MemoryWait(AttemptHandle);

impl Drop for MemoryWait {
    fn drop(&mut self) {
        self.0.note_activity();
        self.0.0.waits_for_memory.store(false, Ordering::Release);
    }
}

/// A pause of the stall timeout: see [`AttemptHandle::pause_stall`].
pub(crate) struct StallPause<'a>(&'a AttemptHandle);

impl Drop for StallPause<'_> {
    fn drop(&mut self) {
        self.0.note_activity();
        self.0.0.stall_paused.store(false, Ordering::Release);
    }
}
