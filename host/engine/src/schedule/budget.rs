//! The host's budget of memory, shared between its threads: the ledger behind a lock, and those who wait for bytes.
//!
//! Small attempts never come here. What they take is reserved by the loop that starts them, for all that start together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use wharf_core::bounds;
use wharf_core::budget::{Age, Ledger, MemoryUse};
use wharf_core::outcome::Interruption;

use self::process_memory::ProcessMemory;
use crate::schedule::attempt_handle::AttemptHandle;

mod account;
mod process_memory;
mod reservation;

pub(crate) use account::{Account, Asker, TooMuch};
pub use reservation::Reservation;

/// The interval at which those who wait are looked at, besides each time that bytes are given back.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The interval at which the host's memory is measured while first pages of sandboxes may overdraw the budget.
const MEASURE_INTERVAL: Duration = Duration::from_millis(10);

/// The report of an attempt that is released.
pub const RELEASED: &str = "it was given back, at no cost to the job: the host's budget of memory (`memory.budget`) was full, and \
                            this attempt was the youngest of those that could make room; it is claimed again when there is room";

/// The budget of memory of one host. Clones refer to the same one.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    started: Instant,
    /// The number of the last age.
    ages: AtomicU64,
    /// Locked for some sums, never across an await.
    state: Mutex<State>,
    runtime: Handle,
    /// Reads the bytes that free sandboxes keep.
    kept: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>,
    process: ProcessMemory,
    /// Somebody waits for a change of the budget, and `changed` must be notified of it.
    is_watched: AtomicBool,
    changed: Notify,
}

struct State {
    ledger: Ledger,
    waiting: HashMap<Age, oneshot::Sender<()>>,
    /// The attempts that the ledger may release.
    attempts: HashMap<Age, AttemptHandle>,
    /// Bytes that are there although nobody has reserved them: their attempts wait until there is room for them.
    uncovered: u64,
    /// A task looks at those who wait.
    is_looking: bool,
    pressing: bool,
}

/// The usage of the budget at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetUsage {
    /// The budget in bytes.
    pub total: u64,
    /// The bytes of each use.
    pub used: Vec<(MemoryUse, u64)>,
    /// The number of requests that wait for memory.
    pub waiting: u64,
    /// The number of attempts that were released so far.
    pub released: u64,
}

