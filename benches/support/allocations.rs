//! An allocator that counts, for all threads together and for each one by itself.
//!
//! Owns: the counters. It is the system's allocator otherwise.

#![allow(unsafe_code, reason = "an allocator is nothing else")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ALL: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static OWN: Cell<u64> = const { Cell::new(0) };
}

/// Allocations so far: of all threads, and of this one.
pub(crate) fn counts() -> (u64, u64) {
    (ALL.load(Ordering::Relaxed), OWN.with(Cell::get))
}

fn count() {
    ALL.fetch_add(1, Ordering::Relaxed);
    OWN.with(|own| own.set(own.get() + 1));
}

// SAFETY: every call is passed on to the system's allocator as it is; the counters neither allocate
// nor panic, and a constant thread-local without a destructor can be reached at any time.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`, and the system allocated `pointer`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and the system allocated `pointer`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
