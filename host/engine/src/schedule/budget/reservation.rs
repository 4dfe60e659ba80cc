//! Bytes that are reserved in the budget of memory, and those who wait for some.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wharf_core::budget::{Age, MemoryUse, Request};

use super::Budget;

impl Budget {
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

    /// Waits until a request is granted. Dropped before, it takes nothing.
    pub(super) async fn wait(&self, age: Age, request: Request) {
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
