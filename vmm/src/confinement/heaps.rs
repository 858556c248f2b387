//! Has the C library's allocator read now what it would read from files in any thread later. Touches
//! nothing else.

use std::hint::black_box;
use std::io;
use std::thread;

/// The largest piece that is surely cut from a heap: larger ones can be mappings of their own
/// (`M_MMAP_THRESHOLD`, mallopt(3)).
const PIECE: usize = 120 << 10;

/// Bytes that have to be free at the end of a heap before it shrinks, and more
/// (`M_TRIM_THRESHOLD`, mallopt(3)).
const ENOUGH: usize = 4 * (128 << 10);

/// Lets one heap grow and shrink. Where a thread's heap shrinks for the first time, glibc reads
/// `/proc/sys/vm/overcommit_memory` (sysdeps/unix/sysv/linux/malloc-sysdep.h,
/// `check_may_shrink_heap`), which few kinds of thread may. The first thread's heap is another one,
/// of which this is not asked.
///
/// # Errors
/// If there is no memory for a thread.
pub(super) fn shrink_one() -> io::Result<()> {
    let grown = thread::Builder::new().spawn(|| {
        let pieces = (0..ENOUGH / PIECE + 1).map(|_| black_box(vec![1_u8; PIECE]));
        drop(pieces.collect::<Vec<_>>());
    })?;
    grown.join().expect("this thread only allocates");
    Ok(())
}
