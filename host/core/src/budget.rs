//! The budget of a host's memory: one ledger of all the bytes that guests, and those who talk to them, make it hold.
//!
//! Each use has a floor, which no other use takes, and most have a cap. What is above the floors is common. Who asks for
//! more than there is waits. Those who wait are served by age, the oldest first, so that nobody is passed over for ever.
//!
//! Who waits only for others of the same use, since that has all that it may have, holds up nobody else.
//!
//! Attempts that hold memory and wait for more of it may wait for one another. Then the youngest is released: it ends at
//! no cost to its job, which is claimed again when there is room. Two facts make that end: the oldest is never released
//! for a younger one, and each use has a floor.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bounds;

/// A use of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryUse {
    /// Attempts of jobs: the memories of their sandboxes, their payloads, and what they have given to the host.
    Attempts,
    /// Results of jobs, and jobs that attempts have enqueued, until the store has them.
    Unwritten,
    /// Calls of subscribers by live broadcasts of this depth, from 1, and their replies.
    Broadcasts {
        /// The depth of the broadcast.
        depth: u32,
    },
    /// Calls of `describe`.
    Describe,
    /// Processes that read and compile components.
    Compile,
    /// Bodies of requests, until they are answered and the store has them.
    Requests,
    /// Results, events and pages on their way to clients.
    Readers,
    /// Payloads that are parsed to be checked.
    Parsing,
    /// Pages that free sandboxes keep for the next attempt.
    Kept,
}

const DEPTHS: usize = bounds::BROADCAST_DEPTH_MAX as usize;
const USES: usize = 8 + DEPTHS;

impl MemoryUse {
    /// Every use.
    pub fn all() -> impl Iterator<Item = MemoryUse> {
        let depths = (1..=bounds::BROADCAST_DEPTH_MAX).map(|depth| MemoryUse::Broadcasts { depth });
        let others = [
            MemoryUse::Attempts,
            MemoryUse::Unwritten,
            MemoryUse::Describe,
            MemoryUse::Compile,
            MemoryUse::Requests,
            MemoryUse::Readers,
            MemoryUse::Kept,
            MemoryUse::Parsing,
        ];
        others.into_iter().chain(depths)
    }

    fn index(self) -> usize {
        match self {
            MemoryUse::Attempts => 0,
            MemoryUse::Unwritten => 1,
            MemoryUse::Describe => 2,
            MemoryUse::Compile => 3,
            MemoryUse::Requests => 4,
            MemoryUse::Readers => 5,
            MemoryUse::Kept => 6,
            MemoryUse::Parsing => 7,
            MemoryUse::Broadcasts { depth } => 7 + (depth.max(1) as usize).min(DEPTHS),
        }
    }

    /// Returns the name of the use, without a broadcast's depth.
    pub fn as_str(self) -> &'static str {
        match self {
            MemoryUse::Attempts => "attempts",
            MemoryUse::Unwritten => "unwritten",
            MemoryUse::Broadcasts { .. } => "broadcasts",
            MemoryUse::Describe => "describe",
            MemoryUse::Compile => "compile",
            MemoryUse::Requests => "requests",
            MemoryUse::Readers => "readers",
            MemoryUse::Kept => "kept",
            MemoryUse::Parsing => "parsing",
        }
    }

    /// Returns the bytes of a budget of `total` that only this use takes.
    pub fn floor(self, total: u64) -> u64 {
        match self {
            MemoryUse::Attempts => total / 8,
            MemoryUse::Describe => total / 32,
            MemoryUse::Broadcasts { .. } | MemoryUse::Requests | MemoryUse::Readers => total / 128,
            MemoryUse::Unwritten | MemoryUse::Compile | MemoryUse::Kept | MemoryUse::Parsing => 0,
        }
    }

    /// Returns the most bytes of a budget of `total` that this use has at once.
    pub fn most(self, total: u64) -> u64 {
        let all_floors: u64 = MemoryUse::all().map(|each| each.floor(total)).sum();
        let without_floors_of_others = total - all_floors + self.floor(total);
        match self {
            MemoryUse::Attempts | MemoryUse::Unwritten | MemoryUse::Kept => without_floors_of_others,
            MemoryUse::Describe | MemoryUse::Compile | MemoryUse::Broadcasts { .. } => total / 2,
            MemoryUse::Requests | MemoryUse::Readers | MemoryUse::Parsing => total / 4,
        }
    }
}

/// Returns the most memory that a manifest may request of a host with this budget; an operator may grant more.
pub fn manifest_memory_max(total: u64) -> u64 {
    total / 8
}

