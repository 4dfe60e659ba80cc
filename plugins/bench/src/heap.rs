//! The heap, and how the host asks for room in it: for other programs both are the standard library's.
//!
//! The C library's has the room that the memory begins with. One that begins by asking for more would double what a call
//! costs: to grow is a system call, and so is to take it back.

use alloc::alloc::handle_alloc_error;
use core::{
    alloc::{GlobalAlloc, Layout},
    ptr,
};

#[link(name = "c")]
unsafe extern "C" {
    fn aligned_alloc(align: usize, size: usize) -> *mut u8;
    fn free(at: *mut u8);
}

struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

/// No less than C asks for.
const ALIGN_MIN: usize = 8;

// SAFETY: C's heap is one, and aligns as it is told.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let align = layout.align().max(ALIGN_MIN);
        // SAFETY: the size is a multiple of the alignment, as C wants it; a layout's fits once it is made one.
        unsafe { aligned_alloc(align, layout.size().next_multiple_of(align)) }
    }

    unsafe fn dealloc(&self, at: *mut u8, _: Layout) {
        // SAFETY: it came from `alloc`.
        unsafe { free(at) }
    }
}

/// As the canonical ABI of the component model has it: `old` is nothing where `old_len` is 0.
///
/// # Safety
/// The caller is the host: `old` came from here with `old_len` and `align`, and `align` is a power of two.
#[unsafe(no_mangle)]
unsafe extern "C" fn cabi_realloc(old: *mut u8, old_len: usize, align: usize, new_len: usize) -> *mut u8 {
    if new_len == 0 {
        return ptr::without_provenance_mut(align);
    }
    // SAFETY: as above; `new_len` is not 0.
    unsafe {
        let layout = Layout::from_size_align_unchecked(new_len, align);
        let new = match old_len {
            0 => HEAP.alloc(layout),
            _ => HEAP.realloc(old, Layout::from_size_align_unchecked(old_len, align), new_len),
        };
        if new.is_null() {
            handle_alloc_error(layout)
        }
        new
    }
}
