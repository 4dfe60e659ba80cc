//! The account of one sandbox in the host's budget of memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wharf_core::budget::{Age, MemoryUse, Request};
use wharf_core::outcome::Interruption;

use super::{Budget, RELEASED};
use crate::schedule::attempt_handle::AttemptHandle;

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
    pair: Option<Pair>,
}

/// The bytes of two accounts of one attempt: that of its sandbox, and that of its output. Only one of them asks for more at a time.
struct Pair {
    own: Arc<AtomicU64>,
    other: Arc<AtomicU64>,
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
        Account { of, reserved, extra: 0, used, peak: used, known: None, pair: None }
    }

    /// Makes this account and another one of the same attempt count together: what both hold has a limit, and both give back what they
    /// hold if the attempt is released.
    pub(crate) fn count_with(&mut self, other: &mut Account) {
        let [own, others] = [self.used, other.used].map(|used| Arc::new(AtomicU64::new(used)));
        self.pair = Some(Pair { own: Arc::clone(&own), other: Arc::clone(&others) });
        other.pair = Some(Pair { own: others, other: own });
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
            self.set_used(used);
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
        self.set_used(used);
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
        self.set_used(self.used.saturating_add(bytes));
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
        self.set_used(self.used.saturating_sub(bytes));
    }

    fn set_used(&mut self, used: u64) {
        self.used = used;
        if let Some(pair) = &self.pair {
            pair.own.store(used, Ordering::Relaxed);
        }
    }

    /// Returns what the other account of the attempt holds.
    fn used_by_other(&self) -> u64 {
        self.pair.as_ref().map_or(0, |pair| pair.other.load(Ordering::Relaxed))
    }

    /// Returns how many bytes must be reserved for `used` of them.
    fn missing(&self, asker: Asker<'_>, used: u64) -> Result<u64, TooMuch> {
        let together = used.saturating_add(self.used_by_other());
        if together > asker.budget.most(self.of) { Err(TooMuch) } else { Ok(used.saturating_sub(self.has())) }
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
        let (age, own) = (self.age(asker), self.has().saturating_add(self.used_by_other()));
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
