//! The threads that gdb is told of, each of which is a vCPU. Plain numbers.

use std::num::NonZeroUsize;

use gdbstub::common::Tid;

/// The thread that is a vCPU: gdb has no thread 0.
pub(crate) fn thread_of(cpu: u32) -> Tid {
    NonZeroUsize::new(cpu as usize + 1).expect("it is at least one")
}

/// The vCPU that is a thread. What gdb makes up is a vCPU that does not exist.
pub(crate) fn cpu_of(thread: Tid) -> u32 {
    u32::try_from(thread.get() - 1).unwrap_or(u32::MAX)
}
