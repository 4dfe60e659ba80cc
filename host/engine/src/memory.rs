//! Memory and tables of one sandbox, bounded over all of them together.

use wasmtime::ResourceLimiter;
use wharf_core::bounds;

/// Counts what a sandbox has and denies what goes beyond.
#[derive(Debug)]
pub(crate) struct Space {
    allowed_bytes: usize,
    bytes: usize,
    peak_bytes: usize,
    elements: usize,
    denied: Denied,
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
        Space { allowed_bytes, bytes: 0, peak_bytes: 0, elements: 0, denied: Denied::Nothing }
    }

    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes as u64
    }

    pub(crate) fn denied(&self) -> Denied {
        self.denied
    }
}

impl ResourceLimiter for Space {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = self.bytes.saturating_add(desired.saturating_sub(current));
        if bytes > self.allowed_bytes {
            self.denied = Denied::Memory;
            return Ok(false);
        }
        self.bytes = bytes;
        self.peak_bytes = self.peak_bytes.max(bytes);
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let elements = self.elements.saturating_add(desired.saturating_sub(current));
        if elements > bounds::TABLE_ELEMENTS_MAX {
            self.denied = Denied::Table;
            return Ok(false);
        }
        self.elements = elements;
        Ok(true)
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
