//! Limits the memory and the tables of one sandbox, over all of them together. What its own limit allows is taken from its
//! account in the host's budget, by the `room` module.

use wasmtime::Trap;
use wharf_core::bounds;
use wharf_core::budget::MemoryUse;

use crate::schedule::budget::Account;

/// Counts the memory and the table elements of a sandbox, and denies growth beyond its limits.
pub(crate) struct SandboxLimiter {
    pub(crate) account: Account,
    bytes_max: usize,
    bytes: usize,
    peak_bytes: usize,
    elements: usize,
    denied: Denied,
    /// The counts before the last growth of each kind, which are restored if it fails after it was granted.
    before_memory: (usize, usize),
    before_table: usize,
}

/// The kind of growth that was denied last. A guest whose growth is denied usually ends with a trap of its own, of
/// which this is the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Nothing,
    Memory,
    Table,
    /// More than the host's budget could ever hold.
    Budget,
}

impl SandboxLimiter {
    /// A limiter for at most `bytes_max` of memory, which takes the bytes from `account`.
    pub(crate) fn new(bytes_max: u64, account: Account) -> SandboxLimiter {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        SandboxLimiter {
            account,
            bytes_max,
            bytes: 0,
            peak_bytes: 0,
            elements: 0,
            denied: Denied::Nothing,
            before_memory: (0, 0),
            before_table: 0,
        }
    }

    /// Takes the account out, at the end of the sandbox.
    pub(crate) fn take_account(&mut self) -> Account {
        std::mem::replace(&mut self.account, Account::new(MemoryUse::Attempts, 0, 0))
    }

    /// Returns the maximum size of all memories so far, in bytes.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes as u64
    }

    /// Returns the denied growth that this error is due to. Many guests handle a denied growth and go on: only an
    /// abort, or a failed instantiation, is blamed on it.
    pub(crate) fn cause_of(&self, error: &wasmtime::Error, is_instantiated: bool) -> Denied {
        match error.downcast_ref::<Trap>() {
            Some(Trap::UnreachableCodeReached) => self.denied,
            None if !is_instantiated => self.denied,
            _ => Denied::Nothing,
        }
    }
}

/// Bytes of a table's element.
const ELEMENT_BYTES: usize = size_of::<usize>();

impl SandboxLimiter {
    /// Counts a growth of a memory, if the sandbox's own limit allows it. Returns by how many bytes.
    pub(crate) fn memory_grows(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Option<u64> {
        // Beyond the maximum that the memory itself declares: the guest's own limit, which costs the host nothing.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return None;
        }
        let growth = desired.saturating_sub(current);
        let bytes = self.bytes.saturating_add(growth);
        if bytes > self.bytes_max {
            self.denied = Denied::Memory;
            return None;
        }
        self.before_memory = (self.bytes, self.peak_bytes);
        self.bytes = bytes;
        self.peak_bytes = self.peak_bytes.max(bytes);
        self.denied = Denied::Nothing;
        Some(growth as u64)
    }

    /// Takes back a growth of a memory, which failed after it was granted.
    pub(crate) fn memory_grow_failed(&mut self) {
        self.account.subtract(self.bytes.saturating_sub(self.before_memory.0) as u64);
        (self.bytes, self.peak_bytes) = self.before_memory;
    }

    /// Counts a growth of a table, if the sandbox's own limit allows it. Returns by how many bytes.
    pub(crate) fn table_grows(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Option<u64> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return None;
        }
        let growth = desired.saturating_sub(current);
        let elements = self.elements.saturating_add(growth);
        if elements > bounds::TABLE_ELEMENTS_MAX {
            self.denied = Denied::Table;
            return None;
        }
        self.before_table = self.elements;
        self.elements = elements;
        self.denied = Denied::Nothing;
        Some((growth * ELEMENT_BYTES) as u64)
    }

    /// Takes back a growth of a table, which failed after it was granted.
    pub(crate) fn table_grow_failed(&mut self) {
        self.account.subtract((self.elements.saturating_sub(self.before_table) * ELEMENT_BYTES) as u64);
        self.elements = self.before_table;
    }

    /// Takes back a growth of a memory for which the host's budget could never have room.
    pub(crate) fn take_back_memory(&mut self) {
        (self.bytes, self.peak_bytes) = self.before_memory;
        self.denied = Denied::Budget;
    }

    /// Takes back a growth of a table for which the host's budget could never have room.
    pub(crate) fn take_back_table(&mut self) {
        self.elements = self.before_table;
        self.denied = Denied::Budget;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter() -> SandboxLimiter {
        SandboxLimiter::new(1000, Account::new(MemoryUse::Attempts, 0, 0))
    }

    #[test]
    fn a_growth_that_fails_or_is_not_ours_to_deny_costs_nothing() {
        let mut limiter = limiter();
        assert_eq!(limiter.memory_grows(0, 600, None), Some(600));
        assert_eq!(limiter.memory_grows(600, 900, None), Some(300));
        limiter.memory_grow_failed();
        assert_eq!((limiter.bytes, limiter.peak_bytes), (600, 600));
        assert_eq!(limiter.memory_grows(600, 800, Some(700)), None);
        assert_eq!((limiter.bytes, limiter.denied), (600, Denied::Nothing));
    }

    #[test]
    fn only_giving_up_or_never_beginning_is_blamed_on_what_was_denied() {
        let mut limiter = limiter();
        assert_eq!(limiter.memory_grows(0, 2000, None), None);
        let gave_up = wasmtime::Error::from(Trap::UnreachableCodeReached);
        assert_eq!(limiter.cause_of(&gave_up, true), Denied::Memory);
        assert_eq!(limiter.cause_of(&wasmtime::Error::from(Trap::StackOverflow), true), Denied::Nothing);
        assert_eq!(limiter.cause_of(&wasmtime::Error::msg("too large"), false), Denied::Memory);
        assert_eq!(limiter.cause_of(&wasmtime::Error::msg("too much at once"), true), Denied::Nothing);
        assert_eq!(limiter.memory_grows(0, 500, None), Some(500));
        assert_eq!(limiter.cause_of(&gave_up, true), Denied::Nothing);
    }
}
