//! Time: the TSC, and how many of its cycles make a second. Only time limits need seconds;
//! everything that is measured stays in cycles.

use core::arch::x86_64::{__cpuid, _rdtsc};
use core::hint::spin_loop;

/// The frequency that is assumed where none is told. Few TSCs are faster, and a time limit that
/// comes out too long does no harm.
const ASSUMED_HZ: u64 = 4_000_000_000;

/// "TSC and core crystal clock information" (SDM Vol. 2A, CPUID).
const LEAF_TSC: u32 = 0x15;
/// First leaf of a hypervisor, whose eax is the last one.
const LEAF_HYPERVISOR: u32 = 0x4000_0000;
/// The frequency of the TSC in kHz, as VMware, QEMU and others report it.
const LEAF_TIMING: u32 = 0x4000_0010;

/// The TSC, in cycles.
pub fn now() -> u64 {
    // SAFETY: every CPU in long mode has a TSC, and CR4.TSD is clear.
    unsafe { _rdtsc() }
}

/// A point in time after which something is too late.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    start: u64,
    cycles: u64,
}

impl Deadline {
    /// In `micros` microseconds from now.
    pub fn after_micros(micros: u64, hz: u64) -> Self {
        Self {
            start: now(),
            cycles: hz / 1_000_000 * micros,
        }
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        now().wrapping_sub(self.start) >= self.cycles
    }

    /// Spins until `done` or the deadline, and says whether it was `done`.
    pub fn spin_until(&self, mut done: impl FnMut() -> bool) -> bool {
        loop {
            if done() {
                return true;
            }
            if self.passed() {
                return false;
            }
            spin_loop();
        }
    }
}

/// Cycles of the TSC in a second.
pub fn frequency() -> u64 {
    crystal().or_else(hypervisor).unwrap_or(ASSUMED_HZ)
}

fn crystal() -> Option<u64> {
    if __cpuid(0).eax < LEAF_TSC {
        return None;
    }
    let leaf = __cpuid(LEAF_TSC);
    let product = u64::from(leaf.ecx) * u64::from(leaf.ebx);
    product.checked_div(leaf.eax.into()).filter(|hz| *hz != 0)
}

fn hypervisor() -> Option<u64> {
    let is_guest = __cpuid(1).ecx >> 31 != 0;
    let last = if is_guest {
        __cpuid(LEAF_HYPERVISOR).eax
    } else {
        0
    };
    let khz = (LEAF_TIMING..LEAF_TIMING + 0x100)
        .contains(&last)
        .then(|| __cpuid(LEAF_TIMING).eax)?;
    (khz != 0).then_some(u64::from(khz) * 1000)
}
