//! The element: one CPU's call to many, as it stands on the global queue (`cfd_data`).

use super::csd::CallSingleData;
use crate::sync::atomic::AtomicU32;
use crate::sync::mask::AtomicCpuMask;
use crate::sync::spin::SpinLock;

/// One call to many. Each CPU owns one, and so has one such call outstanding at most.
#[derive(Debug)]
#[repr(align(64))]
pub struct Element {
    /// Function, argument, and the lock that keeps the owner from reusing the element.
    pub csd: CallSingleData,
    /// Guards `mask` and `refs`, in the designs that guard them.
    pub lock: SpinLock,
    /// Targets that have not finished.
    pub refs: AtomicU32,
    /// Targets that have not begun.
    pub mask: AtomicCpuMask,
}

impl Element {
    /// An element not in use, on a machine of `cpus` CPUs.
    pub fn new(cpus: usize) -> Self {
        Self {
            csd: CallSingleData::new(),
            lock: SpinLock::new(),
            refs: AtomicU32::new(0),
            mask: AtomicCpuMask::none(cpus),
        }
    }
}
