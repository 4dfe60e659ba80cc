//! The budget of a host's memory: one ledger of all the bytes that guests, and those who talk to them, make it hold.
//!
//! Each use has a floor, which no other use takes, and most have a cap. What is above the floors is common. Who asks for
//! more than there is waits. Those who wait are served by age, the oldest first, so that nobody is passed over for ever.
//!
//! Who waits only for others of the same use, since that has all that it may have, holds up nobody else.
//!
//! Of the pages with which a sandbox begins only those take memory that are written to, and nobody tells a host which these are. The
//! first pages of a small component are reserved in part; the ledger knows how many there may be besides, and the host's memory
//! is measured where these could overdraw the budget.
//!
//! Attempts that hold memory and wait for more of it may wait for one another. Then the youngest is released: it ends at
//! no cost to its job, which is claimed again when there is room. Two facts make that end: the oldest is never released
//! for a younger one, and each use has a floor.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bounds;
pub use memory_use::MemoryUse;
use memory_use::USES;

mod memory_use;

/// Returns the most memory that a manifest may request of a host with this budget; an operator may grant more.
pub fn manifest_memory_max(total: u64) -> u64 {
    total / 8
}

/// Returns the most memory that an attempt can have on a host with this budget: all of it that attempts may take, less
/// what the attempt takes besides its memories.
pub fn attempt_memory_max(total: u64) -> u64 {
    MemoryUse::Attempts.most(total).saturating_sub(bounds::ATTEMPT_BYTES).min(bounds::MEMORY_BYTES_MAX)
}

/// Returns the youngest of these holders of memory that together have `bytes`, the youngest first. The oldest is not among them, so
/// that one always goes on.
pub fn to_release<T: Ord>(mut held: Vec<(T, u64)>, bytes: u64) -> Vec<T> {
    held.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
    held.pop();
    let mut missing = bytes;
    let needed = held.into_iter().map_while(|(holder, has)| {
        let is_needed = missing > 0;
        missing = missing.saturating_sub(has);
        is_needed.then_some(holder)
    });
    needed.collect()
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
    /// The bytes with which running sandboxes began, and which are not reserved: as many more may be there.
    unseen: u64,
}

impl Ledger {
    /// Makes the ledger of a budget of `total` bytes.
    pub fn new(total: u64) -> Ledger {
        let waiting = std::array::from_fn(|_| BTreeMap::new());
        Ledger { total, used: [0; USES], waiting, accounts: BTreeMap::new(), released: 0, unseen: 0 }
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

    fn sum(&self) -> u64 {
        self.used.iter().sum()
    }

    /// Adds the unreserved first pages of sandboxes that begin, and takes out those of sandboxes that have ended.
    pub fn change_unseen(&mut self, begun: u64, ended: u64) {
        self.unseen = (self.unseen + begun).saturating_sub(ended);
    }

    /// Returns true if sandboxes may have written to so many of their first pages that more is taken than there is: then the
    /// host's memory must be measured.
    pub fn is_at_risk(&self) -> bool {
        self.unseen > 0 && self.sum() - self.used(MemoryUse::FirstPages) + self.unseen > self.total
    }

    /// Takes in the bytes that this process has been measured to have, besides what any host takes. Bytes of which the ledger knows
    /// nothing are first pages, as far as there are as many of these.
    pub fn measured(&mut self, resident: u64) {
        // Compilers are processes of their own.
        let elsewhere = self.used(MemoryUse::FirstPages) + self.used(MemoryUse::Compile);
        let known = self.sum() - elsewhere;
        self.set(MemoryUse::FirstPages, resident.saturating_sub(known).min(self.unseen));
    }

    /// Returns how many bytes are taken that there are not, because of first pages. Attempts must be released for them.
    pub fn overdrawn(&self) -> u64 {
        if self.used(MemoryUse::FirstPages) == 0 { 0 } else { self.sum().saturating_sub(self.total) }
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
