//! An allocator that counts, and gives every allocation cache lines of its own: otherwise it would
//! depend on the host which objects share a line, and the tables would differ.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::coherence::LINE;

struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

/// Bytes asked for and not given back.
static LIVE: AtomicUsize = AtomicUsize::new(0);

fn whole_lines(layout: Layout) -> Option<Layout> {
    Some(layout.align_to(LINE).ok()?.pad_to_align())
}

// SAFETY: memory comes from `System`, by a layout that is at least as large and as aligned as the
// one asked for, and goes back to it by the same.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(lines) = whole_lines(layout) else {
            return std::ptr::null_mut();
        };
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: `layout` is not empty, so this one is not.
        unsafe { System.alloc(lines) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        if let Some(lines) = whole_lines(layout) {
            // SAFETY: `alloc` was given the same layout, and so made the same of it.
            unsafe { System.dealloc(memory, lines) };
        }
    }
}

/// Bytes that the value which `make` returns keeps on the heap.
pub fn bytes_kept<T>(make: impl FnOnce() -> T) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    let made = make();
    let kept = LIVE.load(Ordering::Relaxed) - before;
    drop(made);
    kept
}
