//! Counts what a thread has allocated.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The allocator of the system, which counts for each thread.
#[derive(Debug)]
pub struct Counting;

thread_local! {
    /// Octets that this thread has allocated and not freed, and the most they were.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(octets: isize) {
    // At the end of a thread nobody looks at it any more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get().wrapping_add(octets));
        let _ = MOST.try_with(|most| most.set(most.get().max(live.get())));
    });
}

// SAFETY: each call is handed on as it is; counting touches no memory but two cells that need neither allocation nor an end.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: what the caller promises is what is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Does it, and says how many octets more than before this thread had at most.
pub(crate) fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    MOST.set(before);
    let done = work();
    (done, usize::try_from(MOST.get() - before).unwrap_or(0))
}

/// Does it, and says how many octets more than before this thread has after it.
pub fn kept<T>(work: impl FnOnce() -> T) -> (T, usize) {
    assert!(is_counted(), "the program of this test does not count what it allocates");
    let before = LIVE.get();
    let done = work();
    (done, usize::try_from(LIVE.get() - before).unwrap_or(0))
}

/// Whether the program has this allocator.
pub(crate) fn is_counted() -> bool {
    peak(|| std::hint::black_box(vec![0_u8; 64])).1 >= 64
}
