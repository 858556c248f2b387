//! How a CPU knows that it has taken every interrupt that was pending at it: it sends itself the
//! vector of the lowest priority, and waits until that has been taken. Not all hosts deliver what
//! is pending as soon as interrupts are enabled.

use alloc::boxed::Box;

use super::atomic::{AtomicU32, Ordering};
use crate::platform::{CpuId, Platform, Vector};

/// How often each CPU has taken [`Vector::LAST`].
#[derive(Debug)]
pub struct Pending {
    caught_up: Box<[AtomicU32]>,
}

impl Pending {
    /// For `cpus` CPUs.
    pub fn new(cpus: usize) -> Self {
        Self {
            caught_up: (0..cpus).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// The handler of [`Vector::LAST`] on `cpu`, which is this CPU, calls this.
    pub fn has_caught_up(&self, cpu: CpuId) {
        self.caught_up[cpu].fetch_add(1, Ordering::Relaxed);
    }

    /// Takes every interrupt that is pending at this CPU, whose interrupts are on.
    pub fn take<P: Platform>(&self, platform: &P) {
        let me = platform.this_cpu();
        let before = self.caught_up[me].load(Ordering::Relaxed);
        let has_come = || self.caught_up[me].load(Ordering::Relaxed) != before;
        platform.send_ipi(me, Vector::LAST);
        while !has_come() {
            platform.idle_unless(&has_come);
        }
    }
}