/// Returns the most memory that an attempt can have on a host with this budget: all of it that attempts may take, less
/// what the attempt takes besides its memories.
pub fn attempt_memory_max(total: u64) -> u64 {
    MemoryUse::Attempts.most(total).saturating_sub(bounds::ATTEMPT_BYTES).min(bounds::MEMORY_BYTES_MAX)
}

/// When a holder of memory began: who began earlier is older. No two have the same age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Age {
    /// The time from the start of the ledger until the holder began.
    pub began: Duration,
    /// A number that makes it unique.
    pub number: u64,
}

/// A request for bytes that have to be waited for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The use of the bytes.
    pub of: MemoryUse,
    /// The number of bytes that are asked for.
    pub bytes: u64,
    /// The number of bytes of this use that the asker has already.
    pub own: u64,
    /// When it was made, as the time since the start of the ledger.
    pub since: Duration,
    /// Attempts are released for it if it waits for too long. Other requests give up by themselves.
    pub releases: bool,
}

/// An attempt that holds more than was reserved when it started.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// It was told to end.
    released: bool,
}

/// The result of a look at those who wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// The requests that have their bytes now.
    pub granted: Vec<Age>,
    /// The attempts to release.
    pub released: Vec<Age>,
    /// Somebody has waited for so long that the youngest attempt must be released, whoever that is: the ledger knows only
    /// those that hold more than was reserved for them.
    pub pressing: Option<Age>,
}

/// Attempts that all wait for one another do so for this long: others that run may end meanwhile.
const ALL_WAIT_MAX: Duration = Duration::from_millis(200);
/// A request waits this long before an attempt is released for it that does not wait for memory.
const PATIENCE: Duration = Duration::from_secs(2);
/// A request waits this long before the ledger releases one of the attempts that it knows, since nobody else did.
const PATIENCE_ALONE: Duration = Duration::from_secs(10);

/// The ledger: who has how much, and who waits for more.
#[derive(Debug)]
pub struct Ledger {
    total: u64,
    used: [u64; USES],
    /// Those who wait, by use. Of each use the oldest comes first.
    waiting: [BTreeMap<Age, Request>; USES],
    accounts: BTreeMap<Age, Account>,
    released: u64,
}

impl Ledger {
    /// Makes the ledger of a budget of `total` bytes.
    pub fn new(total: u64) -> Ledger {
        let waiting = std::array::from_fn(|_| BTreeMap::new());
        Ledger { total, used: [0; USES], waiting, accounts: BTreeMap::new(), released: 0 }
    }

    /// Returns the budget.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Returns the bytes of one use.
    pub fn used(&self, of: MemoryUse) -> u64 {
        self.used[of.index()]
    }

