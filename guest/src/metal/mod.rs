//! The machine under the image: everything that is x86. Nothing here knows what calls are; the
//! portable library does, through [`platform::Metal`].

pub mod acpi;
pub mod apic;
pub mod boot;
pub mod console;
pub mod descriptors;
pub mod exit;
pub mod heap;
mod mem;
pub mod percpu;
pub mod platform;
pub mod smp;
pub mod traps;

/// The time stamp counter, in cycles. Not `rdtscp`, which not every host executes for ring 0.
pub fn tsc() -> u64 {
    // SAFETY: every x86-64 CPU has RDTSC, and nothing restricts it in ring 0.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Halts, again and again; interrupts are served in between if they are on.
pub fn idle_for_ever() -> ! {
    loop {
        x86_64::instructions::hlt();
    }
}
