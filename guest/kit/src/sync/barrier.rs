//! A barrier for all CPUs, for the workloads. CPUs that wait at it sleep instead of spinning: a
//! spinning vCPU would take the host's processor from those that have yet to arrive.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::mask::CpuMask;
use crate::platform::{Platform, Vector};

/// A barrier for a fixed number of CPUs, reusable at once.
#[derive(Debug)]
pub struct Barrier {
    cpus: usize,
    arrived: AtomicUsize,
    generation: AtomicUsize,
}

impl Barrier {
    /// A barrier that opens when `cpus` CPUs have arrived.
    pub fn new(cpus: usize) -> Self {
        Self {
            cpus,
            arrived: AtomicUsize::new(0),
            generation: AtomicUsize::new(0),
        }
    }

    /// Arrives, and returns once all CPUs have. Interrupts are on meanwhile, so calls to this CPU
    /// are served. The last CPU to arrive wakes the others.
    pub fn wait<P: Platform>(&self, platform: &P) {
        let generation = self.generation.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 < self.cpus {
            let open = || self.generation.load(Ordering::Acquire) != generation;
            while !open() {
                platform.idle_unless(&open);
            }
            return;
        }
        self.arrived.store(0, Ordering::Relaxed);
        self.generation
            .store(generation.wrapping_add(1), Ordering::Release);
        let mut others = CpuMask::all(self.cpus);
        others.remove(platform.this_cpu());
        platform.send_ipi_mask(&others, Vector::WAKE);
    }
}