    /// Returns the number of requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.iter().map(BTreeMap::len).sum()
    }

    /// Returns the number of attempts that were released.
    pub fn released(&self) -> u64 {
        self.released
    }

    /// Counts an attempt that was released by somebody who knows more attempts than the ledger.
    pub fn count_released(&mut self) {
        self.released += 1;
    }

    /// Returns the bytes above all floors that nobody has, for one who has `own` bytes of a use. For who is alone, pages
    /// that free sandboxes keep do not count: nobody would ever give them back.
    fn common(&self, of: MemoryUse, own: u64) -> u64 {
        let is_alone = of == MemoryUse::Attempts && self.used(of) <= own;
        let counts = |each: &MemoryUse| !(is_alone && *each == MemoryUse::Kept);
        let taken = MemoryUse::all().filter(counts).map(|each| self.used(each).max(each.floor(self.total))).sum();
        self.total.saturating_sub(taken)
    }

    /// Returns the oldest request of each use.
    fn oldest(&self) -> impl Iterator<Item = (Age, Request)> {
        self.waiting.iter().filter_map(|of_use| of_use.first_key_value()).map(|(age, request)| (*age, *request))
    }

    /// Returns true if somebody waits for bytes above the floors. Who waits since its use has all that it may have does not.
    fn waits_for_common(&self) -> bool {
        self.oldest().any(|(_, request)| self.is_within_cap(request.of, request.bytes))
    }

    fn is_within_cap(&self, of: MemoryUse, bytes: u64) -> bool {
        self.used(of).saturating_add(bytes) <= of.most(self.total)
    }

    /// Returns the bytes that a use may take now without waiting. While somebody waits, that is what is left of its floor.
    pub fn free(&self, of: MemoryUse) -> u64 {
        let used = self.used(of);
        let floor = of.floor(self.total).saturating_sub(used);
        let somebody_waits = self.waits_for_common() || !self.waiting[of.index()].is_empty();
        let common = if somebody_waits { 0 } else { self.common(of, 0) };
        (floor + common).min(of.most(self.total).saturating_sub(used))
    }

    fn fits(&self, of: MemoryUse, bytes: u64, common: u64) -> bool {
        let after = self.used(of).saturating_add(bytes);
        let floor = of.floor(self.total);
        let of_common = after.max(floor) - self.used(of).max(floor);
        self.is_within_cap(of, bytes) && of_common <= common
    }

    /// Takes bytes if they are free.
    pub fn take(&mut self, of: MemoryUse, bytes: u64) -> bool {
        let is_free = bytes <= self.free(of);
        if is_free {
            self.take_anyway(of, bytes);
        }
        is_free
    }

    /// Takes bytes that are there already, whether there was room for them or not.
    pub fn take_anyway(&mut self, of: MemoryUse, bytes: u64) {
        self.used[of.index()] += bytes;
    }

    /// Gives bytes back.
    pub fn give_back(&mut self, of: MemoryUse, bytes: u64) {
        let used = &mut self.used[of.index()];
        *used = used.saturating_sub(bytes);
    }

    /// Sets the bytes of a use that is measured.
    pub fn set(&mut self, of: MemoryUse, bytes: u64) {
        self.used[of.index()] = bytes;
    }

    /// Returns true if more is taken than there is.
    pub fn is_overdrawn(&self) -> bool {
        self.used.iter().sum::<u64>() > self.total
    }

    /// Adds a request. It is granted by [`Ledger::settle`].
    pub fn wait(&mut self, age: Age, request: Request) {
        self.waiting[request.of.index()].insert(age, request);
    }

    /// Removes a request of a use. Returns false if it does not wait any more.
    pub fn withdraw(&mut self, of: MemoryUse, age: Age) -> bool {
        self.waiting[of.index()].remove(&age).is_some()
    }

    /// Adds an attempt that holds more than was reserved for it: from now on it may be released.
    pub fn open(&mut self, age: Age) {
        self.accounts.entry(age).or_default();
    }

    /// Removes an attempt that has ended.
    pub fn close(&mut self, age: Age) {
        self.accounts.remove(&age);
    }

    /// Grants what can be granted, and chooses who must be released.
    pub fn settle(&mut self, now: Duration) -> Settled {
        let mut settled = Settled::default();
        while let Some((age, Request { of, bytes, .. })) = self.next_granted() {
            self.take_anyway(of, bytes);
            self.waiting[of.index()].remove(&age);
            settled.granted.push(age);
        }
        self.release(now, &mut settled);
        settled
    }

    /// Returns the oldest request that can be granted. Behind one that waits for bytes above the floors, only what is within a
    /// floor is granted, and of each use nothing before its oldest request.
    fn next_granted(&self) -> Option<(Age, Request)> {
        let mut oldest: Vec<(Age, Request)> = self.oldest().collect();
        oldest.sort_unstable_by_key(|(age, _)| *age);
        let mut is_blocked = false;
        oldest.into_iter().find(|(_, Request { of, bytes, own, .. })| {
            let common = if is_blocked { 0 } else { self.common(*of, *own) };
            let fits = self.fits(*of, *bytes, common);
            is_blocked |= !fits && self.is_within_cap(*of, *bytes);
            fits
        })
    }

    /// Chooses who is released for the oldest request that may have somebody released.
    fn release(&mut self, now: Duration, settled: &mut Settled) {
        let releasing = self.oldest().filter(|(_, request)| request.releases);
        let Some((age, request)) = releasing.min_by_key(|(age, _)| *age) else { return };
        let waited = now.saturating_sub(request.since);
        // What one holds that was released comes back in a moment.
        if self.accounts.values().any(|account| account.released) {
            return;
        }
        let waiting = &self.waiting[MemoryUse::Attempts.index()];
        let all_wait = self.accounts.len() > 1 && self.accounts.keys().all(|age| waiting.contains_key(age));
        if (all_wait && waited >= ALL_WAIT_MAX) || waited >= PATIENCE_ALONE {
            if let Some((youngest, account)) = self.accounts.iter_mut().next_back() {
                account.released = true;
                self.released += 1;
                settled.released.push(*youngest);
            }
        } else if waited >= PATIENCE {
            settled.pressing = Some(age);
        }
    }
}

#[cfg(test)]
mod tests;