impl Budget {
    /// Makes a budget of `total` bytes. Those who wait are looked at on the calling tokio runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(total: u64) -> Budget {
        let state = State {
            ledger: Ledger::new(total),
            waiting: HashMap::new(),
            attempts: HashMap::new(),
            uncovered: 0,
            is_looking: false,
            pressing: false,
        };
        Budget(Arc::new(Shared {
            started: Instant::now(),
            ages: AtomicU64::new(0),
            state: Mutex::new(state),
            runtime: Handle::current(),
            kept: OnceLock::new(),
            process: ProcessMemory::open(),
            is_watched: AtomicBool::new(false),
            changed: Notify::new(),
        }))
    }

    /// Sets how the bytes are read that free sandboxes keep.
    pub(crate) fn measure_kept(&self, kept: impl Fn() -> u64 + Send + Sync + 'static) {
        let _ = self.0.kept.set(Box::new(kept));
    }

    /// Returns the budget in bytes.
    pub fn total(&self) -> u64 {
        self.with(|state| state.ledger.total())
    }

    /// Returns what the budget is used for.
    pub fn usage(&self) -> BudgetUsage {
        self.measure();
        self.with(|state| BudgetUsage {
            total: state.ledger.total(),
            used: MemoryUse::all().map(|each| (each, state.ledger.used(each))).collect(),
            waiting: state.ledger.waiting() as u64,
            released: state.ledger.released(),
        })
    }

    /// Returns the bytes that a use may take now.
    pub fn free(&self, of: MemoryUse) -> u64 {
        self.measure();
        self.with(|state| state.ledger.free(of))
    }

    /// Returns the most bytes that a use has at once.
    pub fn most(&self, of: MemoryUse) -> u64 {
        of.most(self.total())
    }

    /// Waits until the budget has changed in a way that concerns the loop: see [`Budget::watch`] and
    /// [`Budget::take_pressing`].
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Asks for one notification of [`Budget::changed`] when bytes are given back.
    pub fn watch(&self) {
        self.0.is_watched.store(true, Ordering::Release);
    }

    /// Returns true once if an attempt must be released for one that has waited for long.
    pub fn take_pressing(&self) -> bool {
        // Without a look at those who wait, which would find at once that it presses still.
        std::mem::take(&mut self.state().pressing)
    }

    /// Counts an attempt that somebody else released.
    pub fn count_released(&self) {
        self.with(|state| state.ledger.count_released());
    }

    /// Gives back some bytes and takes others anyway, in one go. `first_pages` are the unreserved first pages of sandboxes that
    /// begin, and of those that have ended.
    pub fn exchange(&self, given_back: &[(MemoryUse, u64)], taken: &[(MemoryUse, u64)], first_pages: (u64, u64)) {
        let look = self.with(|state| {
            taken.iter().for_each(|(of, bytes)| state.ledger.take_anyway(*of, *bytes));
            given_back.iter().for_each(|(of, bytes)| state.ledger.give_back(*of, *bytes));
            state.ledger.change_unseen(first_pages.0, first_pages.1);
            state.ledger.is_at_risk() && !std::mem::replace(&mut state.is_looking, true)
        });
        if look {
            self.look();
        }
        self.given_back();
    }

    /// Returns how many bytes first pages overdraw the budget by: attempts must be released for them.
    pub fn overdrawn(&self) -> u64 {
        self.measure();
        self.with(|state| state.ledger.overdrawn())
    }

    fn age(&self, began: Instant) -> Age {
        let began = began.saturating_duration_since(self.0.started);
        Age { began, number: self.0.ages.fetch_add(1, Ordering::Relaxed) }
    }

    fn now(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Measures what nobody reserves: the pages that free sandboxes keep, and, where they may overdraw the budget, the first pages
    /// of sandboxes.
    fn measure(&self) {
        let kept = self.0.kept.get().map(|kept| kept());
        let is_at_risk = self.with(|state| {
            if let Some(kept) = kept {
                state.ledger.set(MemoryUse::Kept, kept);
            }
            let is_at_risk = state.ledger.is_at_risk();
            if !is_at_risk {
                state.ledger.set(MemoryUse::FirstPages, 0);
            }
            is_at_risk
        });
        if is_at_risk {
            // Where the system does not say, all of them may be there.
            let bytes = self.0.process.bytes().unwrap_or(u64::MAX);
            self.with(|state| state.ledger.measured(bytes.saturating_sub(bounds::HOST_BYTES)));
        }
    }

    /// Changes the state, grants what can be granted, and releases who must be released.
    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state();
        let result = change(&mut state);
        if state.ledger.waiting() == 0 {
            return result;
        }
        let settled = state.ledger.settle(self.now());
        for age in settled.granted {
            if let Some(granted) = state.waiting.remove(&age) {
                let _ = granted.send(());
            }
        }
        let released: Vec<AttemptHandle> =
            settled.released.iter().filter_map(|age| state.attempts.get(age).cloned()).collect();
        let pressing = settled.pressing.is_some() && !std::mem::replace(&mut state.pressing, true);
        drop(state);
        for attempt in released {
            attempt.stop(Interruption::Host, RELEASED.to_owned());
        }
        if pressing {
            self.0.changed.notify_one();
        }
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given_back(&self) {
        if self.0.is_watched.load(Ordering::Acquire) && self.0.is_watched.swap(false, Ordering::AcqRel) {
            self.0.changed.notify_one();
        }
    }

    fn give_back(&self, of: MemoryUse, bytes: u64) {
        if bytes > 0 {
            self.with(|state| state.ledger.give_back(of, bytes));
            self.given_back();
        }
    }

    /// Looks at those who wait as long as there are any: time passes, and somebody may have to be released. Looks as well while
    /// first pages may overdraw the budget, and tells the loop if they do.
    fn look(&self) {
        let shared = Arc::downgrade(&self.0);
        self.0.runtime.spawn(async move {
            let mut interval = MEASURE_INTERVAL;
            loop {
                tokio::time::sleep(interval).await;
                let Some(shared) = shared.upgrade() else { return };
                let budget = Budget(shared);
                budget.measure();
                let (is_at_risk, is_overdrawn, is_done) = budget.with(|state| {
                    let is_at_risk = state.ledger.is_at_risk();
                    state.is_looking = state.ledger.waiting() > 0 || is_at_risk;
                    (is_at_risk, state.ledger.overdrawn() > 0, !state.is_looking)
                });
                if is_overdrawn {
                    budget.0.changed.notify_one();
                }
                if is_done {
                    return;
                }
                interval = if is_at_risk { MEASURE_INTERVAL } else { LOOK_INTERVAL };
            }
        });
    }
}

#[cfg(test)]
mod tests;
