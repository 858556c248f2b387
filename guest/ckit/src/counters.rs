//! The counters of one CPU in a guest of C files: those that the files declare (`LAB_COUNTER`), and
//! those of CPUs that leave and come, which `LAB_HOTPLUG` declares.

use core::sync::atomic::AtomicU64;

use kit::counters::{ROOM, Row};

/// As many as there are for C files: 0 to 29 in `lab.h`.
const OF_FILES: usize = ROOM - 2;

/// The counters, by their numbers.
#[derive(Debug)]
#[repr(C)]
pub struct CCounters {
    /// Those of the files.
    pub of_files: [AtomicU64; OF_FILES],
    /// Times that this CPU was taken offline: number 30.
    pub taken_down: AtomicU64,
    /// Times that it was brought online, after the boot: number 31.
    pub brought_up: AtomicU64,
}

// SAFETY: such words are all that it has, and as many as there is room for.
unsafe impl Row for CCounters {}
