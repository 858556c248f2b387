//! The heap: a bump allocator. The guest allocates while it boots and when it builds its workload,
//! and keeps everything to the end of the run, so nothing is ever freed.

use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::ptr::{null_mut, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicUsize, Ordering};

struct Heap {
    next: AtomicUsize,
    end: AtomicUsize,
}

#[global_allocator]
static HEAP: Heap = Heap {
    next: AtomicUsize::new(0),
    end: AtomicUsize::new(0),
};

/// Gives the heap the memory it hands out from now on.
///
/// # Safety
/// `range` must be RAM that is mapped and that nothing else uses, or empty.
pub unsafe fn give(range: Range<u64>) {
    HEAP.next.store(range.start as usize, Ordering::Relaxed);
    HEAP.end.store(range.end as usize, Ordering::Release);
}

// SAFETY: every block is taken, by an atomic exchange, from the front of a range that was free by
// the promise made to `give`, and no block is handed out twice.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let end = self.end.load(Ordering::Acquire);
        let cut = |next: usize| {
            let start = next.checked_next_multiple_of(layout.align())?;
            let next = start.checked_add(layout.size())?;
            (next <= end).then_some((start, next))
        };
        let taken = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                cut(next).map(|(_, next)| next)
            });
        match taken.ok().and_then(cut) {
            Some((start, _)) => with_exposed_provenance_mut(start),
            None => null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}
