//! Memory and tables of one sandbox, bounded over all of them together.

use wasmtime::{ResourceLimiter, Trap};
use wharf_core::bounds;

/// Counts what a sandbox has and denies what goes beyond.
#[derive(Debug)]
pub(crate) struct Space {
    allowed_bytes: usize,
    bytes: usize,
    peak_bytes: usize,
    elements: usize,
    denied: Denied,
    /// How it was before the last growth of each kind, should that fail after it was granted.
    before_memory: (usize, usize),
    before_table: usize,
}

/// What was denied last. A guest that is denied growth usually ends with some trap of its own: this tells the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Nothing,
    Memory,
    Table,
}

impl Space {
    pub(crate) fn new(allowed_bytes: u64) -> Space {
        let allowed_bytes = usize::try_from(allowed_bytes).unwrap_or(usize::MAX);
        Space {
            allowed_bytes,
            bytes: 0,
            peak_bytes: 0,
            elements: 0,
            denied: Denied::Nothing,
            before_memory: (0, 0),
            before_table: 0,
        }
    }

    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes as u64
    }

    /// What an end with this error is due to. Many guests are denied something and get along: only giving up,
    /// or never having begun, is an answer to it.
    pub(crate) fn blamed_for(&self, error: &wasmtime::Error, has_begun: bool) -> Denied {
        match error.downcast_ref::<Trap>() {
            Some(Trap::UnreachableCodeReached) => self.denied,
            None if !has_begun => self.denied,
            _ => Denied::Nothing,
        }
    }
}

impl ResourceLimiter for Space {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // Past what the memory itself is declared with: the guest's own bound, which takes nothing of ours.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let bytes = self.bytes.saturating_add(desired.saturating_sub(current));
        if bytes > self.allowed_bytes {
            self.denied = Denied::Memory;
            return Ok(false);
        }
        self.before_memory = (self.bytes, self.peak_bytes);
        self.bytes = bytes;
        self.peak_bytes = self.peak_bytes.max(bytes);
        self.denied = Denied::Nothing;
        Ok(true)
    }

    /// Only after a growth that was granted: the other cause, pages of one byte, is switched off.
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
        let mut space = Space::new(1000);
        assert!(space.memory_growing(0, 600, None).unwrap());
        assert!(space.memory_growing(600, 900, None).unwrap());
        space.memory_grow_failed(wasmtime::Error::msg("the kernel has none")).unwrap();
        assert_eq!((space.bytes, space.peak_bytes), (600, 600));
        assert!(!space.memory_growing(600, 800, Some(700)).unwrap());
        assert_eq!((space.bytes, space.denied), (600, Denied::Nothing));
    }

    #[test]
    fn only_giving_up_or_never_beginning_is_blamed_on_what_was_denied() {
        let mut space = Space::new(1000);
        assert!(!space.memory_growing(0, 2000, None).unwrap());
        let gave_up = wasmtime::Error::from(Trap::UnreachableCodeReached);
        assert_eq!(space.blamed_for(&gave_up, true), Denied::Memory);
        assert_eq!(space.blamed_for(&wasmtime::Error::from(Trap::StackOverflow), true), Denied::Nothing);
        assert_eq!(space.blamed_for(&wasmtime::Error::msg("too large"), false), Denied::Memory);
        assert_eq!(space.blamed_for(&wasmtime::Error::msg("too much at once"), true), Denied::Nothing);
        assert!(space.memory_growing(0, 500, None).unwrap());
        assert_eq!(space.blamed_for(&gave_up, true), Denied::Nothing);
    }
}
