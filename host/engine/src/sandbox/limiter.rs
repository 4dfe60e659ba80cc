//! Limits the memory and the tables of one sandbox, over all of them together.

use wasmtime::{ResourceLimiter, Trap};
use wharf_core::bounds;

/// Counts the memory and the table elements of a sandbox, and denies growth beyond its limits.
#[derive(Debug)]
pub(crate) struct SandboxLimiter {
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
}

impl SandboxLimiter {
    pub(crate) fn new(bytes_max: u64) -> SandboxLimiter {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        SandboxLimiter {
            bytes_max,
            bytes: 0,
            peak_bytes: 0,
            elements: 0,
            denied: Denied::Nothing,
            before_memory: (0, 0),
            before_table: 0,
        }
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

impl ResourceLimiter for SandboxLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // Beyond the maximum that the memory itself declares: the guest's own limit, which costs the host nothing.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let bytes = self.bytes.saturating_add(desired.saturating_sub(current));
        if bytes > self.bytes_max {
            self.denied = Denied::Memory;
            return Ok(false);
        }
        self.before_memory = (self.bytes, self.peak_bytes);
        self.bytes = bytes;
        self.peak_bytes = self.peak_bytes.max(bytes);
        self.denied = Denied::Nothing;
        Ok(true)
    }

    /// Called only after a growth that was granted: the other cause, pages of one byte, is switched off.
    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        (self.bytes, self.peak_bytes) = self.before_memory;
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let elements = self.elements.saturating_add(desired.saturating_sub(current));
        if elements > bounds::TABLE_ELEMENTS_MAX {
            self.denied = Denied::Table;
            return Ok(false);
        }
        self.before_table = self.elements;
        self.elements = elements;
        self.denied = Denied::Nothing;
        Ok(true)
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.elements = self.before_table;
        Ok(())
    }

    fn instances(&self) -> usize {
        bounds::INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        bounds::MEMORIES_MAX
    }

    fn tables(&self) -> usize {
        bounds::TABLES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growth_that_fails_or_is_not_ours_to_deny_costs_nothing() {
        let mut limiter = SandboxLimiter::new(1000);
        assert!(limiter.memory_growing(0, 600, None).unwrap());
        assert!(limiter.memory_growing(600, 900, None).unwrap());
        limiter.memory_grow_failed(wasmtime::Error::msg("the kernel has none")).unwrap();
        assert_eq!((limiter.bytes, limiter.peak_bytes), (600, 600));
        assert!(!limiter.memory_growing(600, 800, Some(700)).unwrap());
        assert_eq!((limiter.bytes, limiter.denied), (600, Denied::Nothing));
    }

    #[test]
    fn only_giving_up_or_never_beginning_is_blamed_on_what_was_denied() {
        let mut limiter = SandboxLimiter::new(1000);
        assert!(!limiter.memory_growing(0, 2000, None).unwrap());
        let gave_up = wasmtime::Error::from(Trap::UnreachableCodeReached);
        assert_eq!(limiter.cause_of(&gave_up, true), Denied::Memory);
        assert_eq!(limiter.cause_of(&wasmtime::Error::from(Trap::StackOverflow), true), Denied::Nothing);
        assert_eq!(limiter.cause_of(&wasmtime::Error::msg("too large"), false), Denied::Memory);
        assert_eq!(limiter.cause_of(&wasmtime::Error::msg("too much at once"), true), Denied::Nothing);
        assert!(limiter.memory_growing(0, 500, None).unwrap());
        assert_eq!(limiter.cause_of(&gave_up, true), Denied::Nothing);
    }
}
