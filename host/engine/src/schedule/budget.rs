//! The host's budget of memory, shared between its threads: the ledger behind a lock, and those who wait for bytes.
//!
//! Small attempts never come here. What they take is reserved by the loop that starts them, for all that start together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use wharf_core::budget::{Age, Ledger, MemoryUse, Request};
use wharf_core::outcome::Interruption;

use crate::schedule::attempt_handle::AttemptHandle;

/// The interval at which those who wait are looked at, besides each time that bytes are given back.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

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

    /// Reserves bytes if they are free.
    pub fn try_reserve(&self, of: MemoryUse, bytes: u64) -> Option<Reservation> {
        let taken = bytes == 0 || self.with(|state| state.ledger.take(of, bytes));
        taken.then(|| Reservation { budget: self.clone(), of, bytes })
    }

    /// Reserves bytes that are there already, whether there is room for them or not.
    pub fn reserve_anyway(&self, of: MemoryUse, bytes: u64) -> Reservation {
        self.with(|state| state.ledger.take_anyway(of, bytes));
        Reservation { budget: self.clone(), of, bytes }
    }

    /// Waits for bytes, at most as many as the use can have, until they are free. Attempts may be released for it.
    pub async fn reserve(&self, of: MemoryUse, bytes: u64) -> Reservation {
        self.reserve_for(of, bytes, true).await
    }

    /// Waits for bytes as [`Budget::reserve`] does, but no longer than `max`, and no attempt is released for it.
    pub async fn reserve_within(&self, of: MemoryUse, bytes: u64, max: Duration) -> Option<Reservation> {
        if let Some(reservation) = self.try_reserve(of, bytes.min(self.most(of))) {
            return Some(reservation);
        }
        tokio::time::timeout(max, self.reserve_for(of, bytes, false)).await.ok()
    }

    /// Waits for bytes as [`Budget::reserve`] does, but no attempt is released for it.
    pub async fn reserve_patiently(&self, of: MemoryUse, bytes: u64) -> Reservation {
        self.reserve_for(of, bytes, false).await
    }

    async fn reserve_for(&self, of: MemoryUse, bytes: u64, releases: bool) -> Reservation {
        let bytes = bytes.min(self.most(of));
        if let Some(reservation) = self.try_reserve(of, bytes) {
            return reservation;
        }
        let age = self.age(Instant::now());
        self.wait(age, Request { of, bytes, own: 0, since: self.now(), releases }).await;
        Reservation { budget: self.clone(), of, bytes }
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

    /// Gives back some bytes and takes others anyway, in one go.
    pub fn exchange(&self, given_back: &[(MemoryUse, u64)], taken: &[(MemoryUse, u64)]) {
        self.with(|state| {
            taken.iter().for_each(|(of, bytes)| state.ledger.take_anyway(*of, *bytes));
            given_back.iter().for_each(|(of, bytes)| state.ledger.give_back(*of, *bytes));
        });
        self.given_back();
    }

    fn age(&self, began: Instant) -> Age {
        let began = began.saturating_duration_since(self.0.started);
        Age { began, number: self.0.ages.fetch_add(1, Ordering::Relaxed) }
    }

    fn now(&self) -> Duration {
        self.0.started.elapsed()
    }

    fn measure(&self) {
        if let Some(kept) = self.0.kept.get() {
            let bytes = kept();
            self.with(|state| state.ledger.set(MemoryUse::Kept, bytes));
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

    /// Waits until a request is granted. Dropped before, it takes nothing.
    async fn wait(&self, age: Age, request: Request) {
        let (granted, receiver) = oneshot::channel();
        let mut waiting = Waiting { budget: self, age, request, is_over: false };
        self.measure();
        let look = self.with(|state| {
            state.waiting.insert(age, granted);
            state.ledger.wait(age, request);
            !std::mem::replace(&mut state.is_looking, true)
        });
        if look {
            self.look();
        }
        let _ = receiver.await;
        waiting.is_over = true;
    }

    /// Looks at those who wait as long as there are any: time passes, and somebody may have to be released.
    fn look(&self) {
        let shared = Arc::downgrade(&self.0);
        self.0.runtime.spawn(async move {
            loop {
                tokio::time::sleep(LOOK_INTERVAL).await;
                let Some(shared) = shared.upgrade() else { return };
                let budget = Budget(shared);
                budget.measure();
                let is_done = budget.with(|state| {
                    state.is_looking = state.ledger.waiting() > 0;
                    !state.is_looking
                });
                if is_done {
                    return;
                }
            }
        });
    }
}

/// A request that waits. Dropped, it is withdrawn, or what it was granted is given back.
struct Waiting<'a> {
    budget: &'a Budget,
    age: Age,
    request: Request,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let Request { of, bytes, .. } = self.request;
        self.budget.with(|state| {
            state.waiting.remove(&self.age);
            if !state.ledger.withdraw(of, self.age) {
                state.ledger.give_back(of, bytes);
            }
        });
        self.budget.given_back();
    }
}

/// Bytes of the budget, until this is dropped.
pub struct Reservation {
    budget: Budget,
    of: MemoryUse,
    bytes: u64,
}

