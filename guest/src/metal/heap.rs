//! The heap: a pointer that moves through free RAM. Everything is allocated while the guest boots and
//! lives until it ends, so nothing is ever freed.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::boot::StartInfo;

struct Bump {
    next: AtomicUsize,
    end: AtomicUsize,
}

#[global_allocator]
static HEAP: Bump = Bump {
    next: AtomicUsize::new(0),
    end: AtomicUsize::new(0),
};

unsafe extern "C" {
    /// First byte after the image, a name the linker defines.
    static _end: u8;
}

/// Gives the heap the RAM behind the image, up to the end of its range of the memory map.
pub fn init(start: &StartInfo) {
    let image_end = (&raw const _end) as u64;
    let range = start
        .ram()
        .find(|range| (range.start..range.start + range.size).contains(&image_end))
        .expect("the memory map has the RAM in which the image lies");
    HEAP.next.store(image_end as usize, Ordering::Relaxed);
    let end = (range.start + range.size).min(super::boot::MAPPED_END);
    HEAP.end.store(end as usize, Ordering::Relaxed);
}

// SAFETY: every block is cut off the front of memory that only this allocator knows, once, and is
// aligned as asked.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let end = self.end.load(Ordering::Relaxed);
        let mut start = 0;
        let taken = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                start = next.checked_next_multiple_of(layout.align())?;
                start
                    .checked_add(layout.size())
                    .filter(|after| *after <= end)
            });
        match taken {
            Ok(_) => start as *mut u8,
            Err(_) => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}
