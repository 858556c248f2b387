//! The element: one CPU's call to many, as it stands on the global queue (`cfd_data`).

use shared::lab::Oracle;

use super::csd::CallSingleData;
use crate::machine::Machine;
use crate::platform::{CpuId, Platform};
use crate::sync::atomic::{AtomicU32, Ordering};
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

    /// Reports what must not be when nothing is in flight; the element is `owner`'s.
    pub fn audit<P: Platform>(&self, machine: &Machine<P>, owner: CpuId) {
        if self.csd.is_locked() {
            machine.report(Oracle::LeftLocked, self.csd.call().info, owner as u64);
        }
        if self.refs.load(Ordering::Relaxed) != 0 || !self.mask.is_empty() {
            machine.report(Oracle::BadRefs, self.csd.call().info, owner as u64);
        }
    }
}