impl Reservation {
    /// Returns how many bytes are reserved.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let more = self.bytes.saturating_sub(bytes);
        self.bytes -= more;
        self.budget.give_back(self.of, more);
    }

    /// Takes over what another reservation of the same use has.
    pub fn join(&mut self, mut other: Reservation) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.of, self.bytes);
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation").field("of", &self.of).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// The account of one sandbox: the bytes that it holds, and those that are reserved for it. It knows the budget only once it has
/// to ask for more, which most never do.
pub(crate) struct Account {
    of: MemoryUse,
    /// Reserved for it by whoever started it.
    reserved: u64,
    /// Reserved since.
    extra: u64,
    used: u64,
    peak: u64,
    /// The budget, and the age by which its ledger knows this account.
    known: Option<(Budget, Age)>,
}

/// The budget, and the attempt that asks for more of it.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) budget: &'a Budget,
    pub(crate) handle: &'a AttemptHandle,
}

/// More is asked for than the budget could ever hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMuch;

impl Account {
    /// Opens the account of a sandbox for which `reserved` bytes are reserved, of which it takes `used` from the start.
    pub(crate) fn new(of: MemoryUse, reserved: u64, used: u64) -> Account {
        let used = used.min(reserved);
        Account { of, reserved, extra: 0, used, peak: used, known: None }
    }

    /// Returns the most that it held or asked for, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    /// Counts bytes, if they are reserved already.
    pub(crate) fn fits(&mut self, bytes: u64) -> bool {
        let used = self.used.saturating_add(bytes);
        let fits = used <= self.has();
        if fits {
            self.used = used;
            self.peak = self.peak.max(used);
        }
        fits
    }

    /// Counts bytes; waits until there is room for them.
    ///
    /// # Errors
    /// [`TooMuch`] if there never will be.
    pub(crate) async fn add(&mut self, asker: Asker<'_>, bytes: u64) -> Result<(), TooMuch> {
        if self.fits(bytes) {
            return Ok(());
        }
        let used = self.used.saturating_add(bytes);
        self.peak = self.peak.max(used);
        let missing = self.missing(asker, used)?;
        if !self.try_reserve(asker, missing) {
            self.reserve(asker, missing).await;
        }
        self.used = used;
        Ok(())
    }

    /// Counts bytes that the host has already, and waits until there is room for them. Where too many bytes are there for
    /// which there is no room, the attempt is released.
    ///
    /// # Errors
    /// [`TooMuch`] if there never will be.
    pub(crate) async fn add_present(&mut self, asker: Asker<'_>, bytes: u64) -> Result<(), TooMuch> {
        if self.fits(bytes) {
            return Ok(());
        }
        self.used = self.used.saturating_add(bytes);
        self.peak = self.peak.max(self.used);
        let missing = self.missing(asker, self.used)?;
        if self.try_reserve(asker, missing) {
            return Ok(());
        }
        let uncovered = Uncovered::new(asker.budget, missing);
        if uncovered.is_too_much {
            asker.handle.stop(Interruption::Host, RELEASED.to_owned());
        }
        self.reserve(asker, missing).await;
        Ok(())
    }

    /// Counts bytes out. What is reserved stays so.
    pub(crate) fn subtract(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// Returns how many bytes must be reserved for `used` of them.
    fn missing(&self, asker: Asker<'_>, used: u64) -> Result<u64, TooMuch> {
        if used > asker.budget.most(self.of) { Err(TooMuch) } else { Ok(used.saturating_sub(self.has())) }
    }

    fn has(&self) -> u64 {
        self.reserved + self.extra
    }

    /// Returns the age by which the ledger knows it from now on.
    fn age(&mut self, Asker { budget, handle }: Asker<'_>) -> Age {
        self.known.get_or_insert_with(|| (budget.clone(), budget.age(handle.created_at()))).1
    }

    fn try_reserve(&mut self, asker: Asker<'_>, bytes: u64) -> bool {
        let (age, of) = (self.age(asker), self.of);
        let taken = asker.budget.with(|state| {
            if of == MemoryUse::Attempts {
                state.ledger.open(age);
                state.attempts.entry(age).or_insert_with(|| asker.handle.clone());
            }
            state.ledger.take(of, bytes)
        });
        if taken {
            self.extra += bytes;
        }
        taken
    }

    async fn reserve(&mut self, asker: Asker<'_>, bytes: u64) {
        let (age, own) = (self.age(asker), self.has());
        // A subscriber has its broadcast's deadline.
        let releases = !matches!(self.of, MemoryUse::Broadcasts { .. });
        let request = Request { of: self.of, bytes, own, since: asker.budget.now(), releases };
        let waits = asker.handle.wait_for_memory();
        asker.budget.wait(age, request).await;
        drop(waits);
        self.extra += bytes;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some((budget, age)) = &self.known {
            budget.with(|state| {
                state.ledger.close(*age);
                state.attempts.remove(age);
                state.ledger.give_back(self.of, self.extra);
            });
            budget.given_back();
        }
    }
}

/// Bytes that are there although nobody has reserved them, until this is dropped.
struct Uncovered {
    budget: Budget,
    bytes: u64,
    is_too_much: bool,
}

impl Uncovered {
    fn new(budget: &Budget, bytes: u64) -> Uncovered {
        let is_too_much = budget.with(|state| {
            let before = state.uncovered;
            state.uncovered += bytes;
            // One always may: where it is the oldest, nobody else makes room for it.
            before > 0 && before + bytes > state.ledger.total() / 8
        });
        Uncovered { budget: budget.clone(), bytes, is_too_much }
    }
}

impl Drop for Uncovered {
    fn drop(&mut self) {
        self.budget.with(|state| state.uncovered -= self.bytes);
    }
}

#[cfg(test)]
mod tests;
